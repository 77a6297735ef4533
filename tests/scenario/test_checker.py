"""The checker finds each fault that there can be; one that cannot fail would prove nothing."""

import pytest
from redis.asyncio import Redis

from tests.scenario.checker import EXAMPLES, HOLES_REMEMBERED, Checker, Verdict
from tests.scenario.streams import KEYS

GAP = "gap"


def judged(*items: int | str, sent: int = 5) -> Verdict:
    """The verdict on a stream of these numbers and markers, when 1 to `sent` were sent."""
    checker = Checker()
    checker.sent("AAPL", 1, sent)
    checker.see("AAPL", entries(*items))
    return checker.verdict()


def entries(*items: int | str, first: int = 1) -> list[tuple[str, dict[str, str]]]:
    """A stream of these numbers and markers, as Redis hands it out."""
    return [
        (f"{first + i}-0", {"gap": "{}"} if item == GAP else {"q": quote(item)})
        for i, item in enumerate(items)
    ]


def quote(number: int | str) -> str:
    """One whose venue time is ten times its number."""
    return f'[1.5,{number},"V",1.6,100,"N",["R"],"C",{number}0,5]'


def marker(from_ns: int, to_ns: int) -> dict[str, str]:
    """A marker of this stretch of venue time."""
    return {"gap": f'{{"from":{from_ns},"to":{to_ns},"reason":"refused_by_redis","epoch":1}}'}


def test_everything_once_and_in_order_is_complete() -> None:
    """The one stream without fault."""
    verdict = judged(1, 2, 3, 4, 5)
    assert verdict.is_complete, verdict
    assert verdict == Verdict(arrived=5)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((1, 2, 5), {"arrived": 3, "lost": 2}),
        ((3, 4, 5), {"arrived": 3, "lost": 2}),
        ((1, 2, 2, 3, 4, 5), {"arrived": 5, "duplicated": 1}),
        ((1, 2, 3, 4, 5, 1), {"arrived": 5, "duplicated": 1}),
        ((1, 3, 2, 4, 5), {"arrived": 5, "out_of_order": 1}),
        ((1, 3, 2, 2, 4, 5), {"arrived": 5, "out_of_order": 1, "duplicated": 1}),
        ((1, GAP, 5, 3), {"arrived": 3, "out_of_order": 1, "missing_in_gaps": 2, "markers": 1}),
        ((1, 2, GAP, 3, 4, 5), {"arrived": 5, "markers": 1, "unneeded_markers": 1}),
        ((1, 2, GAP, GAP, 5), {"arrived": 3, "missing_in_gaps": 2, "markers": 2, "unneeded_markers": 1}),
        ((1, GAP, 2, 5), {"arrived": 3, "lost": 2, "markers": 1, "unneeded_markers": 1}),
        ((1, 2, 3, 4, 5, 6), {"arrived": 5, "foreign": 1}),
        ((1, 2, 3, 4, "oops", 5), {"arrived": 5, "foreign": 1}),
    ],
)
def test_each_fault_is_counted_as_what_it_is(items: tuple[int | str, ...], expected: dict[str, int]) -> None:
    """Nothing else is counted with it, and none of it passes for honest."""
    verdict = judged(*items)
    assert not verdict.is_honest
    assert {name: getattr(verdict, name) for name in expected} == expected
    others = {name for name in Verdict.__dataclass_fields__ if name != "examples"} - set(expected)
    assert not any(getattr(verdict, name) for name in others), verdict
    assert verdict.examples[0].startswith("AAPL: ")


def test_a_hole_behind_a_marker_is_honest_and_not_complete() -> None:
    """It is told where it is."""
    verdict = judged(1, GAP, 4, 5)
    assert verdict.is_honest, verdict
    assert not verdict.is_complete
    assert (verdict.missing_in_gaps, verdict.markers) == (2, 1)


def test_what_has_not_come_yet_is_outstanding() -> None:
    """Whether it is lost, only a later number can tell."""
    verdict = judged(1, 2)
    assert (verdict.outstanding, verdict.is_honest, verdict.is_complete) == (3, True, False)


def test_an_id_that_goes_back_is_noticed() -> None:
    """Also within the same millisecond."""
    checker = Checker()
    checker.sent("AAPL", 1, 2)
    checker.see("AAPL", [("5-10", {"q": "[1,1]"}), ("5-9", {"q": "[1,2]"})])
    assert checker.verdict().bad_ids == 1


def test_a_new_connection_of_the_vendor_needs_a_marker_and_may_have_one() -> None:
    """Nobody but the vendor can know that nothing was missed in between."""
    for items, faults in ((1, 2, GAP, 3), (0, 0)), ((1, 2, 3), (0, 1)), ((1, 2, GAP, GAP, 3), (1, 0)):
        checker = Checker()
        checker.sent("AAPL", 1, 2, epoch=1)
        checker.sent("AAPL", 3, 1, epoch=2)
        checker.see("AAPL", entries(*items))
        assert (checker.verdict().unneeded_markers, checker.verdict().unmarked_breaks) == faults


def test_two_breaks_within_one_hole_may_have_two_markers() -> None:
    """One for each connection that nothing was had from."""
    checker = Checker()
    for epoch, number in enumerate((1, 2, 3)):
        checker.sent("AAPL", number, 1, epoch=epoch)
    checker.see("AAPL", entries(1, GAP, GAP, 3))
    assert checker.verdict().is_honest, checker.verdict()


def test_memory_does_not_grow_with_the_faults() -> None:
    """A thousand holes leave so many examples and so many ranges, and the counts are right."""
    checker = Checker()
    checker.sent("AAPL", 1, 2000)
    checker.see("AAPL", entries(*range(2, 2001, 2)))
    assert checker.verdict().lost == 1000
    assert len(checker.verdict().examples) == EXAMPLES
    assert len(checker._symbols["AAPL"].holes) == HOLES_REMEMBERED


def test_numbers_must_go_on_where_they_ended() -> None:
    """A mistake of the test is not put down to the product."""
    checker = Checker()
    checker.sent("AAPL", 11, 5)
    with pytest.raises(ValueError, match="16 is the next number"):
        checker.sent("AAPL", 17, 1)


async def test_it_follows_streams_and_can_read_them_again(redis: Redis) -> None:
    """Each entry is read once, in portions; begun again, all of them."""
    checker = Checker()
    checker.sent("AAPL", 1, 2500)
    pipe = redis.pipeline(transaction=False)
    for entry_id, content in entries(*range(1, 2501)):
        pipe.xadd(KEYS.stream("AAPL"), {"q": content["q"]}, id=entry_id)
    await pipe.execute()
    assert await checker.follow(redis) == 2500
    assert await checker.follow(redis) == 0
    assert checker.verdict().is_complete, checker.verdict()
    await redis.xdel(KEYS.stream("AAPL"), "7-0")
    checker.begin_again()
    await checker.follow(redis)
    assert str(checker.verdict()) == ("arrived 2499, lost 1\n  AAPL: 8 at 8-0 follows 6 without a marker")


@pytest.mark.parametrize(
    ("from_ns", "to_ns", "expected"),
    [
        (21, 60, {"lost": 0, "missing_in_gaps": 2, "late_markers": 1, "unneeded_markers": 0}),
        (21, 45, {"lost": 2, "missing_in_gaps": 0, "late_markers": 0, "unneeded_markers": 1}),
        (55, 60, {"lost": 2, "missing_in_gaps": 0, "late_markers": 0, "unneeded_markers": 1}),
    ],
)
def test_a_marker_behind_the_quotes_that_it_should_precede_is_late(
    from_ns: int, to_ns: int, expected: dict[str, int]
) -> None:
    """When its times cover the hole; otherwise the hole has none."""
    checker = Checker()
    checker.sent("AAPL", 1, 7)
    checker.see("AAPL", entries(1, 2, 5, 6))
    checker.see("AAPL", [("7-0", marker(from_ns, to_ns)), *entries(7, first=8)])
    verdict = checker.verdict()
    assert {name: getattr(verdict, name) for name in expected} == expected
    assert not verdict.is_honest


def test_a_late_marker_covers_what_was_passed_before_another_marker() -> None:
    """Several holes, and a marker of another kind between them and the one that tells of them."""
    checker = Checker()
    checker.sent("AAPL", 1, 9)
    checker.sent("AAPL", 10, 2, epoch=1)
    checker.see("AAPL", entries(1, 2, 5, 6, 8, 9))
    checker.see("AAPL", [("10-0", marker(95, 96)), *entries(10, first=11)])
    checker.see("AAPL", [("12-0", marker(21, 110)), *entries(11, first=13)])
    verdict = checker.verdict()
    assert (verdict.lost, verdict.missing_in_gaps, verdict.late_markers) == (0, 3, 1)


def test_what_nobody_could_store_again_is_forgiven_and_what_follows_is_not() -> None:
    """After a server lost everything: numbers up to there may be missing or there, later ones are lost."""
    checker = Checker()
    checker.sent("AAPL", 1, 9)
    checker.forgive({"AAPL": 4, "MSFT": 4})
    checker.begin_again()
    checker.see("AAPL", entries(3, 7))
    assert (checker.verdict().lost, checker.verdict().arrived) == (2, 2)


def test_an_emptied_stream_may_begin_with_a_new_connection() -> None:
    """There is nothing before it that a marker could follow."""
    checker = Checker()
    checker.sent("AAPL", 1, 4)
    checker.sent("AAPL", 5, 5, epoch=1)
    checker.forgive({"AAPL": 4})
    checker.begin_again()
    checker.see("AAPL", entries(5, 6, 7, 8, 9))
    assert checker.verdict().is_honest, checker.verdict()

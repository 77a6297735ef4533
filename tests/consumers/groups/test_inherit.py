"""Who knows better where a group stands, with plain calls."""

from dataclasses import replace
from typing import Any

from consumers.groups.inherit import born, handed, reborn, renamed, together
from consumers.groups.record import DEBTS_MAX, Debt, Record, decode_record, encode_record, read_record
from consumers.groups.standing import GroupFacts, stand
from consumers.reading.gaps import Anchor, StreamFacts
from consumers.reading.start import Place, before
from wire import ZERO_ID, EntryId, encode_gap


def record(generation: str, floor: int, *, root: int = 0, **more: Any) -> Record:
    """A generation that stands at an entry that it has seen."""
    return Record(generation, f"{root}-0", f"{floor}-0", f"{floor}-0", seen=True, first="1-0", **more)


FACTS = StreamFacts(EntryId(1, 0), EntryId(60, 0), 60, 60)


def test_an_heir_of_what_one_remembers_knows_all_of_it() -> None:
    """Even where the memory is of a later place: that was written down, or is being fetched again."""
    heir = record("2", 30, past=("1",))
    assert together("A", heir, record("1", 40), FACTS, "me") is heir


def test_what_a_stranger_skipped_is_owed() -> None:
    """From the place that is remembered to where the stranger began; and the two are one from then on."""
    known = together("A", record("2", 60, root=50), record("1", 10), FACTS, "me")
    assert known is not None
    assert known.debts == (Debt("me", "10-0", "50-0"),)
    assert known.knows("1")


def test_a_stranger_that_began_earlier_skipped_nothing() -> None:
    """It has been given all that came behind the place."""
    known = together("A", record("2", 60, root=5), record("1", 10), FACTS, "me")
    assert known is not None
    assert known.debts == ()


def test_the_floor_goes_back_to_entries_that_are_fetched_again() -> None:
    """They would be forgotten with the group if it stayed."""
    debt = Debt("me", "10-0", "50-0")
    after = handed(record("1", 60, debts=(debt,)), debt, "30-0")
    assert (after.floor, after.debts) == ("10-0", (Debt("me", "30-0", "50-0"),))


def test_a_group_that_is_made_anew_owes_nothing_that_it_will_be_given_anyway() -> None:
    """Skipped entries behind its place; a gap, and what lies before, it does owe."""
    before_it, behind_it = Debt("me", "2-0", "5-0"), Debt("me", "12-0", "50-0")
    told = Debt("me", "11-0", "12-0", "trimmed")
    known = record("1", 10, debts=(before_it, behind_it, told))
    birth = reborn("A", known, known.standing, FACTS, [], "2", "me")
    assert (birth.after, birth.record.debts) == (EntryId(10, 0), (before_it, told))


def test_what_was_skipped_in_a_stream_that_was_replaced_is_told() -> None:
    """Its entries are gone, or sent again; those of the stream that is there are handed out once."""
    replaced, group = (
        StreamFacts(EntryId(100, 0), EntryId(160, 0), 60, 60),
        GroupFacts(EntryId(130, 0), 1, None),
    )
    skipped = Debt("me", "2-0", "8-0")
    told = Debt("me", "2-0", "8-0", "stream_recreated")
    known = record("1", 10, debts=(skipped,))
    standing, now = replace(known.standing, is_absent=True), stand(group, replaced, None)
    birth = reborn("A", known, standing, replaced, [], "2", "me")
    assert birth.after == ZERO_ID
    assert birth.record.debts == (told, Debt("me", "10-0", "100-0", "stream_recreated"))
    kept = renamed("A", known, standing, group, replaced, now, set(), "2", "me")
    assert [debt for debt in kept.debts if debt.reason is None] == [
        Debt("me", str(before(EntryId(100, 0))), "130-0")
    ]
    assert told in kept.debts


def test_a_group_of_an_earlier_generation_is_back() -> None:
    """With its stream; what was in the later one is told."""
    group = GroupFacts(EntryId(40, 0), 1, None)
    known = record("2", 50, past=("1",))
    now = stand(group, FACTS, EntryId(31, 0))
    kept = renamed("A", known, known.standing, group, FACTS, now, {"1"}, "3", "me")
    assert kept.debts == (Debt("me", "40-0", "60-0", "stream_recreated"),)
    assert (kept.knows("2"), kept.floor) == (True, str(before(EntryId(31, 0))))


def test_a_group_that_is_back_owes_nothing_that_it_has_handed_out() -> None:
    """Also where the later stream had been read further on: its place is none in the earlier one."""
    group = GroupFacts(EntryId(60, 0), 1, None)
    known = record("2", 90, past=("1",))
    kept = renamed("A", known, known.standing, group, FACTS, stand(group, FACTS, None), {"1"}, "3", "me")
    assert kept.debts == (Debt("me", "60-0", "90-0", "stream_recreated"),)
    assert kept.floor == "60-0"


def test_a_group_made_by_another_hand_owes_what_it_has_passed_over() -> None:
    """It has no name, and so handed nothing out for those who knew the place."""
    group = GroupFacts(EntryId(60, 0), 1, None)
    known = record("2", 50)
    kept = renamed("A", known, known.standing, group, FACTS, stand(group, FACTS, None), set(), "3", "me")
    assert (kept.debts, kept.floor) == ((Debt("me", "50-0", "60-0"),), "50-0")


def test_a_new_group_behind_a_marker_of_loss_owes_all_before_it() -> None:
    """However far the group of that name had come: nobody knows."""
    head = [[b"1-0", [b"gap", encode_gap(1, 2, "redis_lost", 1)]]]
    birth = born("A", Place(EntryId(60, 0), Anchor.SEEN), FACTS, head, "1", "me")
    assert birth.record.debts == (Debt("me", "0-0", "60-0", "stream_recreated"),)
    assert born("A", Place(EntryId(60, 0), Anchor.SEEN), FACTS, [], "1", "me").record.debts == ()


def test_a_group_made_again_behind_a_marker_of_loss_owes_what_it_speaks_of_and_was_not_handled() -> None:
    """The marker is passed over, and an emptied server may look like the stream that it had before."""
    head = [[b"1-0", [b"gap", encode_gap(1, EntryId(55, 0).time_ns, "redis_lost", 1)]]]
    for floor, debts in ((50, (Debt("me", "50-0", "55-0", "stream_recreated"),)), (55, ()), (58, ())):
        known = record("1", floor)
        assert reborn("A", known, known.standing, FACTS, head, "2", "me").record.debts == debts
    known = record("1", 50)
    assert reborn("A", known, known.standing, FACTS, [], "2", "me").record.debts == ()


def test_debts_are_bounded_and_none_is_dropped() -> None:
    """The oldest become one that reaches over both."""
    kept = record("1", 60).owing(
        *(Debt("me", f"{n}-0", f"{n + 1}-0", "trimmed") for n in range(DEBTS_MAX + 4))
    )
    assert len(kept.debts) == DEBTS_MAX
    assert (kept.debts[0].after, kept.debts[0].upto) == ("0-0", "5-0")


def test_a_record_is_read_as_it_was_written_and_junk_is_none() -> None:
    """A foreign hand's value must not end a worker."""
    kept = record("1", 60, debts=(Debt("me", "1-0", "2-0"),))
    assert decode_record([encode_record(kept)]) == (encode_record(kept), kept)
    for junk in (
        b"",
        b"x",
        b"[]",
        b'{"generation":1}',
        encode_record(record("1", 6)).replace(b"6-0", b"six"),
    ):
        assert read_record(junk) is None

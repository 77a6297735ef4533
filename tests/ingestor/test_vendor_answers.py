"""Every error of the vendor in every position: unasked, as the answer for one symbol among others, and for all."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.feed.codes import CODES, Remedy, code_of, is_about_symbols
from ingestor.feed.events import Change
from ingestor.subscriptions.book import SubscriptionBook
from ingestor.subscriptions.refusals import FAILURES_AT_ONCE, FAILURES_BEFORE_END, RETRY_REFUSED_AFTER_S
from ingestor.subscriptions.states import SymbolState
from tests.ingestor.rehearsal import Answer, Rehearsal
from tests.ingestor.vendor import error

EVERY_CODE = [*CODES, 414, 499, 599, 0]
BAD = "VXM"
HOUR_S = 3600.0
QUARTER_S = 900.0
ANSWERS: list[Answer] = [*EVERY_CODE, "silence", "hang up"]


def rehearse(*wanted: str, answer: Answer, bad: frozenset[str]) -> Rehearsal:
    """Requests that hold a bad symbol get this answer."""
    made = Rehearsal(lambda symbols: answer if symbols & bad else None)
    made.want(*wanted)
    return made


@pytest.mark.fault("S47")
@pytest.mark.parametrize("number", EVERY_CODE)
def test_unasked(number: int) -> None:
    """What speaks of requests or of nobody is counted; all else costs one connection, and all are live again."""
    made = rehearse("AAPL", "MSFT", answer=None, bad=frozenset())
    made.run(10)
    made.say(error(number))
    code = code_of(number)
    is_harmless = is_about_symbols(code) or code.remedy is Remedy.IGNORE
    assert [ended.remedy for ended in made.ends] == ([] if is_harmless else [code.remedy])
    made.run(60)
    assert made.live == ["AAPL", "MSFT"]
    assert len(made.connections_at_s) == (1 if is_harmless else 2)


@pytest.mark.fault("S47")
@pytest.mark.parametrize("wanted", [(BAD, "AAPL", "MSFT"), ("AAPL", BAD, "MSFT"), ("AAPL", "MSFT", BAD)])
@pytest.mark.parametrize("answer", ANSWERS)
def test_for_one_symbol_among_three(answer: Answer, wanted: tuple[str, ...]) -> None:
    """The other two are live within seconds and stay so, the bad one says why, and is tried again a few times an
    hour. No error ends a session; silence costs one, and hanging up a few, since only repeating it proves it."""
    made = rehearse(*wanted, answer=answer, bad=frozenset([BAD]))
    made.run(30)
    assert sorted(made.live) == ["AAPL", "MSFT"]
    status = made.statuses[BAD]
    if isinstance(answer, int):
        assert made.ends == []
        is_last = answer == 405 and wanted[-1] == BAD
        assert status.state is (SymbolState.WAITING if is_last else SymbolState.REFUSED)
        if is_last:
            assert status.reason == "waits behind the limit of 2 symbols"
        else:
            assert str(answer) in (status.reason or "")
            assert made.words in (status.reason or "")
    made.run(HOUR_S)
    assert sorted(made.live) == ["AAPL", "MSFT"]
    assert len(made.ends) <= {"silence": 1, "hang up": 6}.get(str(answer), 0)
    assert len(made.requests_at_s) <= 60
    assert made.most_in_a_minute(made.requests_at_s) <= 20


@pytest.mark.fault("S47")
@pytest.mark.parametrize("number", EVERY_CODE)
def test_for_every_symbol(number: int) -> None:
    """An error that speaks of symbols leaves each refused and the session up; any other ends it as if unasked.
    Each symbol says why, and neither connections nor requests come in a storm."""
    wanted = ("AAPL", "MSFT", BAD)
    made = rehearse(*wanted, answer=number, bad=frozenset(wanted))
    code = code_of(number)
    made.run(HOUR_S)
    assert made.live == []
    if code.remedy is Remedy.LIMIT:
        assert made.ends == []
        assert {status.state for status in made.statuses.values()} == {SymbolState.WAITING}
    else:
        reasons = {status.reason for status in made.statuses.values()}
        assert len(reasons) == 1
        (reason,) = reasons
        assert str(number) in (reason or "")
        assert made.words in (reason or "")
        expected = Remedy.RECONNECT if code.remedy is Remedy.IGNORE else code.remedy
        assert {ended.remedy for ended in made.ends} <= {expected, code.remedy}
        assert bool(made.ends) != is_about_symbols(code)
    assert made.most_in_a_minute(made.connections_at_s) <= 30
    assert made.most_in_a_minute(made.requests_at_s) <= 120
    # And when the vendor is itself again, so is everybody, at the next attempt.
    made.answer = lambda _: None
    made.run(RETRY_REFUSED_AFTER_S)
    assert made.live == list(wanted)


@pytest.mark.fault("S47")
@pytest.mark.parametrize("answer", ANSWERS)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_no_bad_symbols_stop_the_good_ones(answer: Answer, data: st.DataObject) -> None:
    """However many there are, wherever they stand: every good one is live, in time, and every bad one is not."""
    names = [f"S{n:02d}" for n in range(data.draw(st.integers(2, 24)))]
    # Two that are refused with the limit's own code are the limit, for all that one can see.
    most = 1 if answer == 405 else len(names) - 1
    bad = data.draw(st.frozensets(st.sampled_from(names), max_size=most))
    made = rehearse(*names, answer=answer, bad=bad)
    made.run(HOUR_S)
    assert made.live == [name for name in names if name not in bad] or answer == "hang up"
    assert set(made.live) <= set(names) - bad
    assert made.most_in_a_minute(made.requests_at_s) <= 2 * FAILURES_AT_ONCE
    made.run(HOUR_S)
    assert made.live == [name for name in names if name not in bad]


@pytest.mark.fault("S47")
@pytest.mark.parametrize("answer", [414, 402, "silence"])
def test_one_among_three_thousand(answer: Answer) -> None:
    """All others first, the culprit found by halving, and never asked for in a loop."""
    names = [f"S{n:05d}" for n in range(3_000)]
    made = rehearse(*names, answer=answer, bad=frozenset([names[777]]))
    made.run(120)
    assert made.live == [name for name in names if name != names[777]]
    assert len(made.requests_at_s) <= 2 * 6 + 2 * 9 + 6


@pytest.mark.fault("S47")
def test_a_vendor_in_trouble_refuses_no_symbol_for_long() -> None:
    """500 to everything for a quarter of an hour: no storm, and all are live a minute after its end."""
    names = [f"S{n:04d}" for n in range(40)]
    made = rehearse(*names, answer=500, bad=frozenset(names))
    made.run(QUARTER_S)
    assert made.live == []
    assert made.most_in_a_minute(made.requests_at_s) <= FAILURES_AT_ONCE + 10 * FAILURES_BEFORE_END
    assert len(made.requests_at_s) <= FAILURES_AT_ONCE + QUARTER_S + FAILURES_BEFORE_END
    made.answer = lambda _: None
    made.run(60)
    assert made.live == names


@pytest.mark.fault("S47", "S13")
def test_a_limit_and_one_symbol_that_is_refused_with_the_limit_s_code() -> None:
    """The plan's limit is found all the same, and the bad symbol takes no place in it."""
    names = [f"S{n:02d}" for n in range(45)]
    for bad in (names[0], names[10], names[29], names[40]):
        made = Rehearsal(lambda symbols, bad=bad: 405 if bad in symbols else None)  # type: ignore[misc]
        grants = made.answer
        made.answer = lambda symbols, made=made, grants=grants: (  # type: ignore[misc]
            405 if len(made.subscribed | symbols) > 30 else grants(symbols)
        )
        made.want(*names)
        made.run(30)
        assert made.live == [name for name in names if name != bad][:30]
        assert len(made.requests_at_s) <= 60


@pytest.mark.fault("S47")
def test_a_removal_that_is_refused_costs_a_session_and_no_symbol() -> None:
    """Whatever the code, three refusals in a row are answered with a new session, whose set is empty."""
    for number in EVERY_CODE:
        book = SubscriptionBook()
        book.connected()
        book.confirm(frozenset({"A", "B"}), None, 0.0)
        book.desire(rehearse("A", answer=None, bad=frozenset()).book.desired)
        for _ in range(3):
            change = book.next_change(0.0)
            assert change == Change(unsubscribe=("B",))
            book.refuse(change, code_of(number), 0.0)
        assert book.must_end is not None
        assert book.must_end.remedy is Remedy.RECONNECT


def test_the_rehearsal_can_fail() -> None:
    """A vendor that refuses good symbols leaves them not live: the tests above look at something."""
    made = rehearse("AAPL", answer=400, bad=frozenset(["AAPL"]))
    made.run(random.Random(1).uniform(10, 20))
    assert made.live == []

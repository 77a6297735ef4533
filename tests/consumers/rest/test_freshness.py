"""Nothing older than allowed is called fresh."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rest import NOT_ASKED, RestError, RestUnavailable, Verdict, decide
from consumers.rest.freshness import CLOCKS_APART_S, age_of
from wire import Quote
from wire.quote import is_ahead, newer

NOW_NS = 1_763_000_000_000_000_000
S = 1_000_000_000


def quote(time_s: float, received_s: float | None, *, bid: float = 1.0, entry: str | None = None) -> Quote:
    """A quote whose times lie so many seconds before now."""
    time_ns = NOW_NS - int(time_s * S)
    delay_us = None if received_s is None else (NOW_NS - int(received_s * S) - time_ns) // 1_000
    return Quote("AAPL", entry, bid, 1, "V", 2.0, 1, "V", None, None, time_ns, delay_us)


ages = st.floats(-20, 100).map(lambda age: round(age, 3))
quotes = st.builds(
    quote,
    ages,
    st.none() | ages,
    bid=st.sampled_from([1.0, 2.0]),
    entry=st.sampled_from([None, "1763000000000-0"]),
)
asked = st.one_of(st.just(NOT_ASKED), st.none(), st.just(RestUnavailable("away")), quotes)


@given(st.floats(0.1, 30), st.none() | quotes, st.none() | quotes, asked)
def test_a_fresh_quote_is_young_enough_and_the_newest_known(
    max_age_s: float, cached: Quote | None, shared: Quote | None, rest: Any
) -> None:
    """Its age is within the bound, no other known quote is of a later venue time, and stale says why."""
    judgement = decide(NOW_NS, max_age_s, cached, shared, rest)
    known = [one for one in (cached, shared, rest) if isinstance(one, Quote)]
    match judgement.verdict:
        case Verdict.FRESH:
            assert judgement.quote is not None
            assert -CLOCKS_APART_S <= age_of(judgement.quote, NOW_NS) <= max_age_s
            believed = [one for one in known if not is_ahead(one)] or known
            latest_ns = max(one.time_ns for one in believed)
            assert is_ahead(judgement.quote) or judgement.quote.time_ns == latest_ns
            assert judgement.quote.id is not None or not is_ahead(judgement.quote) or believed == known
        case Verdict.ASK:
            assert rest is NOT_ASKED
        case Verdict.STALE:
            assert rest is not NOT_ASKED
            assert judgement.quote is not None
            assert judgement.age_s is not None
            assert not -CLOCKS_APART_S <= judgement.age_s <= max_age_s
            assert judgement.why
        case Verdict.UNKNOWN:
            assert known == []
            assert judgement.why


@dataclass
class Case:
    """One row of the table below."""

    cached: Quote | None
    shared: Quote | None
    asked: Any
    verdict: Verdict
    why: str = ""


def test_the_table_of_cases() -> None:
    """What a strategy is told, case by case, with five seconds allowed."""
    old, young = quote(60, 60, entry="1-0"), quote(1, 1, entry="2-0")
    for case in (
        Case(young, None, NOT_ASKED, Verdict.FRESH),
        Case(old, None, NOT_ASKED, Verdict.ASK),
        Case(None, None, NOT_ASKED, Verdict.ASK),
        Case(old, quote(60, 2), NOT_ASKED, Verdict.FRESH),
        Case(old, None, quote(60, 0), Verdict.FRESH),
        Case(old, None, quote(30, 0), Verdict.FRESH),
        Case(old, None, quote(61, 0), Verdict.STALE, "earlier quote"),
        Case(old, None, RestError("no way"), Verdict.STALE, "no way"),
        Case(old, None, None, Verdict.STALE, "no quote of this symbol"),
        Case(None, None, None, Verdict.UNKNOWN, "no quote of this symbol"),
        Case(None, None, RestError("no way"), Verdict.UNKNOWN, "no way"),
        Case(None, None, quote(9, 6), Verdict.STALE, "too old meanwhile"),
        Case(quote(-60, -60), None, NOT_ASKED, Verdict.ASK),
        Case(quote(-60, -60), None, None, Verdict.STALE, "in the future"),
        Case(quote(3, None), None, NOT_ASKED, Verdict.FRESH),
        Case(quote(6, None), None, NOT_ASKED, Verdict.ASK),
        Case(old, quote(-3600, 1), NOT_ASKED, Verdict.ASK),
        Case(old, None, quote(-3600, 0), Verdict.STALE, "dated 3600.0 s ahead"),
        Case(young, None, quote(-3600, 0), Verdict.FRESH),
        Case(old, None, quote(-4, 0), Verdict.FRESH),
    ):
        judgement = decide(NOW_NS, 5, case.cached, case.shared, case.asked)
        assert judgement.verdict is case.verdict, case
        assert case.why in judgement.why


def test_a_confirmed_quote_keeps_its_id() -> None:
    """REST saying the same again makes it younger, and it still is the entry of the stream."""
    streamed, confirmed = quote(60, 59, entry="1-0"), quote(60, 0)
    for found in (newer(streamed, confirmed), newer(confirmed, streamed)):
        assert found == msgspec.structs.replace(confirmed, id="1-0")
    # Of the same time but another content: what was confirmed later counts, and is no entry.
    assert newer(streamed, quote(60, 0, bid=9)) == quote(60, 0, bid=9)
    assert newer(quote(60, 0, entry="1-0"), quote(60, 30)) == quote(60, 0, entry="1-0")


@pytest.mark.fault("Q27")
def test_a_quote_of_rest_that_is_dated_in_the_future_stands_above_none_that_is_not() -> None:
    """Beyond the five seconds that an entry id may lie ahead; the stream's own is believed as far as its id."""
    streamed, ahead = quote(60, 60, entry="1-0"), quote(-3600, 0)
    assert newer(streamed, ahead) == newer(ahead, streamed) == streamed
    assert newer(ahead, quote(60, 60)) == quote(60, 60)
    assert newer(quote(-9999, 5), ahead) == newer(ahead, quote(-9999, 5)) == ahead
    assert newer(ahead, None) == ahead
    assert newer(streamed, quote(-4.9, 0)) == quote(-4.9, 0)
    far = quote(-3600, 60, entry="2-0")
    assert newer(far, quote(56, 0)) == far
    assert newer(far, quote(54, 0)) == newer(quote(54, 0), far) == quote(54, 0)


@given(st.lists(quotes, min_size=3, max_size=3))
def test_of_three_quotes_the_newest_does_not_depend_on_the_order(three: list[Quote]) -> None:
    """Whoever is asked first."""
    a, b, c = three
    one, other = newer(newer(a, b), c), newer(a, newer(b, c))
    assert one is not None
    assert other is not None
    assert (one.time_ns, one.receive_delay_us) == (other.time_ns, other.receive_delay_us)


@given(st.none() | quotes, st.none() | quotes)
def test_the_order_of_two_quotes_does_not_matter(first: Quote | None, second: Quote | None) -> None:
    """But for ties in everything, the newer one is the newer one."""
    one, other = newer(first, second), newer(second, first)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert (one.time_ns, one.receive_delay_us) == (other.time_ns, other.receive_delay_us)

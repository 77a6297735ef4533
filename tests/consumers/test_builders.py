"""Quotes and gaps for tests, and how a time may be written."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import BadSymbol
from consumers.testing import DAY, Clock, a_gap, a_quote, parse_time, quotes_of

OPENING = 1_736_173_800_000_000_000


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        ("09:30", OPENING),
        ("09:30:00.5", OPENING + 500_000_000),
        ("09:30:00.000000001", OPENING + 1),
        ("2025-01-06T14:30:00Z", OPENING),
        ("2025-01-06T09:30:00-05:00", OPENING),
        (datetime(2025, 1, 6, 14, 30, tzinfo=UTC), OPENING),
        (datetime(2025, 1, 6, 9, 30, tzinfo=timezone(timedelta(hours=-5))), OPENING),
        (OPENING + 7, OPENING + 7),
    ],
)
def test_each_way_to_write_a_time_has_one_meaning(time: Any, ns: int) -> None:
    """A bare time of day is New York's, on an ordinary Monday."""
    assert parse_time(time) == ns
    assert a_quote(at=time).time_ns == ns
    assert DAY.weekday() == 0


@pytest.mark.parametrize(
    ("time", "remedy"),
    [
        ("9:30", "write '09:30:00.5'"),
        ("24:00", "write '09:30:00.5'"),
        ("0\u0669:30", "write '09:30:00.5'"),
        ("soon", "write '09:30:00.5'"),
        ("2025-01-06T14:30:00", "write '09:30:00.5'"),
        (datetime(2025, 1, 6), "no time zone"),
        (1_736_173_800, "nanoseconds"),
        (True, "write"),
        (None, "write"),
    ],
)
def test_what_is_no_time_is_refused_with_the_remedy(time: Any, remedy: str) -> None:
    """Seconds, naive datetimes and words are told from times."""
    with pytest.raises(ValueError, match=remedy):
        parse_time(time)


def test_a_quote_without_a_time_is_a_moment_old() -> None:
    """Received now, and dated its delay before; with a time it is received when it is published."""
    quote = a_quote(bid=1.0, ask=1.1, delay_ms=20)
    assert quote.received_ns is not None
    assert quote.received_ns - quote.time_ns == 20_000_000
    assert a_quote(at="09:30").received_ns is None
    assert a_quote(at="09:30", delay_ms=3).receive_delay_us == 3_000
    with pytest.raises(BadSymbol):
        a_quote("aapl")


def test_a_gap_has_both_its_times() -> None:
    """By default the last second; ends in the wrong order are refused."""
    gap = a_gap("AAPL", start="09:30", end="09:31:30", reason="daemon_stopped", missing=4)
    assert (gap.duration_s, gap.reason, gap.missing, gap.id) == (90, "daemon_stopped", 4, None)
    assert a_gap().duration_s == 1
    with pytest.raises(ValueError, match="swap"):
        a_gap(start="09:31", end="09:30")


@given(st.integers(0, 300), st.integers(0, 5), st.floats(0.001, 0.5), st.floats(1.0, 500.0))
def test_a_walk_is_plausible_and_repeatable(count: int, seed: int, spread: float, mid: float) -> None:
    """Times grow, sides are positive and never crossed, and the seed decides everything."""
    walk = list(quotes_of("AAPL", count=count, seed=seed, spread=spread, mid=mid, tick=spread))
    assert len(walk) == count
    assert walk == list(quotes_of("AAPL", count=count, seed=seed, spread=spread, mid=mid, tick=spread))
    for quote in walk:
        assert quote.bid_price is not None
        assert quote.ask_price is not None
        assert 0 <= quote.bid_price <= quote.ask_price
    times = [quote.time_ns for quote in walk]
    assert times == sorted(set(times))


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"tick": -1}, {"spread": 0}, {"mid": 0}, {"count": -1}])
def test_a_walk_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    """By the call, not by the loop."""
    with pytest.raises(ValueError, match="must"):
        quotes_of("AAPL", **{"count": 1, **wrong})


def test_a_clock_goes_forward_only() -> None:
    """Back it can only be set."""
    clock = Clock()
    assert clock.time_ns(5) == 5
    assert not clock.is_set
    clock.set("09:30")
    clock.advance(1.5)
    assert clock.time_ns(5) == OPENING + 1_500_000_000
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)

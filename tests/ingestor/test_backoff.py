"""How long to wait before the next connection."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.feed.backoff import MAX_RETRY_AFTER_S, PACES, Backoff, retry_after_s
from ingestor.feed.codes import Remedy

NOVEMBER_13_S = 1_762_992_000.0
"""Of 2025, at midnight UTC."""


@pytest.mark.fault("S08", "S11")
@pytest.mark.parametrize(
    ("remedy", "undisturbed"),
    [
        (Remedy.RECONNECT, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        (Remedy.SLOT_TAKEN, [5, 10, 20, 30, 30]),
        (Remedy.REJECTED, [30, 60, 120, 240, 300, 300]),
        (Remedy.IGNORE, [0.5, 1, 2]),
    ],
)
@given(seed=st.integers(0, 2**32))
def test_each_delay_lies_between_half_of_its_pace_and_all_of_it(
    remedy: Remedy, undisturbed: list[float], seed: int
) -> None:
    """It doubles up to the cap of its reason; a reason without a pace of its own reconnects."""
    backoff = Backoff(random.Random(seed))
    for full_s in undisturbed:
        assert full_s / 2 <= backoff.delay_s(remedy) <= full_s


def test_delays_differ_from_one_daemon_to_the_next() -> None:
    """A fleet does not return in step."""
    delays = {Backoff(random.Random(seed)).delay_s(Remedy.RECONNECT) for seed in range(50)}
    assert len(delays) == 50


def test_only_market_data_resets_the_count() -> None:
    """A connection that was merely opened does not."""
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.delay_s(Remedy.RECONNECT)
    assert backoff.attempt == 5
    assert backoff.delay_s(Remedy.RECONNECT) >= 8
    backoff.data_flowed()
    assert backoff.attempt == 0
    assert backoff.delay_s(Remedy.RECONNECT) <= 0.5


@given(st.floats(0, 1e4), st.sampled_from(Remedy), st.integers(0, 50))
def test_what_the_vendor_asked_for_is_the_least(at_least_s: float, remedy: Remedy, attempts: int) -> None:
    """Even above the cap."""
    backoff = Backoff(random.Random(1))
    backoff.attempt = attempts
    assert backoff.delay_s(remedy, at_least_s) >= at_least_s


def test_years_of_failure_do_not_overflow() -> None:
    """The cap holds after any number of attempts."""
    backoff = Backoff(random.Random(1))
    backoff.attempt = 10**9
    for remedy, pace in PACES.items():
        assert backoff.delay_s(remedy) <= pace.cap_s


@pytest.mark.fault("S42")
@pytest.mark.parametrize(
    ("header", "asked_s"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("99999999999", MAX_RETRY_AFTER_S),
        ("9" * 5000, MAX_RETRY_AFTER_S),
        ("Thu, 13 Nov 2025 00:00:20 GMT", 20.0),
        ("Thu, 13 Nov 2025 00:00:20 -0000", 20.0),
        ("Wed, 12 Nov 2025 00:00:00 GMT", 0.0),
        ("Thu, 13 Nov 2099 00:00:00 GMT", MAX_RETRY_AFTER_S),
        ("Thu, 13 Nov 99999 00:00:00 GMT", 0.0),
        ("", 0.0),
        ("-3", 0.0),
        ("1.5", 0.0),
        ("\u00b2", 0.0),
        ("soon", 0.0),
    ],
)
def test_what_retry_after_asks_for(header: str, asked_s: float) -> None:
    """Seconds or a date; nothing for what is neither, and never more than our own longest pause."""
    assert retry_after_s(header, NOVEMBER_13_S) == asked_s


@given(st.text(max_size=60))
def test_no_header_makes_it_raise(header: str) -> None:
    """Whatever a proxy writes there."""
    assert 0.0 <= retry_after_s(header, NOVEMBER_13_S) <= MAX_RETRY_AFTER_S

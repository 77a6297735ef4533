"""How long to wait before the next connection."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.feed.backoff import (
    GHOST_PAUSE_S,
    GHOST_TRIES,
    MAX_RETRY_AFTER_S,
    TAKEN_PAUSE_S,
    WORTH_S,
    Backoff,
    Patience,
    retry_after_s,
)
from ingestor.feed.codes import Remedy

NOVEMBER_13_S = 1_762_992_000.0
"""Of 2025, at midnight UTC."""


@pytest.mark.fault("S08")
@pytest.mark.parametrize(
    ("remedy", "undisturbed"),
    [
        (Remedy.RECONNECT, [0.5, 1, 2, 4, 8, 16, 30, 30]),
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
    for remedy, longest_s in ((Remedy.RECONNECT, 30.0), (Remedy.REJECTED, 300.0), (Remedy.SLOT_TAKEN, 15.0)):
        assert max(backoff.delay_s(remedy) for _ in range(5000)) <= longest_s


@pytest.mark.fault("S11")
@given(seed=st.integers(0, 2**32))
def test_a_taken_slot_is_tried_every_three_seconds_until_it_can_be_no_ghost(seed: int) -> None:
    """For more than the 90 s that the vendor remembers a dead connection; after that it is somebody else's, and is
    tried a few times a minute. A login that got through begins anew."""
    backoff = Backoff(random.Random(seed))
    for _ in range(2):
        pauses = [backoff.delay_s(Remedy.SLOT_TAKEN) for _ in range(GHOST_TRIES)]
        assert all(GHOST_PAUSE_S[0] <= pause_s <= GHOST_PAUSE_S[1] for pause_s in pauses)
        assert sum(pauses) > 90
        assert TAKEN_PAUSE_S[0] <= backoff.delay_s(Remedy.SLOT_TAKEN) <= TAKEN_PAUSE_S[1]
        backoff.was_ready(0.1)


def test_waiting_for_a_slot_makes_no_other_pause_longer() -> None:
    """Forty logins in vain, and a connection that then breaks is made anew within half a second."""
    backoff = Backoff(random.Random(1))
    for _ in range(GHOST_TRIES):
        backoff.delay_s(Remedy.SLOT_TAKEN)
    assert backoff.delay_s(Remedy.RECONNECT) <= 0.5
    assert backoff.attempt == GHOST_TRIES + 1


@given(first_s=st.floats(0.01, 60), longest_s=st.floats(0.01, 600), seed=st.integers(0, 2**32))
def test_an_operator_s_pauses_are_kept(first_s: float, longest_s: float, seed: int) -> None:
    """Doubling from the first up to the longest, with half of it as jitter."""
    backoff = Backoff(random.Random(seed), Patience(first_s, longest_s))
    for attempt in range(20):
        full_s = min(max(first_s, longest_s), first_s * 2**attempt)
        assert full_s / 2 <= backoff.delay_s(Remedy.RECONNECT) <= full_s


def test_after_five_attempts_in_vain_it_is_given_up() -> None:
    """The pauses 2, 4, 8, 16 and 32 s, and no sixth; 0 is never."""
    backoff = Backoff(random.Random(1), Patience(2.0, 32.0, 5))
    for full_s in (2, 4, 8, 16, 32):
        assert not backoff.is_exhausted()
        assert full_s / 2 <= backoff.delay_s(Remedy.RECONNECT) <= full_s
    assert not backoff.is_exhausted()
    backoff.delay_s(Remedy.REJECTED)
    assert backoff.is_exhausted()
    patient = Backoff(random.Random(1))
    for _ in range(1000):
        patient.delay_s(Remedy.RECONNECT)
    assert not patient.is_exhausted()


def test_only_attempts_in_vain_count_towards_giving_up() -> None:
    """Neither a session with market data, nor one that lasted where the market was silent, nor a ghost's wait."""
    backoff = Backoff(random.Random(1), Patience(attempts=2))
    for _ in range(10):
        backoff.delay_s(Remedy.RECONNECT)
        backoff.data_flowed()
        backoff.delay_s(Remedy.RECONNECT)
        backoff.was_ready(WORTH_S)
    for _ in range(GHOST_TRIES):
        backoff.delay_s(Remedy.SLOT_TAKEN)
    assert not backoff.is_exhausted()
    for _ in range(3):
        backoff.was_ready(WORTH_S - 1)
        backoff.delay_s(Remedy.RECONNECT)
    assert backoff.is_exhausted()


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

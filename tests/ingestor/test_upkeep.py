"""What a stream needs, by its time to live, its last id and whether anybody wants it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.publisher.retention import NO_EXPIRY, NO_KEY, Upkeep, upkeep
from wire import EntryId

NOW_MS = 1_763_000_000_000


def needs(
    *, wanted: bool = True, ttl_s: int = NO_EXPIRY, last: EntryId | None = None, max_age_s: float = 60.0
) -> Upkeep:
    """With the usual rest."""
    return upkeep(
        wanted=wanted, ttl_s=ttl_s, last=last, now_ms=NOW_MS, max_age_s=max_age_s, forget_after_s=3600.0
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (needs(), Upkeep()),
        (needs(ttl_s=100), Upkeep(persist=True)),
        (needs(wanted=False), Upkeep(expire_after_s=3600)),
        (needs(wanted=False, ttl_s=100), Upkeep()),
        (needs(ttl_s=NO_KEY), Upkeep()),
        (needs(wanted=False, ttl_s=NO_KEY), Upkeep(drop_cache=True)),
        (needs(ttl_s=0), Upkeep(persist=True)),
    ],
)
def test_each_state_of_a_stream_has_its_upkeep(found: Upkeep, expected: Upkeep) -> None:
    """An expiry is set once and not pushed on; wanting the symbol again lifts it."""
    assert found == expected


@pytest.mark.parametrize(
    ("last_ms", "before_ms"),
    [(NOW_MS, NOW_MS - 60_000), (1_000_000, 940_000), (30_000, 0), (NOW_MS + 10**9, NOW_MS - 60_000)],
    ids=["live", "old tape", "near zero", "from the future"],
)
def test_age_counts_back_from_the_streams_own_newest_entry(last_ms: int, before_ms: int) -> None:
    """An old tape is not trimmed on arrival; an id from the future does not age out the rest."""
    assert needs(last=EntryId(last_ms, 5)).trim_before == EntryId(before_ms, 0)


def test_no_age_means_no_trimming() -> None:
    """Zero is a choice; so is an empty stream none to trim."""
    assert needs(last=EntryId(NOW_MS, 0), max_age_s=0).trim_before is None
    assert needs(last=None).trim_before is None


@given(st.booleans(), st.integers(-2, 10**6), st.integers(0, 2**64 - 1), st.floats(0, 1e9))
def test_what_is_wanted_and_young_is_never_touched(
    wanted: bool, ttl_s: int, last_ms: int, max_age_s: float
) -> None:
    """Whatever the arguments."""
    last = EntryId(last_ms, 0)
    found = needs(wanted=wanted, ttl_s=ttl_s, last=last, max_age_s=max_age_s)
    if wanted:
        assert found.expire_after_s is None
        assert not found.drop_cache
    if found.trim_before is not None:
        assert found.trim_before <= last
    assert not (found.persist and found.expire_after_s)

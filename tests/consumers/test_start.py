"""What a `start` means, by the table."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import BadStart, BadSymbol
from consumers.reading.gaps import Anchor
from consumers.reading.start import (
    Place,
    Wish,
    before,
    parse_start,
    parse_starts,
    parse_symbols,
    parse_time_ns,
    settle,
)
from wire import ZERO_ID, EntryId, Symbol, entry_id_at

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NOON_NS = 1_772_452_800_000_000_000


@pytest.mark.parametrize(
    ("start", "meaning"),
    [
        ("now", Wish.NOW),
        ("snapshot", Wish.SNAPSHOT),
        ("earliest", Place(ZERO_ID, Anchor.CHOSEN)),
        ("1763000004123-825050000", Place(EntryId(1763000004123, 825050000), Anchor.CLAIMED)),
        ("1763000004123", Place(EntryId(1763000004123, 0), Anchor.CLAIMED)),
        (EntryId(5, 7), Place(EntryId(5, 7), Anchor.CLAIMED)),
        (NOON, Place(EntryId(NOON_NS // 1_000_000 - 1, 2**64 - 1), Anchor.CHOSEN)),
        (NOON_NS + 1, Place(EntryId(NOON_NS // 1_000_000, 999), Anchor.CHOSEN)),
        (0, Place(ZERO_ID, Anchor.CHOSEN)),
    ],
)
def test_each_start_has_one_meaning(start: Any, meaning: Wish | Place) -> None:
    """Every documented way to say where to begin is understood."""
    assert parse_start(start) == meaning


@pytest.mark.parametrize(
    ("start", "remedy"),
    [
        ("$", "use 'now'"),
        ("yesterday", "none of 'now'"),
        ("12-x", "entry id"),
        ("", "none of 'now'"),
        (datetime(2026, 3, 2), "time zone"),
        (1_763_000_000, "pass nanoseconds"),
        (1_763_000_000_000, "pass nanoseconds"),
        (1_763_000_000_000_000, "pass nanoseconds"),
        (-1, "before 1970"),
        (10**40, "beyond"),
        (True, "a bool: pass 'now', 'snapshot', 'earliest', an entry id, an aware datetime"),
        (1.5e18, "a float: pass 'now'"),
        (None, "a NoneType: pass 'now'"),
        (datetime(1900, 1, 1, tzinfo=UTC), "before 1970"),
    ],
)
def test_a_start_that_means_nothing_is_refused_with_a_remedy(start: Any, remedy: str) -> None:
    """What cannot be understood is named, and what to write instead."""
    with pytest.raises(BadStart, match=remedy):
        parse_start(start)


def test_a_mapping_gives_each_symbol_its_own_start() -> None:
    """A symbol that the mapping lacks begins now."""
    aapl, msft = Symbol("AAPL"), Symbol("MSFT")
    assert parse_starts([aapl, msft], {"AAPL": "5-1"}) == {
        aapl: Place(EntryId(5, 1), Anchor.CLAIMED),
        msft: Wish.NOW,
    }


def test_a_mapping_may_not_name_other_symbols() -> None:
    """A position that nobody follows is more likely a typo than meant."""
    with pytest.raises(BadStart, match="APPL"):
        parse_starts([Symbol("AAPL")], {"APPL": "5-1"})


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((), "no symbol given"),
        ((["AAPL", "MSFT"],), "one by one"),
        (("aapl",), "'aapl': lower case; did you mean AAPL"),
        (("AAPL", " MSFT"), "spaces"),
        (("*",), "wildcards"),
        ((b"AAPL",), "bytes"),
    ],
)
def test_a_bad_symbol_is_named_with_the_reason(names: tuple[Any, ...], why: str) -> None:
    """The caller learns which of the names is wrong and how."""
    with pytest.raises(BadSymbol, match=why):
        parse_symbols(names)


def test_a_symbol_named_twice_is_followed_once() -> None:
    """Repeated names do not repeat quotes."""
    assert parse_symbols(("AAPL", "MSFT", "AAPL")) == ["AAPL", "MSFT"]


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(timezone(timedelta(hours=-5))))
)
def test_a_datetime_keeps_its_microseconds(time: datetime) -> None:
    """No float stands between a datetime and its nanoseconds."""
    ns = parse_time_ns(time, "start")
    assert ns % 1000 == 0
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000) == time


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_nothing_stands_between_an_id_and_the_one_before(ms: int, n: int) -> None:
    """Reading after the id before includes the id and nothing else more."""
    entry_id = EntryId(ms, n)
    if entry_id != ZERO_ID:
        assert before(entry_id) < entry_id
        assert before(entry_id).successor() == entry_id


@given(st.integers(10**16, 10**19), st.integers(0, 10**12))
def test_a_time_start_includes_every_quote_at_or_after_it(time_ns: int, later_ns: int) -> None:
    """The ids of that instant and of later ones stand after the place."""
    place = parse_start(time_ns)
    assert isinstance(place, Place)
    assert place.after < entry_id_at(time_ns) <= entry_id_at(time_ns + later_ns)


@pytest.mark.parametrize(
    "cached", [b"{}", b"not json", b'{"S":"AAPL","t":1}', b'{"S":"AAPL","t":1,"id":"x"}', None]
)
def test_an_unusable_cache_value_is_no_snapshot(cached: bytes | None) -> None:
    """Then the newest entry of the stream stands in for it."""
    place = settle("AAPL", Wish.SNAPSHOT, [cached, [[b"7-3", [b"q", b"[]"]]]])
    assert place == Place(EntryId(7, 2), Anchor.CHOSEN)

"""When quotes may be expected: facts of the calendar, feed by feed."""

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.feed.hours import ALWAYS, FEEDS, NEW_YORK, MarketHours

DAY_S = 86_400.0


def unix_s(text: str) -> float:
    """This time on New York's clocks."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()


def is_open(feed: str, text: str) -> bool:
    """Whether quotes of this feed may be expected then."""
    return MarketHours(feed).at(unix_s(text)).is_open


@pytest.mark.parametrize(
    ("feed", "first", "last", "before", "after"),
    [
        ("iex", "08:00:00", "16:59:59", "07:59:59", "17:00:00"),
        ("sip", "04:00:00", "19:59:59", "03:59:59", "20:00:00"),
        ("delayed_sip", "04:15:00", "20:14:59", "04:14:59", "20:15:00"),
    ],
)
def test_an_ordinary_day(feed: str, first: str, last: str, before: str, after: str) -> None:
    """Each feed opens and closes to the second; the delayed one a quarter of an hour later."""
    for at, expected in ((first, True), (last, True), (before, False), (after, False)):
        assert is_open(feed, f"2026-11-18T{at}") is expected


@pytest.mark.parametrize("feed", ["boats", "overnight"])
def test_the_night_belongs_to_the_trading_day_that_follows(feed: str) -> None:
    """From 20:00 to 04:00 before each trading day, so from Sunday evening on, and not on Friday evening."""
    assert is_open(feed, "2026-11-22T20:00:00")  # a Sunday
    assert not is_open(feed, "2026-11-22T19:59:59")
    assert is_open(feed, "2026-11-23T03:59:59")
    assert not is_open(feed, "2026-11-23T04:00:00")
    assert not is_open(feed, "2026-11-20T21:00:00")  # a Friday
    assert not is_open(feed, "2026-11-25T21:00:00")  # before Thanksgiving
    assert is_open(feed, "2026-11-26T21:00:00")


@pytest.mark.parametrize(
    "day",
    [
        "2026-11-26",  # Thanksgiving
        "2026-04-03",  # Good Friday
        "2025-04-18",
        "2026-07-03",  # Independence Day, observed
        "2026-12-25",
        "2027-01-01",
        "2026-11-21",  # a Saturday
        "2026-11-22",
    ],
)
def test_nothing_is_expected_on_a_day_without_trading(day: str) -> None:
    """Holidays, observed ones too, and weekends."""
    for feed in ("iex", "sip", "delayed_sip"):
        assert not is_open(feed, f"{day}T11:00:00")


def test_new_year_s_eve_is_not_observed() -> None:
    """New Year's Day of 2028 is a Saturday, and the exchange trades on the Friday before."""
    assert is_open("iex", "2027-12-31T11:00:00")


def test_a_half_day_ends_at_one() -> None:
    """The regular session ends at 13:00, the extended one at 17:00, and IEX has no hour after it."""
    sip = MarketHours("sip")
    assert sip.at(unix_s("2026-11-27T12:59:59")).is_regular
    after = sip.at(unix_s("2026-11-27T13:00:00"))
    assert (after.is_open, after.is_regular) == (True, False)
    assert not is_open("sip", "2026-11-27T17:00:00")
    assert is_open("iex", "2026-11-27T12:59:59")
    assert not is_open("iex", "2026-11-27T13:00:00")
    assert not is_open("iex", "2026-12-24T14:00:00")


def test_the_regular_session_is_told_from_the_extended_one() -> None:
    """From 09:30 to 16:00."""
    iex = MarketHours("iex")
    shown = [
        iex.at(unix_s(f"2026-11-18T{at}")).is_regular
        for at in ("09:29:59", "09:30:00", "15:59:59", "16:00:00")
    ]
    assert shown == [False, True, True, False]


def test_opening_follows_new_york_s_clocks_when_they_change() -> None:
    """08:00 is 12:00 UTC in summer and 13:00 in winter; the Sunday night after a change is eight hours long."""
    for friday, monday, hours in (("2026-10-30", "2026-11-02", 73), ("2026-03-06", "2026-03-09", 71)):
        opening = [unix_s(f"{day}T08:00:00") for day in (friday, monday)]
        assert opening[1] - opening[0] == hours * 3600
        assert MarketHours("iex").changes_at_s(unix_s(f"{friday}T17:00:00")) == opening[1]
    night = MarketHours("overnight").at(unix_s("2026-11-01T22:00:00"))
    assert night.is_open
    assert night.until_s - night.since_s == 8 * 3600


@pytest.mark.parametrize(
    ("feed", "now", "then"),
    [
        ("iex", "2026-11-25T12:00:00", "2026-11-25T17:00:00"),
        ("iex", "2026-11-25T18:00:00", "2026-11-27T08:00:00"),
        ("sip", "2026-11-27T10:00:00", "2026-11-27T17:00:00"),
        ("sip", "2026-11-27T17:00:00", "2026-11-30T04:00:00"),
        ("sip", "2026-12-31T20:00:00", "2027-01-04T04:00:00"),
        ("boats", "2026-11-25T04:00:00", "2026-11-26T20:00:00"),
    ],
)
def test_it_tells_when_it_changes(feed: str, now: str, then: str) -> None:
    """The next closing of an open feed, the next opening of a closed one; phases of a day are no change."""
    assert MarketHours(feed).changes_at_s(unix_s(now)) == unix_s(then)


@pytest.mark.parametrize("feed", [ALWAYS, "test"])
def test_some_never_close(feed: str) -> None:
    """The test feed, and whatever an operator declares to be always open."""
    assert is_open(feed, "2026-12-25T03:00:00")
    assert MarketHours(feed).changes_at_s(0.0) == float("inf")


def test_a_name_that_is_no_feed_is_refused() -> None:
    """The message has the names to choose from."""
    with pytest.raises(ValueError, match=r"'crypto'.*iex.*always"):
        MarketHours("crypto")


@given(
    feed=st.sampled_from(FEEDS[:-1]),
    times=st.lists(st.floats(min_value=1.7e9, max_value=1.9e9), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_what_is_remembered_is_what_would_be_found(feed: str, times: list[float]) -> None:
    """Asked in any order, an answer holds throughout its span; no pause is longer than a week."""
    hours = MarketHours(feed)
    for at in times:
        moment = hours.at(at)
        assert moment.since_s <= at < moment.until_s
        for other in ((moment.since_s + at) / 2, (moment.until_s + at) / 2):
            fresh = MarketHours(feed).at(other)
            assert (fresh.is_open, fresh.is_regular) == (moment.is_open, moment.is_regular)
        assert at < hours.changes_at_s(at) < at + 7 * DAY_S

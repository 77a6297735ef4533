"""When quotes may be expected: the trading hours behind each feed.

Decides from unix time alone whether a feed may be silent without fault, and when that changes. Must never know the
clock, a socket, or what really came. Where the sources leave a doubt it says closed: a silent hour that nobody
watches costs less than a connection that is given up for nothing.

Sources: Alpaca's sessions (https://docs.alpaca.markets/us/docs/245-trading), in New York time: overnight 20:00 to
04:00, extended 04:00 to 20:00, regular 09:30 to 16:00. IEX's system hours 08:00 to 17:00 (https://iextrading.com).
NYSE's holidays and half days as the package `holidays` has them. A half day's regular session ends at 13:00 and its
extended one at 17:00; what it leaves of IEX's hour after the close is not published, so nothing is expected of IEX
then.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

NEW_YORK: Final = ZoneInfo("America/New_York")
FEEDS: Final = ("iex", "sip", "delayed_sip", "boats", "overnight", "test")
ALWAYS: Final = "always"
DELAY_S: Final = 900.0
"""How late `delayed_sip` is on purpose (https://docs.alpaca.markets/docs/streaming-market-data)."""
LONGEST_PAUSE_DAYS: Final = 30
"""No closure in the exchange's history was longer, 1914 left out; bounds the search for the next opening."""

_OPENS: Final = time(9, 30)
_CLOSES: Final = time(16)
_CLOSES_EARLY: Final = time(13)


@dataclass(frozen=True, slots=True)
class Moment:
    """Whether quotes may be expected, whether the regular session is on, and from when until when neither changes.

    Both times are unix seconds; infinite for a feed that never closes.
    """

    is_open: bool
    is_regular: bool
    since_s: float
    until_s: float


class MarketHours:
    """The hours of one feed, or of none at all (`always`). `ValueError` for another name."""

    def __init__(self, name: str) -> None:
        if name not in (*FEEDS, ALWAYS):
            raise ValueError(f"no feed is called {name!r}: take any of {', '.join((*FEEDS, ALWAYS))}")
        self.name = name
        self._never_closes = name in (ALWAYS, "test")
        self._moment = Moment(
            True, True, float("-inf"), float("inf") if self._never_closes else float("-inf")
        )

    def __repr__(self) -> str:
        return f"<MarketHours {self.name}>"

    def at(self, unix_s: float) -> Moment:
        """What holds at this time. The answer is kept for as long as it holds, so asking each second is cheap."""
        if not self._moment.since_s <= unix_s < self._moment.until_s:
            self._moment = self._find(unix_s)
        return self._moment

    def changes_at_s(self, unix_s: float) -> float:
        """When a feed that is open closes, or the other way round: unix seconds, infinite if it never does."""
        now = later = self.at(unix_s)
        while later.is_open == now.is_open and later.until_s != float("inf"):
            later = self._find(later.until_s)
        return later.until_s if later.is_open == now.is_open else later.since_s

    def _find(self, unix_s: float) -> Moment:
        if self._never_closes:
            return self._moment
        day = datetime.fromtimestamp(unix_s, UTC).astimezone(NEW_YORK).date()
        spans = [span for n in (-1, 0, 1, 2) for span in _spans(self.name, day + timedelta(days=n))]
        ahead = 2
        while (not spans or spans[-1][0] <= unix_s) and ahead < LONGEST_PAUSE_DAYS:
            ahead += 1
            spans += _spans(self.name, day + timedelta(days=ahead))
        before = bisect_right(spans, unix_s, key=lambda span: span[0])
        since_s = float("-inf")
        if before:
            start_s, end_s, is_regular = spans[before - 1]
            if unix_s < end_s:
                return Moment(True, is_regular, start_s, end_s)
            since_s = end_s
        until_s = spans[before][0] if before < len(spans) else _midnight_s(day + timedelta(days=ahead))
        return Moment(False, False, max(since_s, _midnight_s(day - timedelta(days=1))), until_s)


def regular_session(day: date) -> tuple[float, float] | None:
    """When the regular session of this day in New York begins and ends, in unix seconds; None if there is none."""
    return next(((start_s, end_s) for start_s, end_s, is_regular in _spans("sip", day) if is_regular), None)


@lru_cache(maxsize=64)
def _spans(name: str, day: date) -> tuple[tuple[float, float, bool], ...]:
    """Start, end and whether it is the regular session, of each part of this trading day, in order."""
    closed, half = _calendar(day.year)
    if day.weekday() >= 5 or day in closed:
        return ()
    if name in ("boats", "overnight"):
        return ((_unix_s(day - timedelta(days=1), time(20)), _unix_s(day, time(4)), True),)
    is_half = day in half
    closes = _CLOSES_EARLY if is_half else _CLOSES
    if name == "iex":
        begins, ends = time(8), (closes if is_half else time(17))
    else:
        begins, ends = time(4), (time(17) if is_half else time(20))
    shift_s = DELAY_S if name == "delayed_sip" else 0.0
    edges = [_unix_s(day, at) + shift_s for at in (begins, _OPENS, closes, ends)]
    parts = [(edges[0], edges[1], False), (edges[1], edges[2], True), (edges[2], edges[3], False)]
    return tuple(part for part in parts if part[0] < part[1])


@lru_cache(maxsize=8)
def _calendar(year: int) -> tuple[frozenset[date], frozenset[date]]:
    """The days of this year without trading, and those with half a session."""
    # Not at the top: it takes a tenth of a second, and the small commands never need it.
    from holidays import financial_holidays

    whole = financial_holidays("NYSE", years=year)
    half = financial_holidays("NYSE", years=year, categories=("half_day",))
    return frozenset(whole), frozenset(half)


def _unix_s(day: date, at: time) -> float:
    # The sessions begin and end at hours that no change of the clocks skips or repeats.
    return datetime.combine(day, at, NEW_YORK).timestamp()


def _midnight_s(day: date) -> float:
    return _unix_s(day, time(0))

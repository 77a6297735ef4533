"""The market's clock and its calendar, as the trading host tells them.

Decides whether the double's market is open, and the trading days. Must never know the clock: the time is an
argument, in nanoseconds since the epoch. The days are those of `ingestor.feed.hours`.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final

from ingestor.feed.hours import LONGEST_PAUSE_DAYS, NEW_YORK, regular_session
from simulator.rest.answers import Refused

FIRST_DAY: Final = date(1970, 1, 1)
LAST_DAY: Final = date(2029, 12, 31)
"""The vendor's calendar goes so far."""

_HALF_DAY_CLOSE: Final = time(13)


def clock(now_ns: int, *, always_open: bool) -> dict[str, object]:
    """The body of `/v2/clock`.

    With `always_open` the market is open at any hour, and `next_close` and `next_open` are still the calendar's
    next close and the opening after it.
    """
    now_s = now_ns / 1e9
    today = datetime.fromtimestamp(now_s, UTC).astimezone(NEW_YORK).date()
    ahead = [session for n in range(2 * LONGEST_PAUSE_DAYS) if (session := regular_session(_after(today, n)))]
    ahead = [session for session in ahead if session[1] > now_s]
    is_open = always_open or ahead[0][0] <= now_s
    next_open_s = ahead[1 if is_open else 0][0]
    return {
        "timestamp": _local(now_ns),
        "is_open": is_open,
        "next_open": _whole(next_open_s),
        "next_close": _whole(ahead[0][1]),
    }


def calendar(query: Mapping[str, str]) -> list[dict[str, str]]:
    """The body of `/v2/calendar`: the trading days from `start` to `end`, both included. Raises `Refused`."""
    day = max(_day(query, "start", FIRST_DAY), FIRST_DAY)
    last = min(_day(query, "end", LAST_DAY), LAST_DAY)
    return [
        row
        for year in range(day.year, last.year + 1)
        for row in _trading_days(year)
        if day.isoformat() <= row["date"] <= last.isoformat()
    ]


@lru_cache(maxsize=64)
def _trading_days(year: int) -> tuple[dict[str, str], ...]:
    found: list[dict[str, str]] = []
    day = date(year, 1, 1)
    while day.year == year:
        session = regular_session(day)
        if session is not None:
            opens, closes = (datetime.fromtimestamp(s, UTC).astimezone(NEW_YORK).time() for s in session)
            found.append(
                {
                    "date": day.isoformat(),
                    "open": f"{opens:%H:%M}",
                    "close": f"{closes:%H:%M}",
                    "session_open": "0400",
                    "session_close": "1700" if closes == _HALF_DAY_CLOSE else "2000",
                    "settlement_date": _next_trading_day(day).isoformat(),
                }
            )
        day = _after(day, 1)
    return tuple(found)


def _day(query: Mapping[str, str], name: str, default: date) -> date:
    text = query.get(name)
    if not text:
        return default
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise Refused(422, f"invalid format for {name}: {text[:40]}", 42210000) from None


def _next_trading_day(day: date) -> date:
    for n in range(1, LONGEST_PAUSE_DAYS):
        if regular_session(_after(day, n)) is not None:
            return _after(day, n)
    raise AssertionError(f"no trading day within {LONGEST_PAUSE_DAYS} days of {day}")


def _after(day: date, days: int) -> date:
    return day + timedelta(days=days)


def _local(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, 1_000_000_000)
    zone = _whole(seconds)[-6:]
    return f"{_whole(seconds)[:-6]}.{ns:09d}{zone}"


def _whole(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).astimezone(NEW_YORK).isoformat(timespec="seconds")

"""What a call to the data host asks for, read out of its query.

Decides what is a sound request and how an unsound one is refused. Must never know the clock (the present is an
argument) nor what there is to be given. Facts: the parameters of https://docs.alpaca.markets/reference/stockquotes.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final

from ingestor.feed.hours import NEW_YORK
from simulator.rest.answers import Refused
from wire.symbols import is_word

FEEDS: Final = ("iex", "sip", "delayed_sip", "boats", "overnight", "otc")
MAX_LIMIT: Final = 10_000
DEFAULT_LIMIT: Final = 1_000
MAX_SYMBOLS: Final = 10_000
RECENT_NS: Final = 15 * 60 * 1_000_000_000
"""How much of the present an account without a feed in its plan may not see of it."""

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*(Z|z|[+-]\d\d:\d\d)?", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """How far the pages have come: behind the `nth` item of this symbol and time; `end_ns` is where they end."""

    symbol: str
    t_ns: int
    nth: int
    end_ns: int

    def token(self) -> str:
        """The same, as the vendor writes it: not to be read by clients."""
        return urlsafe_b64encode(f"{self.symbol}|{self.t_ns}|{self.nth}|{self.end_ns}".encode()).decode()


@dataclass(frozen=True)
class Range:
    """A part of history: these symbols, in order, from `start_ns` to `end_ns`, both included."""

    symbols: tuple[str, ...]
    start_ns: int
    end_ns: int
    limit: int
    newest_first: bool
    place: Place | None


def symbols_of(text: str, refused: Collection[str]) -> tuple[str, ...]:
    """The distinct symbols of a list with commas, in alphabetical order."""
    names = {name.strip() for name in text.split(",")} - {""}
    if not names:
        raise Refused(400, "symbols is required")
    if len(names) > MAX_SYMBOLS:
        raise Refused(400, f"too many symbols: at most {MAX_SYMBOLS}")
    for name in sorted(names):
        if not is_word(name) or name in refused:
            raise Refused(400, f"invalid symbol: {name[:40]}")
    return tuple(sorted(names))


def check_feed(
    query: Mapping[str, str], in_plan: Collection[str] | None, end_ns: int | None, now_ns: int
) -> None:
    """Refuse a feed that there is not, and the present of one that is not in the plan. `end_ns` None is now."""
    feed = query.get("feed")
    if not feed:
        return
    if feed not in FEEDS:
        raise Refused(400, f"invalid feed: {feed[:40]}")
    if in_plan is None or feed in in_plan:
        return
    if feed == "sip" and end_ns is not None and end_ns <= now_ns - RECENT_NS:
        return
    raise Refused(403, f"subscription does not permit querying recent {feed.upper()} data", 42210000)


def range_of(query: Mapping[str, str], symbols: tuple[str, ...], now_ns: int) -> Range:
    """The part of history that a query asks for. Without a start it is today's, in New York."""
    place = _place(query.get("page_token"), symbols)
    midnight = datetime.combine(_today(now_ns), time(0), NEW_YORK)
    start_ns = _time_ns(query, "start", int(midnight.timestamp()) * 1_000_000_000)
    end_ns = place.end_ns if place is not None else _time_ns(query, "end", now_ns)
    if place is None and start_ns > end_ns and query.get("start") and query.get("end"):
        raise Refused(400, "end should not be before start")
    text = query.get("limit") or str(DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_LIMIT):
        raise Refused(400, f"invalid limit: {text[:40]} (1 to {MAX_LIMIT})")
    sort = query.get("sort") or "asc"
    if sort not in ("asc", "desc"):
        raise Refused(400, f"invalid sort: {sort[:40]}")
    return Range(symbols, start_ns, end_ns, int(text), sort == "desc", place)


def _place(token: str | None, symbols: tuple[str, ...]) -> Place | None:
    if not token:
        return None
    try:
        symbol, t_ns, nth, end_ns = urlsafe_b64decode(token).decode().split("|")
        place = Place(symbol, int(t_ns), int(nth), int(end_ns))
    except ValueError:
        raise Refused(400, "invalid page_token") from None
    if place.symbol not in symbols or place.nth < 1:
        raise Refused(400, "invalid page_token")
    return place


def _time_ns(query: Mapping[str, str], name: str, default_ns: int) -> int:
    text = query.get(name)
    if not text:
        return default_ns
    try:
        if len(text) == 10:
            at = datetime.combine(date.fromisoformat(text), time(0), NEW_YORK)
            return int(at.timestamp()) * 1_000_000_000
        match = _TIME.fullmatch(text)
        if match is None:
            raise ValueError("not a time")  # noqa: TRY301
        day, clock, fraction, zone = match.groups()
        zone = "+00:00" if zone in (None, "Z", "z") else zone
        elapsed = datetime.fromisoformat(f"{day}T{clock}{zone}") - _EPOCH
    except ValueError:
        raise Refused(400, f"invalid {name}: {text[:40]}") from None
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def _today(now_ns: int) -> date:
    return datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).astimezone(NEW_YORK).date()

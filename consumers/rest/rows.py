"""Alpaca's REST answers, raw as they come, and what a strategy gets of them.

Decides names, types and what an answer must have. Must never ask the service: it gets decoded JSON. The raw form is
read because alpaca-py's models keep microseconds only, and drop the times of the extended sessions.
Field names: https://docs.alpaca.markets/reference/stockquotes-1 and its neighbours.
"""

from datetime import datetime
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from wire import Quote
from wire.quote import without_oddity
from wire.times import parse_rfc3339
from wire.values import MAX_TIME_NS, MIN_TIME_NS, READ_SIDE, Price, Size

_Row = TypeVar("_Row")


class BadAnswer(ValueError):
    """An answer, or a row of one, that is not what the service promises."""


class Bar(msgspec.Struct, frozen=True, gc=False):
    """Trades of one interval, summed up. `time_ns` is the interval's begin; prices in dollars, volume in shares."""

    symbol: str
    time_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: int | float
    trade_count: int | float | None
    vwap: float | None


class MarketClock(msgspec.Struct, frozen=True, gc=False):
    """The exchange's own clock: regular sessions only, times in nanoseconds since the epoch."""

    time_ns: int
    is_open: bool
    next_open_ns: int
    next_close_ns: int


class MarketDay(msgspec.Struct, frozen=True, gc=False):
    """One trading day, `date` as YYYY-MM-DD in New York, times in nanoseconds since the epoch.

    `open_ns` and `close_ns` bound the regular session, `session_open_ns` and `session_close_ns` the extended
    one; the latter are None when the service does not tell.
    """

    date: str
    open_ns: int
    close_ns: int
    session_open_ns: int | None
    session_close_ns: int | None


class Asset(msgspec.Struct, frozen=True, gc=False):
    """What can be traded under a symbol. `status` is `active` or `inactive`."""

    symbol: str
    name: str | None
    exchange: str | None
    asset_class: str | None
    status: str | None
    tradable: bool
    shortable: bool
    fractionable: bool


class _RawQuote(msgspec.Struct, rename={"as_": "as"}, gc=False):
    t: str
    bp: Price | None = None
    bs: Size | None = None
    bx: str | None = None
    ap: Price | None = None
    as_: Size | None = None
    ax: str | None = None
    c: tuple[str, ...] | None = None
    z: str | None = None


class _RawBar(msgspec.Struct, gc=False):
    t: str
    o: Price
    h: Price
    l: Price  # noqa: E741
    c: Price
    v: Size
    n: Size | None = None
    vw: Price | None = None


class _RawClock(msgspec.Struct, gc=False):
    timestamp: str
    is_open: bool
    next_open: str
    next_close: str


class _RawDay(msgspec.Struct, gc=False):
    date: str
    open: str
    close: str
    session_open: str | None = None
    session_close: str | None = None


class _RawAsset(msgspec.Struct, rename={"asset_class": "class"}, gc=False):
    symbol: str
    name: str | None = None
    exchange: str | None = None
    asset_class: str | None = None
    status: str | None = None
    tradable: bool = False
    shortable: bool = False
    fractionable: bool = False


def _convert(raw: object, kind: type[_Row], what: str) -> _Row:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"{what} is not readable: {error}") from None


def _convert_quote(raw: object, what: str) -> _RawQuote:
    try:
        return msgspec.convert(raw, _RawQuote)
    except msgspec.ValidationError:
        if not isinstance(raw, dict):
            return _convert(raw, _RawQuote, what)
        sides = {name: without_oddity(name, raw[name]) for name in READ_SIDE if name in raw}
        return _convert({**raw, **sides}, _RawQuote, what)


def _time(text: str, what: str) -> int:
    try:
        time_ns = parse_rfc3339(text)
    except ValueError as error:
        raise BadAnswer(f"{what} is not readable: {error}") from None
    if not MIN_TIME_NS <= time_ns <= MAX_TIME_NS:
        raise BadAnswer(f"{what} is not readable: its time does not lie between the years 1677 and 2262")
    return time_ns


def _text(text: str | None) -> str | None:
    """The same, None for half a surrogate pair, which JSON may hold and UTF-8 may not."""
    try:
        return None if text is None or not (text.isascii() or text.encode()) else text
    except UnicodeEncodeError:
        return None


def read_quote(symbol: str, raw: object, confirmed_ns: int | None = None) -> Quote:
    """One quote, without id. `confirmed_ns` is when REST said that it is the newest; history has none.

    An odd side field is None, as on the stream. Raises `BadAnswer`, also for a price that is none or below zero.
    """
    what = f"a quote of {symbol}"
    row = _convert_quote(raw, what)
    time_ns = _time(row.t, what)
    delay_us = None if confirmed_ns is None else (confirmed_ns - time_ns) // 1_000
    return Quote(
        symbol,
        None,
        row.bp or None,
        row.bs,
        _text(row.bx),
        row.ap or None,
        row.as_,
        _text(row.ax),
        None if row.c is None or None in map(_text, row.c) else row.c,
        _text(row.z),
        time_ns,
        delay_us,
    )


def read_bar(symbol: str, raw: object) -> Bar:
    """One bar; `BadAnswer`."""
    what = f"a bar of {symbol}"
    row = _convert(raw, _RawBar, what)
    return Bar(symbol, _time(row.t, what), row.o, row.h, row.l, row.c, row.v, row.n, row.vw)


def read_clock(raw: object) -> MarketClock:
    """The clock; `BadAnswer`."""
    what = "the market clock"
    row = _convert(raw, _RawClock, what)
    times = (_time(text, what) for text in (row.timestamp, row.next_open, row.next_close))
    now, opens, closes = times
    return MarketClock(now, row.is_open, opens, closes)


def read_days(raw: object) -> list[MarketDay]:
    """The calendar; `BadAnswer`."""
    return [
        MarketDay(
            row.date,
            _day_time(row.date, row.open),
            _day_time(row.date, row.close),
            _day_time(row.date, row.session_open) if row.session_open else None,
            _day_time(row.date, row.session_close) if row.session_close else None,
        )
        for row in _convert(raw, list[_RawDay], "the calendar")
    ]


def read_assets(raw: object) -> list[Asset]:
    """The assets; `BadAnswer`."""
    return [
        Asset(
            row.symbol,
            row.name,
            row.exchange,
            row.asset_class,
            row.status,
            row.tradable,
            row.shortable,
            row.fractionable,
        )
        for row in _convert(raw, list[_RawAsset], "the list of assets")
    ]


def member(raw: object, name: str) -> dict[str, Any]:
    """The object under this name, empty when it is null; `BadAnswer` when the answer is no such thing."""
    if isinstance(raw, dict) and name in raw:
        found = raw[name]
        if found is None:
            return {}
        if isinstance(found, dict):
            return found
    raise BadAnswer(f"the answer has no object {name!r}")


def page(raw: object, name: str, symbol: str) -> tuple[list[Any], str | None]:
    """The rows of one page and the token of the next, None behind the last; `BadAnswer`."""
    rows = member(raw, name).get(symbol) or []
    token = raw.get("next_page_token") if isinstance(raw, dict) else None
    if not isinstance(rows, list) or not isinstance(token, str | None):
        raise BadAnswer(f"the answer's page of {name} is not readable")
    return rows, token or None


_ZONE: Final = "America/New_York"


def _day_time(day: str, time: str) -> int:
    # The calendar writes 09:30 for the regular session and 0400 for the extended one.
    try:
        moment = datetime.fromisoformat(f"{day}T{time[:2]}:{time[-2:]}:00").replace(tzinfo=ZoneInfo(_ZONE))
    except ZoneInfoNotFoundError:
        raise BadAnswer(f"this machine has no time zone {_ZONE}: pip install tzdata") from None
    except ValueError:
        raise BadAnswer(f"the calendar is not readable: {day[:20]!r} {time[:20]!r}") from None
    return int(moment.timestamp()) * 1_000_000_000

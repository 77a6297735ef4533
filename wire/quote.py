"""A quote, and its two spellings: the compact array of the streams, and the named object of the cache.

Decides positions and names. Positions never change meaning; new ones are appended, and readers ignore what
they do not know. Prices are the vendor's float64 in their shortest round-tripping form, sizes are shares, times
are integer nanoseconds since the epoch, UTC, which exceed 2^53: a JSON reader that makes doubles of all numbers
changes their last digits. What the vendor did not send is null; a price of 0 is stored as it came, and means that
this side has no active quote. An odd value of a side field, as another writer may leave one, is read as null:
prices and time are not lost for its sake.
"""

import math
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

from wire.ids import MAX_AHEAD_NS
from wire.prices import difference, midpoint
from wire.times import to_datetime
from wire.values import READ_SIDE, DelayUs, OddValue, Size, TimeNs, read_delay_us

QuoteRow: TypeAlias = tuple[
    float | None,  # bp  bid price
    int | float | None,  # bs  bid size, shares
    str | None,  # bx  bid exchange
    float | None,  # ap  ask price
    int | float | None,  # as  ask size, shares
    str | None,  # ax  ask exchange
    list[str] | None,  # c   conditions
    str | None,  # z   tape
    int,  # t   venue time, ns
    int | None,  # r   receive delay, us
]
"""The array of one stream entry, position by position."""


class BadEntry(ValueError):
    """A stream or cache value that is not a quote or a gap marker of this contract."""

    def __init__(self, symbol: str, entry_id: str, why: str) -> None:
        super().__init__(f"{symbol} entry {entry_id} is not readable: {why}")
        self.symbol = symbol
        self.entry_id = entry_id


class Quote(msgspec.Struct, frozen=True, gc=False):
    """One change of a symbol's best bid and ask.

    A side without an active quote has the price None. `time_ns` is the venue's time; `receive_delay_us` is
    the time from there to the daemon's receipt (negative under clock skew). `id` is the entry id in the
    symbol's stream, and None for a quote that REST brought.
    """

    symbol: str
    id: str | None
    bid_price: float | None
    bid_size: int | float | None
    bid_exchange: str | None
    ask_price: float | None
    ask_size: int | float | None
    ask_exchange: str | None
    conditions: tuple[str, ...] | None
    tape: str | None
    time_ns: int
    receive_delay_us: int | None

    @property
    def mid_price(self) -> float | None:
        """Halfway between bid and ask in decimal, or None unless both sides are active."""
        if self.bid_price is None or self.ask_price is None:
            return None
        return midpoint(self.bid_price, self.ask_price)

    @property
    def spread(self) -> float | None:
        """Ask less bid in decimal, negative when crossed, or None unless both sides are active."""
        if self.bid_price is None or self.ask_price is None:
            return None
        return difference(self.bid_price, self.ask_price)

    @property
    def time(self) -> datetime:
        """Venue time as an aware datetime, cut to microseconds."""
        return to_datetime(self.time_ns)

    @property
    def received_ns(self) -> int | None:
        """When the daemon received it, in nanoseconds since the epoch, to the microsecond."""
        if self.receive_delay_us is None:
            return None
        return self.time_ns + self.receive_delay_us * 1000


class _Row(msgspec.Struct, array_like=True, gc=False):
    bp: float | None
    bs: Size | None
    bx: str | None
    ap: float | None
    as_: Size | None
    ax: str | None
    c: tuple[str, ...] | None
    z: str | None
    t: TimeNs
    r: DelayUs | None = None


class _Latest(msgspec.Struct, rename={"as_": "as"}, gc=False):
    id: str | None
    S: str
    bp: float | None
    bs: int | float | None
    bx: str | None
    ap: float | None
    as_: int | float | None
    ax: str | None
    c: list[str] | tuple[str, ...] | None
    z: str | None
    t: int
    r: int | None


class _LatestRead(msgspec.Struct, rename={"as_": "as"}, gc=False):
    S: str
    t: TimeNs
    id: str | None = None
    bp: float | None = None
    bs: Size | None = None
    bx: str | None = None
    ap: float | None = None
    as_: Size | None = None
    ax: str | None = None
    c: tuple[str, ...] | None = None
    z: str | None = None
    r: DelayUs | None = None


_encode = msgspec.json.Encoder().encode
_decode_row = msgspec.json.Decoder(_Row).decode
_decode_latest = msgspec.json.Decoder(_LatestRead).decode
_decode_any = msgspec.json.Decoder().decode

_SIDE_POSITIONS: Final = {1: "bs", 2: "bx", 4: "as", 5: "ax", 6: "c", 7: "z"}
_DELAY_POSITION: Final = 9

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected; invalid UTF-8 is none of its own errors."""


def encode_quote(row: QuoteRow) -> bytes:
    """The value of an entry's `q` field."""
    return _encode(row)


def decode_quote(symbol: str, entry_id: str, value: bytes | str) -> Quote:
    """Read an entry's `q` field; `BadEntry` if it is no quote."""
    try:
        row = _decode_row(value)
    except UNREADABLE as error:
        row = _row_without_oddities(value, BadEntry(symbol, entry_id, str(error)))
    return Quote(
        symbol,
        entry_id,
        row.bp or None,
        row.bs,
        row.bx,
        row.ap or None,
        row.as_,
        row.ax,
        row.c,
        row.z,
        row.t,
        row.r,
    )


def encode_latest(symbol: str, entry_id: str | None, row: QuoteRow) -> bytes:
    """The cache's value: the same quote with Alpaca's names, and the id of the stream entry it equals."""
    return _encode(_Latest(entry_id, symbol, *row))


def decode_latest(symbol: str, value: bytes | str) -> Quote:
    """Read a cache value; `BadEntry` if it is none."""
    try:
        row = _decode_latest(value)
    except UNREADABLE as error:
        row = _latest_without_oddities(value, BadEntry(symbol, "of the cache", str(error)))
    return Quote(
        symbol,
        row.id,
        row.bp or None,
        row.bs,
        row.bx,
        row.ap or None,
        row.as_,
        row.ax,
        row.c,
        row.z,
        row.t,
        row.r,
    )


def _row_without_oddities(value: bytes | str, otherwise: BadEntry) -> _Row:
    """The row with each odd side field null; raises `otherwise` where it is no quote all the same."""
    try:
        fields: Any = _decode_any(value)
        if not isinstance(fields, list):
            raise otherwise
        for position, name in _SIDE_POSITIONS.items():
            if position < len(fields):
                fields[position] = without_oddity(name, fields[position])
        if len(fields) > _DELAY_POSITION:
            fields[_DELAY_POSITION] = read_delay_us(fields[_DELAY_POSITION])
        return msgspec.convert(fields, _Row)
    except UNREADABLE:
        raise otherwise from None


def _latest_without_oddities(value: bytes | str, otherwise: BadEntry) -> _LatestRead:
    try:
        fields: Any = _decode_any(value)
        if not isinstance(fields, dict):
            raise otherwise
        for name in READ_SIDE.keys() & fields.keys():
            fields[name] = without_oddity(name, fields[name])
        if "r" in fields:
            fields["r"] = read_delay_us(fields["r"])
        return msgspec.convert(fields, _LatestRead)
    except UNREADABLE:
        raise otherwise from None


def without_oddity(name: str, value: object) -> Any:
    """The value of this side field, or None in the place of one that is none."""
    try:
        return READ_SIDE[name](value)
    except OddValue:
        return None


def newer(first: Quote | None, second: Quote | None) -> Quote | None:
    """Of two quotes of a symbol the one of the later venue time; None only when both are.

    A date that lies further ahead of the receipt than an entry id may is believed no further than an id would be,
    and one of REST, which has no id, not at all: it never stands above one that is believed. Of equal times the
    later receipt counts: the same quote, confirmed again, keeps the id that either has.
    """
    if first is None or second is None:
        return second if first is None else first
    if (one := _rank(first)) != (other := _rank(second)):
        return first if one > other else second
    later, earlier = (second, first) if _receipt(second) > _receipt(first) else (first, second)
    same = msgspec.structs.replace(earlier, id=later.id, receive_delay_us=later.receive_delay_us) == later
    if later.id is None and same:
        return msgspec.structs.replace(later, id=earlier.id)
    return later


def is_ahead(quote: Quote) -> bool:
    """Whether it is dated further ahead of its receipt than clocks differ."""
    received_ns = quote.received_ns
    return received_ns is not None and quote.time_ns > received_ns + MAX_AHEAD_NS


def _rank(quote: Quote) -> tuple[bool, int]:
    received_ns = quote.received_ns
    if received_ns is None or quote.time_ns <= received_ns + MAX_AHEAD_NS:
        return True, quote.time_ns
    return (False, received_ns) if quote.id is None else (True, received_ns + MAX_AHEAD_NS)


def _receipt(quote: Quote) -> float:
    return -math.inf if quote.receive_delay_us is None else quote.receive_delay_us

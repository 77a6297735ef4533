"""The double's quotes, and how a frame of them is spelt in msgpack and in JSON.

Decides bytes: one quote, and the array around any number of quotes. A quote is spelt once per encoding and the
frames are joined from such pieces, so that each session may get its own selection at no cost. Must never know who
reads them, nor when.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ingestor.feed.messages import Encoding, QuoteMessage, time_as_json, time_as_msgpack

_msgpack: Final = msgspec.msgpack.Encoder().encode
_json: Final = msgspec.json.Encoder().encode


class SimQuote(msgspec.Struct, frozen=True, gc=False):
    """One quote to be sent: `t_ns` in nanoseconds since the epoch, prices in USD, sizes in shares."""

    symbol: str
    t_ns: int
    bid_price: float
    bid_size: int | float
    ask_price: float
    ask_size: int | float
    bid_exchange: str = "V"
    ask_exchange: str = "V"
    conditions: tuple[str, ...] = ("R",)
    tape: str = "C"


def encode_items(quotes: Iterable[SimQuote], encoding: Encoding) -> list[bytes]:
    """Each quote's own bytes, in order, ready to be joined by `join_items`."""
    encode, time_of = (_msgpack, time_as_msgpack) if encoding == "msgpack" else (_json, time_as_json)
    raw = msgspec.Raw
    return [
        encode(
            QuoteMessage(
                q.symbol,
                raw(time_of(q.t_ns)),
                q.bid_price,
                q.bid_size,
                q.bid_exchange,
                q.ask_price,
                q.ask_size,
                q.ask_exchange,
                list(q.conditions),
                q.tape,
            )
        )
        for q in quotes
    ]


def join_items(items: Sequence[bytes], encoding: Encoding) -> bytes | str:
    """One frame: bytes for a binary frame of msgpack, text for a text frame of JSON."""
    if encoding == "json":
        return (b"[" + b",".join(items) + b"]").decode()
    count = len(items)
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 2**16:
        head = struct.pack(">BH", 0xDC, count)
    else:
        head = struct.pack(">BI", 0xDD, count)
    return head + b"".join(items)


def encode_control(message: msgspec.Struct, encoding: Encoding) -> bytes | str:
    """A control message's frame; such messages always travel alone."""
    item = _json(message) if encoding == "json" else _msgpack(message)
    return join_items([item], encoding)


class Batch:
    """Quotes on their way to any number of sessions, spelt at most once per encoding."""

    __slots__ = ("_items", "quotes", "symbols")

    def __init__(self, quotes: Sequence[SimQuote]) -> None:
        self.quotes: Final = quotes
        self.symbols: Final = frozenset([q.symbol for q in quotes])
        self._items: dict[Encoding, list[bytes]] = {}

    def items(self, encoding: Encoding, wanted: frozenset[str] | None) -> list[bytes]:
        """The pieces of those quotes whose symbol is wanted; None wants all."""
        if wanted is not None and self.symbols.isdisjoint(wanted):
            return []
        items = self._items.get(encoding)
        if items is None:
            items = self._items[encoding] = encode_items(self.quotes, encoding)
        if wanted is None or self.symbols <= wanted:
            return items
        return [item for item, q in zip(items, self.quotes, strict=True) if q.symbol in wanted]

"""Alpaca's message types on the stock stream, and how they are spelt in msgpack and in JSON.

Decides the shape of every message, for both ends: the daemon reads with these types, the simulator writes with
them. Must never know which conversation a message belongs to. Facts: Alpaca's "Streaming Market Data" and
"Real-time Stock Data" pages; times in msgpack are the timestamp extension (type -1) of
https://github.com/msgpack/msgpack/blob/master/spec.md#timestamp-extension-type, in JSON RFC 3339 with up to nine
fractional digits. Other spellings of a time are read where they are unambiguous (`wire.times`).
"""

import struct
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec

from wire.times import parse_rfc3339, parse_whole
from wire.values import Code, Conditions, Price, Size

GREETING: Final = "connected"
AUTHENTICATED: Final = "authenticated"


MAX_NAME_LENGTH: Final = 64
"""Far beyond what the vendor sends. A bound on quotes is a bound on memory only where a quote has one itself."""


class Success(msgspec.Struct, tag_field="T", tag="success"):
    """The greeting (`connected`) or the end of authentication (`authenticated`)."""

    msg: str


class Error(msgspec.Struct, tag_field="T", tag="error"):
    """A refusal; `code` alone decides what it means (see `ingestor.feed.codes`). One without it is still one."""

    code: int = 0
    msg: str = ""


class Subscription(msgspec.Struct, tag_field="T", tag="subscription"):
    """The acknowledgement: always the whole set of the session, never the change. A missing list is empty,
    and so is a null, which is how an empty one leaves some encoders."""

    trades: list[str] | None = []
    quotes: list[str] | None = []
    bars: list[str] | None = []


class QuoteMessage(msgspec.Struct, tag_field="T", tag="q", gc=False, rename={"as_": "as"}):
    """One change of a symbol's best bid and ask.

    `t` is kept as the undecoded value, because a msgpack timestamp read as a datetime loses its nanoseconds.
    Sizes are shares (round lots before 2025-11-03). One that was decoded has values within the bounds of
    `wire.values`.
    """

    S: Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
    t: msgspec.Raw
    bp: Price | None = None
    bs: Size | None = None
    bx: Code | None = None
    ap: Price | None = None
    as_: Size | None = None
    ax: Code | None = None
    c: Conditions | None = None
    z: Code | None = None


class Authenticate(msgspec.Struct, tag_field="action", tag="auth"):
    """The client's credentials; due within ten seconds of the greeting."""

    key: str
    secret: str


class Subscribe(msgspec.Struct, tag_field="action", tag="subscribe", omit_defaults=True):
    """Adds to the session's set. alpaca-py sends every channel it knows, so unknown keys are legal."""

    quotes: list[str] = []
    trades: list[str] = []
    bars: list[str] = []


class Unsubscribe(msgspec.Struct, tag_field="action", tag="unsubscribe", omit_defaults=True):
    """Takes from the session's set."""

    quotes: list[str] = []
    trades: list[str] = []
    bars: list[str] = []


Action = Authenticate | Subscribe | Unsubscribe
Control = Success | Error | Subscription

Encoding = Literal["msgpack", "json"]

_TIMESTAMP_32: Final = b"\xd6\xff"
_TIMESTAMP_64: Final = b"\xd7\xff"
_TIMESTAMP_96: Final = b"\xc7\x0c\xff"
_MAX_TIME_BYTES: Final = 64
_decode_msgpack = msgspec.msgpack.Decoder(int | str).decode
_decode_json = msgspec.json.Decoder(int | str).decode


def time_ns_of(raw: bytes) -> int:
    """Nanoseconds since the epoch of one undecoded time value, msgpack or JSON; `ValueError` if it is none."""
    return read_time(raw)[0]


def read_time(raw: bytes) -> tuple[int, str]:
    """The same, and how it was spelt: `timestamp`, `text`, or the unit of a whole number (`ns`, `us`, `ms`, `s`).

    `ValueError` says in words why it is no time.
    """
    if raw[:2] == _TIMESTAMP_64 and len(raw) == 10:
        (packed,) = struct.unpack_from(">Q", raw, 2)
        return _instant(packed & 0x3_FFFF_FFFF, packed >> 34), "timestamp"
    if raw[:2] == _TIMESTAMP_32 and len(raw) == 6:
        (seconds,) = struct.unpack_from(">I", raw, 2)
        return _instant(seconds, 0), "timestamp"
    if raw[:3] == _TIMESTAMP_96 and len(raw) == 15:
        ns, seconds = struct.unpack_from(">Iq", raw, 3)
        return _instant(seconds, ns), "timestamp"
    value = _text_or_number(raw)
    if isinstance(value, str):
        return parse_rfc3339(value), "text"
    return parse_whole(value)


def time_as_msgpack(time_ns: int) -> bytes:
    """The timestamp extension for an instant, in the 64-bit form where it fits and the 96-bit form otherwise."""
    seconds, ns = divmod(time_ns, 1_000_000_000)
    if 0 <= seconds < 2**34:
        return _TIMESTAMP_64 + struct.pack(">Q", ns << 34 | seconds)
    return _TIMESTAMP_96 + struct.pack(">Iq", ns, seconds)


def time_as_json(time_ns: int) -> bytes:
    """RFC 3339 in UTC with all nine fractional digits, as a JSON string."""
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return f'"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"'.encode()


def _instant(seconds: int, ns: int) -> int:
    if ns > 999_999_999:
        # The specification forbids it: whoever sent it meant another instant than would come of carrying over.
        raise ValueError(f"the time has {ns} nanoseconds beside its seconds, and a second has fewer")
    return seconds * 1_000_000_000 + ns


def _text_or_number(raw: bytes) -> str | int:
    if len(raw) > _MAX_TIME_BYTES:
        raise ValueError("the time is longer than any time")
    # A msgpack value that begins with one of these is a number below 128, and ends there.
    is_json = len(raw) > 1 and raw[:1] in b'"-0123456789'
    try:
        value: str | int = _decode_json(raw) if is_json else _decode_msgpack(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError("the time is neither a timestamp nor text nor a whole number") from None
    return value

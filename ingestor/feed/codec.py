"""Frames to messages.

Decides which elements of a frame are readable, and never lets an unreadable one take its neighbours along. Must
never know the state of the conversation. Two gears: a frame of nothing but well-formed quotes, which is nearly
every frame there is, is decoded by one call into typed structs; anything else goes element by element, and a quote
that is not well formed goes field by field. An odd side field is null then, and counted; a quote without a symbol
or with a price that is none is refused with its reason, so that it can be accounted for where it would have been.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec

from ingestor.feed.messages import (
    MAX_NAME_LENGTH,
    Action,
    Control,
    Encoding,
    Error,
    QuoteMessage,
    Subscription,
    Success,
)
from wire.values import OUT_OF_RANGE, READ_SIDE, WRONG_TYPE, OddValue, read_price

MAX_MESSAGE_TYPES_COUNTED: Final = 32
"""A hostile peer could invent types without end; the ones beyond are counted under one name."""
MAX_ELEMENTS: Final = 250_000
"""A frame of more is refused before it is read: elements of one byte would cost a hundred times their size."""
SAMPLE_BYTES: Final = 64
MAX_FIELD_BYTES: Final = 1024
"""A field of more is not looked into: what it holds is out of every range."""
BAD_SYMBOL: Final = "bad_symbol"
BAD_PRICE: Final = "bad_price"
BAD_TIME: Final = "bad_time"

_Quotes: TypeAlias = Annotated[list[QuoteMessage], msgspec.Meta(max_length=MAX_ELEMENTS)]
_Elements: TypeAlias = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ELEMENTS)]


class Refused(NamedTuple):
    """A quote that cannot be one: its symbol where that can be read, the reason as metrics name it and in words,
    and how many good quotes of its frame came before it."""

    symbol: str | None
    reason: str
    words: str
    before: int


@dataclass(slots=True)
class Frame:
    """What one frame held. `refused` are quotes that cannot be stored, in order; `odd_fields` counts side fields
    that were left out of quotes, by name and oddity; `unknown` counts messages of types we do not subscribe to, by
    their `T`; `unreadable` holds one reason per element that could not be read; `broken_quotes` of these say that
    they are quotes, and of `unclear` ones nobody can tell what they were. `sample` is how the first element begins
    that was not all well."""

    quotes: list[QuoteMessage] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    odd_fields: Counter[tuple[str, str]] = field(default_factory=Counter)
    controls: list[Control] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    broken_quotes: int = 0
    unclear: int = 0
    sample: bytes = b""


class _Kind(msgspec.Struct):
    T: str


_ABSENT: Final = msgspec.Raw(b"")


class _Fields(msgspec.Struct, rename={"as_": "as"}):
    """A quote whose values are still to be looked at, each for itself."""

    S: msgspec.Raw = _ABSENT
    t: msgspec.Raw = _ABSENT
    bp: msgspec.Raw = _ABSENT
    bs: msgspec.Raw = _ABSENT
    bx: msgspec.Raw = _ABSENT
    ap: msgspec.Raw = _ABSENT
    as_: msgspec.Raw = _ABSENT
    ax: msgspec.Raw = _ABSENT
    c: msgspec.Raw = _ABSENT
    z: msgspec.Raw = _ABSENT


# Text that is not UTF-8 comes as a plain UnicodeDecodeError, not as one of msgspec's own.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class FrameCodec:
    """Reads the vendor's frames and writes ours, in the encoding that the handshake asked for."""

    def __init__(self, encoding: Encoding = "msgpack") -> None:
        wire = msgspec.msgpack if encoding == "msgpack" else msgspec.json
        self.encoding: Final = encoding
        self._quotes: Callable[[bytes], list[QuoteMessage]] = wire.Decoder(_Quotes).decode
        self._elements = wire.Decoder(_Elements).decode
        self._kind = wire.Decoder(_Kind).decode
        self._quote = wire.Decoder(QuoteMessage).decode
        self._fields = wire.Decoder(_Fields).decode
        self._value: Callable[[bytes], Any] = wire.Decoder().decode
        self._control: dict[str, Callable[[msgspec.Raw], Control]] = {
            "success": wire.Decoder(Success).decode,
            "error": wire.Decoder(Error, strict=False).decode,
            "subscription": wire.Decoder(Subscription).decode,
        }
        self._types_counted: set[str] = set()
        self._encode: Callable[[Action], bytes] = wire.Encoder().encode

    def encode(self, action: Action) -> bytes:
        """One client message, ready to send."""
        return self._encode(action)

    def quotes_in(self, payload: bytes) -> list[QuoteMessage] | None:
        """The quotes of a frame that holds nothing else, all well formed; None for any other frame."""
        try:
            return self._quotes(payload)
        except _UNREADABLE:
            return None

    def decode(self, payload: bytes) -> Frame:
        """All that the frame holds; never raises, whatever the bytes."""
        try:
            return Frame(quotes=self._quotes(payload))
        except _UNREADABLE:
            return self._decode_one_by_one(payload)

    def _decode_one_by_one(self, payload: bytes) -> Frame:
        frame = Frame()
        try:
            elements = self._elements(payload)
        except _UNREADABLE as error:
            speaks_json = self.encoding == "msgpack" and payload[:1] in (b"[", b"{")
            reason = "JSON, though the handshake asked for msgpack" if speaks_json else str(error)
            frame.unreadable.append(f"frame: {reason}")
            frame.unclear += 1
            frame.sample = payload[:SAMPLE_BYTES]
            return frame
        for element in elements:
            kind: str | None = None
            try:
                kind = self._kind(element).T
                self._sort(kind, element, frame)
            except _UNREADABLE as error:
                frame.broken_quotes += kind == "q"
                frame.unclear += kind is None
                frame.unreadable.append(str(error))
                _keep_sample(frame, element)
        return frame

    def _sort(self, kind: str, element: msgspec.Raw, frame: Frame) -> None:
        if kind == "q":
            try:
                frame.quotes.append(self._quote(element))
            except _UNREADABLE:
                self._read_by_field(element, frame)
        elif kind == "error":
            frame.controls.append(self._error(element))
        elif kind in self._control:
            frame.controls.append(self._control[kind](element))
        else:
            name, types = kind[:16], self._types_counted
            if name not in types and len(types) < MAX_MESSAGE_TYPES_COUNTED:
                types.add(name)
            frame.unknown[name if name in types else "other"] += 1

    def _error(self, element: msgspec.Raw) -> Control:
        """A refusal is one however badly it is spelt: passed over, what it answers would be waited for."""
        try:
            return self._control["error"](element)
        except _UNREADABLE:
            return Error()

    def _read_by_field(self, element: msgspec.Raw, frame: Frame) -> None:
        """A quote that is not well formed: what of it is good, or why it is refused."""
        _keep_sample(frame, element)
        fields = self._fields(element)
        symbol: str | None = None
        try:
            symbol = self._read(fields.S, BAD_SYMBOL, "S", _read_symbol)
            prices = [
                self._read(raw, BAD_PRICE, name, read_price)
                for name, raw in (("bp", fields.bp), ("ap", fields.ap))
            ]
            _must_have_time(fields)
        except _Refusal as refusal:
            frame.refused.append(Refused(symbol, refusal.reason, refusal.words, len(frame.quotes)))
            return
        sides = {
            name: self._side(name, getattr(fields, _ATTRIBUTES.get(name, name)), frame) for name in READ_SIDE
        }
        quote = QuoteMessage(
            symbol or "",
            fields.t,
            prices[0],
            sides["bs"],
            sides["bx"],
            prices[1],
            sides["as"],
            sides["ax"],
            sides["c"],
            sides["z"],
        )
        frame.quotes.append(quote)

    def _read(self, raw: msgspec.Raw, reason: str, name: str, read: Callable[[object], Any]) -> Any:
        try:
            return read(self._decoded(raw))
        except OddValue as odd:
            raise _Refusal(reason, f"{name} {odd}") from None

    def _side(self, name: str, raw: msgspec.Raw, frame: Frame) -> Any:
        try:
            return READ_SIDE[name](self._decoded(raw))
        except OddValue as odd:
            frame.odd_fields[name, odd.oddity] += 1
            return None

    def _decoded(self, raw: msgspec.Raw) -> object:
        if raw is _ABSENT:
            return None
        if len(memoryview(raw)) > MAX_FIELD_BYTES:
            raise OddValue(OUT_OF_RANGE, f"takes more than {MAX_FIELD_BYTES} bytes")
        try:
            return self._value(raw)
        except _UNREADABLE:
            raise OddValue(WRONG_TYPE, "cannot be read") from None


_ATTRIBUTES: Final = {"as": "as_"}


class _Refusal(Exception):
    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        self.words = words


def _must_have_time(fields: _Fields) -> None:
    # Which time it is, is for the stamper to say: it may be spelt in more ways than a value can be decoded.
    if fields.t is _ABSENT:
        raise _Refusal(BAD_TIME, "there is no time")


def _read_symbol(value: object) -> str:
    if not isinstance(value, str):
        raise OddValue(WRONG_TYPE, "is not text")
    if len(value) > MAX_NAME_LENGTH:
        raise OddValue(OUT_OF_RANGE, f"has more than {MAX_NAME_LENGTH} characters")
    return value


def _keep_sample(frame: Frame, element: msgspec.Raw) -> None:
    frame.sample = frame.sample or bytes(memoryview(element)[:SAMPLE_BYTES])

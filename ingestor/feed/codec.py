"""Frames to messages.

Decides which elements of a frame are readable, and never lets an unreadable one take its neighbours along. Must
never know the state of the conversation. Two gears: a frame of nothing but well-formed quotes, which is nearly
every frame there is, is decoded by one call into typed structs; anything else goes element by element.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias

import msgspec

from ingestor.feed.messages import Action, Control, Encoding, Error, QuoteMessage, Subscription, Success

MAX_MESSAGE_TYPES_COUNTED: Final = 32
"""A hostile peer could invent types without end; the ones beyond are counted under one name."""
MAX_ELEMENTS: Final = 250_000
"""A frame of more is refused before it is read: elements of one byte would cost a hundred times their size."""
SAMPLE_BYTES: Final = 64

_Quotes: TypeAlias = Annotated[list[QuoteMessage], msgspec.Meta(max_length=MAX_ELEMENTS)]
_Elements: TypeAlias = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ELEMENTS)]


@dataclass(slots=True)
class Frame:
    """What one frame held. `unknown` counts messages of types we do not subscribe to, by their `T`;
    `unreadable` holds one reason per element that could not be read, `sample` how the first of them begins."""

    quotes: list[QuoteMessage] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    sample: bytes = b""


class _Kind(msgspec.Struct):
    T: str


class _Numbers(msgspec.Struct, rename={"as_": "as"}):
    """What must be a number in a quote, before a lax decoder would read one out of a string."""

    bp: float | None = None
    bs: float | None = None
    ap: float | None = None
    as_: float | None = None


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
        # Lax, because 300.0 shares are still 300 shares; the fast gear leaves such elements to this one. Lax would
        # also read "300", so the numbers are looked at first.
        self._numbers = wire.Decoder(_Numbers).decode
        self._quote = wire.Decoder(QuoteMessage, strict=False).decode
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
            frame.sample = payload[:SAMPLE_BYTES]
            return frame
        for element in elements:
            try:
                self._sort(element, frame)
            except _UNREADABLE as error:
                frame.unreadable.append(str(error))
                frame.sample = frame.sample or bytes(element)[:SAMPLE_BYTES]
        return frame

    def _sort(self, element: msgspec.Raw, frame: Frame) -> None:
        kind = self._kind(element).T
        if kind == "q":
            self._numbers(element)
            frame.quotes.append(self._quote(element))
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

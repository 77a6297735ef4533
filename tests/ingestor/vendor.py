"""What the vendor says, spelt by an encoder that is not ours, and a whole conversation as text to compare."""

import json
from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec

from ingestor.feed.codec import FrameCodec
from ingestor.feed.events import (
    Change,
    ChangeExpired,
    ChangeRefused,
    ErrorReported,
    FeedEvent,
    Oddities,
    QuotesReceived,
    Ready,
    SessionEnded,
    SetConfirmed,
    SlotTaken,
)
from ingestor.feed.messages import QuoteMessage, time_as_msgpack
from ingestor.feed.session import Credentials, FeedSession

T0_NS = 1_763_000_004_123_825_050
CREDENTIALS = Credentials("PK-THE-KEY", "the-very-secret")


def packed(*elements: Any) -> bytes:
    """One msgpack frame, written by the reference implementation of the format."""
    return bytes(msgpack.packb(list(elements)))


def quote(symbol: str = "AAPL", time_ns: int = T0_NS, **fields: Any) -> dict[str, Any]:
    """A quote as the vendor's encoder would be given it."""
    usual = {"bx": "V", "bp": 187.12, "bs": 300, "ax": "N", "ap": 187.13, "as": 200, "c": ["R"], "z": "C"}
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return {"T": "q", "S": symbol, **usual, "t": msgpack.Timestamp(seconds, ns), **fields}


def message(symbol: str = "AAPL", time_ns: int = T0_NS, **fields: Any) -> QuoteMessage:
    """A quote as it stands behind the codec."""
    return QuoteMessage(symbol, msgspec.Raw(time_as_msgpack(time_ns)), **fields)


def success(msg: str) -> bytes:
    """The greeting, or the end of authentication."""
    return packed({"T": "success", "msg": msg})


def error(code: int, msg: str = "whatever") -> bytes:
    """A refusal, in wording that nobody may rely upon."""
    return packed({"T": "error", "code": code, "msg": msg})


def ack(*symbols: str) -> bytes:
    """The vendor's whole set."""
    return packed({"T": "subscription", "trades": [], "quotes": list(symbols), "bars": []})


class Conversation:
    """A session and its transcript: what the vendor says (`<`), what we say (`>`), what we report (`!`)."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self.session = FeedSession(CREDENTIALS, FrameCodec(), now_s)
        self.lines: list[str] = []

    def hear(self, *frames: bytes) -> "Conversation":
        """The vendor says this."""
        for frame in frames:
            said = msgpack.unpackb(frame, timestamp=3)
            self.lines += [f"< {_vendors(element)}" for element in said]
            self._note(self.session.receive(frame, self.now_s))
        return self

    def ask(self, change: Change) -> "Conversation":
        """We want this."""
        self.session.ask(change, self.now_s)
        self._note([])
        return self

    def wait(self, seconds: float) -> "Conversation":
        """Nothing is said for so long; the session is woken when it asked to be."""
        until_s = self.now_s + seconds
        while self.session.wake_at_s is not None and self.session.wake_at_s <= until_s:
            self.now_s = self.session.wake_at_s
            self.lines.append(f"~ {self.now_s:g} s")
            self._note(self.session.woken(self.now_s))
        self.now_s = until_s
        return self

    def ready(self) -> "Conversation":
        """The usual beginning, left out of the transcript."""
        self.hear(success("connected"), success("authenticated"))
        self.lines.clear()
        return self

    @property
    def transcript(self) -> str:
        """All that was said, one line each."""
        return "\n".join(self.lines)

    def _note(self, events: Sequence[FeedEvent]) -> None:
        # Reports first: what we say next may be an answer to what the vendor just said.
        self.lines += [f"! {_ours(event)}" for event in events]
        for frame in self.session.to_send():
            self.lines.append(f"> {json.dumps(msgpack.unpackb(frame))}")


def said(*lines: str) -> str:
    """A transcript to compare with."""
    return "\n".join(lines)


def _vendors(element: Any) -> str:
    match element:
        case {"T": "success", "msg": msg}:
            return str(msg)
        case {"T": "error", "code": code}:
            return f"error {code}"
        case {"T": "subscription", **rest}:
            symbols: Any = rest.get("quotes") or ["-"]
            return "ack " + " ".join(symbols)
        case {"T": "q", "S": symbol}:
            return f"quote {symbol}"
    return str(element)


def _ours(event: FeedEvent) -> str:
    match event:
        case Ready():
            return "ready"
        case SlotTaken(code, pause_s):
            return f"slot taken {code.number}, again in {pause_s:g} s"
        case QuotesReceived(quotes):
            return "quotes " + " ".join(quote.S for quote in quotes)
        case SetConfirmed(symbols, change):
            return f"confirmed {' '.join(sorted(symbols)) or '-'}, {_asked(change)}"
        case ChangeRefused(change, code):
            return f"refused {code.number} {code.remedy.value}, {_asked(change)}"
        case ChangeExpired(change):
            return f"expired, {_asked(change)}"
        case ErrorReported(code):
            return f"reported {code.number}"
        case Oddities(unknown, unreadable):
            return f"oddities {unknown} and {len(unreadable)} unreadable"
        case SessionEnded(remedy, reason, code):
            return f"ended {remedy.value}: {reason}" + (f" ({code.number})" if code else "")


def _asked(change: Change | None) -> str:
    if change is None:
        return "unasked"
    symbols = " ".join(change.subscribe or change.unsubscribe)
    return f"asked to {'add' if change.subscribe else 'remove'} {symbols}"

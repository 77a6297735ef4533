"""The conversation with Alpaca on one socket: greeting, authentication, then one change of the set at a time.

Decides what a frame means in the state it meets, what to answer, and when silence has lasted too long. Must
never know sockets, tasks or the clock: frames and `now_s` come in as arguments, events and frames to send
come out. Which symbols are wanted is not its business either; it carries one change and reports what became of it.

Rules of this file: every legal message of every state stands in `TRANSITIONS`, what is missing there ends the
session; and every change of state goes through `_enter`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from ingestor.feed.codec import FrameCodec
from ingestor.feed.codes import Code, Remedy, code_of
from ingestor.feed.messages import (
    AUTHENTICATED,
    GREETING,
    Authenticate,
    Control,
    Error,
    QuoteMessage,
    Subscribe,
    Subscription,
    Success,
    Unsubscribe,
)

GREETING_TIMEOUT_S: Final = 5.0
AUTHENTICATION_TIMEOUT_S: Final = 10.0
"""The vendor's own limit; ours need not be shorter."""
CHANGE_TIMEOUT_S: Final = 3.0
"""An acknowledgement carries no request id, so a late one must not be waited for longer than this."""
MAX_CHANGE_SYMBOLS: Final = 500
"""Larger requests have been answered with part of the symbols delivered, so none is sent."""


class State(Enum):
    """Where the conversation stands."""

    GREETING = "greeting"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    ENDED = "ended"


class Said(Enum):
    """What the vendor can say, apart from errors, whose meaning is their code's."""

    CONNECTED = "connected"
    AUTHENTICATED = "authenticated"
    ACKNOWLEDGEMENT = "acknowledgement"
    QUOTES = "quotes"


TRANSITIONS: Final[dict[tuple[State, Said], State]] = {
    (State.GREETING, Said.CONNECTED): State.AUTHENTICATING,
    (State.AUTHENTICATING, Said.AUTHENTICATED): State.READY,
    (State.READY, Said.ACKNOWLEDGEMENT): State.READY,
    (State.READY, Said.QUOTES): State.READY,
    # Said twice, a success changes nothing.
    (State.AUTHENTICATING, Said.CONNECTED): State.AUTHENTICATING,
    (State.READY, Said.CONNECTED): State.READY,
    (State.READY, Said.AUTHENTICATED): State.READY,
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens the feed; neither half is ever shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)


class CredentialsUnavailable(Exception):
    """The credentials cannot be read just now; the message says why, and never what they are."""


@dataclass(frozen=True, slots=True)
class Change:
    """One request: symbols to add or symbols to take away, at most `MAX_CHANGE_SYMBOLS`."""

    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.subscribe) == bool(self.unsubscribe):
            raise ValueError("a change either adds symbols or takes some away")
        if max(len(self.subscribe), len(self.unsubscribe)) > MAX_CHANGE_SYMBOLS:
            raise ValueError(f"a change has at most {MAX_CHANGE_SYMBOLS} symbols")


@dataclass(frozen=True, slots=True)
class Ready:
    """Authenticated: changes may be asked for, and quotes will come."""


@dataclass(frozen=True, slots=True)
class QuotesReceived:
    """Market data, in the order of arrival."""

    quotes: list[QuoteMessage]


@dataclass(frozen=True, slots=True)
class SetConfirmed:
    """The vendor's whole set, and the change that this answers, if one was under way."""

    symbols: frozenset[str]
    change: Change | None


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    """The change was refused whole; the vendor's set is as it was."""

    change: Change
    code: Code


@dataclass(frozen=True, slots=True)
class ChangeExpired:
    """No answer within the deadline: what the vendor did is unknown."""

    change: Change


@dataclass(frozen=True, slots=True)
class ErrorReported:
    """An error that concerns no change and does not end the session."""

    code: Code


@dataclass(frozen=True, slots=True)
class Oddities:
    """Elements that were passed over: types we do not know, and elements that could not be read."""

    unknown: dict[str, int]
    unreadable: tuple[str, ...]
    sample: bytes = b""
    """How the first unreadable element begins."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The conversation is over; `code` is the vendor's, where it gave one, `kind` another name for metrics."""

    remedy: Remedy
    reason: str
    code: Code | None = None
    kind: str | None = None


FeedEvent: TypeAlias = (
    Ready
    | QuotesReceived
    | SetConfirmed
    | ChangeRefused
    | ChangeExpired
    | ErrorReported
    | Oddities
    | SessionEnded
)


class FeedSession:
    """One socket's conversation.

    After each call, send what `to_send` returns and see to it that `woken` is called at `wake_at_s`.
    """

    def __init__(self, credentials: Credentials, codec: FrameCodec, now_s: float) -> None:
        self._credentials = credentials
        self._codec = codec
        self._outgoing: list[bytes] = []
        self._deadline_s: float | None = now_s + GREETING_TIMEOUT_S
        self.state = State.GREETING
        self.confirmed: frozenset[str] = frozenset()
        self.pending: Change | None = None

    def __repr__(self) -> str:
        pending = ", change pending" if self.pending else ""
        return f"<FeedSession {self.state.name} {len(self.confirmed)} symbols{pending}>"

    @property
    def wake_at_s(self) -> float | None:
        """When `woken` is due, on the clock of `now_s`; None while nothing is waited for."""
        return self._deadline_s

    def to_send(self) -> list[bytes]:
        """The frames to send, oldest first; each is handed out once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def quotes_in(self, payload: bytes) -> list[QuoteMessage] | None:
        """The short way for nearly every frame there is: nothing but quotes, in a session that is ready. For any
        other frame None, and `receive` must get it."""
        return self._codec.quotes_in(payload) if self.state is State.READY else None

    def receive(self, payload: bytes, now_s: float) -> list[FeedEvent]:
        """What this frame means."""
        if self.state is State.ENDED:
            return []
        frame = self._codec.decode(payload)
        events: list[FeedEvent] = []
        if frame.quotes:
            events += self._on_quotes(frame.quotes)
        for control in frame.controls:
            events += self._on_control(control, now_s)
        if frame.unknown or frame.unreadable:
            events.append(Oddities(dict(frame.unknown), tuple(frame.unreadable), frame.sample))
        return events

    def ask(self, change: Change, now_s: float) -> None:
        """Send one change. `RuntimeError` unless the session is ready and no other change is under way."""
        if self.state is not State.READY or self.pending is not None:
            raise RuntimeError(f"no change can be asked for now: {self!r}")
        self.pending = change
        self._deadline_s = now_s + CHANGE_TIMEOUT_S
        if change.subscribe:
            self._outgoing.append(self._codec.encode(Subscribe(quotes=list(change.subscribe))))
        else:
            self._outgoing.append(self._codec.encode(Unsubscribe(quotes=list(change.unsubscribe))))

    def woken(self, now_s: float) -> list[FeedEvent]:
        """What the passing of time means."""
        if self._deadline_s is None or now_s < self._deadline_s:
            return []
        self._deadline_s = None
        if self.pending is not None:
            change, self.pending = self.pending, None
            return [ChangeExpired(change)]
        return [self._end(Remedy.RECONNECT, f"no answer while {self.state.value}")]

    def _on_quotes(self, quotes: list[QuoteMessage]) -> list[FeedEvent]:
        if self._enter(Said.QUOTES):
            return [QuotesReceived(quotes)]
        return [self._end(Remedy.RECONNECT, f"quotes while {self.state.value}")]

    def _on_control(self, control: Control, now_s: float) -> list[FeedEvent]:
        if self.state is State.ENDED:
            return []
        if isinstance(control, Error):
            return self._on_error(code_of(control.code))
        if isinstance(control, Subscription):
            return self._on_acknowledgement(frozenset(control.quotes or ()))
        return self._on_success(control, now_s)

    def _on_success(self, success: Success, now_s: float) -> list[FeedEvent]:
        said = {GREETING: Said.CONNECTED, AUTHENTICATED: Said.AUTHENTICATED}.get(success.msg)
        before = self.state
        if said is None or not self._enter(said):
            return [self._end(Remedy.RECONNECT, f"{success.msg[:40]!r} while {before.value}")]
        if self.state is before:
            return []
        if self.state is State.AUTHENTICATING:
            self._deadline_s = now_s + AUTHENTICATION_TIMEOUT_S
            credentials = Authenticate(self._credentials.key, self._credentials.secret)
            self._outgoing.append(self._codec.encode(credentials))
            return []
        self._deadline_s = None
        return [Ready()]

    def _on_acknowledgement(self, symbols: frozenset[str]) -> list[FeedEvent]:
        if not self._enter(Said.ACKNOWLEDGEMENT):
            return [self._end(Remedy.RECONNECT, f"acknowledgement while {self.state.value}")]
        change, self.pending = self.pending, None
        self._deadline_s = None
        self.confirmed = symbols
        return [SetConfirmed(symbols, change)]

    def _on_error(self, code: Code) -> list[FeedEvent]:
        if code.remedy is Remedy.IGNORE:
            return [ErrorReported(code)]
        if code.remedy in (Remedy.DIVIDE, Remedy.LIMIT) and self.state is State.READY:
            if self.pending is None:
                return [ErrorReported(code)]
            change, self.pending = self.pending, None
            self._deadline_s = None
            return [ChangeRefused(change, code)]
        remedy = Remedy.RECONNECT if code.remedy in (Remedy.DIVIDE, Remedy.LIMIT) else code.remedy
        return [self._end(remedy, code.meaning, code)]

    def _enter(self, said: Said) -> bool:
        target = TRANSITIONS.get((self.state, said))
        if target is None:
            return False
        self.state = target
        return True

    def _end(self, remedy: Remedy, reason: str, code: Code | None = None) -> SessionEnded:
        self.state = State.ENDED
        self._deadline_s = None
        self.pending = None
        self.confirmed = frozenset()
        return SessionEnded(remedy, reason, code)

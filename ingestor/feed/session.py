"""The conversation with Alpaca on one socket: greeting, authentication, then one change of the set at a time.

Decides what a frame means in the state it meets, what to answer, and when silence has lasted too long. Must
never know sockets, tasks or the clock: frames and `now_s` come in as arguments, events and frames to send
come out. Which symbols are wanted is not its business either; it carries one change and reports what became of it.

Rules of this file: what an error answers is decided before what it means. Where a word of the vendor leads
stands in `TRANSITIONS`; one that is missing there is an oddity, counted and passed over. Only an error that answers
nothing, and a silence that has lasted too long, end a session. What is not sent yet has no answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from ingestor.feed.codec import FrameCodec
from ingestor.feed.codes import Code, Remedy, code_of, is_about_symbols, shown, why_ended
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
from ingestor.feed.messages import (
    AUTHENTICATED,
    GREETING,
    Authenticate,
    Control,
    Encoding,
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
LATE_ANSWER_S: Final = 10.0
"""For so long an error may be the answer to a change that was given up."""
REPEATED_ANSWER_S: Final = 2.0
"""For so long the same refusal again, or a refusal beside an acknowledgement of a part, is no new one."""
LOGINS_PER_SOCKET: Final = 5
"""While the account's connection is taken: a socket that is waited on for good might be one that the vendor has
forgotten, and a new one each time would be refused for coming too often (HTTP 429)."""
JSON_BEGINS: Final = (b"[", b"{", b" ", b"\n", b"\r", b"\t")
"""No frame of msgpack begins so: there these are small numbers, or nothing that is sent."""
ALREADY_AUTHENTICATED: Final = 403


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
    # A gateway that holds the keys itself may leave out the greeting.
    (State.GREETING, Said.AUTHENTICATED): State.READY,
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


class FeedSession:
    """One socket's conversation.

    After each call, send what `to_send` returns and see to it that `woken` is called at `wake_at_s`. `slot_pause_s`
    is asked how long to wait before the next login when the account's connection is taken.
    """

    def __init__(
        self,
        credentials: Credentials,
        codec: FrameCodec,
        now_s: float,
        slot_pause_s: Callable[[], float] = lambda: 3.0,
    ) -> None:
        self._credentials = credentials
        self._codec = codec
        self._slot_pause_s = slot_pause_s
        self._outgoing: list[bytes] = []
        self._deadline_s: float | None = now_s + GREETING_TIMEOUT_S
        self._logins = 0
        self._odd = ""
        self._shrug: tuple[Code, str] | None = None
        self._repeated: Code | None = None
        self._answer_until_s = float("-inf")
        self.state = State.GREETING
        self.confirmed: frozenset[str] = frozenset()
        self.pending: Change | None = None
        self.waits_for_slot = False
        self.suspicion: tuple[Code, str] | None = None
        """The refusal of a change after which a vendor that hangs up has said why."""

    def __repr__(self) -> str:
        pending = ", change pending" if self.pending else ""
        return f"<FeedSession {self.state.name} {len(self.confirmed)} symbols{pending}>"

    @property
    def wake_at_s(self) -> float | None:
        """When `woken` is due, on the clock of `now_s`; None while nothing is waited for."""
        return self._deadline_s

    @property
    def encoding(self) -> Encoding:
        """In what the vendor is spoken to: as the handshake asked, unless it greeted in JSON."""
        return self._codec.encoding

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
        if self.state is State.GREETING and self.encoding != "json" and payload.startswith(JSON_BEGINS):
            # Whoever passes over what the handshake asked for would not understand msgpack either.
            self._codec = FrameCodec("json")
        frame = self._codec.decode(payload)
        events: list[FeedEvent] = []
        if count := len(frame.quotes) + len(frame.refused):
            received = QuotesReceived(frame.quotes, tuple(frame.refused))
            events.append(received if self._enter(Said.QUOTES) else Oddities({"q": count}, ()))
        for control in frame.controls:
            events += self._on_control(control, now_s)
        if frame.unknown or frame.unreadable or frame.odd_fields:
            odd = Oddities(dict(frame.unknown), frame.unreadable, frame.sample, frame.odd_fields)
            events.append(replace(odd, broken_quotes=frame.broken_quotes, unclear=frame.unclear))
        return events

    def ask(self, change: Change, now_s: float) -> None:
        """Send one change. `RuntimeError` unless the session is ready and no other change is under way."""
        if self.state is not State.READY or self.pending is not None:
            raise RuntimeError(f"no change can be asked for now: {self!r}")
        self.pending = change
        self._shrug = None
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
            self._answer_until_s = now_s + LATE_ANSWER_S
            change, self.pending = self.pending, None
            if self._shrug is not None:
                # What seemed to concern nobody was all the answer there is.
                return [ChangeRefused(change, *self._shrug)]
            return [ChangeExpired(change)]
        if self.waits_for_slot:
            self.waits_for_slot = False
            self._login(now_s)
            return []
        told = f"no answer while {self.state.value}" + (f"; it said {self._odd!r}" if self._odd else "")
        return [self._end(Remedy.RECONNECT, told)]

    def _on_control(self, control: Control, now_s: float) -> list[FeedEvent]:
        if self.state is State.ENDED:
            return []
        if isinstance(control, Error):
            return self._on_error(code_of(control.code), shown(control.msg), now_s)
        if isinstance(control, Subscription):
            return self._on_acknowledgement(frozenset(control.quotes or ()), now_s)
        return self._on_success(control, now_s)

    def _on_success(self, success: Success, now_s: float) -> list[FeedEvent]:
        said = {GREETING: Said.CONNECTED, AUTHENTICATED: Said.AUTHENTICATED}.get(success.msg)
        before = self.state
        if said is None or not self._enter(said):
            self._odd = self._odd or shown(success.msg)[:40]
            return [Oddities({"success": 1}, ())]
        if self.state is State.READY and before is not State.READY:
            return self._get_ready()
        if self.state is State.AUTHENTICATING and before is State.GREETING:
            self._login(now_s)
        return []

    def _login(self, now_s: float) -> None:
        self._logins += 1
        self._deadline_s = now_s + AUTHENTICATION_TIMEOUT_S
        credentials = Authenticate(self._credentials.key, self._credentials.secret)
        self._outgoing.append(self._codec.encode(credentials))

    def _get_ready(self) -> list[FeedEvent]:
        self._deadline_s = None
        self.waits_for_slot = False
        return [Ready(self.encoding)]

    def _on_acknowledgement(self, symbols: frozenset[str], now_s: float) -> list[FeedEvent]:
        if not self._enter(Said.ACKNOWLEDGEMENT):
            return [Oddities({"subscription": 1}, ())]
        change, self.pending = self.pending, None
        self._deadline_s = self.suspicion = self._repeated = None
        if change is not None and not symbols.issuperset(change.subscribe):
            self._answer_until_s = now_s + REPEATED_ANSWER_S
        self.confirmed = symbols
        return [SetConfirmed(symbols, change)]

    def _on_error(self, code: Code, words: str, now_s: float) -> list[FeedEvent]:
        if self.state is State.READY:
            return self._on_error_while_ready(code, words, now_s)
        if self.state is State.AUTHENTICATING and code.number == ALREADY_AUTHENTICATED:
            # As the answer to credentials it is good news: a gateway had sent its own.
            self.state = State.READY
            return [ErrorReported(code), *self._get_ready()]
        if code.remedy is Remedy.IGNORE:
            return [ErrorReported(code)]
        if code.remedy is Remedy.SLOT_TAKEN and not self._outgoing and 0 < self._logins < LOGINS_PER_SOCKET:
            self.waits_for_slot = True
            pause_s = self._slot_pause_s()
            self._deadline_s = now_s + pause_s
            return [SlotTaken(code, pause_s)]
        remedy = Remedy.RECONNECT if is_about_symbols(code) else code.remedy
        if self.waits_for_slot and remedy is Remedy.RECONNECT:
            remedy = Remedy.SLOT_TAKEN
        return [self._end(remedy, why_ended(code, words), code)]

    def _on_error_while_ready(self, code: Code, words: str, now_s: float) -> list[FeedEvent]:
        if code.remedy is Remedy.IGNORE:
            if self.pending is not None:
                self._shrug = (code, words)
            return [ErrorReported(code)]
        if self.pending is not None:
            change, self.pending = self.pending, None
            self._deadline_s = None
            self._repeated, self._answer_until_s = code, now_s + REPEATED_ANSWER_S
            if not is_about_symbols(code):
                self.suspicion = (code, words)
            return [ChangeRefused(change, code, words)]
        if is_about_symbols(code) or (now_s < self._answer_until_s and self._repeated in (None, code)):
            return [ErrorReported(code)]
        return [self._end(code.remedy, why_ended(code, words), code)]

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

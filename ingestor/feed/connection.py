"""Keeps one session with the vendor: connect, converse, and when it ends, wait and connect again.

Decides nothing about the conversation (that is `session`) or the waiting (`backoff`); it moves frames, reads the
clock, and reports. Must never know Redis. There is one socket at a time, and leaving closes it with a proper
handshake: a vendor that saw none keeps the account's slot occupied for about 90 s.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ingestor.feed.backoff import Backoff, Patience, VendorGivenUp
from ingestor.feed.codec import FrameCodec, Refused
from ingestor.feed.codes import CODES, Code, Remedy, why_ended
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
from ingestor.feed.messages import Encoding, QuoteMessage, time_ns_of
from ingestor.feed.session import Credentials, CredentialsUnavailable, FeedSession, State
from ingestor.feed.transport import CannotOpen, Closed, Socket, open_socket

TOO_MANY_REQUESTS_PAUSE_S: Final = 30.0
LOOK_AT_CREDENTIALS_EVERY_S: Final = 1.0
REJECTING_STATUSES: Final = frozenset({401, 403, 404})


class Desk(Protocol):
    """Who decides about subscriptions and wants to know how the feed fares."""

    def on_ready(self, encoding: Encoding) -> None:
        """A session is authenticated; its set is empty."""

    def on_slot_taken(self, taken: SlotTaken, attempt: int) -> None:
        """Somebody holds the account's connection; it is login number `attempt` since market data last flowed."""

    def on_confirmed(self, event: SetConfirmed) -> None:
        """The vendor's whole set."""

    def on_refused(self, event: ChangeRefused) -> None:
        """A change was refused whole."""

    def on_expired(self, event: ChangeExpired) -> None:
        """A change was not answered in time."""

    def on_ended(self, ended: SessionEnded, attempt: int, pause_s: float) -> None:
        """The session, or the attempt to have one, is over; the next is number `attempt` since market data last
        flowed, and begins in `pause_s`."""

    def next_change(self, now_s: float) -> Change | None:
        """The change to ask for now."""

    @property
    def must_end(self) -> SessionEnded | None:
        """Why this session is not worth keeping, or None."""


class TakeQuotes(Protocol):
    """Who takes in the quotes of a frame, received at this unix time in ns; `refused` ones have their places among
    them."""

    def __call__(
        self, received_ns: int, quotes: list[QuoteMessage], refused: Sequence[Refused] = (), /
    ) -> None:
        """Never waits."""


@dataclass(slots=True)
class FeedCounts:
    """What came from the vendor, cumulative since start; `quotes` has refused ones as well."""

    frames: int = 0
    bytes: int = 0
    quotes: int = 0
    connects: int = 0
    connect_failures: Counter[str] = field(default_factory=Counter)
    disconnects: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    broken_quotes: int = 0
    """Of the unreadable ones: those that said that they were quotes."""
    unclear: int = 0
    """Of the unreadable ones: those of which nobody can tell what they were."""
    odd_fields: Counter[tuple[str, str]] = field(default_factory=Counter)
    largest_frame_quotes: int = 0


class FeedConnection:
    """The feed as a task: `run` until cancelled."""

    def __init__(
        self,
        url: str,
        credentials: Callable[[], Credentials],
        on_quotes: TakeQuotes,
        desk: Desk,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._on_quotes = on_quotes
        self._desk = desk
        self._backoff = Backoff(random.Random(), patience)
        self._codec = FrameCodec("msgpack")
        self._socket: Socket | None = None
        self._session: FeedSession | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended: SessionEnded | None = None
        self._tried: Credentials | None = None
        self.counts = FeedCounts()
        self.connected_since_ns: int | None = None
        self._ready_since_s: float | None = None
        self.last_quote_ns: int | None = None
        self._last_quotes: list[QuoteMessage] = []
        self.on_oddity: Callable[[Oddities], None] = lambda _: None
        self.off_because: str | None = None
        self._may_connect = asyncio.Event()
        self._may_connect.set()

    def __repr__(self) -> str:
        return repr(self._session) if self._session is not None else "<FeedConnection waiting>"

    @property
    def is_ready(self) -> bool:
        """Whether a session is authenticated."""
        return self.connected_since_ns is not None

    @property
    def attempt(self) -> int:
        """Attempts to connect since market data last flowed."""
        return self._backoff.attempt

    def poke(self) -> None:
        """Look whether there is something to ask for; call it when what is desired has changed."""
        session = self._session
        if session is None or self._socket is None or session.state is State.ENDED:
            return
        now_s = asyncio.get_running_loop().time()
        if self._desk.must_end is not None:
            self._end(self._desk.must_end)
            return
        change = self._desk.next_change(now_s)
        if change is not None:
            session.ask(change, now_s)
        self._flush(session)

    @property
    def last_frame(self) -> tuple[int, int] | None:
        """When the last quotes were received, and the venue's time of the newest of them, in unix ns; None before
        the first, and for a time that cannot be read."""
        if self.last_quote_ns is None or not self._last_quotes:
            return None
        try:
            return self.last_quote_ns, time_ns_of(bytes(self._last_quotes[-1].t))
        except ValueError:
            return None

    def reconnect(self, kind: str, reason: str) -> bool:
        """Give this session up for another; `kind` is its label in the metrics. False when there is none."""
        if not self.is_ready:
            return False
        self._end(SessionEnded(Remedy.RECONNECT, reason, kind=kind))
        return True

    def stay_off(self, reason: str | None) -> None:
        """End the session in good order for this reason, and have no other until this is called with None."""
        self.off_because = reason
        if reason is None:
            self._may_connect.set()
        else:
            self._may_connect.clear()
            self._end(SessionEnded(Remedy.RECONNECT, reason, kind="gave_way"))

    async def run(self) -> None:
        """Connect, converse, wait, again; never returns. Cancelling it closes the socket in good order.

        Raises `VendorGivenUp` after as many attempts in vain as the settings allow.
        """
        while True:
            await self._may_connect.wait()
            ended, at_least_s = await self._have_a_session()
            delay_s = self._backoff.delay_s(ended.remedy, at_least_s)
            self._desk.on_ended(ended, self.attempt, delay_s)
            if self._backoff.is_exhausted():
                raise VendorGivenUp(f"after {self.attempt - 1} attempts more than the first: {ended.reason}")
            if ended.remedy is Remedy.REJECTED:
                await self._wait_for_other_credentials(delay_s)
            else:
                await asyncio.sleep(delay_s)

    async def _wait_for_other_credentials(self, at_most_s: float) -> None:
        """A human who has rotated the keys should not have to wait for a pause made for the old ones."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + at_most_s
        while (left_s := until_s - loop.time()) > 0:
            await asyncio.sleep(min(left_s, LOOK_AT_CREDENTIALS_EVERY_S))
            try:
                if self._credentials() != self._tried:
                    return
            except CredentialsUnavailable:
                continue

    async def _have_a_session(self) -> tuple[SessionEnded, float]:
        headers = {"Content-Type": "application/msgpack", "User-Agent": "quotebus"}
        now_s = asyncio.get_running_loop().time()
        self._ended = None
        try:
            # Read anew each time, so that a rotated key needs no restart.
            self._tried = None
            self._tried = self._credentials()
            self._session = FeedSession(self._tried, self._codec, now_s, self._slot_pause_s)
            self._socket = await open_socket(self._url, headers, self._on_message)
        except CredentialsUnavailable as failure:
            return SessionEnded(Remedy.REJECTED, str(failure)), 0.0
        except CannotOpen as failure:
            self._session = None
            self.counts.connect_failures[str(failure.status or "unreachable")] += 1
            return _verdict(failure), failure.retry_after_s or (
                TOO_MANY_REQUESTS_PAUSE_S if failure.status == 429 else 0.0
            )
        self.counts.connects += 1
        session = self._session
        try:
            self._catch_up(session)
            closed = await self._socket.wait_closed()
        finally:
            if self._ready_since_s is not None:
                self._backoff.was_ready(asyncio.get_running_loop().time() - self._ready_since_s)
            await self._leave()
        ended = self._verdict_on(closed, session)
        self.counts.disconnects[_label(ended, closed)] += 1
        return ended, 0.0

    def _catch_up(self, session: FeedSession) -> None:
        """The vendor may have spoken in the very segment that opened the websocket, before there was one here."""
        if self._ended is not None and self._socket is not None:
            self._socket.begin_close()
        self._flush(session)

    async def _leave(self) -> None:
        socket, self._socket, self._session = self._socket, None, None
        self.connected_since_ns = self._ready_since_s = None
        if self._timer is not None:
            self._timer.cancel()
        if socket is not None:
            await socket.close()

    def _on_message(self, payload: bytes) -> None:
        session = self._session
        if session is None:
            return
        counts = self.counts
        counts.frames += 1
        counts.bytes += len(payload)
        quotes = session.quotes_in(payload)
        if quotes:
            self._take(quotes)
            return
        events = session.receive(payload, asyncio.get_running_loop().time())
        for event in events:
            if type(event) is QuotesReceived:
                self._take(event.quotes, event.refused)
            else:
                self._handle(event)
        if any(type(event) is not Oddities for event in events):
            self.poke()
        else:
            # The answer to a greeting is no event, and must not wait for one.
            self._flush(session)

    def _take(self, quotes: list[QuoteMessage], refused: Sequence[Refused] = ()) -> None:
        counts = self.counts
        counts.quotes += len(quotes) + len(refused)
        if len(quotes) > counts.largest_frame_quotes:
            counts.largest_frame_quotes = len(quotes)
        self._backoff.data_flowed()
        self.last_quote_ns = received_ns = time.time_ns()
        self._last_quotes = quotes
        self._on_quotes(received_ns, quotes, refused)

    def _handle(self, event: FeedEvent) -> None:
        match event:
            case Ready(encoding):
                self.connected_since_ns = time.time_ns()
                self._ready_since_s = asyncio.get_running_loop().time()
                self._desk.on_ready(encoding)
            case SlotTaken():
                self._count(event.code)
                self._desk.on_slot_taken(event, self.attempt)
            case SetConfirmed():
                self._desk.on_confirmed(event)
            case ChangeRefused():
                self._count(event.code)
                self._desk.on_refused(event)
            case ChangeExpired():
                self._desk.on_expired(event)
            case ErrorReported():
                self._count(event.code)
            case Oddities():
                self.counts.unknown.update(event.unknown)
                self.counts.unreadable += len(event.unreadable)
                self.counts.broken_quotes += event.broken_quotes
                self.counts.unclear += event.unclear
                self.counts.odd_fields.update(event.odd_fields)
                self.on_oddity(event)
            case SessionEnded():
                if event.code is not None:
                    self._count(event.code)
                self._end(event)
            case QuotesReceived():
                self._take(event.quotes, event.refused)

    def _count(self, code: Code) -> None:
        # Only known numbers become labels: a peer that makes them up must not grow the metrics.
        self.counts.errors[str(code.number) if code.number in CODES else "unknown"] += 1

    def _end(self, ended: SessionEnded) -> None:
        """Say goodbye; `run` goes on when the socket is closed."""
        self._ended = self._ended or ended
        self.connected_since_ns = None
        if self._socket is not None:
            self._socket.begin_close()

    def _slot_pause_s(self) -> float:
        return self._backoff.delay_s(Remedy.SLOT_TAKEN)

    def _verdict_on(self, closed: Closed, session: FeedSession) -> SessionEnded:
        if self._ended is not None:
            return self._ended
        how = _how(closed)
        if session.waits_for_slot:
            return SessionEnded(Remedy.SLOT_TAKEN, f"the account's connection is taken; {how}")
        if session.suspicion is not None and not closed.half_open:
            code, words = session.suspicion
            return SessionEnded(code.remedy, f"{why_ended(code, words)}; {how}", code)
        return SessionEnded(Remedy.RECONNECT, how, kind="half_open" if closed.half_open else None)

    def _flush(self, session: FeedSession) -> None:
        if self._socket is not None:
            for message in session.to_send():
                self._socket.send(message, is_text=session.encoding == "json")
        self._arm(session)

    def _arm(self, session: FeedSession) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if session.wake_at_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(session.wake_at_s, self._on_timer, session)

    def _on_timer(self, session: FeedSession) -> None:
        if session is not self._session:
            return
        for event in session.woken(asyncio.get_running_loop().time()):
            self._handle(event)
        self.poke()


def _label(ended: SessionEnded, closed: Closed) -> str:
    """What a metric may call this end: numbers that a peer made up must not become labels."""
    if ended.kind is not None:
        return ended.kind
    if ended.code is not None:
        return str(ended.code.number) if ended.code.number in CODES else "unknown"
    if closed.code is None:
        return "lost"
    return str(closed.code) if 1000 <= closed.code <= 1015 else "unknown"


def _verdict(failure: CannotOpen) -> SessionEnded:
    remedy = Remedy.REJECTED if failure.status in REJECTING_STATUSES else Remedy.RECONNECT
    return SessionEnded(remedy, str(failure))


def _how(closed: Closed) -> str:
    if closed.code is None:
        return closed.reason
    verb = "given up" if closed.by_us else "closed by the vendor"
    return f"{verb} with {closed.code}" + (f" {closed.reason}" if closed.reason else "")

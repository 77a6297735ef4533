"""A vendor of any temper and the brains that meet it, on a clock that is made up: hours pass in milliseconds.

Decides how session, book and back-off are wired, as the feed's connection does it, and counts what the vendor sees.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from ingestor.feed.backoff import Backoff
from ingestor.feed.codec import FrameCodec
from ingestor.feed.codes import Remedy
from ingestor.feed.events import ChangeExpired, ChangeRefused, FeedEvent, Ready, SessionEnded, SetConfirmed
from ingestor.feed.session import FeedSession
from ingestor.subscriptions.book import SubscriptionBook
from ingestor.subscriptions.desired import Desired
from ingestor.subscriptions.states import SymbolStatus
from tests.ingestor.vendor import CREDENTIALS, ack, error, success
from wire import Symbol

LOOK_EVERY_S = 1.5
Answer = int | str | None
"""An error code, `silence`, `hang up`, or None for an acknowledgement."""


@dataclass
class Rehearsal:
    """`answer` says what becomes of a request to add these symbols. The vendor's set is `subscribed`."""

    answer: Callable[[frozenset[str]], Answer]
    words: str = "no such thing"
    now_s: float = 0.0
    subscribed: set[str] = field(default_factory=set)
    requests_at_s: list[float] = field(default_factory=list)
    connections_at_s: list[float] = field(default_factory=list)
    ends: list[SessionEnded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = SubscriptionBook()
        self._backoff = Backoff(random.Random(1))
        self._session: FeedSession | None = None
        self._next_s = 0.0

    def want(self, *symbols: str) -> None:
        """The set as it is desired from now on."""
        self.book.desire(Desired(tuple(Symbol(symbol) for symbol in symbols)))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until_s = self.now_s + seconds
        while True:
            self._step()
            due_s = self.now_s + LOOK_EVERY_S
            if self._session is None:
                due_s = self._next_s
            elif self._session.wake_at_s is not None:
                due_s = min(due_s, self._session.wake_at_s)
            if due_s > until_s:
                self.now_s = until_s
                return
            self.now_s = max(due_s, self.now_s)

    def say(self, frame: bytes) -> None:
        """The vendor says this, out of the blue."""
        assert self._session is not None
        self._take(self._session.receive(frame, self.now_s))

    @property
    def live(self) -> list[str]:
        """The live ones, in order."""
        return [s for s, status in self.statuses.items() if status.state.value == "live"]

    @property
    def statuses(self) -> dict[str, SymbolStatus]:
        """What operators read."""
        return self.book.statuses(self.now_s)

    def most_in_a_minute(self, times_s: list[float]) -> int:
        """How many of these fell within one minute at most."""
        return max((sum(at_s <= t < at_s + 60 for t in times_s) for at_s in times_s), default=0)

    def _step(self) -> None:
        if self._session is None:
            if self.now_s < self._next_s:
                return
            self.connections_at_s.append(self.now_s)
            self.subscribed.clear()
            self._session = FeedSession(CREDENTIALS, FrameCodec(), self.now_s)
            self.say(success("connected"))
            self.say(success("authenticated"))
        if self._session is not None:
            self._take(self._session.woken(self.now_s))
        while self._session is not None:
            if self.book.must_end is not None:
                self._end(self.book.must_end)
                return
            change = self.book.next_change(self.now_s)
            if change is None:
                break
            self._session.ask(change, self.now_s)
            for frame in self._session.to_send():
                self._hear(msgpack.unpackb(frame))

    def _hear(self, request: dict[str, Any]) -> None:
        if request["action"] == "auth":
            return
        self.requests_at_s.append(self.now_s)
        symbols = frozenset(request["quotes"])
        if request["action"] == "unsubscribe":
            self.subscribed -= symbols
            self.say(ack(*self.subscribed))
            return
        answer = self.answer(symbols)
        if isinstance(answer, int):
            self.say(error(answer, self.words))
        elif answer == "hang up":
            self._end(SessionEnded(Remedy.RECONNECT, "closed by the vendor"))
        elif answer is None:
            self.subscribed |= symbols
            self.say(ack(*self.subscribed))

    def _take(self, events: list[FeedEvent]) -> None:
        for event in events:
            match event:
                case Ready():
                    self.book.connected()
                case SetConfirmed(symbols, change):
                    self.book.confirm(symbols, change, self.now_s)
                case ChangeRefused(change, code, words):
                    self.book.refuse(change, code, self.now_s, words)
                case ChangeExpired(change):
                    self.book.expire(change, self.now_s)
                case SessionEnded():
                    self._end(event)

    def _end(self, ended: SessionEnded) -> None:
        self.ends.append(ended)
        self.book.disconnected()
        self._session = None
        self._next_s = self.now_s + self._backoff.delay_s(ended.remedy)

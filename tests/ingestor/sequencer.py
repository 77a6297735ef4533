"""The publisher's brains in their real order, on a real server, without the loop: every step is asked for.

What was sent arrives when the test says so, what was answered is heard when the test says so, and between any two
steps the connection may go. So a test can put every fault between every two steps.
"""

from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import hiredis
from redis import Redis, ResponseError

from ingestor.feed.messages import QuoteMessage
from ingestor.journal import Journal
from ingestor.publisher.backlog import Backlog
from ingestor.publisher.batch import Batch
from ingestor.publisher.calls import Calls, kind_of
from ingestor.publisher.claims import Claimed, claim
from ingestor.publisher.displaced import Displaced
from ingestor.publisher.intake import Hole, Intake
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.restamping import Restamper
from ingestor.publisher.stamper import Stamper
from ingestor.publisher.verdicts import Verdicts
from ingestor.redis_link import LinkFailure, RedisLink
from tests.ingestor.vendor import T0_NS
from tests.ingestor.writer import APPEND, KEYS
from wire import ZERO_ID

T = TypeVar("T")
FAR_NS = 10**18


class Direct:
    """A connection on which every call is answered at once, by the real server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def call(self, *parts: str | bytes | int) -> Any:
        """One command; an error reply is a value, as on the real connection."""
        try:
            return self._redis.execute_command(*parts)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            return hiredis.ReplyError(str(error))


def finish(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that never has to wait returns."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waits for something")


class Sequencer:
    """One daemon's publisher. `at_once` bounds a batch in quotes."""

    def __init__(
        self,
        redis: Redis,
        *symbols: str,
        memory_bytes: int = 10**9,
        replay_s: float = 1e9,
        replay_bytes: int = 10**9,
        at_once: int = 8,
        token: str = "me",
    ) -> None:
        self.redis = redis
        self.at_once = at_once
        self.calls = Calls(KEYS, token, 0)
        self.stamper = Stamper()
        for symbol in symbols:
            self.stamper.load(symbol, ZERO_ID, None)
        self.restamper = Restamper(self.stamper)
        self.intake = Intake()
        self.backlog = Backlog(memory_bytes)
        self.outbox = Outbox(3, replay_s=replay_s, replay_bytes=replay_bytes)
        self.displaced = Displaced()
        self.counts = PublishCounts()
        self.journal = Journal()
        self.verdicts = Verdicts(KEYS, self.stamper, self.displaced, self.outbox, self.counts, self.journal)
        self.is_connected = False
        self.now_s = 0.0
        self.on_the_wire: deque[Batch] = deque()
        self.answers: deque[Any] = deque()

    @property
    def held(self) -> int:
        """Quotes that have no account yet."""
        return self.intake.depth + self.backlog.quotes + self.outbox.quotes + self.displaced.quotes

    @property
    def settled(self) -> int:
        """Quotes that have found their account."""
        counts, stamped = self.counts, self.stamper.counts
        rejected = sum(counts.rejected.values()) + sum(stamped.rejected.values())
        return counts.stored + counts.already_stored + counts.dropped_total + rejected

    def receive(self, *quotes: QuoteMessage) -> None:
        """One frame."""
        self.counts.received += len(quotes)
        self.intake.put(T0_NS, list(quotes))

    def note_hole(self, *symbols: str) -> None:
        """From here on quotes of these symbols may be missing."""
        self.intake.put_hole(T0_NS, Hole(frozenset(symbols), "feed_disconnected"))

    def connect(self, link: Any = None) -> Claimed | None:
        """A new connection and its claim; None where the server refuses it."""
        try:
            return finish(self.claim(link or Direct(self.redis)))
        except LinkFailure:
            return None

    async def claim(self, link: Any) -> Claimed:
        """Take or confirm the position."""
        claimed = await claim(
            cast("RedisLink", link), self.calls, self.outbox, self.stamper, "me", self.now_s
        )
        for batch, notes in claimed.settled:
            self.judge(batch, notes)
        self.counts.replayed += claimed.replayed_quotes
        self.counts.lost_by_redis += claimed.lost_quotes
        self.is_connected = True
        return claimed

    def judge(self, batch: Batch, notes: list[Any]) -> None:
        """What the server said of an applied batch."""
        if notes:
            self.verdicts.on_noted(batch, notes)
        else:
            self.verdicts.on_stored(batch)

    def cut(self) -> None:
        """The connection is gone, with all that was on it."""
        self.on_the_wire.clear()
        self.answers.clear()
        self.outbox.lost()
        self.is_connected = False

    def pump(self) -> None:
        """Pack what fills a batch, give up what does not fit, and send what can be sent."""
        while self.intake.depth >= self.at_once:
            if (packed := self._stamped()) is not None:
                self.backlog.put(packed)
        self.counts.drop("queue_full", sum(self.backlog.shed(self.stamper.epoch).values()))
        while self.is_connected:
            batch = self.outbox.next()
            if batch is not None:
                self.on_the_wire.append(batch)
            elif self.displaced and self.outbox.is_empty:
                for symbol, payloads, last, received_ns in self.displaced.take():
                    self.outbox.add(self.restamper.restamp(symbol, payloads, last, received_ns))
            elif self.outbox.room and not self.displaced and (fresh := self._fresh()) is not None:
                self.outbox.add(fresh)
            else:
                break

    def arrive(self) -> None:
        """The server reads the next batch, and answers."""
        batch = self.on_the_wire.popleft()
        keys = [KEYS.writer, KEYS.latest, *map(KEYS.stream, batch.symbols)]
        position = (self.stamper.epoch or 0, batch.number, 0, self.calls.token)
        append = Direct(self.redis).call("EVAL", APPEND, len(keys), *keys, *position, batch.blob)
        self.answers.append(finish(append))

    def hear(self) -> None:
        """The next answer is heard."""
        reply = self.answers.popleft()
        status = "error" if isinstance(reply, hiredis.ReplyError) else reply[0].decode()
        assert status != "fenced"
        if status == "applied":
            self.judge(self.outbox.stored(self.now_s), reply[3:])
        elif status == "seen":
            self.judge(self.outbox.stored(self.now_s), reply[1:])
        else:
            is_consequence = self.outbox.is_stopped
            self.outbox.refused()
            self.counts.refuse(kind_of(str(reply)) if status == "error" else "BEHIND")
            if status == "behind" and not is_consequence:
                self.cut()

    def settle_all(self) -> None:
        """Until nothing is on its way any more; the server must be willing."""
        for _ in range(10_000):
            if not self.is_connected:
                assert self.connect() is not None, "the server refuses the claim"
            if self.outbox.is_refused_whole:
                self.outbox.go_on()
            self.pump()
            while self.on_the_wire:
                self.arrive()
            while self.answers:
                self.hear()
            if self.held + self.outbox.replaying == 0 and self.outbox.is_empty and not self.backlog:
                return
        raise AssertionError(f"never done: {self.outbox!r} {self.backlog!r}")

    def _fresh(self) -> Batch | None:
        if (waiting := self.backlog.take()) is not None:
            return self.restamper.follow(waiting)
        self.restamper.nothing_waits()
        while self.intake.depth:
            if (batch := self._stamped()) is not None:
                return batch
        return None

    def _stamped(self) -> Batch | None:
        return self.stamper.stamp(self.intake.take(self.at_once), T0_NS + FAR_NS)

"""From received quotes to stored entries: the shell around intake, stamper, backlog and outbox.

Decides when to stamp the next batch and when a silent server is given up. Must never know how ids are made,
what a quote means, or where quotes come from. Batches adapt by themselves: what is queued when there is room
goes out as one call, so a quiet feed waits for nothing and a burst goes in large batches. While nothing is
answered, quotes are stamped as soon as they fill a batch, and wait packed. All work happens in callbacks of the
event loop; the only task here keeps a connection open.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import hiredis

from ingestor.feed.codec import Refused
from ingestor.feed.messages import QuoteMessage
from ingestor.journal import Journal
from ingestor.publisher.backlog import Backlog
from ingestor.publisher.batch import Batch
from ingestor.publisher.calls import PROBE, Calls, kind_of
from ingestor.publisher.claims import Fenced, claim
from ingestor.publisher.displaced import Displaced
from ingestor.publisher.holdings import Holdings
from ingestor.publisher.intake import Hole, Intake
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.pauses import pause_s
from ingestor.publisher.restamping import Restamper
from ingestor.publisher.spooling import Spooling
from ingestor.publisher.stamper import Stamper
from ingestor.publisher.verdicts import Verdicts
from ingestor.redis_link import LinkFailure, RedisAddress, RedisLink, Reply
from ingestor.spool.spool import Spool
from wire import Keyspace

MAX_BATCH_QUOTES: Final = 1024
"""A call of this size keeps the server busy for about 2 ms; larger ones would delay everybody else."""
MAX_UNPACKED_QUOTES: Final = 65_536
"""While batches are answered, stamping waits for room: done ahead, it would let the server idle."""
UNPACKED_BYTES: Final = 512
"""About what a quote takes up before it is packed; all of them no more than what may wait packed."""
STAMPS_AT_ONCE: Final = 8
WINDOW: Final = 3
PROBE_EVERY_S: Final = 1.0
HOLDING: Final = frozenset({"applied", "seen", "OOM", "MISCONF", "BUSY"})
"""Answers that say that nobody else has taken over, or could: so refused, another can not even announce itself."""


class Publisher:
    """Owns the connection that writes. `receive` may be called at any time, connected or not."""

    def __init__(
        self,
        address: RedisAddress,
        keys: Keyspace,
        journal: Journal,
        *,
        stream_maxlen: int,
        memory_bytes: int,
        replay_s: float,
        replay_bytes: int,
        spool: Spool | None,
    ) -> None:
        self._address = address
        self._keys = keys
        self._journal = journal
        self._instance = ""
        self._calls = Calls(keys, secrets.token_hex(8), stream_maxlen)
        self._attempt = 0
        self._intake = Intake()
        self._backlog = Backlog(memory_bytes)
        self._outbox = Outbox(WINDOW, replay_s=replay_s, replay_bytes=replay_bytes)
        self._displaced = Displaced()
        self._link: RedisLink | None = None
        self._script_known = False
        self._scheduled = False
        self._packed_at = 0
        self._sent: deque[tuple[float, bool]] = deque()
        self._last_sent_s = 0.0
        self._pause_attempt = 0
        self.away_reason: str | None = "not connected yet"
        """Why quotes cannot be written now, or None while they can."""
        self._fenced: Fenced | None = None
        self.held_s = 0.0
        self._is_saving = False
        self._claiming = asyncio.Lock()
        self.memory_bytes = memory_bytes
        self._most_unpacked = max(MAX_BATCH_QUOTES, min(MAX_UNPACKED_QUOTES, memory_bytes // UNPACKED_BYTES))
        self.stamper = Stamper()
        self.counts = PublishCounts()
        self.ready = asyncio.Event()
        self.cache_is_suspect = asyncio.Event()
        self._restamper = Restamper(self.stamper)
        self.spooling = Spooling(spool, self._backlog, self._outbox, self.stamper, self.counts, journal)
        self.spooling.prepare = self._restamper.follow
        self.spooling.stamp_rest = self._stamp_rest
        self.spooling.on_ahead = self._pump
        self.spooling.oldest_fresh_ns = lambda: self._intake.oldest_received_ns
        self.holdings = Holdings(self._intake, self._backlog, self.spooling, self._outbox, self._displaced)
        self.verdicts = Verdicts(keys, self.stamper, self._displaced, self._outbox, self.counts, journal)

    def __repr__(self) -> str:
        return (
            f"<Publisher {self.away_reason or 'connected'}, {self._intake.depth} queued, "
            f"{self._backlog!r}, {self._outbox!r}>"
        )

    def position(self) -> tuple[int, str]:
        """Epoch and token that this writer holds."""
        return self.stamper.epoch or 0, self._calls.token

    def receive(
        self, received_ns: int, quotes: list[QuoteMessage], refused: Sequence[Refused] = (), /
    ) -> None:
        """Take in quotes of one frame, `refused` ones among them; never waits."""
        self.counts.received += len(quotes) + len(refused)
        if refused:
            self.counts.reject_all(refused)
            self._intake.put_around(received_ns, quotes, refused, self.stamper.knows)
        else:
            self._intake.put(received_ns, quotes)
        if not self._scheduled:
            # Not at once: the frames that this loop iteration still reads belong into the same call.
            self._schedule()

    def note_hole(self, symbols: AbstractSet[str], reason: str) -> None:
        """From now on quotes of these symbols may be missing: each stream gets a marker before its next quote."""
        if symbols:
            self._intake.put_hole(time.time_ns(), Hole(frozenset(symbols), reason))

    async def run(self, instance: str) -> None:
        """Keep a connection, and send again what was not answered.

        Raises `Fenced` when another daemon has taken over.
        """
        self._instance = instance
        while not self._is_saving:
            try:
                link = await self._address.open("quotebus-publisher")
                await self._claim_within_time(link)
            except (LinkFailure, TimeoutError) as failure:
                self._note_away(str(failure) or f"{self._address!r} does not answer")
                await self._pause()
                continue
            self._adopt(link)
            try:
                reason = await self._watch(link)
            finally:
                link.abort("stopped")
                self._link = None
                self._sent.clear()
                self._outbox.lost()
            self.counts.reconnects += 1
            self._note_away(reason)
            await self._pause()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything received is stored; False if that took too long, or can never be."""
        deadline_s = time.monotonic() + timeout_s
        while not self.holdings.is_empty:
            if self._fenced is not None or time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.005)
        return True

    async def save(self, timeout_s: float) -> bool:
        """Put everything that is not stored into the spool; False if there is none, or it took too long. The last
        call: nothing is sent any more."""
        self._is_saving = True
        if self._link is not None:
            self._link.abort("saving")
            self._link = None
        # A claim that is under way may still move batches about; what begins later sees that it is too late.
        async with self._claiming:
            self._outbox.lost()
        self._restamp()
        await self._stamp_rest()
        return await self.spooling.save(timeout_s)

    async def _claim_within_time(self, link: RedisLink) -> None:
        try:
            async with self._claiming, asyncio.timeout(self._address.timeout_s):
                if not self._is_saving:
                    await self._claim(link)
        except BaseException:
            link.abort("not claimed")
            raise

    async def _pause(self) -> None:
        """Longer each time, until a batch is applied: a server that lets us in and refuses every batch is not
        worth more haste than one that is gone."""
        self._attempt += 1
        await asyncio.sleep(pause_s(self._attempt))

    async def _claim(self, link: RedisLink) -> None:
        now_s = time.monotonic()
        self._calls.bus = self.spooling.bus
        claimed = await claim(link, self._calls, self._outbox, self.stamper, self._instance, now_s)
        self.held_s = now_s
        for batch, notes in claimed.settled:
            self._on_stored(batch, notes)
        if claimed.unbelievable is not None:
            self._journal.note(
                "position_changed", "error", claimed=claimed.unbelievable, sent=self._outbox.sent
            )
        if claimed.forgot:
            self.counts.replayed += claimed.replayed_quotes
            self.counts.lost_by_redis += claimed.lost_quotes
            self.cache_is_suspect.set()
            level = "error" if claimed.lost_batches else "warning"
            self._journal.note("redis_forgot", level, **claimed.figures)

    def _adopt(self, link: RedisLink) -> None:
        if self._is_saving:
            link.abort("saving")
            return
        self._link = link
        self._script_known = False
        self._pause_attempt = 0
        link.on_reply = self._on_reply
        if self.away_reason is not None:
            self._journal.note("redis_connected", server=repr(self._address), epoch=self.stamper.epoch)
        self.away_reason = None
        if self._attempt:
            self._address.renew()
        self.ready.set()
        self._pump()

    async def _watch(self, link: RedisLink) -> str:
        """Until the connection ends, or the server owes an answer for too long."""
        while True:
            await asyncio.wait((link.closed,), timeout=0.25)
            if self._fenced is not None:
                raise self._fenced
            if link.closed.done():
                return link.closed.result()
            now_s = time.monotonic()
            late_s = now_s - self._sent[0][0] if self._sent else 0.0
            if late_s > self._address.timeout_s:
                return f"no answer for {late_s:.1f} s"
            self._outbox.forget(now_s)
            if not self._sent and now_s - self._last_sent_s > PROBE_EVERY_S:
                # A server that was emptied, or another writer, is noticed on a quiet night as well.
                self._hand_over(link, PROBE, is_probe=True)

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        # The server must not wait while this process packs what cannot be sent yet.
        self._scheduled = self._intake.depth >= self._most_waiting
        self._send_what_can_be_sent()
        self._pack_ahead()
        self._send_what_can_be_sent()

    @property
    def _most_waiting(self) -> int:
        """How many quotes may wait as they came."""
        return MAX_BATCH_QUOTES if self._outbox.is_stopped else self._most_unpacked

    def _pack_ahead(self) -> None:
        """Pack what would take up too much memory as it came; others have their turn in between."""
        came, self._packed_at = self.counts.received - self._packed_at, self.counts.received
        # While calls are answered, little more than what comes: their answers wait for this.
        wanted = STAMPS_AT_ONCE if self._outbox.is_stopped else came // MAX_BATCH_QUOTES + 1
        stamps = min(STAMPS_AT_ONCE, wanted)
        while self._intake.depth >= self._most_waiting and stamps:
            self._stamp_into_backlog()
            stamps -= 1
        if self._backlog.is_filling:
            self.spooling.poke()
        if lost := self._backlog.shed(self.stamper.epoch):
            self._on_dropped(lost)
        self._scheduled = False
        if self._intake.depth >= self._most_waiting:
            self._schedule()

    def _send_what_can_be_sent(self) -> None:
        link = self._link
        # What a giant frame drives out belongs into one marker, so not before the last of it is packed.
        if link is None or (self._scheduled and self._backlog.begins_with_markers):
            return
        outbox = self._outbox
        while True:
            batch = outbox.next()
            if batch is not None:
                self._send(link, batch)
            elif self._displaced and outbox.is_empty:
                # Only now is it known what else was refused: stamped any earlier, they would lose their order.
                self._restamp()
            elif self.holdings.may_leave and (fresh := self._next_batch()) is not None:
                outbox.add(fresh)
            else:
                return

    def _restamp(self) -> None:
        for lot in self._displaced.take():
            self._outbox.add(self._restamper.restamp(*lot))

    def _next_batch(self) -> Batch | None:
        """What waits longest: on disk, packed in memory, or as it came."""
        waiting = self.spooling.take() if self.spooling.holds_back else self._backlog.take()
        if waiting is not None:
            return self._restamper.follow(waiting)
        if self.spooling.holds_back:
            return None
        self._restamper.nothing_waits()
        while self._intake:
            batch = self.stamper.stamp(self._intake.take(MAX_BATCH_QUOTES), time.time_ns())
            if batch is not None:
                return batch
        return None

    def _stamp_into_backlog(self) -> None:
        batch = self.stamper.stamp(self._intake.take(MAX_BATCH_QUOTES), time.time_ns())
        if batch is not None:
            self._backlog.put(batch)

    async def _stamp_rest(self) -> None:
        """All that was received is packed; others have their turn in between."""
        while self._intake.depth:
            self._stamp_into_backlog()
            await asyncio.sleep(0)

    def _send(self, link: RedisLink, batch: Batch) -> None:
        self.counts.batches += 1
        self.counts.batches_resent += batch.sent_before
        self._hand_over(link, batch)

    def _hand_over(self, link: RedisLink, batch: Batch, *, is_probe: bool = False) -> None:
        link.send(self._calls.append(batch, self.stamper.epoch or 0, script_known=self._script_known))
        self._script_known = True
        self._last_sent_s = time.monotonic()
        self._sent.append((self._last_sent_s, is_probe))

    def _on_reply(self, reply: Reply) -> None:
        assert self._link is not None
        if not self._sent:
            self._link.abort(f"unasked: {reply}")
            return
        sent_at_s, is_probe = self._sent.popleft()
        status = kind_of(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply[0].decode()
        if status in HOLDING:
            self.held_s = sent_at_s
        if status == "fenced":
            self._fenced = Fenced(f"epoch {reply[1]} has taken over namespace {self._keys.namespace!r}")
            self._link.abort("fenced")
        elif is_probe:
            if status == "behind":
                self._link.abort("the server has forgotten our position")
            elif status == "NOSCRIPT":
                self._script_known = False
        elif status == "applied":
            self._on_applied(reply, sent_at_s)
        elif status == "seen" and self._outbox.is_first_attempt:
            # Somebody has written into the server's count; a claim finds out, and puts it right.
            self._link.abort("the server claims to have applied a batch that was never sent")
            return
        elif status == "seen":
            self._on_stored(self._outbox.stored(time.monotonic()), reply[1:])
        else:
            self._on_refusal(str(reply) if isinstance(reply, hiredis.ReplyError) else "BEHIND")
        self._pump()

    def _on_applied(self, reply: Reply, sent_at_s: float) -> None:
        now_s = time.monotonic()
        batch = self._outbox.stored(now_s)
        self._pause_attempt = self._attempt = 0
        self.away_reason = None
        self._on_stored(batch, reply[3:])
        if reply[2]:
            self.counts.cache_errors += reply[2]
            self.cache_is_suspect.set()
            self._journal.note_rarely("cache_not_written", self._keys.latest, errors=reply[2])
        self.counts.append_s.observe(now_s - sent_at_s)
        if batch.quotes and not batch.accounted:
            self.counts.latency_s.observe((time.time_ns() - batch.first_received_ns) / 1e9)
        self.counts.batch_entries.observe(batch.entries)

    def _on_stored(self, batch: Batch, notes: Reply = None) -> None:
        if notes:
            self.verdicts.on_noted(batch, notes)
        else:
            self.verdicts.on_stored(batch)
        if batch.position is not None:
            self.spooling.settle(batch.position)

    def _on_refusal(self, message: str) -> None:
        """A whole batch was refused, with nothing done."""
        assert self._link is not None
        is_consequence = self._outbox.is_stopped
        self._outbox.refused()
        kind = kind_of(message)
        self.counts.refuse(kind)
        if kind == "NOSCRIPT":
            self._script_known = False
        elif kind == "READONLY" or (kind == "BEHIND" and not is_consequence):
            # A replica, or a server that lost our position: only a new connection and claim can tell.
            self._link.abort(message[:200])
            return
        if kind not in ("NOSCRIPT", "BEHIND"):
            self._journal.note_rarely("redis_refuses", kind, "error", message=message[:200])
            self.away_reason = message[:200]
        if kind != "BEHIND":
            self._pause_attempt += 1
        if self._outbox.is_refused_whole:
            wait_s = 0.0 if kind == "NOSCRIPT" else pause_s(self._pause_attempt)
            asyncio.get_running_loop().call_later(wait_s, self._go_on, self._link)

    def _go_on(self, link: RedisLink) -> None:
        if self._link is link and self._outbox.is_refused_whole:
            self._outbox.go_on()
            self._pump()

    def _on_dropped(self, lost: dict[str, int]) -> None:
        quotes = sum(lost.values())
        self.counts.drop("queue_full", quotes)
        worst = max(lost, key=lambda symbol: lost[symbol])
        self._journal.note_rarely(
            "quotes_dropped", "queue_full", "error", quotes=quotes, symbols=len(lost), worst=worst
        )

    def _note_away(self, reason: str) -> None:
        if self.away_reason is None:
            self._journal.note("redis_away", "error", server=repr(self._address), reason=reason)
        elif self.away_reason != reason:
            self._journal.note_rarely("redis_away", reason, "error", server=repr(self._address))
        self.away_reason = reason
        self._address.doubt()
        self.ready.clear()

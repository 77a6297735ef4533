"""From received quotes to stored entries: the shell around intake, stamper and outbox.

Decides when to stamp the next batch and when a silent server is given up. Must never know how ids are made, what
a quote means, or where quotes come from. Batches adapt by themselves: what is queued when there is room goes out
as one call, so a quiet feed waits for nothing and a burst goes in large batches. All work happens in callbacks of
the event loop; the only task here keeps a connection open.
"""

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import Set as AbstractSet
from typing import Final

import hiredis
import msgspec

from ingestor.feed.messages import QuoteMessage
from ingestor.journal import Journal
from ingestor.publisher.calls import Calls, kind_of
from ingestor.publisher.displaced import Displaced
from ingestor.publisher.intake import Hole, Intake, Received
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.stamper import Batch, Stamper
from ingestor.redis_link import LinkFailure, RedisAddress, RedisLink, Reply
from wire import Keyspace

MAX_BATCH_QUOTES: Final = 1024
"""A call of this size keeps the server busy for about 2 ms; larger ones would delay everybody else."""
WINDOW: Final = 3
REPLY_TIMEOUT_S: Final = 2.0
REFUSAL_PAUSE_S: Final = (0.05, 1.0)
CONNECT_PAUSE_S: Final = (0.05, 1.0)


class Fenced(Exception):
    """A newer daemon writes this namespace; this one must not write any more."""


class Publisher:
    """Owns the connection that writes. `receive` may be called at any time, connected or not."""

    def __init__(
        self,
        address: RedisAddress,
        keys: Keyspace,
        journal: Journal,
        *,
        stream_maxlen: int,
        queue_quotes: int,
    ) -> None:
        self._address = address
        self._keys = keys
        self._journal = journal
        self._instance = ""
        self._calls = Calls(keys, secrets.token_hex(8), stream_maxlen)
        self._attempt = 0
        self._intake = Intake(queue_quotes)
        self.queue_limit = queue_quotes
        self._outbox = Outbox(WINDOW)
        self._displaced = Displaced()
        self._link: RedisLink | None = None
        self._script_known = False
        self._scheduled = False
        self._sent_at_s: deque[float] = deque()
        self._pause_attempt = 0
        self._away_reason: str | None = "not connected yet"
        self.stamper = Stamper()
        self.counts = PublishCounts()
        self.ready = asyncio.Event()
        self._fenced: Fenced | None = None

    def __repr__(self) -> str:
        return (
            f"<Publisher {self._away_reason or 'connected'}, {self._intake.depth} queued, {self._outbox!r}>"
        )

    @property
    def away_reason(self) -> str | None:
        """Why quotes cannot be written now, or None while they can."""
        return self._away_reason

    @property
    def was_connected(self) -> bool:
        """Whether this process ever could write."""
        return self.stamper.epoch is not None

    @property
    def queued(self) -> int:
        """Quotes received that are in no batch yet."""
        return self._intake.depth

    @property
    def unanswered(self) -> int:
        """Quotes in batches that are not known to be stored."""
        return self._outbox.quotes + self._displaced.quotes

    @property
    def oldest_unstored_ns(self) -> int | None:
        """When the oldest quote that is not known to be stored was received."""
        held = [
            t for t in (self._outbox.oldest_received_ns, self._intake.oldest_received_ns) if t is not None
        ]
        return min(held, default=None)

    def receive(self, received_ns: int, quotes: list[QuoteMessage]) -> None:
        """Take in quotes of one frame; never waits."""
        self.counts.received += len(quotes)
        gone = self._intake.put(received_ns, quotes)
        if gone:
            self._mark_dropped(gone)
        if not self._scheduled and self._link is not None:
            self._scheduled = True
            # Not at once: the frames that this loop iteration still reads belong into the same call.
            asyncio.get_running_loop().call_soon(self._pump)

    def note_hole(self, symbols: AbstractSet[str], reason: str) -> None:
        """From now on quotes of these symbols may be missing: each stream gets a marker before its next quote."""
        if symbols:
            self._intake.put_hole(time.time_ns(), Hole(frozenset(symbols), reason))

    async def run(self, instance: str) -> None:
        """Keep a connection, and send again what was not answered.

        Raises `Fenced` when another daemon has taken over.
        """
        self._instance = instance
        while True:
            try:
                link = await self._address.open("quotebus-publisher")
                try:
                    async with asyncio.timeout(REPLY_TIMEOUT_S):
                        await self._claim(link)
                except BaseException:
                    link.abort("not claimed")
                    raise
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
                self._sent_at_s.clear()
                self._outbox.lost()
            self.counts.reconnects += 1
            self._note_away(reason)
            await self._pause()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything received is stored; False if that took too long."""
        deadline_s = time.monotonic() + timeout_s
        while self._intake.depth or not self._outbox.is_empty or self._displaced:
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.005)
        return True

    async def _pause(self) -> None:
        """Longer each time, until a batch is applied: a server that lets us in and refuses every batch is not
        worth more haste than one that is gone."""
        self._attempt += 1
        await asyncio.sleep(_pause_s(CONNECT_PAUSE_S, self._attempt))

    async def _claim(self, link: RedisLink) -> None:
        asked = self.stamper.epoch or 0
        reply = await link.call(*self._calls.claim(asked, self._outbox.answered, self._instance))
        if isinstance(reply, hiredis.ReplyError):
            raise LinkFailure(str(reply))
        status, epoch, applied = reply
        if status == b"fenced":
            raise Fenced(
                f"epoch {epoch} writes namespace {self._keys.namespace!r}, this daemon holds {asked}"
            )
        self.stamper.epoch = epoch
        lost = self._outbox.answered - applied
        if asked and lost > 0:
            self._journal.note("redis_lost_batches", "error", batches=lost)
        for batch in self._outbox.resume(applied):
            self._account_stored(batch.quotes, batch.markers)

    def _adopt(self, link: RedisLink) -> None:
        self._link = link
        self._script_known = False
        self._pause_attempt = 0
        link.on_reply = self._on_reply
        if self._away_reason is not None:
            self._journal.note("redis_connected", server=repr(self._address), epoch=self.stamper.epoch)
        self._away_reason = None
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
            late_s = time.monotonic() - self._sent_at_s[0] if self._sent_at_s else 0.0
            if late_s > REPLY_TIMEOUT_S:
                return f"no answer for {late_s:.1f} s"

    def _pump(self) -> None:
        self._scheduled = False
        link, outbox, intake = self._link, self._outbox, self._intake
        if link is None:
            return
        while True:
            batch = outbox.next()
            if batch is not None:
                self._send(link, batch)
            elif self._displaced and outbox.is_empty:
                # Only now is it known what else was refused: stamped any earlier, they would lose their order.
                for symbol, payloads, last, received_ns in self._displaced.take():
                    outbox.add(self.stamper.restamp(symbol, payloads, last, received_ns))
            elif outbox.has_room and intake.depth and not self._displaced:
                batch = self.stamper.stamp(intake.take(MAX_BATCH_QUOTES), time.time_ns())
                if batch is not None:
                    outbox.add(batch)
            else:
                return

    def _send(self, link: RedisLink, batch: Batch) -> None:
        command = self._calls.append(batch, self.stamper.epoch or 0, script_known=self._script_known)
        self._script_known = True
        self._sent_at_s.append(time.monotonic())
        self.counts.batches += 1
        if batch.sent_before:
            self.counts.batches_resent += 1
        link.send(command)

    def _on_reply(self, reply: Reply) -> None:
        if not self._sent_at_s:
            assert self._link is not None
            self._link.abort(f"unasked: {reply}")
            return
        sent_at_s = self._sent_at_s.popleft()
        if isinstance(reply, hiredis.ReplyError):
            self._on_refusal(str(reply))
        elif reply[0] == b"applied":
            self.counts.append_s.observe(time.monotonic() - sent_at_s)
            self._on_applied(reply)
        elif reply[0] == b"seen":
            batch = self._outbox.stored()
            self._account_stored(batch.quotes, batch.markers)
        elif reply[0] == b"fenced":
            self._on_fenced(reply[1])
            return
        else:
            self._on_refusal("BEHIND")
        self._pump()

    def _on_applied(self, reply: Reply) -> None:
        batch = self._outbox.stored()
        self._pause_attempt = self._attempt = 0
        self._away_reason = None
        refused = len(reply) > 3 and self._on_refused_entries(batch, reply[3:])
        if not refused:
            self._account_stored(batch.quotes, batch.markers)
        if reply[2]:
            self.counts.cache_errors += reply[2]
            self._journal.note_rarely("cache_not_written", self._keys.latest, errors=reply[2])
        self.counts.latency_s.observe((time.time_ns() - batch.first_received_ns) / 1e9)
        self.counts.batch_entries.observe(batch.entries)

    def _account_stored(self, quotes: int, markers: int) -> None:
        self.counts.stored += quotes
        self.counts.markers_stored += markers

    def _on_fenced(self, epoch: int) -> None:
        assert self._link is not None
        self._outbox.refused()
        self._fenced = Fenced(f"epoch {epoch} has taken over namespace {self._keys.namespace!r}")
        self._link.abort("fenced")

    def _on_refused_entries(self, batch: Batch, refused: list[Reply]) -> bool:
        """Single entries that the server would not take, in a batch that was applied otherwise."""
        quotes_left, markers_left = batch.quotes, batch.markers
        for i in range(0, len(refused), 4):
            row_number, entry, why_raw, last_id = refused[i : i + 4]
            row = batch.rows[row_number - 1]
            symbol, payload = str(row[0]), str(row[2 * entry + 1])
            why = why_raw.decode("utf-8", "replace")
            is_quote = payload.startswith("[")
            quotes_left -= is_quote
            markers_left -= not is_quote
            if why == "too_small" and batch.sent_before:
                self.counts.already_stored += is_quote
            elif why == "too_small":
                self._displaced.add(symbol, payload, last_id, batch.first_received_ns)
                # A first attempt cannot be too small unless somebody else wrote this stream.
                self._journal.note_rarely(
                    "foreign_entries",
                    symbol,
                    "error",
                    last_id=last_id.decode(),
                    stream=self._keys.stream(symbol),
                )
            else:
                self._reject(symbol, why, payload)
        self._account_stored(quotes_left, markers_left)
        return True

    def _reject(self, symbol: str, why: str, payload: str) -> None:
        known = {"wrong_type": "wrong_type", "exhausted": "stream_exhausted"}
        reason = known.get(why, "refused_by_redis")
        body = msgspec.json.decode(payload)
        if isinstance(body, list):
            self.counts.reject(reason)
            self.stamper.open_gap_behind(symbol, body[8], "refused_by_redis")
        else:
            self.stamper.open_gap_behind(symbol, body["from"], body["reason"])
        self._journal.note_rarely(
            "stream_refuses", symbol, "error", reason=why[:200], stream=self._keys.stream(symbol)
        )

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
            self._away_reason = message[:200]
        if kind != "BEHIND":
            self._pause_attempt += 1
        if self._outbox.is_refused_whole:
            pause_s = 0.0 if kind == "NOSCRIPT" else _pause_s(REFUSAL_PAUSE_S, self._pause_attempt)
            asyncio.get_running_loop().call_later(pause_s, self._go_on, self._link)

    def _go_on(self, link: RedisLink) -> None:
        if self._link is link and self._outbox.is_refused_whole:
            self._outbox.go_on()
            self._pump()

    def _mark_dropped(self, gone: list[Received]) -> None:
        dropped = 0
        for received_ns, quotes in gone:
            if isinstance(quotes, Hole):
                symbols, reason = quotes.symbols, quotes.reason
            else:
                symbols, reason = frozenset(quote.S for quote in quotes), "queue_full"
                dropped += len(quotes)
            for symbol in symbols:
                self.stamper.open_gap(symbol, received_ns, reason)
        self.counts.dropped += dropped
        self._journal.note_rarely("quotes_dropped", "queue_full", "error", quotes=dropped)

    def _note_away(self, reason: str) -> None:
        if self._away_reason is None:
            self._journal.note("redis_away", "error", server=repr(self._address), reason=reason)
        elif self._away_reason != reason:
            self._journal.note_rarely("redis_away", reason, "error", server=repr(self._address))
        self._away_reason = reason
        self.ready.clear()


def _pause_s(bounds: tuple[float, float], attempt: int) -> float:
    first_s, cap_s = bounds
    return min(cap_s, first_s * 2.0 ** min(attempt - 1, 20)) * random.uniform(0.5, 1.0)

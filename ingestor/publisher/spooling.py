"""Between memory and disk: the shell around the spool.

Decides when quotes go to disk, and when they come back. Must never know the format of a file, nor what a batch
means. All file operations run in one thread of their own, one after the other, so a slow disk holds up nobody
but itself. The rule of order: what is in the outbox came before what is on disk, which came before what is in
the backlog. So while the disk holds anything that was not read back, or anything is being written, nothing goes
around it.

From the moment it begins, the disk has a copy of all that is not stored, also of what is on its way just then: a
daemon that is killed in a long outage loses what it received in the last moments, and no more.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from ingestor.journal import Journal
from ingestor.publisher.backlog import Backlog
from ingestor.publisher.batch import Batch, Losses, StreamEnd, ends_of, from_record, later, to_record
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.stamper import Stamper
from ingestor.spool.folder import SpoolUnusable
from ingestor.spool.records import Damage, Item, Record
from ingestor.spool.spool import Opened, Spool

T = TypeVar("T")

ACTIVE_PERIOD_S: Final = 0.05
IDLE_PERIOD_S: Final = 0.25
SPOOL_AFTER_S: Final = 2.0
"""When nothing was answered for so long, all that waits goes to disk, however little memory it takes: a daemon
that is killed loses no more."""
WRITE_BYTES: Final = 4 * 1024 * 1024
AHEAD_BYTES: Final = 4 * 1024 * 1024
SYNC_EVERY_S: Final = 1.0
RETRY_AFTER_S: Final = 5.0
CLOSE_S: Final = 2.0


def digest(records: Sequence[Record]) -> Item:
    """What is left on disk of records that had to go: the markers of their quotes."""
    losses = Losses("spool_full", None)
    for record in records:
        # A body that is none of ours has nothing to tell; its quotes are counted by the record's head.
        with contextlib.suppress(msgspec.MsgspecError):
            losses.add(from_record(record.position, record.quotes, record.at_ns, record.body))
    return to_record(losses.seal())


class Spooling:
    """Moves batches between backlog, disk and outbox. Without a spool it does nothing, and holds nothing back."""

    def __init__(
        self,
        spool: Spool | None,
        backlog: Backlog,
        outbox: Outbox,
        stamper: Stamper,
        counts: PublishCounts,
        journal: Journal,
    ) -> None:
        self._spool = spool
        self._backlog = backlog
        self._outbox = outbox
        self._stamper = stamper
        self._counts = counts
        self._journal = journal
        self._ahead: deque[Batch] = deque()
        self._ahead_bytes = 0
        self._unread = 0
        self._is_writing = False
        self._moving = asyncio.Lock()
        self._poked = asyncio.Event()
        self._is_last = False
        self._settled: int | None = None
        self._unsynced = False
        self._next_sync_s = 0.0
        self._retry_at_s = 0.0
        self._answered = 0
        self._progress_s = 0.0
        self._recovered_upto = -1
        self._bytes = 0
        self._oldest_ns: int | None = None
        self._thread = ThreadPoolExecutor(1, "quotebus-spool") if spool is not None else None
        self.stamp_rest: Callable[[], None] = lambda: None
        self.on_ahead: Callable[[], None] = lambda: None
        self.oldest_fresh_ns: Callable[[], int | None] = lambda: None
        self.prepare: Callable[[Batch], Batch] = lambda batch: batch
        self.quotes = 0
        self.writing = 0
        self.problem: str | None = None

    @property
    def holds_back(self) -> bool:
        """Whether batches must come from here, and none may go around."""
        return bool(self._ahead or self._unread or self._is_writing)

    @property
    def ahead_quotes(self) -> int:
        """Quotes that were read back and are to be sent next."""
        return sum(batch.quotes for batch in self._ahead)

    @property
    def oldest_received_ns(self) -> int | None:
        """When the oldest quote that waits here was received."""
        if self._ahead:
            return self._ahead[0].first_received_ns
        return self._oldest_ns if self._unread else None

    @property
    def is_usable(self) -> bool:
        """Whether there is a spool, and its last operation went well."""
        return self._spool is not None and self.problem is None

    @property
    def max_bytes(self) -> int:
        """The spool's bound; 0 without one."""
        return self._spool.max_bytes if self._spool is not None else 0

    @property
    def bytes_on_disk(self) -> int:
        """What the spool's files take up."""
        return self._bytes

    def take(self) -> Batch | None:
        """The next batch that was read back; None while it is still to be read."""
        if not self._ahead:
            return None
        batch = self._ahead.popleft()
        self._ahead_bytes -= batch.size_bytes
        return batch

    def poke(self) -> None:
        """Memory fills: do not wait for the next round."""
        self._poked.set()

    def settle(self, position: int) -> None:
        """Everything up to this position is stored."""
        self._settled = position if self._settled is None else max(position, self._settled)

    async def open(self, *, is_optional: bool) -> None:
        """Open the spool, and learn what an earlier life left in it.

        Raises `SpoolUnusable`, unless the folder is only a default: then memory has to do, and that is told.
        """
        if self._spool is None:
            return
        try:
            opened, floors = await self._call(self._open)
        except SpoolUnusable as problem:
            if not is_optional:
                raise
            self._spool, self.problem = None, str(problem)
            self._journal.note("spool_unavailable", "warning", reason=str(problem))
            return
        self._look()
        self._counts.recovered += opened.quotes
        for symbol, end in floors.items():
            self._stamper.raise_floor(symbol, end)
        self._tell_damages(opened.damages)
        if opened.records:
            self._journal.note("spool_recovered", "warning", quotes=opened.quotes, bytes=opened.bytes)

    def _tell_damages(self, damages: Sequence[Damage]) -> None:
        for damage in damages:
            self._counts.spool_errors += 1
            self._journal.note(
                "spool_damaged", "error", file=damage.file, reason=damage.reason, quotes=damage.quotes_lost
            )

    async def run(self) -> None:
        """Keep moving; never returns. A disk that fails is told, and tried again a little later."""
        if self._spool is None:
            return
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACTIVE_PERIOD_S if self.holds_back else IDLE_PERIOD_S):
                    await self._poked.wait()
            self._poked.clear()
            await self._round()

    async def _round(self) -> None:
        async with self._moving:
            await self._try(self._step)
        # What was held back meanwhile may go now, also when the disk has failed.
        self.on_ahead()

    async def save(self, timeout_s: float) -> bool:
        """Write down all that is not stored, in order; True if nothing is left in memory. The last call: nothing
        is read back any more."""
        if self._spool is None:
            return False
        self._is_last = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._moving:
                self._retry_at_s = 0.0
                await self._try(self._write_all)
        return not (self._backlog or self.writing or self._without_copy())

    async def close(self) -> None:
        """Let go of the files."""
        if self._spool is None or self._thread is None:
            return
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                with contextlib.suppress(OSError):
                    await self._settle()
                await self._call(self._spool.close)
        self._thread.shutdown(wait=False)

    async def _try(self, step: Callable[[], Any]) -> bool:
        if time.monotonic() < self._retry_at_s:
            return False
        try:
            await step()
        except OSError as error:
            self._retry_at_s = time.monotonic() + RETRY_AFTER_S
            self.problem = f"{type(error).__name__}: {error}"
            self._counts.spool_errors += 1
            self._journal.note_rarely("spool_failed", type(error).__name__, "error", reason=self.problem)
            return False
        if self.problem is not None:
            self.problem = None
            self._journal.note("spool_works_again")
        return True

    async def _step(self) -> None:
        if self._is_time_to_write():
            await self._write(WRITE_BYTES)
        await self._settle()
        await self._shed()
        await self._read()
        await self._sync()
        damages = self._held.take_damages()
        self._counts.drop("spool_damaged", sum(damage.quotes_lost or 0 for damage in damages))
        self._tell_damages(damages)
        self._look()

    def _is_time_to_write(self) -> bool:
        if self._unread or self._backlog.is_filling:
            return True
        if self._ahead and self._outbox.is_stopped:
            # Read back in vain: what has come since is on disk no less than what came before.
            return True
        waits = bool(self._without_copy() or self._backlog) or self.oldest_fresh_ns() is not None
        now_s, answered = time.monotonic(), self._outbox.answered
        if not waits or answered != self._answered:
            # While batches are being answered it goes on, however long the queue; disk would only slow it down.
            self._answered, self._progress_s = answered, now_s
        return now_s - self._progress_s > SPOOL_AFTER_S

    async def _write_all(self) -> None:
        self.stamp_rest()
        while self._backlog or self._without_copy():
            await self._write(WRITE_BYTES)
        await self._call(self._held.sync)

    async def _write(self, most_bytes: int) -> None:
        self._is_writing = True
        try:
            await self._copy()
            await self._move(most_bytes)
        finally:
            self._is_writing = False

    async def _copy(self) -> None:
        """Give the disk a copy of all that is on its way, in the order in which it will be read after a restart."""
        if not self._without_copy():
            return
        batches = self._outbox.unsettled
        is_first_missing = not self._unread and not self._ahead
        without = [batch for batch in batches if batch.position is None]
        if is_first_missing and batches[-len(without) :] == without:
            written = without
            write: Callable[[list[Item]], list[int]] = partial(self._held.append, is_copy=True)
        else:
            # They go before others that are on disk already: sent again, or stamped anew.
            written = batches
            write = self._held.prepend
        positions = await self._call(write, [to_record(batch) for batch in written])
        for batch, position in zip(written, positions, strict=True):
            if batch.position is None:
                batch.position = position
        self._unsynced = True
        waiting = {id(batch) for batch in self._outbox.unsettled}
        for batch in written:
            # Stored while the disk was at it.
            if id(batch) not in waiting and batch.position is not None:
                self.settle(batch.position)

    async def _move(self, most_bytes: int) -> None:
        self.stamp_rest()
        batches = self._take(most_bytes)
        if not batches:
            return
        self.writing = sum(batch.quotes for batch in batches)
        try:
            await self._call(self._held.append, [to_record(batch) for batch in batches])
        except BaseException:
            lost = self._backlog.put_back(batches, self._stamper.epoch)
            self._counts.drop("queue_full", sum(lost.values()))
            raise
        finally:
            self.writing = 0
        self._unsynced = True
        self._look()

    def _look(self) -> None:
        """How things stand on disk, between two of its operations."""
        self._unread, self.quotes = self._held.unread_records, self._held.unread_quotes
        self._bytes, self._oldest_ns = self._held.bytes_used, self._held.oldest_at_ns

    def _without_copy(self) -> list[Batch]:
        """Batches on their way that the disk does not have."""
        return [batch for batch in self._outbox.unsettled if batch.position is None]

    def _take(self, most_bytes: int) -> list[Batch]:
        batches: list[Batch] = []
        taken_bytes = 0
        while taken_bytes < most_bytes and (batch := self._backlog.take()) is not None:
            batches.append(self.prepare(batch))
            taken_bytes += batch.size_bytes
        return batches

    async def _settle(self) -> None:
        position, self._settled = self._settled, None
        if position is not None:
            await self._call(self._held.settle, position)

    async def _shed(self) -> None:
        while (shed := await self._call(self._held.shed, time.time_ns())) is not None:
            self._counts.drop(shed.reason, shed.quotes)
            if shed.leftover is not None:
                self._mark(from_record(0, *shed.leftover))
            self._look()
            self._journal.note_rarely("quotes_dropped", shed.reason, "error", quotes=shed.quotes)

    def _mark(self, markers: Batch) -> None:
        """The disk would not even take these: they stand before the next quotes, which is late but in the
        stream."""
        for row in markers.rows():
            gap = msgspec.json.decode(str(row[3]))
            self._stamper.open_gap_behind(str(row[0]), gap["from"], gap["reason"])

    async def _read(self) -> None:
        if not self._unread or self._outbox.is_stopped or self._ahead_bytes > AHEAD_BYTES // 2:
            return
        for record in await self._call(self._held.read, AHEAD_BYTES):
            try:
                batch = from_record(record.position, record.quotes, record.at_ns, record.body)
            except msgspec.MsgspecError as error:
                self._counts.drop("spool_damaged", record.quotes)
                self._journal.note_rarely("spool_damaged", "record", "error", reason=str(error)[:200])
                continue
            batch.recovered = record.position <= self._recovered_upto
            self._ahead.append(batch)
            self._ahead_bytes += batch.size_bytes
        self._look()
        self.on_ahead()

    async def _sync(self) -> None:
        now_s = time.monotonic()
        if self._unsynced and now_s >= self._next_sync_s:
            self._next_sync_s = now_s + SYNC_EVERY_S
            self._unsynced = False
            await self._call(self._held.sync)

    @property
    def _held(self) -> Spool:
        assert self._spool is not None
        return self._spool

    def _open(self) -> tuple[Opened, dict[str, StreamEnd]]:
        opened = self._held.open()
        floors: dict[str, StreamEnd] = {}
        for record in self._held.recovered():
            with contextlib.suppress(msgspec.MsgspecError):
                batch = from_record(record.position, record.quotes, record.at_ns, record.body)
                for symbol, end in ends_of(batch).items():
                    floors[symbol] = later(floors.get(symbol), end)
            self._recovered_upto = record.position
        return opened, floors

    async def _call(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

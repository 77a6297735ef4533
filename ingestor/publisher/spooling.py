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
import errno
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from ingestor.journal import Journal
from ingestor.publisher.backlog import Backlog
from ingestor.publisher.batch import Batch, StreamEnd, ends_of, from_record, later, to_record
from ingestor.publisher.disk import Disk
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.stamper import Stamper
from ingestor.spool.folder import SpoolUnusable
from ingestor.spool.records import Damage, Item
from ingestor.spool.spool import Opened, Spool

T = TypeVar("T")

ACTIVE_PERIOD_S: Final = 0.05
IDLE_PERIOD_S: Final = 0.25
SPOOL_AFTER_S: Final = 2.0
"""When nothing was answered for so long, all that waits goes to disk, however little memory it takes: a daemon
that is killed loses no more."""
WRITE_BYTES: Final = 1024 * 1024
"""At most so much in one write: what fails may have to be given up, and that is gone through quote by quote."""
MOST_BATCHES: Final = 1024
AHEAD_BYTES: Final = 4 * 1024 * 1024
SYNC_EVERY_S: Final = 1.0
CLOSE_S: Final = 2.0
_TOO_LITTLE_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def _nothing() -> None:
    """What is called until somebody has something to do."""


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
        self._disk = None if spool is None else Disk(spool, counts, journal)
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
        self._most_batches = MOST_BATCHES
        self._has_moved = False
        self._answered = 0
        self._progress_s = 0.0
        self._recovered_upto = -1
        self._bytes = 0
        self._oldest_ns: int | None = None
        self.stamp_rest: Callable[[], Awaitable[None]] = _nothing
        self.on_ahead: Callable[[], None] = lambda: None
        self.oldest_fresh_ns: Callable[[], int | None] = lambda: None
        self.prepare: Callable[[Batch], Batch] = lambda batch: batch
        self.quotes = 0
        self.writing = 0
        self._unavailable: str | None = None

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
    def problem(self) -> str | None:
        """What is wrong with the disk now, or None; also None where no spool is wanted."""
        return self._unavailable if self._disk is None else self._disk.health.problem

    @property
    def is_usable(self) -> bool:
        """Whether there is a spool, and its last operation went well."""
        return self._disk is not None and self.problem is None

    @property
    def max_bytes(self) -> int:
        """The spool's bound; 0 without one."""
        return 0 if self._disk is None else self._disk.spool.max_bytes

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
        if self._disk is None:
            return
        try:
            opened, floors = await self._call(self._open)
        except SpoolUnusable as problem:
            if not is_optional:
                raise
            self._disk.let_go()
            self._disk, self._unavailable = None, str(problem)
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
        if self._disk is None:
            return
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACTIVE_PERIOD_S if self.holds_back else IDLE_PERIOD_S):
                    await self._poked.wait()
            self._poked.clear()
            if not await self._round():
                # Nothing could be moved. Whoever pokes again at once, since memory still fills, must not keep this
                # task and itself in turn for ever, with nobody else coming to theirs.
                await asyncio.sleep(ACTIVE_PERIOD_S)

    async def _round(self) -> bool:
        """One look at everything that may be due; whether the disk took or gave anything."""
        async with self._moving:
            self._has_moved = False
            await self._step()
        # What was held back meanwhile may go now, also when the disk has failed.
        self.on_ahead()
        return self._has_moved

    async def save(self, timeout_s: float) -> bool:
        """Write down all that is not stored, in order; True if nothing is left in memory. The last call: nothing
        is read back any more."""
        if self._disk is None:
            return False
        self._is_last = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._moving:
                self._disk.health.hurry()
                await self._disk.attempt("write", self._write_all)
        return not (self._backlog or self.writing or self._without_copy())

    async def close(self) -> None:
        """Let go of the files."""
        if self._disk is None:
            return
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                with contextlib.suppress(OSError):
                    await self._settle()
                await self._call(self._held.close)
        self._disk.let_go()

    async def _step(self) -> None:
        # Whatever makes room comes before what needs it.
        await self._medium.attempt("delete", self._settle)
        await self._medium.attempt("shed", self._shed)
        await self._medium.attempt("read", self._read)
        if self._is_time_to_write() or self._medium.health.is_failing("write"):
            await self._medium.attempt("write", self._write)
            # Stored while the disk was at it.
            await self._medium.attempt("delete", self._settle)
        await self._medium.attempt("sync", self._sync)
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
        await self.stamp_rest()
        while self._backlog or self._without_copy():
            await self._write()
        await self._call(self._held.sync)

    async def _write(self) -> None:
        self._is_writing = True
        calls = self._medium.calls
        try:
            no_room = await self._copy_where_there_is_room()
            await self._move()
            if no_room is not None:
                raise no_room
            if self._medium.calls == calls and self._medium.health.is_failing("write"):
                # Nothing is left to write: whether it would work is still worth knowing.
                await self._call(self._held.probe)
        finally:
            self._is_writing = False

    async def _copy_where_there_is_room(self) -> OSError | None:
        """Copies help a daemon that is killed; where there is no room for them there may be for what memory needs
        rid of."""
        try:
            await self._copy()
        except OSError as error:
            if error.errno not in _TOO_LITTLE_ROOM:
                raise
            return error
        return None

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
        self._unsynced = self._has_moved = True
        waiting = {id(batch) for batch in self._outbox.unsettled}
        for batch in written:
            # Stored while the disk was at it.
            if id(batch) not in waiting and batch.position is not None:
                self.settle(batch.position)

    async def _move(self) -> None:
        await self.stamp_rest()
        while batches := self._take():
            self.writing = sum(batch.quotes for batch in batches)
            try:
                await self._call(self._held.append, [to_record(batch) for batch in batches])
            except BaseException as error:
                self._put_back(batches)
                with_quotes = sum(batch.quotes > 0 for batch in batches)
                if not (isinstance(error, OSError) and error.errno in _TOO_LITTLE_ROOM and with_quotes > 1):
                    raise
                # What is left of the room may do for fewer.
                self._most_batches = with_quotes // 2
                continue
            finally:
                self.writing = 0
            self._most_batches = min(MOST_BATCHES, self._most_batches * 2)
            self._unsynced = self._has_moved = True
            break
        self._look()

    def _put_back(self, batches: list[Batch]) -> None:
        lost = self._backlog.put_back(batches, self._stamper.epoch)
        self._counts.drop("queue_full", sum(lost.values()))

    def _look(self) -> None:
        """How things stand on disk, between two of its operations."""
        before_bytes = self._bytes
        self._unread, self.quotes = self._held.unread_records, self._held.unread_quotes
        self._bytes, self._oldest_ns = self._held.bytes_used, self._held.oldest_at_ns
        if self._bytes < before_bytes:
            self._medium.health.hurry("write")

    def _without_copy(self) -> list[Batch]:
        """Batches on their way that the disk does not have."""
        return [batch for batch in self._outbox.unsettled if batch.position is None]

    def _take(self) -> list[Batch]:
        batches: list[Batch] = []
        taken_bytes = with_quotes = 0
        while taken_bytes < WRITE_BYTES and with_quotes < self._most_batches:
            batch = self._backlog.take()
            if batch is None:
                break
            batches.append(self.prepare(batch))
            taken_bytes += batch.size_bytes
            # Markers go with the first quotes behind them: with more losses they would be joined, not repeated.
            with_quotes += batch.quotes > 0
        return batches

    async def _settle(self) -> None:
        position, self._settled = self._settled, None
        if position is not None:
            await self._call(self._held.settle, position)
        elif self._medium.health.is_failing("delete"):
            await self._call(self._held.clear_away)

    async def _shed(self) -> None:
        while self._held.is_too_much(now_ns := time.time_ns()):
            shed = await self._call(self._held.shed, now_ns)
            if shed is None:
                return
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
        self._has_moved = True
        self._look()
        self.on_ahead()

    async def _sync(self) -> None:
        now_s = time.monotonic()
        is_due = self._unsynced or self._medium.health.is_failing("sync")
        if is_due and now_s >= self._next_sync_s:
            self._next_sync_s = now_s + SYNC_EVERY_S
            self._unsynced = False
            await self._call(self._held.sync)

    @property
    def _held(self) -> Spool:
        return self._medium.spool

    @property
    def _medium(self) -> Disk:
        assert self._disk is not None
        return self._disk

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
        return await self._medium.call(work, *arguments)

"""Between memory and disk: the shell around the spool.

Decides when quotes go to disk, and when they come back. Must never know the format of a file, nor what a batch
means. All file operations run in one thread of their own, one after the other, so a slow disk holds up nobody
but itself. The rule of order: what is in the outbox came before what is on disk, which came before what is in
the backlog. So while the disk holds anything that was not read back, or anything is being written, nothing goes
around it.

A disk that fails or hangs holds up nothing for ever: `disk_health` has the rule.

From the moment it begins, the disk has a copy of all that is not stored, also of what is on its way just then: a
daemon that is killed in a long outage loses what it received in the last moments, and no more.
"""

import asyncio
import contextlib
import errno
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from ingestor.journal import Journal
from ingestor.parts import rest, together
from ingestor.publisher.backlog import Backlog
from ingestor.publisher.batch import Batch, to_record
from ingestor.publisher.copies import Copies
from ingestor.publisher.disk import Disk, GoneAround
from ingestor.publisher.inventory import spans_of
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.readback import DAMAGED, ReadBack
from ingestor.publisher.stamper import Stamper
from ingestor.spool.folder import SpoolUnusable
from ingestor.spool.home import Bus
from ingestor.spool.spool import Spool

T = TypeVar("T")

ACTIVE_PERIOD_S: Final = 0.05
IDLE_PERIOD_S: Final = 0.25
SPOOL_AFTER_S: Final = 2.0
"""When nothing was answered for so long, all that waits goes to disk, however little memory it takes: a daemon
that is killed loses no more."""
WRITE_BYTES: Final = 1024 * 1024
"""At most so much in one write: what fails may have to be given up, and that is gone through quote by quote."""
MOST_BATCHES: Final = 1024
OPEN_S: Final = 60.0
"""All of it is read and verified, at some 50 MB/s at the least."""
SYNC_EVERY_S: Final = 1.0
CHECK_EVERY_S: Final = 1.0
"""How often the files are looked for that the disk is believed to hold: somebody may delete them."""
CLOSE_S: Final = 2.0
_TOO_LITTLE_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def _nothing() -> None:
    """What is called until somebody has something to do."""


def _append(spool: Spool, batches: list[Batch], now_ns: int) -> tuple[list[int], list[bytes]]:
    """Write them, in the spool's thread; their positions, and what is to be remembered of each."""
    positions = spool.append([to_record(batch) for batch in batches], now_ns=now_ns)
    return positions, [spans_of(batch) for batch in batches]


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
        self._back = ReadBack(stamper, counts, journal)
        self._copies = Copies(outbox, self._back)
        self._is_writing = False
        self._in_write: list[Batch] = []
        self._moving = asyncio.Lock()
        self._poked = asyncio.Event()
        self._is_saved = False
        self._settled: int | None = None
        self._unsynced = False
        self._next_sync_s = 0.0
        self._next_check_s = time.monotonic() + CHECK_EVERY_S
        self._most_batches = MOST_BATCHES
        self._has_moved = False
        self._answered = 0
        self._progress_s = 0.0
        self._bytes = 0
        self._oldest_ns: int | None = None
        self.stamp_rest: Callable[[], Awaitable[None]] = _nothing
        self.on_ahead: Callable[[], None] = lambda: None
        self.oldest_fresh_ns: Callable[[], int | None] = lambda: None
        self.prepare: Callable[[Batch], Batch] = lambda batch: batch
        self._unavailable: str | None = None
        self.bus = ""
        """The id that the folder is kept under; empty without one."""

    @property
    def holds_back(self) -> bool:
        """Whether batches must come from here, and none may go around."""
        back = self._back
        is_writing = self._is_writing and not self._medium.is_void
        return bool(back.ahead or back.unread or not back.has_all.is_set() or is_writing)

    @property
    def quotes(self) -> int:
        """Quotes that wait on disk."""
        return self._back.quotes

    @property
    def writing(self) -> int:
        """Quotes that are being written."""
        return sum(batch.quotes for batch in self._in_write)

    @property
    def ahead_quotes(self) -> int:
        """Quotes that were read back and are to be sent next."""
        return sum(batch.quotes for batch in self._back.ahead)

    @property
    def oldest_received_ns(self) -> int | None:
        """When the oldest quote that waits here was received."""
        if self._back.ahead:
            return self._back.ahead[0].first_received_ns
        return self._oldest_ns if self._back.unread else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the disk now, or None; also None where no spool is wanted."""
        return self._unavailable if self._disk is None else self._disk.health.problem

    @property
    def unready(self) -> str | None:
        """Why this daemon should not be relied upon, as far as the disk goes: it hangs, or gives nothing back."""
        health = None if self._disk is None else self._disk.health
        if health is None or not (health.hangs or (self._back.unread and health.is_failing("read"))):
            return None
        return health.problem

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
        return self._back.take()

    def poke(self) -> None:
        """Memory fills: do not wait for the next round."""
        self._poked.set()

    def settle(self, position: int) -> None:
        """Everything up to this position is stored."""
        self._settled = position if self._settled is None else max(position, self._settled)

    async def open(self, *, is_optional: bool, bus: Bus | None = None) -> None:
        """Open the spool, in the folder of this bus, and learn what an earlier life left in it.

        Raises `SpoolUnusable`, unless the folder is only a default: then memory has to do, and that is told.
        """
        if self._disk is None:
            return
        disk = self._disk
        try:
            async with asyncio.timeout(OPEN_S):
                if bus is not None:
                    self.bus = await disk.call(disk.spool.move_in, bus)
                opened, floors = await disk.call(self._back.open, disk.spool, disk.now_ns())
        except (SpoolUnusable, TimeoutError) as failure:
            problem = (
                str(failure) or f"the spool cannot be opened: the disk did not answer within {OPEN_S:g} s"
            )
            disk.let_go()
            self._disk = None
            if not is_optional:
                raise SpoolUnusable(problem) from failure
            self._unavailable = problem
            self._journal.note("spool_unavailable", "warning", reason=problem)
            return
        self._look()
        self._counts.recovered += opened.quotes
        for symbol, end in floors.items():
            self._stamper.raise_floor(symbol, end)
        self._back.tell(opened.damages)
        if opened.records:
            self._journal.note("spool_recovered", "warning", quotes=opened.quotes, bytes=opened.bytes)

    async def run(self) -> None:
        """Keep moving; never returns. A disk that fails is told, and tried again a little later; one that hangs is
        told, and after a while gone around."""
        if self._disk is None:
            await rest()
        await together({"spool rounds": self._keep_moving(), "spool watch": self._keep_looking()})

    async def _keep_moving(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACTIVE_PERIOD_S if self.holds_back else IDLE_PERIOD_S):
                    await self._poked.wait()
            self._poked.clear()
            if not await self._round():
                # Nothing could be moved. Whoever pokes again at once, since memory still fills, must not keep this
                # task and itself in turn for ever, with nobody else coming to theirs.
                await asyncio.sleep(ACTIVE_PERIOD_S)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(IDLE_PERIOD_S)
            await self.look(time.monotonic())

    async def look(self, now_s: float) -> None:
        """Whether the disk still answers, and what follows if it does not."""
        disk = self._medium
        disk.look(now_s)
        has_unread = bool(self._back.unread)
        busy_s, redis_takes = disk.busy_s(now_s), not self._outbox.is_stopped
        if disk.is_void or not self._back.has_all.is_set():
            return
        if not disk.health.must_go_around(busy_s, now_s, has_unread=has_unread, redis_takes=redis_takes):
            return
        await self._go_around("spool_hung" if disk.health.hangs else DAMAGED)

    async def _go_around(self, reason: str) -> None:
        """All that lies on disk is void: memory has it, or it is counted and marked."""
        self._medium.go_around()
        batches, self._in_write = self._in_write, []
        self._put_back(batches)
        self._copies.renounce()
        self._settled = None
        if self._back.unread:
            await self._back.give_up(reason)
        self._back.forget()
        self.on_ahead()

    async def _round(self) -> bool:
        """One look at everything that may be due; whether the disk took or gave anything."""
        async with self._moving:
            self._has_moved = False
            with contextlib.suppress(GoneAround):
                await self._step()
        # What was held back meanwhile may go now, also when the disk has failed.
        self.on_ahead()
        return self._has_moved

    async def save(self, timeout_s: float) -> bool:
        """Write down all that is not stored, in order; True if all of it is there then. The last call: nothing is
        read back any more."""
        if self._disk is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._moving:
                self._disk.health.hurry()
                with contextlib.suppress(GoneAround):
                    await self._disk.attempt("write", self._write_all)
        return self._is_saved

    async def close(self) -> None:
        """Let go of the files."""
        if self._disk is None:
            return
        if self._disk.health.hangs:
            self.let_go()
            return
        with contextlib.suppress(OSError, TimeoutError, GoneAround):
            async with asyncio.timeout(CLOSE_S):
                with contextlib.suppress(OSError, GoneAround):
                    await self._settle()
                await self._disk.close()
        self._disk.let_go()

    def let_go(self) -> None:
        """Wait for nothing any more; the files are closed by the end of the process."""
        if self._disk is not None:
            self._disk.let_go()

    async def _step(self) -> None:
        await self._back.has_all.wait()
        if self._medium.is_void:
            await self._medium.attempt("delete", self._medium.begin_anew)
            if self._medium.is_void:
                return
        # Whatever makes room comes before what needs it.
        await self._medium.attempt("delete", self._settle)
        await self._medium.attempt("shed", self._shed)
        await self._medium.attempt("look", self._check)
        await self._medium.attempt("read", self._read)
        if self._is_time_to_write() or self._medium.health.is_failing("write"):
            await self._medium.attempt("write", self._write)
            # Stored while the disk was at it.
            await self._medium.attempt("delete", self._settle)
        await self._medium.attempt("sync", self._sync)
        self._look()

    def _is_time_to_write(self) -> bool:
        if self._back.unread or self._backlog.is_filling:
            return True
        if self._back.ahead and self._outbox.is_stopped:
            # Read back in vain: what has come since is on disk no less than what came before.
            return True
        waits = bool(self._copies.missing or self._backlog) or self.oldest_fresh_ns() is not None
        now_s, answered = time.monotonic(), self._outbox.answered
        if not waits or answered != self._answered:
            # While batches are being answered it goes on, however long the queue; disk would only slow it down.
            self._answered, self._progress_s = answered, now_s
        return now_s - self._progress_s > SPOOL_AFTER_S

    async def _write_all(self) -> None:
        await self.stamp_rest()
        await self._back.has_all.wait()
        if self._medium.is_void:
            # A file that cannot be deleted keeps nothing from being written.
            await self._medium.attempt("delete", self._medium.begin_anew)
        while await self._marks_what_is_gone() or self._backlog or self._copies.missing:
            await self._write()
            # What the disk takes and does not confirm is there, for all but a loss of power; that is told.
            await self._medium.attempt("sync", partial(self._call, self._held.sync))
        await self._medium.attempt("shed", self._put_digests)
        self._is_saved = True

    async def _check(self) -> None:
        """Is still there what the disk is believed to hold? Copies that are gone are written again. What was unread
        may come back, as a volume does that is mounted again; before it is read, nothing is given up."""
        now_s = time.monotonic()
        if (self._held.segments or self._medium.health.is_failing("look")) and now_s >= self._next_check_s:
            self._next_check_s = now_s + CHECK_EVERY_S
            for gone in await self._call(self._held.look):
                self._copies.renounce(gone.in_hand)

    async def _marks_what_is_gone(self) -> bool:
        """Whether any file is gone; markers stand in for what was in it unread, since nobody will read it."""
        all_gone = await self._call(self._held.look)
        unknown_ns: list[int] = []
        for gone in all_gone:
            self._copies.renounce(gone.in_hand)
            if gone.has_unread:
                markers, from_ns = self._back.give_up_within(gone.positions)
                unknown_ns += [] if from_ns is None else [from_ns]
                await self._call(self._held.stand_in, gone, markers)
        if unknown_ns:
            self._backlog.put(self._back.last_markers(min(unknown_ns), time.time_ns()))
        self._look()
        return bool(all_gone)

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
            if self._copies.missing:
                for position in await self._copies.write(self._medium):
                    # Stored while the disk was at it.
                    self.settle(position)
                self._unsynced = self._has_moved = True
        except OSError as error:
            if error.errno not in _TOO_LITTLE_ROOM:
                raise
            return error
        return None

    async def _move(self) -> None:
        await self.stamp_rest()
        while batches := self._take():
            self._in_write = batches
            try:
                positions, spans = await self._call(_append, self._held, batches, self._medium.now_ns())
            except BaseException as error:
                # Whoever went around the disk meanwhile has put them back already.
                batches, self._in_write = self._in_write, []
                self._put_back(batches)
                with_quotes = sum(batch.quotes > 0 for batch in batches)
                if not (isinstance(error, OSError) and error.errno in _TOO_LITTLE_ROOM and with_quotes > 1):
                    raise
                # What is left of the room may do for fewer.
                self._most_batches = with_quotes // 2
                continue
            finally:
                self._in_write = []
            self._back.wrote(positions, batches, spans)
            self._most_batches = min(MOST_BATCHES, self._most_batches * 2)
            self._unsynced = self._has_moved = True
            break
        self._look()

    def _put_back(self, batches: list[Batch]) -> None:
        lost = self._backlog.put_back(batches, self._stamper.epoch)
        self._counts.drop("queue_full", sum(lost.values()))

    def _look(self) -> None:
        """How things stand on disk, between two of its operations. What was found damaged is counted in the same
        moment in which it no longer counts as waiting."""
        if self._medium.is_void:
            return
        damages = self._held.take_damages()
        self._counts.drop(DAMAGED, sum(damage.quotes_lost or 0 for damage in damages))
        self._back.tell(damages)
        before_bytes = self._bytes
        self._back.unread, self._back.quotes = self._held.unread_records, self._held.unread_quotes
        self._bytes, self._oldest_ns = self._held.bytes_used, self._held.oldest_at_ns
        if self._bytes < before_bytes:
            self._medium.health.hurry("write")

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
        while self._held.is_too_much(now_ns := self._medium.now_ns()):
            shed = await self._call(self._held.shed, now_ns)
            if shed is None:
                break
            self._back.on_shed(shed)
            self._counts.drop(shed.reason, shed.quotes)
            self._look()
            if shed.quotes:
                self._journal.note_rarely("quotes_dropped", shed.reason, "error", quotes=shed.quotes)
        await self._put_digests()

    async def _put_digests(self) -> None:
        if self._held.has_digests_to_put:
            await self._call(self._held.put_digests)

    async def _read(self) -> None:
        if not self._back.unread or self._outbox.is_stopped or self._back.is_enough:
            return
        try:
            await self._back.read(self._medium)
        finally:
            # Also when it was broken off: what came no longer waits on disk.
            self._look()
        self._has_moved = True
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

    async def _call(self, work: Callable[..., T], *arguments: Any) -> T:
        return await self._medium.call(work, *arguments)

"""The spool as the event loop sees it: one operation at a time, in a thread of its own.

Decides how an operation is handed over, and how one that failed is told. Must never know what the spool holds, nor
why anything is written or read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ingestor.journal import Journal
from ingestor.publisher.disk_health import DiskHealth
from ingestor.publisher.ledger import PublishCounts
from ingestor.spool.spool import Spool
from ingestor.spool.thread import DiskThread

T = TypeVar("T")


class GoneAround(Exception):
    """An operation that was not waited for has ended after all; what came of it counts for nothing."""


class Disk:
    """Operations of `spool`. `calls` counts those that went well. While `is_void`, all that lies on disk counts for
    nothing, and no operation is begun but the one that begins anew."""

    def __init__(self, spool: Spool, counts: PublishCounts, journal: Journal) -> None:
        self.spool = spool
        self.health = DiskHealth()
        self.calls = 0
        self.is_void = False
        self._counts = counts
        self._journal = journal
        self._thread = DiskThread("quotebus-spool")
        self._began_s: float | None = None
        self._went_around = 0
        self._wall_ahead_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Unix time by a clock that nobody can set: right at the start, and then as many nanoseconds as go by."""
        return time.monotonic_ns() + self._wall_ahead_ns

    def busy_s(self, now_s: float) -> float:
        """For how long the operation that is under way has been; 0 for none."""
        return 0.0 if self._began_s is None else now_s - self._began_s

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """One operation; its result. Raises OSError where the disk does, and `GoneAround`."""
        if self.is_void:
            # Whoever was between two operations when the way led around.
            raise GoneAround
        return await self._call(work, *arguments)

    async def begin_anew(self) -> None:
        """Delete what is void, and be used again. Raises OSError where a file cannot be deleted; nothing of it is
        read even so."""
        try:
            await self._call(self.spool.discard)
        except OSError:
            self.is_void = False
            raise
        self.is_void = False

    async def _call(self, work: Callable[..., T], *arguments: Any) -> T:
        went_around = self._went_around
        self._began_s = time.monotonic()
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except OSError as error:
            if went_around != self._went_around:
                raise GoneAround from error
            raise
        finally:
            self._began_s = None
        if went_around != self._went_around:
            raise GoneAround
        self.calls += 1
        return done

    async def attempt(self, operation: str, work: Callable[[], Awaitable[None]]) -> None:
        """An operation that fails keeps no other one from being tried: what frees a full disk comes through here
        no less than what fills it."""
        if not self.health.may(operation, time.monotonic()):
            return
        calls = self.calls
        try:
            await work()
        except OSError as error:
            self._counts.spool_errors += 1
            reason = self.health.failed(operation, error, time.monotonic())
            self._journal.note_rarely("spool_failed", operation, "error", reason=reason)
        else:
            # Work that found nothing to do shows nothing.
            if self.calls > calls and self.health.went_well(operation):
                self._tell_well()

    def look(self, now_s: float) -> None:
        """Tell of an operation that hangs, and of its end."""
        if not self.health.look(self.busy_s(now_s)):
            return
        if self.health.hangs:
            self._counts.spool_errors += 1
            self._journal.note_rarely("spool_failed", "hang", "error", reason=self.health.problem)
        elif self.health.problem is None:
            self._tell_well()

    def go_around(self) -> None:
        """The operation that is under way, if there is one, is not waited for any more, and the disk is void."""
        self.is_void = True
        self._went_around += 1

    async def close(self) -> None:
        """Sync and let go of the folder, void or not. Raises OSError."""
        await self._call(self.spool.close)

    def let_go(self) -> None:
        """End the thread, without waiting for it."""
        self._thread.shutdown()

    def _tell_well(self) -> None:
        self._journal.note_rarely("spool_works_again", "disk", "info")

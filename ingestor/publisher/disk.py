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


class Disk:
    """Operations of `spool`. `calls` counts those that went well."""

    def __init__(self, spool: Spool, counts: PublishCounts, journal: Journal) -> None:
        self.spool = spool
        self.health = DiskHealth()
        self.calls = 0
        self._counts = counts
        self._journal = journal
        self._thread = DiskThread("quotebus-spool")

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """One operation; its result. Raises OSError where the disk does."""
        done = await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
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
                self._journal.note("spool_works_again")

    def let_go(self) -> None:
        """End the thread, without waiting for it."""
        self._thread.shutdown(wait=False)

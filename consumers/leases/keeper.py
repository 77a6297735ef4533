"""The one who keeps a bus's leases alive: one task, however many streams want symbols.

Decides when to look at the book, and nothing else. Must never know what is read. `hold` and `release` do not wait,
so that they may stand in the `finally` of a loop that is being cancelled.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable
from typing import Final

from redis.exceptions import RedisError

from consumers.errors import BusClosed, BusUnavailable
from consumers.leases.book import LeaseBook, Note
from consumers.leases.refusals import understand
from consumers.shared_link import SharedLink
from consumers.tasks import Companion
from wire import Keyspace

_log = logging.getLogger(__name__)

LEAVE_S: Final = 2.0
"""How long a bus that is closed waits for its leases to be given back; after that they expire."""


class LeaseKeeper:
    """The leases of one bus. Belongs to the bus's event loop; `aclose` may come from any task of it."""

    def __init__(self, shared: SharedLink, keys: Keyspace, consumer_id: str) -> None:
        self._shared: Final = shared
        self._key: Final = keys.interest
        self._book: Final = LeaseBook(keys.interest, consumer_id)
        self._waiting: list[asyncio.Event] = []
        self._task: Final = Companion(self._step, "quotebus-leases")
        self._closing = False
        self._pid: Final = os.getpid()

    @property
    def symbols(self) -> frozenset[str]:
        """What is leased for anybody here."""
        return self._book.symbols

    @property
    def is_closed(self) -> bool:
        """Whether it takes no leases any more."""
        return self._closing

    @property
    def trouble(self) -> str | None:
        """Why leases cannot be written at present, or None."""
        return self._book.trouble

    def hold(self, symbols: Iterable[str]) -> None:
        """Take a lease on each, or share the one there is; does not wait. After `aclose` it does nothing."""
        symbols = frozenset(symbols)
        if self._closing or not symbols or self._pid != os.getpid():
            return
        self._book.hold(symbols)
        self._task.wake()

    def release(self, symbols: Iterable[str]) -> None:
        """Give back what `hold` took; does not wait."""
        self._book.release(symbols)
        self._wake()

    def server_is_back(self) -> None:
        """Somebody has reached Redis again, which may have lost the leases while it was away."""
        self._book.beat_now()
        self._wake()

    async def tried(self, timeout_s: float) -> None:
        """Wait until what was held before this call was written or refused, or until that long has passed."""
        if not self._task.is_running or self._closing or self._book.trouble is not None:
            return
        tried = asyncio.Event()
        self._waiting.append(tried)
        self._task.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await tried.wait()

    async def aclose(self) -> None:
        """Give all leases back, within `LEAVE_S`, and end. May be called again."""
        self._closing = True
        self._book.release_all()
        await self._task.aclose(LEAVE_S)

    def _wake(self) -> None:
        # What was never held needs no task to be given back.
        if self._task.is_running:
            self._task.wake()

    async def _step(self) -> float | None:
        wait_s = self._book.wait_s(asyncio.get_running_loop().time())
        if wait_s == 0:
            await self._send()
            return 0.0
        # Nothing is left to send: whoever waits for that has it, or waits for a server that refuses.
        for tried in self._waiting:
            tried.set()
        self._waiting.clear()
        return wait_s

    async def _send(self) -> None:
        now_s = asyncio.get_running_loop().time
        try:
            # The time first and by itself: an estimate would be wrong after a laptop has slept.
            server_ms = _unix_ms(*await self._shared.ask_each(("TIME",)))
            due = self._book.next_round(now_s(), server_ms)
            replies = await self._shared.ask_each(*due.commands)
        except BusClosed:
            self._closing = True
            self._book.lost("the bus is closed", now_s())
            notes = []
        except BusUnavailable as error:
            notes = self._book.lost(str(error), now_s())
        else:
            answers = [understand(r, self._key) if isinstance(r, RedisError) else r for r in replies]
            notes = self._book.answered(due, answers, now_s())
        for note in notes:
            _tell(note)


def _unix_ms(reply: object) -> int:
    if isinstance(reply, list):
        return int(reply[0]) * 1_000 + int(reply[1]) // 1_000
    # A user without the right to TIME: our own clock has to do.
    return time.time_ns() // 1_000_000


def _tell(note: Note) -> None:
    _log.log(logging.WARNING if note.is_warning else logging.INFO, "%s", note.text)

"""Looks at what the daemon says of the symbols that are followed, and logs why a loop waits in vain.

Decides when to look, and nothing else (`unserved` does). One task per bus, however many loops follow symbols. Must
never wait for Redis where a loop would: `follow` and `unfollow` stand in the `finally` of one that is cancelled.
"""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol

from redis.exceptions import RedisError

from consumers.errors import BusClosed, BusUnavailable
from consumers.reading.stream import Attendance
from consumers.reading.unserved import Unserved
from consumers.shared_link import SharedLink
from wire import Keyspace

_log = logging.getLogger(__name__)

FIRST_LOOK_S: Final = 0.5
"""After a symbol is followed: about as long as the daemon needs to notice its lease."""
LOOK_EVERY_S: Final = 2.0
CHUNK: Final = 1000


class StateWatch:
    """The watch of one bus. Belongs to the bus's event loop; `aclose` may come from any task of it."""

    def __init__(self, shared: SharedLink, keys: Keyspace) -> None:
        self._shared: Final = shared
        self._key: Final = keys.subscriptions
        self._followed: Final[Counter[str]] = Counter()
        self._unserved: Final = Unserved()
        self._has_new: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pid: Final = os.getpid()

    def follow(self, symbols: Iterable[str]) -> None:
        """Somebody waits for quotes of these; does not wait."""
        symbols = frozenset(symbols)
        if not symbols or self._pid != os.getpid():
            return
        self._followed.update(symbols)
        if self._task is None or self._task.done():
            # Not a TaskGroup: a bus may be closed by another task than the one that opened it, as in a notebook.
            self._task = asyncio.get_running_loop().create_task(self._run(), name="quotebus-states")
        self._has_new.set()

    def unfollow(self, symbols: Iterable[str]) -> None:
        """Somebody waits for them no more; does not wait."""
        for symbol in symbols:
            if self._followed[symbol] > 1:
                self._followed[symbol] -= 1
            else:
                del self._followed[symbol]

    async def aclose(self) -> None:
        """End, until somebody follows symbols on a bus that was opened again."""
        task, self._task = self._task, None
        if task is None or self._pid != os.getpid():
            return
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()

    async def _run(self) -> None:
        while True:
            if self._followed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._has_new.wait()
            else:
                await self._has_new.wait()
            if self._has_new.is_set():
                self._has_new.clear()
                await asyncio.sleep(FIRST_LOOK_S)
            try:
                await self._look()
            except BusClosed:
                return
            except BusUnavailable:
                continue  # The loops themselves tell of that.

    async def _look(self) -> None:
        symbols = sorted(self._followed)
        states: dict[str, bytes | None] = {}
        for start in range(0, len(symbols), CHUNK):
            some = symbols[start : start + CHUNK]
            (values,) = await self._shared.ask_each(("HMGET", self._key, *some))
            if isinstance(values, RedisError):
                # Such as a user without this right: there is nothing to tell then.
                return
            states.update(zip(some, values, strict=True))
        for told in self._unserved.look(states, asyncio.get_running_loop().time()):
            _log.log(logging.WARNING if told.is_warning else logging.INFO, "%s", told.text)


class Holder(Attendance, Protocol):
    """An attendance that is told of an outage, as a lease must be."""

    def reconnected(self) -> None:
        """The server was away; it may have forgotten."""


class Watched:
    """One loop's part in the watch, beside whoever else attends to it, such as its lease."""

    def __init__(self, watch: StateWatch, beside: Holder | None) -> None:
        self._watch: Final = watch
        self._beside: Final = beside
        self._symbols: frozenset[str] = frozenset()

    def began(self, symbols: frozenset[str]) -> None:
        """A loop begins to read these symbols."""
        if self._beside is not None:
            self._beside.began(symbols)
        self._now(symbols)

    def changed(self, added: frozenset[str], removed: frozenset[str]) -> None:
        """Symbols came or went while a loop reads."""
        if self._beside is not None:
            self._beside.changed(added, removed)
        self._now((self._symbols | added) - removed)

    def ended(self) -> None:
        """No loop reads any more."""
        if self._beside is not None:
            self._beside.ended()
        self._now(frozenset())

    def reconnected(self) -> None:
        """The server was away; it may have forgotten."""
        if self._beside is not None:
            self._beside.reconnected()

    def _now(self, symbols: frozenset[str]) -> None:
        self._watch.follow(symbols - self._symbols)
        self._watch.unfollow(self._symbols - symbols)
        self._symbols = symbols

"""Looks at what the daemon says of the symbols that are followed, and logs why a loop waits in vain.

Decides when to look, and nothing else (`unserved` does). One task per bus, however many loops follow symbols. Must
never wait for Redis where a loop would: `follow` and `unfollow` stand in the `finally` of one that is cancelled.
"""

import asyncio
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
from consumers.tasks import Companion
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
        self._has_new = False
        self._task: Final = Companion(self._step, "quotebus-states")
        self._pid: Final = os.getpid()

    def follow(self, symbols: Iterable[str]) -> None:
        """Somebody waits for quotes of these; does not wait."""
        symbols = frozenset(symbols)
        if not symbols or self._pid != os.getpid():
            return
        self._followed.update(symbols)
        self._has_new = True
        self._task.wake()

    def unfollow(self, symbols: Iterable[str]) -> None:
        """Somebody waits for them no more; does not wait."""
        for symbol in symbols:
            if self._followed[symbol] > 1:
                self._followed[symbol] -= 1
            else:
                del self._followed[symbol]

    async def aclose(self) -> None:
        """End, until somebody follows symbols on a bus that was opened again."""
        await self._task.aclose()

    async def _step(self) -> float | None:
        if not self._followed:
            return None
        if self._has_new:
            self._has_new = False
            await asyncio.sleep(FIRST_LOOK_S)
        try:
            await self._look()
        except BusClosed:
            return None
        except BusUnavailable:
            pass  # The loops themselves tell of that.
        return LOOK_EVERY_S

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

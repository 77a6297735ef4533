"""Looks at the daemon and at the symbols that are followed, and logs why a loop waits in vain.

Decides when to look, and nothing else (`unserved` does). One task per bus, however many loops follow symbols. Must
never wait for Redis where a loop would: `follow` and `unfollow` stand in the `finally` of one that is cancelled.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from consumers.command import Command
from consumers.errors import BusClosed, BusUnavailable
from consumers.reading.freshness import received_ns, server_time_ns
from consumers.reading.stream import Holding
from consumers.reading.telling import Told
from consumers.reading.unserved import FIELDS, Answers, Lookout, Unserved
from consumers.shared_link import SILENT_S, TURN_S, SharedLink
from consumers.tasks import Companion
from wire import BadEntry, Keyspace, decode_latest

_log = logging.getLogger(__name__)

FIRST_LOOK_S: Final = 0.5
"""After a symbol is followed: about as long as the daemon needs to notice its lease."""
LOOK_EVERY_S: Final = 1.0
CHUNK: Final = 1000


class StateWatch:
    """The watch of one bus. Belongs to the bus's event loop; `aclose` may come from any task of it."""

    def __init__(self, shared: SharedLink, keys: Keyspace) -> None:
        self._shared: Final = shared
        self._keys: Final = keys
        self._followed: Final[Counter[str]] = Counter()
        self._lookout: Final = Lookout()
        self._has_new = False
        self._task: Final = Companion(self._step, "quotebus-states")
        self._pid: Final = os.getpid()

    @property
    def unserved(self) -> Mapping[str, Unserved]:
        """Whatever is followed on this bus and gets no quotes, as of the last look."""
        return self._lookout.unserved

    @property
    def subscribed(self) -> frozenset[str]:
        """Whatever is followed and confirmed by Alpaca, as of the last look."""
        return self._lookout.subscribed

    def follow(self, symbols: Iterable[str]) -> None:
        """Somebody waits for quotes of these; does not wait."""
        symbols = frozenset(symbols)
        if not symbols or self._pid != os.getpid():
            return
        loop = asyncio.get_running_loop()
        self._lookout.follow((symbol for symbol in symbols if not self._followed[symbol]), loop.time())
        self._followed.update(symbols)
        self._has_new = True
        self._task.wake()

    def unfollow(self, symbols: Iterable[str]) -> None:
        """Somebody waits for them no more; does not wait."""
        gone: list[str] = []
        for symbol in symbols:
            if self._followed[symbol] > 1:
                self._followed[symbol] -= 1
            else:
                del self._followed[symbol]
                gone.append(symbol)
        if gone:
            self._lookout.drop(gone)

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
        return LOOK_EVERY_S

    async def _look(self) -> None:
        now_s = asyncio.get_running_loop().time
        asking = asyncio.get_running_loop().create_task(self._answers(), name="quotebus-look")
        try:
            if not await _is_done(asking):
                _say(self._lookout.away(f"no answer for {SILENT_S:g} s", now_s(), for_long=True))
                await asyncio.wait((asking,))
            told = self._lookout.digest(await asking, now_s())
        except BusUnavailable as error:
            told = self._lookout.away(error.why, now_s())
        finally:
            asking.cancel()
        _say(told)

    async def _answers(self) -> Answers:
        states_of, quotes_of = self._lookout.questions(asyncio.get_running_loop().time())
        questions: list[Command] = [("TIME",), ("HMGET", self._keys.status, *FIELDS)]
        some = [states_of[start : start + CHUNK] for start in range(0, len(states_of), CHUNK)]
        questions += [("HMGET", self._keys.subscriptions, *names) for names in some]
        if quotes_of:
            questions.append(("HMGET", self._keys.latest, *quotes_of))
        # A user may lack a right: what cannot be read is not known then, and all else is.
        told, status, *values = [
            None if isinstance(reply, RedisError) else reply
            for reply in await self._shared.ask_each(*questions)
        ]
        quotes: Any = values.pop() if quotes_of else None
        states: dict[str, bytes | None] = {}
        for names, found in zip(some, values, strict=True):
            if found is not None:
                states.update(zip(names, found, strict=True))
        return Answers(
            None if told is None else server_time_ns(told),
            None if status is None else dict(zip(FIELDS, status, strict=True)),
            states,
            {} if quotes is None else dict(zip(quotes_of, map(_receipt, quotes_of, quotes), strict=True)),
        )


async def _is_done(asking: "asyncio.Task[Any]") -> bool:
    await asyncio.wait((asking,), timeout=SILENT_S)
    if not asking.done():
        await asyncio.wait((asking,), timeout=TURN_S)
    return asking.done()


def _say(told: list[Told]) -> None:
    for line in told:
        _log.log(logging.WARNING if line.is_warning else logging.INFO, "%s", line.text)


def _receipt(symbol: str, value: bytes | None) -> int | None:
    """When the cached quote was received; who asks for the quote itself is told what is wrong with it."""
    if value is None:
        return None
    try:
        return received_ns(decode_latest(symbol, value))
    except BadEntry:
        return None


class Holder(Holding, Protocol):
    """A lease: it is told of an outage as well."""

    def reconnected(self) -> None:
        """The server was away; it may have forgotten."""


class Watched:
    """One loop's part in the watch, beside its lease, if it has one."""

    def __init__(self, watch: StateWatch, lease: Holder | None) -> None:
        self._watch: Final = watch
        self._lease: Final = lease
        self._symbols: frozenset[str] = frozenset()

    def follows(self, symbols: frozenset[str]) -> None:
        """A loop waits for quotes of these, whether or not their place is known; of none, when it has ended."""
        self._watch.follow(symbols - self._symbols)
        self._watch.unfollow(self._symbols - symbols)
        self._symbols = symbols

    @property
    def unserved(self) -> dict[str, Unserved]:
        """Those of them that get no quotes now, and why."""
        found = self._watch.unserved
        return {symbol: found[symbol] for symbol in sorted(self._symbols & found.keys())}

    @property
    def subscribed(self) -> frozenset[str]:
        """Those of them that Alpaca has confirmed."""
        return self._symbols & self._watch.subscribed

    def began(self, symbols: frozenset[str]) -> None:
        """A loop begins to read these symbols."""
        if self._lease is not None:
            self._lease.began(symbols)

    def changed(self, added: frozenset[str], removed: frozenset[str]) -> None:
        """Symbols came or went while a loop reads."""
        if self._lease is not None:
            self._lease.changed(added, removed)

    def ended(self) -> None:
        """No loop reads any more."""
        if self._lease is not None:
            self._lease.ended()

    def reconnected(self) -> None:
        """The server was away; it may have forgotten."""
        if self._lease is not None:
            self._lease.reconnected()

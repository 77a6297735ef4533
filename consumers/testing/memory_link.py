"""Connections to a Redis that lives in this process, where fakeredis alone would not answer as a server does.

Decides how a blocking read waits, and that whoever waits is known. Must never know streams' contents or the
contract. Needs fakeredis, so only `memory` imports it, and only when a server is made.

What is worked round here, seen with fakeredis 2.40: a blocking read leaves a task behind when its connection is
closed; an XREAD of a key that holds no stream raises AttributeError instead of answering WRONGTYPE; an XREAD that
finds nothing within a transaction answers an empty list instead of nothing; closed connections stay in CLIENT LIST.
"""

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from fakeredis import FakeServer
from fakeredis.aioredis import FakeAsyncRedisConnection
from redis.exceptions import ResponseError

from consumers.reconnect import InMemoryAway
from consumers.testing.memory_answers import Part, Words, answer, name_of, question

_READS: Final = frozenset(
    "XREAD XRANGE XREVRANGE XINFO XLEN XPENDING MULTI EXEC HGET HMGET HGETALL HELLO CLIENT PING TIME SMEMBERS "
    "XREADGROUP XACK XAUTOCLAIM XCLAIM ZADD ZREM ZRANGE SISMEMBER EXISTS TYPE ZSCORE".split()
)
"""Commands after which nobody who waits need look again."""
_AWAY: Final = (
    "it was told to go away, and has not come back (`go_away`, `come_back` and `close` of the server)"
)
_BLOCKING: Final = frozenset({"XREAD", "XREADGROUP"})


class _Wait(NamedTuple):
    """A read that waits: the command without its BLOCK, and for how long (None: for ever)."""

    command: Words
    seconds: float | None


class Hub:
    """What all connections of one server share."""

    def __init__(self) -> None:
        self.store: Final = FakeServer()
        self.links: Final[weakref.WeakSet[MemoryConnection]] = weakref.WeakSet()

    def stir(self) -> None:
        """Something was written, or the server went away: whoever waits looks again."""
        for link in list(self.links):
            link.stir()

    def connection(self, **_: Any) -> "MemoryConnection":
        """A new connection, not yet connected; a pool's options make no difference here."""
        return MemoryConnection(hub=self, protocol=2, decode_responses=False, socket_timeout=None)

    @property
    def waiting(self) -> int:
        """How many connections wait in a blocking read, with nothing left that they have not looked at."""
        return sum(link.is_waiting and not link.stirred for link in list(self.links))

    @property
    def reading(self) -> int:
        """How many open connections have ever waited in a blocking read."""
        return sum(link.has_waited and not link.is_abandoned for link in list(self.links))


class MemoryConnection(FakeAsyncRedisConnection):
    """One connection. It belongs to the event loop that it was connected on, and is closed in any other."""

    def __init__(self, *args: Any, hub: Hub, **options: Any) -> None:
        super().__init__(*args, server=hub.store, **options)
        self._hub = hub
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._commands: list[Words] = []
        self._due: deque[tuple[Words, _Wait | None]] = deque()
        self.is_waiting = False
        self.has_waited = False
        self.stirred = False

    @property
    def is_connected(self) -> bool:
        """Whether it may be asked, here and now."""
        if not super().is_connected:
            return False
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    @property
    def is_abandoned(self) -> bool:
        """Whether its event loop ended before it was closed."""
        return self._loop is not None and self._loop.is_closed()

    def stir(self) -> None:
        """Look again; may come from the thread of another loop."""
        self.stirred = True
        loop = self._loop
        if loop is None or not self.is_waiting:
            return
        # RuntimeError: the loop ended with this connection open.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._wake.set)

    def pack_command(self, *args: Any) -> list[bytes]:
        """One command as bytes; see `pack_commands`."""
        return self.pack_commands([args])

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """Commands as bytes, without BLOCK: this connection waits by itself."""
        asked = [question(tuple(command)) for command in commands]
        in_transaction = any(str(words[0]).upper() == "MULTI" for words in asked)
        waits = [_split(words) for words in asked]
        self._commands = [wait.command if wait else words for wait, words in zip(waits, asked, strict=True)]
        self._due.extend(zip(self._commands, [None] * len(asked) if in_transaction else waits, strict=True))
        return self._packed(self._commands)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send what `pack_commands` made."""
        self.stirred = False
        self._wake.clear()
        commands, due = self._commands, self._due
        try:
            await super().send_packed_command(command, check_health)
        except AttributeError:
            # The connection is closed by now. What was sent before the unlucky read is sent again: reads alone
            # come together with reads.
            await self.connect()  # type: ignore[no-untyped-call]
            answerable = [await self._answerable(words) for words in commands]
            self._commands, self._due = answerable, due
            await super().send_packed_command(self._packed(answerable), check_health)
        if any(name_of(words) not in _READS for words in commands):
            self._hub.stir()

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """The next reply; of a blocking read, when there is something or its time is up."""
        words, wait = self._due.popleft() if self._due else (("PING",), None)
        try:
            reply = await super().read_response(*args, **options)
        except ResponseError as error:
            raise answer(words, error) from None
        if name_of(words) == "EXEC" and isinstance(reply, list):
            # Behind MULTI and before EXEC stand the commands whose replies these are.
            queued = self._commands[-1 - len(reply) : -1]
            return [answer(asked, part) for part, asked in zip(reply, queued, strict=False)]
        reply = answer(words, reply)
        return reply if reply is not None or wait is None else await self._reply_in_time(wait)

    async def disconnect(self, nowait: bool = False, *_: Any, **__: Any) -> None:
        """Close at once; whoever waits here sees the connection as lost."""
        sock = self._sock
        self.has_waited = False
        await super().disconnect(nowait)
        if sock is not None:
            sock.close()
        self.stir()

    async def _connect(self) -> None:
        if not self._hub.store.connected:
            raise InMemoryAway(_AWAY)
        await super()._connect()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._due = deque()
        # Asked for the socket after a fork; there is none.
        self._writer.get_extra_info = lambda _: None  # type: ignore[union-attr]
        self._hub.links.add(self)

    async def _reply_in_time(self, wait: _Wait) -> Any:
        loop = asyncio.get_running_loop()
        deadline = None if wait.seconds is None else loop.time() + wait.seconds
        self.has_waited = True
        self.is_waiting = True
        try:
            if self.stirred:
                self._wake.set()
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._wake.wait()
                except TimeoutError:
                    return None
                if not self.is_connected or not self._hub.store.connected:
                    await self.disconnect()
                    raise InMemoryAway(_AWAY)
                reply = await self._ask(wait.command)
                if reply:
                    return reply
        except asyncio.CancelledError:
            await self.disconnect()
            raise
        finally:
            self.is_waiting = False

    async def _ask(self, words: Words) -> Any:
        commands, due = self._commands, self._due
        self._due = deque()
        try:
            await self.send_packed_command(self.pack_commands([words]))
            return await super().read_response()
        finally:
            self._commands, self._due = commands, due

    async def _answerable(self, words: Words) -> Words:
        if not _is_read(words):
            return words
        for key in _keys(words):
            if await self._ask(("TYPE", key)) not in {b"stream", b"none", "stream", "none"}:
                return ("XLEN", key)
        return words

    def _packed(self, commands: list[Words]) -> list[bytes]:
        # Packed one by one, because the parent packs several by asking this class for each.
        pack = super().pack_command
        return [chunk for words in commands for chunk in pack(*words)]


def _is_read(words: Words) -> bool:
    return name_of(words) in _BLOCKING


def _upper(part: Part) -> str:
    return (part.decode("latin-1") if isinstance(part, bytes) else str(part)).upper()


def _split(words: Words) -> _Wait | None:
    if not _is_read(words):
        return None
    options = [_upper(part) for part in words]
    options = options[: options.index("STREAMS")] if "STREAMS" in options else []
    if "BLOCK" not in options:
        return None
    at = options.index("BLOCK")
    try:
        ms = int(words[at + 1])
    except ValueError:
        raise ResponseError("timeout is not an integer or out of range") from None
    return _Wait((*words[:at], *words[at + 2 :]), ms / 1000 if ms else None)


def _keys(words: Words) -> Words:
    names = [_upper(part) for part in words]
    behind = words[names.index("STREAMS") + 1 :]
    return behind[: len(behind) // 2]

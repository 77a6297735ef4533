"""One connection to Redis, without second thoughts: it asks, it answers or it fails.

Decides how a URL becomes a connection, and that every wait ends. Must never retry or reconnect by itself: who lost
what is for the caller to settle. redis-py's own retries stay off, because a retry that nobody sees cannot be
accounted for.
"""

import asyncio
import contextlib
import logging
import math
import os
import ssl
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError, RedisError, ResponseError  # noqa: A004

from consumers.command import Command, Reply
from consumers.errors import BadUrl, forked
from consumers.reconnect import HandshakeFailed, NotInMemory, NoTransactions, WrongServer
from wire.redis.answers import FULL, lacks_command, unusable_kind
from wire.redis.tls import client_context, explain
from wire.redis.url import NOT_ANSWERED, BadRedisUrl, RedisUrl, explain_end, parse_redis_url

TIMEOUT_S: Final = 5.0
"""For connecting and for an answer, where neither the caller nor the URL says how long."""
CLIENT_NAME: Final = "quotebus-consumers"
"""What the name of each connection of this library begins with; the bus's own name follows, after a colon."""
IN_MEMORY: Final[dict[str, Callable[[], Any]]] = {}
"""Servers that live in this process: URL -> what makes a connection. Only `consumers.testing` puts them here."""
_log: Final = logging.getLogger(__name__)


class Target:
    """Where Redis is, and how to log in; shows neither user nor password.

    A timeout that the caller gives goes before the URL's. Raises `BadUrl`, also for files that TLS cannot use.
    """

    __slots__ = ("_make", "address", "block_s", "client_name", "is_in_memory", "lacks_names", "timeout_s")

    def __init__(self, url: str, *, timeout_s: float | None = None, name: str = "") -> None:
        if not isinstance(url, str):
            raise BadUrl(f"the Redis URL is a {type(url).__name__}, not a string")
        self.client_name: Final = f"{CLIENT_NAME}:{name}" if name else CLIENT_NAME
        self.lacks_names = False
        """The server has no CLIENT, and that was told."""
        self.is_in_memory: Final = url in IN_MEMORY
        """It lives in this process: an answer takes no time, and between two steps of ours anything may happen."""
        if self.is_in_memory:
            self._make: Callable[[], Any] = IN_MEMORY[url]
            self.timeout_s = timeout_s or TIMEOUT_S
            self.block_s = math.inf
            """For how long the server may wait for entries: half as long as an answer may take."""
            self.address = url
            return
        try:
            read = parse_redis_url(url)
            if read.tls is not None:
                client_context(read.tls)
        except BadRedisUrl as problem:
            raise BadUrl(str(problem)) from None
        scheme = "unix" if read.path else "redis" if read.tls is None else "rediss"
        self.address = f"{scheme}://{read.path}" if read.path else f"{scheme}://{read}"
        answer_s = timeout_s or read.timeout_s or TIMEOUT_S
        connect_s = timeout_s or read.connect_timeout_s or TIMEOUT_S
        self.block_s = answer_s / 2
        self.timeout_s = max(answer_s, connect_s)
        """The longest that connecting or an answer may take."""
        self._make = partial(_Connection, read, answer_s, connect_s)

    def connection(self) -> Any:
        """A new connection object, not yet connected."""
        return self._make()

    def __repr__(self) -> str:
        return f"Target({self.address})"


class _Connection(Connection):
    """redis-py's connection, to wherever the URL leads: a port, with or without TLS, or a socket."""

    def __init__(self, url: RedisUrl, timeout_s: float, connect_timeout_s: float) -> None:
        super().__init__(
            host=url.host,
            port=url.port,
            db=url.db,
            username=url.user,
            password=url.password,
            socket_timeout=timeout_s,
            socket_connect_timeout=connect_timeout_s,
            socket_keepalive=url.keepalive,
            # Lists instead of maps, whatever the server would prefer: one shape of reply to read.
            protocol=2,
        )
        self._url = url
        self._tls: ssl.SSLContext | None = None
        self._is_over = False
        """It was closed, perhaps before it was made; nobody connects it again."""
        self.was_gone = False
        """It was lost before it was closed."""

    async def _connect(self) -> None:
        try:
            if self._url.path:
                async with asyncio.timeout(self.socket_connect_timeout):
                    self._reader, self._writer = await asyncio.open_unix_connection(self._url.path)
            else:
                self._tls = client_context(self._url.tls) if self._url.tls is not None else None
                await super()._connect()  # type: ignore[no-untyped-call]
        except BadRedisUrl as problem:
            # Files that were there when the bus was made: whoever renews them may be at it.
            raise HandshakeFailed(str(problem)) from None
        except OSError as error:
            is_late = isinstance(error, TimeoutError) and self._tls is not None
            if (said := NOT_ANSWERED if is_late else explain(error)) is not None:
                raise HandshakeFailed(said) from None
            raise
        if self._is_over:
            await self.disconnect(nowait=True)
            raise ConnectionResetError("the connection was closed")

    async def disconnect(
        self,
        nowait: bool = False,
        error: Exception | None = None,
        failure_count: int | None = None,
        health_check_failed: bool = False,
    ) -> None:
        self._is_over = True
        writer = self._writer
        self.was_gone = self.was_gone or (writer is not None and writer.transport.is_closing())
        await super().disconnect(nowait, error, failure_count, health_check_failed)
        if nowait and self._tls is not None and writer is not None:
            # A farewell by TLS takes a round trip; in a loop that ends meanwhile the socket would stay open. Of one
            # that was closed twice, asyncio until Python 3.11.2 has nothing left to abort.
            with contextlib.suppress(AttributeError):
                writer.transport.abort()

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._is_over or not self.is_connected:
            # redis-py would connect anew, in the middle of a handshake too, and then wait for answers to what it
            # had asked on the connection before.
            raise ConnectionResetError("the connection was closed")
        await super().send_packed_command(command, check_health)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        # Before the database is selected, which a node of a cluster refuses in words that explain nothing.
        db, self.db = self.db, 0
        try:
            await super().on_connect_check_health(check_health)
            await self.send_command("HELLO", check_health=False)
            try:
                hello = await self.read_response()
            except ResponseError:
                hello = None  # A proxy that does not know it.
            if (problem := unusable_kind(hello)) is not None:
                raise WrongServer(problem)
            if db:
                await self.send_command("SELECT", db, check_health=False)
                await self.read_response()
        except ConnectionError as ending:
            # Its children are answers of the server, such as a refused login, and so is this one.
            if type(ending) is ConnectionError and FULL not in str(ending):
                raise HandshakeFailed(f"{explain_end(self._url)} ({ending})") from None
            raise
        finally:
            self.db = db

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}


_MULTI: Final[Command] = ("MULTI",)
_LOOK: Final[tuple[Command, ...]] = (_MULTI, ("PING",), ("EXEC",))
"""Ends with EXEC, which a reader's user needs anyway; DISCARD would be one right more."""
_EXPECTED: Final = (b"OK", b"QUEUED", [b"PONG"])


class Link:
    """A connection of its own. One task at a time may ask; `close` may come from anywhere.

    After any exception the link is closed. In a forked process it is no link any more: it raises `BusError` and
    leaves the parent's connection alone. `ask` raises redis-py's `ConnectionError`, `TimeoutError` and their
    children; an error that Redis answers to one command stands in the list of replies in its place.
    """

    __slots__ = ("__weakref__", "_connection", "_has_transactions", "_is_closed", "_is_inherited", "_target")

    def __init__(self, target: Target) -> None:
        self._is_inherited = False
        self._is_closed = False
        self._has_transactions = False
        self._target: Final = target
        self._connection: Any = target.connection()
        _links.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it may be asked."""
        return bool(self._connection.is_connected)

    async def open(self) -> None:
        """Connect, log in, and wait until the server serves requests; raises as `ask` does."""
        self._check_process()
        try:
            cancelled = await _cancellations()
            try:
                await self._connection.connect()
            except (RuntimeError, AttributeError) as error:
                raise self._lost(error) from None
            except ConnectionError as error:
                # redis-py wraps what it does not know.
                known = isinstance(error.__cause__, HandshakeFailed | NotInMemory)
                raise error.__cause__ if known and error.__cause__ is not None else error from None
            _check_cancelled(cancelled)
            if self._is_closed:
                # It was made all the same: close it again, and let the question below find that.
                await self.close()
            # The name is for who reads CLIENT LIST; an ACL may forbid it.
            named, pong = await self.ask(("CLIENT", "SETNAME", self._target.client_name), ("PING",))
        except BaseException:
            await self.close()
            raise
        if isinstance(pong, RedisError):
            await self.close()
            raise pong
        if isinstance(named, ResponseError) and lacks_command(str(named)) and not self._target.lacks_names:
            self._target.lacks_names = True
            _log.warning("%r has no command CLIENT: CLIENT LIST will not tell who is connected", self._target)

    async def ask(self, *commands: Command) -> list[Reply]:
        """Send all commands at once and collect their replies, in order.

        A transaction is sent only where the server is known to have them: without, what should be queued would be
        carried out, and its answer be lost.
        """
        if not self._has_transactions and _MULTI in commands:
            await self._check_transactions()
        return await self._ask(*commands)

    async def _check_transactions(self) -> None:
        for reply, expected in zip(await self._ask(*_LOOK), _EXPECTED, strict=True):
            if reply != expected:
                await self.close()
                raise reply if isinstance(reply, ResponseError) else NoTransactions(repr(reply)[:80])
        self._has_transactions = True

    async def _ask(self, *commands: Command) -> list[Reply]:
        connection = self._connection
        self._check_process()
        if not self.is_open:
            raise ConnectionResetError("the connection was closed")
        replies: list[Reply] = []
        cancelled = await _cancellations()
        try:
            try:
                await connection.send_packed_command(connection.pack_commands(commands))
                _check_cancelled(cancelled)
            except (RuntimeError, AttributeError) as error:
                raise self._lost(error) from None
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except BaseException:
            await self.close()
            raise
        return replies

    async def close(self) -> None:
        """Give the connection back at once; a task that is waiting for a reply sees it as lost."""
        if self._is_inherited:
            return
        self._is_closed = True
        with contextlib.suppress(OSError, RedisError):
            await self._connection.disconnect(nowait=True)

    def leave_to_parent(self) -> None:
        """In a process just forked: give up the connection without the parent or the server noticing.

        The child shares the socket, and the event loop's list of sockets in the kernel, with its parent. Whatever
        closes its copy later (the garbage collector, the end of the program) would say goodbye on the parent's
        connection, or strike it off the parent's list. So the descriptor is made to mean /dev/null here.
        """
        self._is_inherited = True
        # Also where it was about to log in.
        self._connection._is_over = True
        writer = getattr(self._connection, "_writer", None)
        socket = None if writer is None else writer.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            return
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nothing, socket.fileno(), inheritable=False)
        finally:
            os.close(nothing)

    def _lost(self, error: RuntimeError | AttributeError) -> Exception:
        """The same as the loss of a connection, where it is one.

        A RuntimeError is what uvloop's transport says of a connection that the other side has reset. With an
        AttributeError redis-py finds no writer, because `close` came between two of its steps; or asyncio of
        Python 3.12.0 and 3.12.1 no loop, in `writelines` of a transport that has lost its connection.
        """
        is_gone = self._is_closed or getattr(self._connection, "was_gone", False)
        if isinstance(error, AttributeError) and not is_gone:
            return error
        return ConnectionResetError(f"the connection is gone: {error}")

    def _check_process(self) -> None:
        if self._is_inherited:
            raise forked()


async def _cancellations() -> int:
    """So often the task has been asked to end, and was told so."""
    task = asyncio.current_task()
    count = 0 if task is None else task.cancelling()
    if count:
        # It may have been asked while it ran, as by a Ctrl-C in a callback: then it is told now, and not where
        # redis-py would drop it.
        await asyncio.sleep(0)
    return count


def _check_cancelled(before: int) -> None:
    """Raise the cancellation that came since and got lost.

    redis-py sends under asyncio.wait_for, which until Python 3.12 drops a cancellation that meets its result.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


_links: Final[weakref.WeakSet[Link]] = weakref.WeakSet()
"""Every link of this process."""


def _after_fork() -> None:
    for link in list(_links):
        link.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

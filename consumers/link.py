"""One connection to Redis, without second thoughts: it asks, it answers or it fails.

Decides how a URL becomes a connection, and that every wait ends. Must never retry or reconnect by itself: who lost
what is for the caller to settle. redis-py's own retries stay off, because a retry that nobody sees cannot be
accounted for.
"""

import asyncio
import contextlib
import inspect
import os
import weakref
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import RedisError, ResponseError

from consumers.command import Command, Reply
from consumers.errors import BadUrl, forked

CLIENT_NAME: Final = "quotebus-consumers"
"""What the name of each connection of this library begins with; the bus's own name follows, after a colon."""
IN_MEMORY: Final[dict[str, Callable[[], Any]]] = {}
"""Servers that live in this process: URL -> what makes a connection. Only `consumers.testing` puts them here."""
_REMEDY: Final = (
    "write redis://user:password@host:port/db, rediss:// for TLS or unix:///path; "
    "percent-encode special characters of the password (/ is %2F, # is %23, @ is %40)"
)


class Target:
    """Where Redis is, and how to log in; shows neither user nor password.

    Raises `BadUrl`. Options in the query of the URL are those of redis-py's connections.
    """

    __slots__ = ("_class", "_options", "address", "client_name")

    def __init__(self, url: str, *, timeout_s: float, name: str = "") -> None:
        if not isinstance(url, str):
            raise BadUrl(f"the Redis URL is a {type(url).__name__}, not a string: {_REMEDY}")
        self.client_name: Final = f"{CLIENT_NAME}:{name}" if name else CLIENT_NAME
        if url in IN_MEMORY:
            self._class: Any = IN_MEMORY[url]
            self._options: dict[str, Any] = {}
            self.address = url
            return
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError:
            # The parser's own message may quote a piece of the password.
            raise BadUrl(f"the Redis URL is not readable: {_REMEDY}") from None
        self._class = options.pop("connection_class", Connection)
        # Lists instead of maps, whatever the server would prefer: one shape of reply to read.
        options.update(protocol=2, decode_responses=False)
        options.setdefault("socket_connect_timeout", timeout_s)
        options["socket_timeout"] = timeout_s
        self._options = options
        if "path" in options:
            self.address = f"unix://{options['path']}"
        else:
            scheme = "redis" if self._class is Connection else "rediss"
            where = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
            self.address = f"{scheme}://{where}/{options.get('db', 0)}"
        unknown = sorted(set(options) - _known_options(self._class))
        if unknown:
            raise BadUrl(f"the Redis URL has options that no connection knows: {', '.join(unknown)[:200]}")

    def connection(self) -> Any:
        """A new connection object, not yet connected."""
        return self._class(**self._options)

    def __repr__(self) -> str:
        return f"Target({self.address})"


def _known_options(connection_class: Any) -> set[str]:
    known: set[str] = set()
    for parent in connection_class.__mro__:
        known.update(inspect.signature(parent.__init__).parameters)
    return known


class Link:
    """A connection of its own. One task at a time may ask; `close` may come from anywhere.

    After any exception the link is closed. In a forked process it is no link any more: it raises `BusError` and
    leaves the parent's connection alone. `ask` raises redis-py's `ConnectionError`, `TimeoutError` and their
    children; an error that Redis answers to one command stands in the list of replies in its place.
    """

    __slots__ = ("__weakref__", "_client_name", "_connection", "_is_closed", "_is_inherited")

    def __init__(self, target: Target) -> None:
        self._is_inherited = False
        self._is_closed = False
        self._client_name: Final = target.client_name
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
            cancelled = _cancellations()
            try:
                await self._connection.connect()
            except (RuntimeError, AttributeError) as error:
                raise self._lost(error) from None
            _check_cancelled(cancelled)
            if self._is_closed:
                # It was made all the same: close it again, and let the question below find that.
                await self.close()
            # The name is for who reads CLIENT LIST; an ACL may forbid it.
            _, pong = await self.ask(("CLIENT", "SETNAME", self._client_name), ("PING",))
        except BaseException:
            await self.close()
            raise
        if isinstance(pong, RedisError):
            await self.close()
            raise pong

    async def ask(self, *commands: Command) -> list[Reply]:
        """Send all commands at once and collect their replies, in order."""
        connection = self._connection
        self._check_process()
        if not self.is_open:
            raise ConnectionResetError("the connection was closed")
        replies: list[Reply] = []
        cancelled = _cancellations()
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
        AttributeError redis-py finds no writer, because `close` came between two of its steps.
        """
        if isinstance(error, AttributeError) and not self._is_closed:
            return error
        return ConnectionResetError(f"the connection is gone: {error}")

    def _check_process(self) -> None:
        if self._is_inherited:
            raise forked()


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _check_cancelled(before: int) -> None:
    """Raise the cancellation that came since and got lost.

    redis-py sends under asyncio.wait_for, which until Python 3.12 drops a cancellation that meets its result.
    """
    if _cancellations() > before:
        raise asyncio.CancelledError


_links: Final[weakref.WeakSet[Link]] = weakref.WeakSet()
"""Every link of this process."""


def _after_fork() -> None:
    for link in list(_links):
        link.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

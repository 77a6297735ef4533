"""Calls to the vendor's blocking client, made in threads of their own so that the event loop never waits.

Decides how a call ends that nobody waits for any more: its socket is shut, which ends the thread.
Must never know what is asked. The threads are few and their number is fixed; a call that finds none free waits in
line, and leaves it when its time is up.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from consumers.rest.retry import Failure, Kind

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered, decoded, and when it was asked, by this machine's clock."""

    raw: Any
    asked_ns: int


class Call:
    """One call on its way; `abort` may come from any thread."""

    __slots__ = ("_connection", "aborted")

    def __init__(self) -> None:
        self._connection: Any = None
        self.aborted = False

    def goes_over(self, connection: Any) -> None:
        """Note the HTTP connection that is used from now on; `ConnectionAbortedError` when it is too late."""
        connection.call = self
        self._connection = connection
        if self.aborted:
            raise ConnectionAbortedError("nobody waits for this call any more")

    def has_ended(self) -> None:
        """Let go of the connection, which the next call may use."""
        self._connection = None

    def abort(self) -> None:
        """End the call, wherever it is; nothing happens to one that has ended."""
        self.aborted = True
        connection = self._connection
        sock = getattr(connection, "sock", None)
        if isinstance(sock, socket.socket) and connection.call is self:
            # Not sock.shutdown: a TLS socket would forget its state while the other thread reads from it.
            with contextlib.suppress(OSError, ValueError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Threads:
    """A small pool, made with the first call."""

    def __init__(self, count: int) -> None:
        self._count: Final = count
        self._pool: ThreadPoolExecutor | None = None
        self._calls: Final[set[Call]] = set()

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """The result of something that blocks and has its own bound."""
        return await asyncio.wrap_future(self._started().submit(work))

    async def call(self, work: Callable[[Call], Answer | Failure], timeout_s: float) -> Answer | Failure:
        """The outcome of a call, within `timeout_s` whatever the other side does; cancelling returns at once."""
        call = Call()
        self._calls.add(call)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(self._started().submit(work, call))
        except TimeoutError:
            return Failure(Kind.UNAVAILABLE, f"no answer within {timeout_s:.3g} s")
        finally:
            # Harmless for a call that has ended: its connection is no longer known.
            self._calls.discard(call)
            call.abort()

    def close(self) -> None:
        """Abort what is on its way and let the threads end."""
        calls = list(self._calls)
        # Mark all before the first thread is free, or it would begin with the next in line.
        for call in calls:
            call.aborted = True
        for call in calls:
            call.abort()
        if self._pool is not None:
            # Those in line are not cancelled, which would look as if their askers were: they end at their turn.
            self._pool.shutdown(wait=False)
            self._pool = None

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="quotebus-rest")
        return self._pool

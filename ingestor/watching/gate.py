"""Stands before the HTTP pages: so many visitors at a time, and nobody for long.

Decides who comes in and when a visit is over. Must never know what is asked. A visitor who sends one byte a minute,
or never reads the answer, costs a place for a few seconds; one beyond the last place costs nothing at all.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

MAX_VISITORS: Final = 32
VISIT_S: Final = 10.0
"""From the connection to its end, whatever happens in between; a page takes milliseconds."""


class Gate:
    """A factory of protocols, to be given to `create_server` in place of the one that it guards."""

    def __init__(self, guarded: Callable[[], asyncio.Protocol]) -> None:
        self._guarded: Final = guarded
        self.visitors = 0
        self.turned_away = 0

    def __call__(self) -> "Visit":
        """The protocol of a new connection."""
        return Visit(self, self._guarded)


class Visit(asyncio.Protocol):
    """One connection: hands everything on, and ends it when its time is over."""

    def __init__(self, gate: Gate, guarded: Callable[[], asyncio.Protocol]) -> None:
        self._gate: Final = gate
        self._make: Final = guarded
        self._inner: asyncio.Protocol | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports have the interface without inheriting it.
        transport = cast("asyncio.Transport", transport)
        if self._gate.visitors >= MAX_VISITORS:
            self._gate.turned_away += 1
            transport.abort()
            return
        self._gate.visitors += 1
        self._inner = self._make()
        self._end = asyncio.get_running_loop().call_later(VISIT_S, transport.abort)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if self._inner is None or self._end is None:
            return
        self._gate.visitors -= 1
        self._end.cancel()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Called by asyncio."""
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        """Called by asyncio."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        if self._inner is not None:
            self._inner.resume_writing()

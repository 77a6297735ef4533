"""One live connection of the double: its backlog, and how the backlog becomes frames.

Decides how much goes into a frame: sealed frames as they were given, the rest as few large ones when a slow client
lets them pile up. Must never know what is said in the conversation, where quotes come from, nor other connections.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ingestor.feed.messages import Encoding
from simulator.account import Session
from simulator.frames import Batch, join_items
from simulator.settings import SimulatorSettings
from simulator.timers import Timers


class _Chunk:
    __slots__ = ("breaks_off", "close_code", "items", "raw", "sealed", "wire")

    def __init__(
        self,
        items: list[bytes] | None = None,
        raw: bytes | str = b"",
        close_code: int | None = None,
        *,
        sealed: bool = True,
        wire: bytes | None = None,
        breaks_off: bool = False,
    ) -> None:
        self.items = items
        self.raw = raw
        self.close_code = close_code
        self.sealed = sealed
        self.wire = wire
        self.breaks_off = breaks_off


class Connection:
    """A live connection: what the vendor knows of it, and its backlog on the way out."""

    def __init__(
        self, ws: ServerConnection, session: Session, settings: SimulatorSettings, drained: Callable[[], None]
    ) -> None:
        self.ws: Final = ws
        self.session: Final = session
        self.frames_sent = 0
        self.quotes_sent = 0
        self.largest_frame = 0
        self.severed = False
        self.dying = False
        self.keeps_ghost = True
        self.timers: Final = Timers()
        self._settings = settings
        self._drained = drained
        self._chunks: deque[_Chunk] = deque()
        self._backlog = 0
        self._wake = asyncio.Event()

    @property
    def id(self) -> int:
        """Counts up from 1 in order of arrival."""
        return self.session.id

    @property
    def feed(self) -> str:
        """The feed of the path."""
        return self.session.feed

    @property
    def encoding(self) -> Encoding:
        """How both sides spell their messages."""
        return self.session.encoding

    @property
    def authenticated(self) -> bool:
        """Whether the login succeeded."""
        return self.session.authenticated

    @property
    def symbols(self) -> frozenset[str]:
        """The session's set of quotes."""
        return self.session.quotes

    @property
    def trades(self) -> frozenset[str]:
        """The session's set of trades."""
        return self.session.trades

    @property
    def backlog(self) -> int:
        """Quotes that wait to be sent."""
        return self._backlog

    @property
    def receives(self) -> bool:
        """Whether data is sent here at all."""
        return self.session.authenticated and not self.severed and not self.dying

    def push(self, batch: Batch, *, sealed: bool) -> int:
        """Queue those quotes that the session wants; -1 when the backlog would grow beyond its bound."""
        items = batch.items(self.session.encoding, self.session.live)
        if not items:
            return 0
        if self._backlog + len(items) > self._settings.max_backlog:
            return -1
        self._backlog += len(items)
        self._append(_Chunk(items, sealed=sealed))
        return len(items)

    def push_raw(self, raw: bytes | str) -> None:
        """Queue a frame as it is."""
        if not self.severed:
            self._append(_Chunk(raw=raw))

    def push_wire(self, wire: bytes, *, breaks_off: bool = False) -> None:
        """Queue bytes that go into the TCP connection as they are; `breaks_off` ends it behind them."""
        if not self.severed:
            self._append(_Chunk(wire=wire, breaks_off=breaks_off))

    def push_close(self, code: int) -> None:
        """Queue the end."""
        self._append(_Chunk(close_code=code))

    def discard(self) -> None:
        """Forget the backlog."""
        self._chunks.clear()
        self._backlog = 0
        self._drained()

    def sever(self) -> None:
        """Neither read nor write any more, and close nothing; the backlog is lost."""
        self.severed = True
        self.ws.transport.pause_reading()
        if self.ws.keepalive_task is not None:
            self.ws.keepalive_task.cancel()
        self.discard()

    def abort(self) -> None:
        """End the TCP connection, without a word."""
        self.ws.transport.abort()

    async def write_forever(self) -> None:
        """Send the backlog, as few large frames when it has piled up, until the connection ends."""
        encoding = self.session.encoding
        low = self._settings.frame_size
        try:
            while True:
                if not self._chunks or self.severed:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                chunk = self._chunks.popleft()
                if chunk.close_code is not None:
                    await self.ws.close(chunk.close_code)
                    return
                if chunk.wire is not None:
                    self.ws.transport.write(chunk.wire)
                    if chunk.breaks_off:
                        # Closing sends what was written; aborting might take it back.
                        self.ws.transport.close()
                    continue
                if chunk.items is None:
                    await self.ws.send(chunk.raw)
                    self.frames_sent += 1
                    continue
                items = chunk.items if chunk.sealed else self._gathered(chunk)
                self._backlog -= len(items)
                await self.ws.send(join_items(items, encoding))
                self.frames_sent += 1
                self.quotes_sent += len(items)
                self.largest_frame = max(self.largest_frame, len(items))
                if self._backlog <= low:
                    self._drained()
        except ConnectionClosed:
            return

    def _append(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk)
        self._wake.set()

    def _gathered(self, chunk: _Chunk) -> list[bytes]:
        assert chunk.items is not None
        items, most = chunk.items, self._settings.max_frame_items
        if len(items) < most and self._chunks and not self._chunks[0].sealed:
            items = list(items)
            while len(items) < most and self._chunks and not self._chunks[0].sealed:
                items.extend(self._chunks.popleft().items or ())
        if len(items) > most:
            self._chunks.appendleft(_Chunk(items[most:], sealed=False))
            items = items[:most]
        return items

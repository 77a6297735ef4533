"""A wire between daemon and Redis that can be bent.

Decides what happens to bytes on the way: how late, how slowly, how many of them arrive. Must never know what they
mean; the one thing it reads is the name that a connection gives itself with CLIENT SETNAME, so that a test can hurt
one connection and spare the others.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

PIECE_BYTES: Final = 16_384
PIECES_IN_FLIGHT: Final = 1024
BACKLOG_S: Final = 0.25
"""A throttled wire holds so much traffic; then its sender has to wait, as behind a full socket buffer."""
HEAD_BYTES: Final = 4096
HEADS_KEPT: Final = 1000
_NAME: Final = re.compile(rb"SETNAME\r\n\$\d+\r\n([^\r\n]+)\r\n", re.IGNORECASE)
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Way:
    """What one direction of a connection does to bytes."""

    delay_s: float = 0.0
    """Each piece comes so much later. Order is kept, and pieces travel at the same time."""
    bytes_per_s: float | None = None
    cut_after_bytes: int | None = None
    """So many more bytes pass, counted from when the fault began or the connection did; then it is reset."""
    swallow: bool = False
    reset_chance: float = 0.0
    """Probability for each piece that the connection is reset in its place. A reply is one piece, or several."""


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """What befalls a connection, each way; without arguments a good wire."""

    commands: Way = field(default_factory=Way)
    replies: Way = field(default_factory=Way)
    refuse: bool = False
    """Reset as soon as it is accepted; what is open stays open."""
    black_hole: bool = False
    """Accepted and kept, and nothing moves until the fault is over; then all of it does."""
    idle_close_s: float | None = None
    """Closed in good order when nothing moved for so long, as balancers do."""


@dataclass(slots=True, eq=False)
class Passage:
    """One connection through the proxy, as a test may choose it."""

    head: bytes = b""
    """The first bytes that the client sent."""
    name: str = ""
    """What it called itself; empty until then."""
    moved_s: float = 0.0
    writers: tuple[asyncio.StreamWriter, ...] = ()
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, data: bytes) -> None:
        """Look at what the client sends first, until it has told its name."""
        if len(self.head) < HEAD_BYTES:
            self.head += data[:HEAD_BYTES]
            if found := _NAME.search(self.head):
                self.name = found[1].decode()

    def reset(self) -> None:
        """End it with a reset on both sides."""
        self.ended.set()
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


Choice = Callable[[Passage], bool]


def named(name: str) -> Choice:
    """The connections that call themselves so."""
    return lambda passage: passage.name == name


class Proxy:
    """Forwards TCP connections to a port; an async context manager. `target` may change: new connections follow."""

    def __init__(self, port: int, *, seed: int = 0, at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._at = at
        self.target = port
        self.passages: set[Passage] = set()
        self.accepted = 0
        self.heads: deque[bytes] = deque(maxlen=HEADS_KEPT)
        """What each connection that is over sent first."""
        self.resets = 0
        """Connections that a fault has reset, `cut` included."""
        self._fault, self._good = Fault(), Fault()
        self._only: Choice | None = None
        self._random = random.Random(seed)
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, *self._at)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1 unless told otherwise."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Redis, seen through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def bend(self, fault: Fault, only: Choice | None = None) -> None:
        """From now on this fault befalls every connection, or those that are chosen; it replaces the last one."""
        self._fault, self._only = fault, only
        self.stir()

    def straighten(self) -> None:
        """A good wire again. What was held back comes; what is under way keeps its delay."""
        self.bend(self._good)

    def cut(self, only: Choice | None = None) -> None:
        """Reset every connection, or those that are chosen."""
        for passage in [p for p in self.passages if only is None or only(p)]:
            self.reset(passage)

    def fault_for(self, passage: Passage) -> Fault:
        """What befalls this connection now."""
        return self._fault if self._only is None or self._only(passage) else self._good

    def lets_through(self, passage: Passage, way: Way) -> bool:
        """Whether this piece gets through; a reset is drawn here."""
        if way.reset_chance and self._random.random() < way.reset_chance:
            self.reset(passage)
        return passage in self.passages and not way.swallow

    def stir(self) -> None:
        """Let everybody who waits look again at what befalls its connection."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def pause_for(self, delay_s: float | None) -> None:
        """Sleep so long, or until `stir`; None: until then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._changed.wait()

    def reset(self, passage: Passage) -> None:
        """Reset this one, and count it; once."""
        if passage in self.passages:
            self.passages.discard(passage)
            self.resets += 1
            passage.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        passage = Passage(moved_s=asyncio.get_running_loop().time(), writers=(writer,))
        self.accepted += 1
        self.passages.add(passage)
        try:
            if self.fault_for(passage).refuse:
                self.reset(passage)
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            passage.writers = (writer, far_writer)
            if passage not in self.passages:
                passage.reset()
                return
            async with asyncio.TaskGroup() as group:
                tasks: list[asyncio.Task[object]] = [
                    group.create_task(_Pump(self, passage, reader, far_writer, "commands").run()),
                    group.create_task(_Pump(self, passage, far_reader, writer, "replies").run()),
                    group.create_task(self._until_idle(passage)),
                    group.create_task(passage.ended.wait()),
                ]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        except OSError:
            # The target is not there: the client sees its connection end, as behind any balancer.
            self.reset(passage)
        finally:
            self.passages.discard(passage)
            self.heads.append(passage.head)
            for end in passage.writers:
                end.close()

    async def _until_idle(self, passage: Passage) -> None:
        loop = asyncio.get_running_loop()
        while True:
            idle_s = self.fault_for(passage).idle_close_s
            due_s = None if idle_s is None else passage.moved_s + idle_s - loop.time()
            if due_s is not None and due_s <= 0:
                return
            await self.pause_for(due_s)


class _Pump:
    """One direction of one connection: a reader that says when each piece is due, and a writer that keeps to it."""

    def __init__(
        self,
        proxy: Proxy,
        passage: Passage,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: str,
    ) -> None:
        self._proxy, self._passage = proxy, passage
        self._reader, self._writer = reader, writer
        self._direction = direction
        self._loop = asyncio.get_running_loop()
        self._due_s = 0.0
        self._fault: Fault | None = None
        self._passed_bytes = 0
        self._on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_IN_FLIGHT)

    async def run(self) -> None:
        """Until either end is closed; what is on the way then still arrives."""
        async with asyncio.TaskGroup() as group:
            delivery = group.create_task(self._deliver())
            with contextlib.suppress(OSError):
                await self._collect()
            await self._on_the_way.put((self._due_s, b""))
            await delivery

    @property
    def _way(self) -> Way:
        fault = self._proxy.fault_for(self._passage)
        if fault is not self._fault:
            self._fault, self._passed_bytes = fault, 0
        way: Way = getattr(fault, self._direction)
        return way

    async def _collect(self) -> None:
        while data := await self._reader.read(self._piece_bytes):
            if self._direction == "commands" and not self._passage.name:
                self._passage.note(data)
                # By its name, or by what it sent first, it may be a chosen one from now on.
                self._proxy.stir()
            now_s, way = self._loop.time(), self._way
            self._passage.moved_s = now_s
            if not self._proxy.lets_through(self._passage, way):
                continue
            line_s = len(data) / way.bytes_per_s if way.bytes_per_s else 0.0
            self._due_s = max(self._due_s + line_s, now_s + way.delay_s)
            await self._on_the_way.put((self._due_s, data))
            if (ahead_s := self._due_s - now_s - way.delay_s - BACKLOG_S) > 0:
                await asyncio.sleep(ahead_s)

    @property
    def _piece_bytes(self) -> int:
        """On a slow wire small pieces, so that it trickles and does not gush."""
        rate = self._way.bytes_per_s
        return PIECE_BYTES if rate is None else max(1, min(PIECE_BYTES, int(rate / 50)))

    async def _deliver(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                due_s, data = await self._on_the_way.get()
                if (wait_s := due_s - self._loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                while self._proxy.fault_for(self._passage).black_hole:
                    await self._proxy.pause_for(None)
                if not data:
                    return
                limit, before = self._way.cut_after_bytes, self._passed_bytes
                self._passed_bytes += len(data)
                if limit is not None and self._passed_bytes > limit:
                    self._writer.write(data[: limit - before])
                    self._proxy.reset(self._passage)
                    return
                self._writer.write(data)
                await self._writer.drain()

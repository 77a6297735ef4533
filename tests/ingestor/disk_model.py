"""A server and a disk whose every step waits for the test, around a real publisher and a real spool."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, cast

import hiredis
import msgspec

from ingestor.app import SAVE_S
from ingestor.feed.messages import QuoteMessage
from ingestor.journal import Journal
from ingestor.publisher.batch import digest, from_record
from ingestor.publisher.publisher import Publisher
from ingestor.publisher.spooling import SPOOL_AFTER_S
from ingestor.redis_link import RedisAddress, RedisLink, Reply
from ingestor.resp import pack
from ingestor.spool import Spool
from tests.ingestor.vendor import T0_NS, message
from wire import ZERO_ID, EntryId, Keyspace

KEYS = Keyspace("quotes")
SYMBOLS = ("A", "B")
Streams = dict[str, list[tuple[EntryId, str]]]


class Disk(Executor):
    """One file operation at a time, begun and ended by the test."""

    def __init__(self) -> None:
        self.asked: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.is_prompt = False
        self.failure: OSError | None = None
        """What every prompt operation ends with."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Called by asyncio."""
        future: Future[Any] = Future()
        self.asked.append((future, lambda: fn(*args, **kwargs)))
        if self.is_prompt:
            self.do(self.failure)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to end."""

    def do(self, failure: OSError | None = None) -> None:
        """The operation that was asked for first is done, or fails."""
        future, work = self.asked.popleft()
        # Whoever asked may have gone; the work is done even so.
        is_wanted = future.set_running_or_notify_cancel()
        try:
            result = work() if failure is None else fail(failure)
        except Exception as error:
            if is_wanted:
                future.set_exception(error)
        else:
            if is_wanted:
                future.set_result(result)


class Server:
    """What `append.lua`, `claim.lua` and `ends.lua` do, and a memory that can fall short."""

    def __init__(self) -> None:
        self.epoch, self.token, self.batch = 0, b"", 0
        self.streams: Streams = {}
        self.history: list[tuple[int, bytes, int, Streams]] = []
        self.is_full = False
        self.remember()

    def remember(self) -> None:
        """A state that a failover may bring back."""
        streams = {symbol: list(entries) for symbol, entries in self.streams.items()}
        self.history.append((self.epoch, self.token, self.batch, streams))

    def forget(self, steps: int) -> None:
        """Back by so many states."""
        del self.history[max(1, len(self.history) - steps) :]
        self.epoch, self.token, self.batch, streams = self.history[-1]
        self.streams = {symbol: list(entries) for symbol, entries in streams.items()}

    def answer(self, command: bytes) -> Reply:
        """What the server replies to packed bytes."""
        reader = hiredis.Reader()
        reader.feed(command)
        _, script, count, *rest = reader.gets()
        keys, values = rest[: int(count)], rest[int(count) :]
        if b"Tells where streams end" in script:
            return [str(self._end(key)).encode() if self._end(key) else b"" for key in keys]
        if b"Takes or confirms" in script:
            return self._claim(int(values[0]), int(values[1]), values[3])
        return self._append([key.decode() for key in keys[2:]], values)

    def _end(self, key: bytes) -> EntryId | None:
        entries = self.streams.get(key.decode())
        return entries[-1][0] if entries else None

    def _claim(self, epoch: int, least: int, token: bytes) -> Reply:
        if epoch == 0:
            self.epoch, self.token, self.batch = self.epoch + 1, token, 0
            self.remember()
            return [b"held", self.epoch, 0]
        if self.epoch > epoch or (self.epoch == epoch and self.token != token):
            return [b"fenced", self.epoch, self.batch]
        applied = 0 if self.epoch < epoch else self.batch
        self.epoch, self.token, self.batch = epoch, token, max(applied, least)
        self.remember()
        return [b"held", epoch, applied]

    def _append(self, keys: list[str], values: list[bytes]) -> Reply:
        epoch, number = int(values[0]), int(values[1])
        if self.epoch > epoch or (self.epoch == epoch and self.token != values[3]):
            return [b"fenced", self.epoch]
        if self.epoch < epoch:
            return [b"behind", -1]
        if number <= self.batch:
            # Every entry is there: nobody else writes.
            return [b"seen"]
        if number != self.batch + 1:
            return [b"behind", self.batch]
        if self.is_full:
            return hiredis.ReplyError("OOM command not allowed when used memory > 'maxmemory'.")
        self.batch = number
        notes: list[Any] = []
        accepted = 0
        for ordinal, (key, row) in enumerate(zip(keys, msgspec.msgpack.decode(values[4]), strict=True), 1):
            if key not in self.streams:
                notes += [ordinal, 0, b"created", b""]
            entries = self.streams.setdefault(key, [])
            for i in range(2, len(row), 2):
                entry = EntryId.parse(row[i]), row[i + 1]
                if not entries or entry[0] > entries[-1][0]:
                    entries.append(entry)
                    accepted += 1
                elif entry in entries:
                    notes += [ordinal, i // 2, b"present", b""]
                else:
                    notes += [ordinal, i // 2, b"too_small", str(entries[-1][0]).encode()]
        self.remember()
        return [b"applied", accepted, 0, *notes]


class Link:
    """A connection on which a command arrives, and an answer is heard, when the test says so."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.on_reply: Callable[[Reply], None] = lambda _reply: None
        self.sent: deque[bytes] = deque()
        self.answers: deque[Reply] = deque()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def call(self, *parts: str | bytes | int) -> Reply:
        """As that of the real one."""
        await self.may_answer.wait()
        return self._server.answer(pack(*parts))

    def send(self, command: bytes) -> None:
        """As that of the real one."""
        if not self.closed.done():
            self.sent.append(command)

    def abort(self, reason: str) -> None:
        """As that of the real one."""
        if not self.closed.done():
            self.closed.set_result(reason)

    def arrive(self) -> None:
        """The server reads the next command."""
        self.answers.append(self._server.answer(self.sent.popleft()))

    def hear(self) -> None:
        """The next answer reaches the publisher."""
        self.on_reply(self.answers.popleft())


class Life:
    """One life of the daemon, as far as quotes are concerned."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        *,
        memory_bytes: int = 1 << 26,
        spool_bytes: int = 1 << 28,
        segment_bytes: int | None = None,
    ) -> None:
        spool = Spool(
            folder,
            identity="test",
            max_bytes=spool_bytes,
            max_age_s=1e9,
            digest=digest,
            segment_bytes=segment_bytes,
        )
        self.server = server
        self.journal = Journal()
        self.publisher = Publisher(
            RedisAddress("redis://127.0.0.1:1"),
            KEYS,
            self.journal,
            stream_maxlen=0,
            memory_bytes=memory_bytes,
            replay_s=1e9,
            replay_bytes=1 << 28,
            spool=spool,
        )
        self.spool = spool
        self.disk = Disk()
        assert self.publisher.spooling._disk is not None
        self.publisher.spooling._disk._thread = cast("Any", self.disk)
        self.link: Link | None = None
        self.is_due = False
        self.step: asyncio.Task[bool] | None = None
        self.received: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}

    async def begin(self, first_ns: int) -> None:
        """Open the spool, and read the ends of the streams."""
        self.disk.is_prompt = True
        await self.publisher.spooling.open(is_optional=False)
        self.disk.is_prompt = False
        for symbol in SYMBOLS:
            entries = self.server.streams.get(KEYS.stream(symbol), [])
            times = [msgspec.json.decode(payload)[8] for _, payload in entries if payload.startswith("[")]
            self.publisher.stamper.load(
                symbol, entries[-1][0] if entries else ZERO_ID, times[-1] if times else None
            )
            self.publisher.stamper.open_gap(symbol, first_ns, "daemon_stopped") if times else None

    async def connect(self) -> None:
        """A new connection."""
        link = Link(self.server)
        await self.publisher._claim(cast("RedisLink", link))
        self.link = link
        self.publisher._adopt(cast("RedisLink", link))

    async def cut(self) -> None:
        """The connection ends; what was sent and not read is gone, as are answers that were not heard."""
        self.link = None
        self.publisher._link = None
        self.publisher._sent.clear()
        self.publisher._outbox.lost()

    async def receive(self, ordinal: int, symbols: str, received_ns: int) -> None:
        """One frame; quotes bear their ordinal as bid size, and are a second apart."""
        quotes: list[QuoteMessage] = []
        for symbol in symbols:
            quotes.append(message(symbol, T0_NS + ordinal * 1_000_000_000, bs=ordinal))
            self.received[symbol].append(ordinal)
        self.publisher.receive(received_ns, quotes)
        self.is_due = self.is_due or time.time_ns() - received_ns > SPOOL_AFTER_S * 1e9
        await settle()

    async def begin_step(self) -> None:
        """One round of the spool, if none is under way."""
        if self.step is None or self.step.done():
            if self.is_due:
                # As if nothing had been answered since.
                self.publisher.spooling._answered = self.publisher._outbox.answered
                self.publisher.spooling._progress_s = -1e9
            self.is_due = False
            self.step = asyncio.get_running_loop().create_task(self.publisher.spooling._round())
        await settle()

    async def disk_does(self, failure: OSError | None = None) -> None:
        """One operation of the disk is over."""
        if self.disk.asked:
            self.disk.do(failure)
        await settle()

    async def arrive(self, count: int) -> None:
        """Commands reach the server."""
        while count and self.link is not None and self.link.sent:
            self.link.arrive()
            count -= 1

    async def hear(self, count: int) -> None:
        """Answers reach the publisher."""
        while count and self.link is not None and self.link.answers:
            self.link.hear()
            count -= 1
            if self.link.closed.done():
                await self.cut()
        await settle()

    async def rest(self) -> None:
        """Everything comes to its end, with a server and a disk that are well."""
        self.server.is_full = False
        for _ in range(400):
            if self.link is None or self.link.closed.done():
                await self.cut()
                await self.connect()
            self.publisher.spooling._medium.health.hurry()
            await self.begin_step()
            while self.disk.asked:
                await self.disk_does()
            await self.arrive(10)
            await self.hear(10)
            if self.publisher._outbox.is_stopped and self.publisher._outbox.is_refused_whole:
                self.publisher._go_on(cast("RedisLink", self.link))
            if self.publisher.holdings.is_empty:
                return
        raise AssertionError(f"{self.publisher!r} does not come to rest, {self.publisher.spooling.problem}")

    async def stop(self) -> bool:
        """Save what is not stored."""
        while self.disk.asked:
            await self.disk_does()
        self.disk.is_prompt = True
        is_saved = await self.publisher.save(SAVE_S)
        await self.close()
        return is_saved

    async def close(self) -> None:
        """Let go of the folder."""
        self.disk.is_prompt, self.disk.failure = True, None
        if self.step is not None:
            self.step.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.step
        await self.publisher.spooling.close()

    async def kill(self) -> None:
        """The process is gone, and what it had asked of the disk with it."""
        if self.step is not None:
            self.step.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.step
        self.spool._writer.close()
        self.spool._folder.unlock()

    def on_disk(self) -> dict[str, set[int]]:
        """The ordinals that a next life would find."""
        ordinals: dict[str, set[int]] = {symbol: set() for symbol in SYMBOLS}
        for record in self.spool.recovered():
            for row in from_record(record.position, record.quotes, record.at_ns, record.body).rows():
                quotes = [str(payload) for payload in row[3::2] if str(payload).startswith("[")]
                ordinals[str(row[0])] |= {msgspec.json.decode(payload)[1] for payload in quotes}
        return ordinals

    @property
    def imbalance(self) -> int:
        """The two sides of the ledger apart."""
        counts, holdings, stamper = self.publisher.counts, self.publisher.holdings, self.publisher.stamper
        rejected = sum(counts.rejected.values()) + sum(stamper.counts.rejected.values())
        known = counts.stored + counts.already_stored + rejected + counts.dropped_total
        return (
            counts.received
            + counts.recovered
            - known
            - (holdings.queued + holdings.unanswered + holdings.spooled)
        )


def fail(failure: OSError) -> Any:
    """What a disk does that cannot."""
    raise failure


async def settle() -> None:
    """Callbacks that are due have run."""
    for _ in range(6):
        await asyncio.sleep(0)


def found(server: Server, symbol: str) -> list[int | str]:
    """Ordinals of the quotes in a stream, and the reasons of its markers."""
    decoded = [msgspec.json.decode(payload) for _, payload in server.streams.get(KEYS.stream(symbol), [])]
    return [body[1] if isinstance(body, list) else body["reason"] for body in decoded]

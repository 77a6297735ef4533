"""Whoever waits for quotes that do not come is told why within five seconds, whichever way it reads.

Each test brings one reason about, for all ways of reading at once, and prints what each was told after how long
(`pytest -s`). A daemon is played by a task that beats; the server is real, so that it can be killed and frozen.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers import BusError, MarketDataService, Reconnect, connect, sync
from consumers.alpaca import StockDataStream
from consumers.reading import telling
from consumers.reading.unserved import Unserved
from consumers.shared_link import SILENT_S
from simulator.redis_server import RedisServer
from tests.consumers.conftest import KEYS, until
from tests.consumers.service.conftest import spawn
from wire import encode_latest, entry_id_at

LIMIT_S: Final = 5.0
BEHIND = "waits behind the limit of 30 symbols"
PUT_OUT = f"put out by an operator's symbol; {BEHIND}"
REFUSED = "refused by Alpaca with code 414: invalid symbol"
MISSPELT = "not an active asset at Alpaca; did you mean AAPL?"
SILENT = "no quote for 5 s"
UNTIL_REDIS_IS_BACK = Reconnect(first_delay_s=0.2, max_delay_s=1.0)
Data = Callable[[], dict[str, Unserved]]


@dataclass
class Ways:
    """Every way of reading, each on a bus and a symbol of its own, so that its line is told from the others'."""

    url: str
    stack: AsyncExitStack
    data: dict[str, Data] = field(default_factory=dict)
    running: list["asyncio.Task[Any]"] = field(default_factory=list)

    def start(self, symbol: str, loop: Coroutine[Any, Any, Any], data: Data) -> None:
        """Read on in the background."""
        self.data[symbol] = data
        self.running.append(spawn(quietly(loop)))

    async def native(self) -> None:
        """Loops, `get`, batches, newest quotes, a group, and a stream of somebody who takes no lease."""
        for symbol in ("QUOTES", "GET", "BATCHES", "NEWEST", "GROUP", "UNLEASED", "ADDED"):
            bus = await self.stack.enter_async_context(connect(self.url, reconnect=UNTIL_REDIS_IS_BACK))
            stream: Any
            match symbol:
                case "NEWEST":
                    stream = bus.newest(symbol)
                case "GROUP":
                    stream = bus.group("g", symbol)
                case "ADDED":
                    stream = bus.quotes("OTHER")
                    stream.add(symbol)
                case _:
                    stream = bus.quotes(
                        symbol, lease=symbol != "UNLEASED", max_age_s=5 if symbol == "GET" else None
                    )
            source = stream.batches() if symbol == "BATCHES" else stream
            steps = stream.get() if symbol == "GET" else loop(source)
            self.start(symbol, steps, partial(getattr, stream, "unserved"))

    async def twin(self) -> None:
        """The same without asyncio, in threads."""
        for symbol in ("SYNC", "SYNCNEW", "SYNCGRP"):
            bus = await asyncio.to_thread(sync.connect(self.url, reconnect=UNTIL_REDIS_IS_BACK).open)
            self.stack.push_async_callback(asyncio.to_thread, bus.close)
            stream: Any = (
                bus.newest(symbol)
                if symbol == "SYNCNEW"
                else bus.group("g", symbol)
                if symbol == "SYNCGRP"
                else bus.quotes(symbol)
            )
            self.start(symbol, asyncio.to_thread(list, stream), partial(getattr, stream, "unserved"))

    async def others(self) -> None:
        """A service with a loop, one with a callback, and the drop-in."""
        for symbol in ("SERVICE", "CALLBACK"):
            service = await self.stack.enter_async_context(
                MarketDataService(redis_url=self.url, reconnect=UNTIL_REDIS_IS_BACK)
            )
            called = symbol == "CALLBACK"
            stream = service.stream_quotes(symbol, repr if called else None)
            self.start(symbol, stream.run() if called else loop(stream), partial(told_by, service))
        dropin = StockDataStream("", "", redis_url=self.url)

        async def handler(_: Any) -> None:
            pass

        dropin.subscribe_quotes(handler, "DROPIN")
        self.start("DROPIN", dropin._run_forever(), lambda: dropin.unserved)
        self.stack.push_async_callback(dropin.stop_ws)

    async def aclose(self) -> None:
        """End them all."""
        for task in self.running:
            task.cancel()
        await asyncio.wait(self.running)


async def loop(items: Any) -> None:
    """Read to the end."""
    async for _ in items:
        pass


async def quietly(steps: Coroutine[Any, Any, Any]) -> None:
    """A loop that ends because its bus is closed is none of this test's business."""
    with suppress(BusError):
        await steps


def told_by(service: MarketDataService) -> dict[str, Unserved]:
    """What a service says of its streams."""
    unserved = service.get_stream_status()["unserved"]
    return {symbol: Unserved(symbol, **why) for symbol, why in unserved.items()}


class Daemon:
    """Beats and writes states as the daemon does, as long as it is let."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.state = "live"
        self._is_over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, symbols: list[str]) -> None:
        """All well: every symbol is live, and has a quote of a moment ago."""
        for symbol in symbols:
            await self.says(symbol, "live")
            await self.quoted(symbol, age_s=1)
        await self.beat()
        self._task = spawn(self._beat())

    async def says(self, symbol: str, state: str, reason: str | None = None, *, age_s: float = 60) -> None:
        """What became of a symbol, so long ago."""
        value = {"state": state, "reason": reason, "since": now(-age_s)}
        await self.redis.hset(KEYS.subscriptions, symbol, json.dumps(value))

    async def quoted(self, symbol: str, *, age_s: float) -> None:
        """Its newest quote."""
        time_ns = time.time_ns() - int(age_s * 1e9)
        row = (1.0, 1, "V", 2.0, 1, "V", None, None, time_ns, 0)
        await self.redis.hset(KEYS.latest, symbol, encode_latest(symbol, str(entry_id_at(time_ns)), row))

    async def beat(self) -> None:
        """Once."""
        fields: Any = {"state": self.state, "heartbeat": now(), "connected_since": now(-9_999)}
        await self.redis.hset(KEYS.status, mapping=fields)

    async def stop(self) -> None:
        """Without a word, as when it is killed."""
        self._is_over.set()
        if self._task is not None:
            await self._task

    async def _beat(self) -> None:
        while not self._is_over.is_set():
            with suppress(OSError, RedisError):
                await self.beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._is_over.wait()


def now(ahead_s: float = 0) -> str:
    """A time as the daemon writes it."""
    return datetime.fromtimestamp(time.time_ns() / 1e9 + ahead_s, UTC).isoformat()


@dataclass
class Scene:
    """What a reason can be brought about with."""

    server: RedisServer
    daemon: Daemon
    symbols: list[str]

    async def every(self, state: str, reason: str | None) -> None:
        """This became of every symbol."""
        for symbol in self.symbols:
            await self.daemon.says(symbol, state, reason)

    async def refused(self) -> None:
        await self.every("refused", REFUSED)

    async def waiting(self) -> None:
        await self.every("waiting", BEHIND)

    async def put_out(self) -> None:
        await self.every("waiting", PUT_OUT)

    async def not_stored(self) -> None:
        await self.every("not_stored", "refused_by_redis: WRONGTYPE")

    async def misspelt(self) -> None:
        await self.every("live", MISSPELT)
        await self.daemon.redis.delete(KEYS.latest)

    async def remarked(self) -> None:
        """Quotes came until a moment ago, and the daemon knows why there are none now."""
        for symbol in self.symbols:
            await self.daemon.says(symbol, "live", SILENT, age_s=0)

    async def halted(self) -> None:
        for symbol in self.symbols:
            await self.daemon.quoted(symbol, age_s=600)

    async def unwanted(self) -> None:
        await self.daemon.redis.delete(KEYS.subscriptions)

    async def daemon_killed(self) -> None:
        await self.daemon.stop()

    async def daemon_stopped(self) -> None:
        self.daemon.state = "stopped"
        await self.daemon.beat()
        await self.daemon.stop()

    async def no_daemon(self) -> None:
        await self.daemon.stop()
        await self.daemon.redis.delete(KEYS.status, KEYS.subscriptions, KEYS.latest)

    async def feed_away(self) -> None:
        self.daemon.state = "connecting"
        await self.daemon.beat()

    async def daemon_without_redis(self) -> None:
        self.daemon.state = "redis_away"
        await self.daemon.beat()

    async def redis_killed(self) -> None:
        self.server.kill()

    async def redis_frozen(self) -> None:
        self.server.pause()


REASONS: Final = {
    "refused": ("refused", REFUSED),
    "waiting": ("waiting", BEHIND),
    "put_out": ("waiting", PUT_OUT),
    "not_stored": ("not_stored", "WRONGTYPE"),
    "misspelt": ("live", MISSPELT),
    "remarked": ("live", SILENT),
    "halted": ("quiet", "a halt looks the same"),
    "unwanted": ("not_subscribed", "not desired, or not looked at yet"),
    "daemon_killed": ("no_daemon", "the daemon's last heartbeat is"),
    "daemon_stopped": ("no_daemon", "the daemon was stopped"),
    "no_daemon": ("no_daemon", "no daemon has written here"),
    "feed_away": ("connecting", "the daemon is not connected to its feed"),
    "daemon_without_redis": ("redis_away", "the daemon cannot write quotes to Redis"),
    "redis_killed": ("no_redis", "is the server running"),
    "redis_frozen": ("no_redis", "no answer for 2.5 s"),
}
SEEN_LATER: Final = {"halted", "misspelt"}
"""Without a remark of the daemon that is newer, a loop that runs already is told of these when the last quote has
grown old; one that begins, at once."""
MOMENTS: Final = [
    # Without Redis no bus opens, and whoever opens one is told by its error.
    *((reason, "from the beginning") for reason in REASONS if not reason.startswith("redis")),
    *((reason, "in the middle") for reason in REASONS if reason not in SEEN_LATER),
]


class Heard(logging.Handler):
    """When each symbol was named first in a line with such words."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        self.lines.append((time.monotonic(), record.levelno, record.getMessage()))

    def of(self, symbol: str, state: str, words: str, since_s: float) -> list[tuple[float, int, str]]:
        """The lines about this symbol, state and reason, each with the seconds since then."""
        return [
            (at_s - since_s, level, text)
            for at_s, level, text in self.lines
            if at_s >= since_s
            and symbol in text.partition(":")[0].split(", ")
            and f": {state}, no quotes come: " in text
            and words in text
        ]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """All that the library logs."""
    handler, logger = Heard(), logging.getLogger("consumers")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A server of one's own, and a daemon by whose word all is well."""
    with RedisServer() as server:
        async with Redis.from_url(server.url, protocol=2, socket_timeout=1) as redis:
            daemon = Daemon(redis)
            yield Scene(server, daemon, [])
            await daemon.stop()


@pytest.mark.fault("Q08")
@pytest.mark.parametrize(("reason", "at"), MOMENTS)
async def test_every_way_of_reading_says_why_it_waits(
    scene: Scene, heard: Heard, reason: str, at: str
) -> None:
    """Within five seconds, as a warning with symbol, state and reason, and as data; once."""
    state, words = REASONS[reason]
    async with AsyncExitStack() as stack:
        ways = Ways(scene.server.url, stack)
        scene.symbols += "QUOTES GET BATCHES NEWEST GROUP UNLEASED ADDED".split()
        scene.symbols += "OTHER SYNC SYNCNEW SYNCGRP SERVICE CALLBACK DROPIN".split()
        await scene.daemon.start(scene.symbols)
        if at == "from the beginning":
            await getattr(scene, reason)()
        since_s = time.monotonic()
        await ways.native()
        await ways.twin()
        await ways.others()
        stack.push_async_callback(ways.aclose)
        scene.symbols.remove("OTHER")
        assert sorted(ways.data) == sorted(scene.symbols)
        if at == "in the middle":
            await settled(scene, heard)
            since_s = time.monotonic()
            await getattr(scene, reason)()

        async def all_told() -> bool:
            return all(heard.of(symbol, state, words, since_s) for symbol in scene.symbols)

        with suppress(TimeoutError):
            await until(all_told, LIMIT_S + 3)
        for symbol in scene.symbols:
            lines = heard.of(symbol, state, words, since_s)
            print(  # noqa: T201 - the table of who was told what, when
                f"{reason:>20} {at:>18} {symbol:>9}: "
                + (f"{lines[0][0]:.1f} s  {lines[0][2]}" if lines else "—")
            )
            assert lines, (symbol, heard.lines)
            told_s, level, _ = lines[0]
            assert (level, len(lines)) == (logging.WARNING, 1)
            assert told_s < LIMIT_S, symbol
            why = ways.data[symbol]()[symbol]
            assert why.state == state, symbol
            assert words in why.reason or state == "no_redis", symbol
        # Whoever leaves does so in order.
        if reason == "redis_frozen":
            scene.server.resume()
        elif reason == "redis_killed":
            await asyncio.to_thread(scene.server.start)


async def settled(scene: Scene, heard: Heard) -> None:
    """Wait until every way reads, and has been looked at without anything to tell."""

    async def looks() -> bool:
        clients = await scene.daemon.redis.client_list()
        return sum(client["cmd"] == "hmget" for client in clients) >= len(scene.symbols) - 1

    await until(looks)
    assert not [text for _, level, text in heard.lines if level >= logging.WARNING]


async def test_what_changes_is_told_again_and_not_before_a_minute_has_passed(
    scene: Scene, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reason after the other, as data at once, in the log once in that time."""
    monkeypatch.setattr(telling, "TOLD_EVERY_S", 6.0)
    await scene.daemon.start(["AMD"])
    async with connect(scene.server.url) as bus:
        stream = bus.quotes("AMD")
        loop = spawn(stream.get())
        await scene.daemon.says("AMD", "waiting", BEHIND)
        began_s = time.monotonic()

        async def is_so(reason: str) -> bool:
            return stream.unserved.get("AMD", Unserved("AMD", "", "")).reason == reason

        for reason in (BEHIND, PUT_OUT, BEHIND, PUT_OUT):
            await scene.daemon.says("AMD", "waiting", reason)
            await until(partial(is_so, reason), LIMIT_S)

        async def told_again() -> bool:
            return len(heard.of("AMD", "waiting", PUT_OUT, began_s)) == 1

        await until(told_again, 12)
        (first, *_), (again,) = (heard.of("AMD", "waiting", words, began_s) for words in (BEHIND, PUT_OUT))
        assert again[0] - first[0] >= 6
        assert len(heard.of("AMD", "waiting", "", began_s)) == 2
        await scene.daemon.says("AMD", "live")
        await until(partial(not_unserved, stream), LIMIT_S)
        assert stream.subscribed == {"AMD"}
        loop.cancel()
        await asyncio.wait([loop])
        await stream.aclose()
        assert stream.unserved == {}


async def not_unserved(stream: Any) -> bool:
    """Whether all is well."""
    return not stream.unserved


async def test_who_wants_all_that_the_bus_carries_is_told_when_it_carries_nothing(
    scene: Scene, heard: Heard
) -> None:
    """There is no symbol to name then."""
    dropin = StockDataStream("", "", redis_url=scene.server.url)

    async def handler(_: Any) -> None:
        pass

    dropin.subscribe_quotes(handler, "*")
    running = spawn(dropin._run_forever())
    began_s = time.monotonic()

    async def told() -> bool:
        return any("no daemon has written here" in text for _, _, text in heard.lines)

    await until(told, LIMIT_S + 3)
    assert time.monotonic() - began_s < LIMIT_S
    dropin.stop()
    await running


async def test_whoever_opens_a_bus_is_told_that_redis_does_not_answer(scene: Scene, heard: Heard) -> None:
    """Each way of opening, long before it is given up."""
    url = scene.server.url
    dropin = StockDataStream("", "", redis_url=url)

    async def handler(_: Any) -> None:
        pass

    dropin.subscribe_quotes(handler, "AMD")
    service = MarketDataService(redis_url=url)
    scene.server.pause()
    began_s = time.monotonic()
    openings = [
        spawn(quietly(connect(url).__aenter__())),
        spawn(quietly(asyncio.to_thread(sync.connect(url).open))),
        spawn(quietly(service.stream_quotes("AMD").run())),
        spawn(dropin._run_forever()),
    ]

    async def all_told() -> bool:
        return sum("no answer from Redis at" in text for _, _, text in heard.lines) == len(openings)

    await until(all_told, LIMIT_S + 3)
    assert time.monotonic() - began_s < LIMIT_S
    scene.server.resume()
    dropin.stop()
    await service.aclose()
    for task in openings:
        task.cancel()
    await asyncio.wait(openings)


async def test_a_loop_that_stands_still_while_a_bus_is_opened_blames_no_server(
    scene: Scene, heard: Heard
) -> None:
    """As an import does; the answer has come long before."""
    bus = connect(scene.server.url)
    opening = spawn(bus.__aenter__())
    await asyncio.sleep(0)
    time.sleep(SILENT_S + 0.5)  # noqa: ASYNC251 - that is the point
    await opening
    await bus.aclose()
    assert [text for _, level, text in heard.lines if level >= logging.WARNING] == []

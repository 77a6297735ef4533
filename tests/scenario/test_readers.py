"""Readers on a real bus: the join of snapshot and stream under load, thousands of streams, a replica."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from consumers import Bus, Gap, Level, Quote, connect
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, numbers, subscribed
from wire import encode_quote

JOINED_QUOTES = 200_000
MANY_STREAMS_MS = {1000: 4.0, 5000: 20.0}
"""What the guide says of the time from an entry to a loop that follows so many symbols, at the median."""


@pytest.mark.fault("Q03")
@pytest.mark.timeout(180)
async def test_snapshot_and_stream_join_without_hole_or_repeat_under_the_daemons_load(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Two hundred thousand quotes, and readers that come one after another at any moment in between."""
    async with (
        DaemonProcess(shared_server.url, vendor.url("iex"), stream_maxlen="0") as daemon,
        connect(shared_server.url) as bus,
    ):
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 100))
        await daemon.until(lambda status: status["stored"] == 100)
        joins = 0

        async def send() -> None:
            for first in range(101, JOINED_QUOTES, 500):
                vendor.send(numbered("AAPL", first, 500), frame_size=100)
                await asyncio.sleep(0.01)  # traffic

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            last = 0
            while not sending.done():
                joins += 1
                last = await _read_on(bus, 3000)
        final = JOINED_QUOTES // 500 * 500 + 100
        await daemon.until(lambda status: status["stored"] == final, 60)
    assert joins >= 10
    assert 0 < last <= final
    assert await numbers(redis, "AAPL") == list(range(1, final + 1))


async def _read_on(bus: Bus, count: int) -> int:
    """Begin with a snapshot, read on for so many or until it is quiet, and find a run of numbers; its last."""
    stream = bus.quotes("AAPL", start="snapshot")
    seen: list[int] = []
    try:
        async with asyncio.timeout(2):
            async for item in stream:
                assert isinstance(item, Quote), item
                seen.append(int(item.bid_size or 0))
                if len(seen) >= count:
                    break
    except TimeoutError:
        pass
    await stream.aclose()
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    return seen[-1]


@pytest.mark.second_try("forty waits on a server that whole machines of neighbours may hold for seconds")
@pytest.mark.fault("Q05")
@pytest.mark.parametrize("count", [1000, 5000])
async def test_a_loop_over_thousands_of_streams_is_as_quick_as_documented(
    shared_server: RedisServer, redis: Redis, count: int
) -> None:
    """From an entry in any one of them to the loop, at the median, three times generous."""
    names = [f"S{n:04d}" for n in range(count)]
    row = encode_quote((1.5, 1, "V", 1.6, 1, "N", None, "C", 1_763_000_000_000_000_000, 5))
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.xadd(KEYS.stream(name), {"q": row})
    await pipe.execute()
    took_ms = []
    async with connect(shared_server.url) as bus:
        items = aiter(bus.quotes(*names, start="now"))

        async def received() -> float:
            assert isinstance(await anext(items), Quote)
            return time.monotonic()

        for n in range(40):
            # No group of tasks: what comes too late would be an ExceptionGroup, and no reason for a second try.
            reading = asyncio.create_task(received())  # noqa: TID251
            try:
                await until(lambda: _is_blocked(redis), 20)
                began_s = time.monotonic()
                await redis.xadd(KEYS.stream(names[n * 97 % count]), {"q": row})
                async with asyncio.timeout(20):
                    took_ms.append((await reading - began_s) * 1000)
            finally:
                reading.cancel()
                await asyncio.wait({reading})
    assert statistics.median(took_ms) < 3 * MANY_STREAMS_MS[count]


@pytest.fixture
async def replica(own_server: RedisServer) -> AsyncIterator[RedisServer]:
    """A read-only copy of the server that the daemon writes to."""
    with RedisServer(options=("--replicaof", "127.0.0.1", str(own_server.port))) as server:
        async with Redis.from_url(server.url, decode_responses=True, protocol=2) as client:
            await until(lambda: _is_linked(client), 20)
        yield server


@pytest.mark.fault("Q06")
async def test_a_reader_on_a_replica_follows_and_is_told_when_the_replica_no_longer_does(
    own_server: RedisServer,
    own_redis: Redis,
    own_daemon: DaemonProcess,
    replica: RedisServer,
    vendor: AlpacaSimulator,
) -> None:
    """Nothing that a reader does needs to write; one that is cut off is soon called stale."""
    async with connect(replica.url) as bus:
        await subscribed(own_redis, vendor, "AAPL")
        stream = bus.quotes("AAPL", start="earliest")
        vendor.send(numbered("AAPL", 1, 500), frame_size=50)
        seen = []
        async with asyncio.timeout(20):
            async for item in stream:
                assert not isinstance(item, Gap)
                seen.append(item.bid_size)
                if len(seen) == 500:
                    break
        assert seen == list(range(1, 501))
        assert (await bus.latest("AAPL")) is not None
        assert [item async for item in bus.history("AAPL", 0)]
        await until(lambda: _level_is(bus, Level.LIVE))
        own_server.pause()
        try:
            await until(lambda: _level_is(bus, Level.STALE), 20)
            found = (await bus.quality("AAPL"))["AAPL"]
            assert "heartbeat" in (found.reason or "")
            latest = await bus.latest("AAPL")
            assert latest is not None
            assert latest.bid_size == 500
        finally:
            own_server.resume()
        vendor.send(numbered("AAPL", 501, 1))
        await until(lambda: _level_is(bus, Level.LIVE), 30)


async def _level_is(bus: Bus, level: Level) -> bool:
    return (await bus.quality("AAPL"))["AAPL"].level is level


async def _is_linked(replica: Redis) -> bool:
    return bool((await replica.info("replication")).get("master_link_status") == "up")


async def _is_blocked(redis: Redis) -> bool:
    return int((await redis.info("clients"))["blocked_clients"]) >= 1

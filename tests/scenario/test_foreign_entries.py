"""Entries that somebody else has put into a stream."""

import asyncio
import signal

import pytest
from redis.asyncio import Redis

import consumers
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, stored, subscribed
from wire import Quote, decode_latest

FAR = "99999999999999-0"
READABLE = {"q": "[1,1,null,2,1,null,null,null,1]"}
NOT_UTF_8: dict[str | bytes, str | bytes] = {"q": b'["\xff\xfe\x80'}


async def test_a_daemon_starts_on_an_entry_that_is_not_utf_8(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The newest entry of a stream is somebody's bytes: quotes are stored behind it."""
    await redis.xadd(KEYS.stream("AAPL"), NOT_UTF_8)  # type: ignore[arg-type]
    await redis.sadd(KEYS.symbols, "AAPL")
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 15)
        vendor.send(numbered("AAPL", 1, 5))
        await daemon.until(lambda status: status["stored"] == 5)
    assert await redis.xlen(KEYS.stream("AAPL")) == 6
    assert await _read(shared_server, 5) == [1, 2, 3, 4, 5]


async def test_a_reader_passes_over_an_entry_that_is_not_utf_8(
    shared_server: RedisServer, daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """From the earliest entry on, a reader gets every quote before and behind it."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    await redis.xadd(KEYS.stream("AAPL"), NOT_UTF_8)  # type: ignore[arg-type]
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 6)
    assert await redis.xlen(KEYS.stream("AAPL")) == 7
    assert await _read(shared_server, 6) == [1, 2, 3, 4, 5, 6]


@pytest.mark.fault("K28")
async def test_quotes_that_had_to_be_placed_behind_a_foreign_entry_reach_the_cache(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The cache's newest quote is the stream's newest entry, id included."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    await redis.xadd(KEYS.stream("AAPL"), READABLE, id=FAR)  # type: ignore[arg-type]
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 6)
    await daemon.told("foreign_entries")
    assert await _cached(redis) == (await stored(redis, "AAPL"))[-1]
    assert (await _cached(redis)).bid_size == 6


@pytest.mark.fault("K28")
async def test_a_foreign_entry_in_the_middle_of_traffic_neither_loses_nor_disorders(
    own_server: RedisServer, own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator
) -> None:
    """Two batches are under way when it is noticed and more quotes have come: all are stored in their order."""
    await subscribed(own_redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 5))
    await own_daemon.until(lambda status: status["stored"] == 5)
    await own_redis.xadd(KEYS.stream("AAPL"), READABLE, id=FAR)  # type: ignore[arg-type]
    own_server.pause()
    try:
        for n in (1, 2):
            vendor.send(numbered("AAPL", n * 50 - 44, 50))
            await own_daemon.until(lambda status, n=n: status["unanswered"] == n * 50)  # type: ignore[misc]
        # The daemon finds new quotes and both refusals at once when it goes on, the quotes first.
        own_daemon.signal(signal.SIGSTOP)
        vendor.send(numbered("AAPL", 106, 50))
        await until(lambda: _is_sent(vendor, 155))
    finally:
        own_server.resume()
    await until(lambda: _batch_is(own_redis, 3))
    own_daemon.signal(signal.SIGCONT)
    await own_daemon.until(lambda status: status["stored"] == 155)
    items = await stored(own_redis, "AAPL")
    assert await _cached(own_redis) == items[-1]
    assert [i.bid_size for i in items if isinstance(i, Quote) and i.id != FAR] == list(range(1, 156))


async def _read(server: RedisServer, count: int) -> list[int]:
    found: list[int] = []
    async with consumers.connect(server.url) as bus:
        async for item in bus.quotes("AAPL", start="earliest"):
            assert isinstance(item, Quote)
            found.append(int(item.bid_size or 0))
            if len(found) == count:
                break
    return found


async def _cached(redis: Redis) -> Quote:
    return decode_latest("AAPL", await redis.hget(KEYS.latest, "AAPL") or "")


async def _is_sent(vendor: AlpacaSimulator, quotes: int) -> bool:
    await asyncio.sleep(0)
    return vendor.connections[0].quotes_sent == quotes


async def _batch_is(redis: Redis, number: int) -> bool:
    return await redis.hget(KEYS.writer, "batch") == str(number)

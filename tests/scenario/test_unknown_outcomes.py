"""Writes whose outcome the daemon cannot know: applied or not, the streams must not tell the difference."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Fault, Proxy, Way
from tests.scenario.streams import KEYS, numbered, numbers

SWALLOWED_REPLIES = Fault(replies=Way(swallow=True))


@pytest.fixture
async def proxy(shared_server: RedisServer) -> AsyncIterator[Proxy]:
    """A bendable wire to the shared server."""
    async with Proxy(shared_server.port) as running:
        yield running


@pytest.fixture
async def far_daemon(proxy: Proxy, redis: Redis, vendor: AlpacaSimulator) -> AsyncIterator[DaemonProcess]:
    """A daemon that reaches Redis through the proxy, with AAPL live and ten quotes stored."""
    async with DaemonProcess(proxy.url, vendor.url("iex")) as process:
        await process.until_live()
        await redis.sadd(KEYS.symbols, "AAPL")
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
        vendor.send(numbered("AAPL", 1, 10))
        await process.until(lambda status: status["stored"] == 10)
        yield process


@pytest.mark.fault("K05")
async def test_batches_that_were_applied_but_never_answered_are_not_stored_twice(
    far_daemon: DaemonProcess, proxy: Proxy, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The position on the server tells that they were applied, and nothing is added when they come again."""
    proxy.bend(SWALLOWED_REPLIES)
    vendor.send(numbered("AAPL", 11, 990), frame_size=10)
    await until(lambda: _added_more_than(redis, 10))
    proxy.cut()
    proxy.straighten()
    await far_daemon.until(lambda status: status["stored"] == 1000)
    assert await numbers(redis, "AAPL") == list(range(1, 1001))
    assert await _added(redis) == 1000


@pytest.mark.fault("K05")
async def test_without_the_position_the_ids_alone_refuse_every_entry_that_is_there(
    far_daemon: DaemonProcess, proxy: Proxy, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """With the writer's key lost as well, the same batches are sent again in full, and add 0 entries."""
    proxy.bend(SWALLOWED_REPLIES)
    vendor.send(numbered("AAPL", 11, 990), frame_size=10)
    await until(lambda: _added_more_than(redis, 10))
    before = await _added(redis)
    await redis.delete(KEYS.writer)
    proxy.cut()
    proxy.straighten()
    status = await far_daemon.until(lambda s: s["stored"] + s["already_stored"] == 1000)
    assert status["already_stored"] == before - 10
    assert await numbers(redis, "AAPL") == list(range(1, 1001))
    assert await _added(redis) == 1000
    assert "foreign_entries" not in far_daemon.kinds()


@pytest.mark.fault("K05", "K07")
async def test_a_wire_that_breaks_again_and_again_neither_loses_nor_doubles(
    far_daemon: DaemonProcess, proxy: Proxy, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Twenty resets in the middle of traffic, with replies lost on every other one."""
    for n in range(20):
        proxy.bend(SWALLOWED_REPLIES if n % 2 == 0 else Fault())
        vendor.send(numbered("AAPL", 11 + n * 100, 100), frame_size=7)
        await far_daemon.until(lambda status, n=n: status["received"] == 110 + n * 100)  # type: ignore[misc]
        proxy.cut()
    proxy.straighten()
    proxy.cut()
    await far_daemon.until(lambda status: status["stored"] + status["already_stored"] == 2010, 15)
    assert await numbers(redis, "AAPL") == list(range(1, 2011))


async def _added(redis: Redis) -> int:
    info = await redis.xinfo_stream(KEYS.stream("AAPL"))
    return int(info["entries-added"])


async def _added_more_than(redis: Redis, count: int) -> bool:
    return await _added(redis) > count

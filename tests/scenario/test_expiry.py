"""Streams that nobody wants get an expiry, and lose it when somebody wants them again."""

from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, gaps, numbered, numbers, subscribed

STREAM = KEYS.stream("AAPL")


async def test_a_symbol_that_is_wanted_again_has_no_expiry_when_it_is_live(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Removed until its stream has an expiry and added again, five times: it never is live and expiring."""
    async with DaemonProcess(
        shared_server.url, vendor.url("iex"), sweep_every_s="0.2", forget_after_s="30"
    ) as daemon:
        for n in range(5):
            await subscribed(redis, vendor, "AAPL", "MSFT")
            assert await redis.ttl(STREAM) in ((-1,) if n else (-2, -1))
            vendor.send(numbered("AAPL", 1 + n, 1))
            await daemon.until(lambda status, n=n: status["stored"] == n + 1)  # type: ignore[misc]
            assert await redis.ttl(STREAM) == -1
            await redis.srem(KEYS.symbols, "AAPL")
            await until(lambda: _expires(redis), 5)
    assert await numbers(redis, "AAPL") == [1, 2, 3, 4, 5]
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["not_subscribed"] * 4


async def test_an_expiry_is_taken_away_without_waiting_for_a_sweep(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """With the next sweep a minute away, wanting the symbol again is enough."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 1))
    await daemon.until(lambda status: status["stored"] == 1)
    await redis.srem(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == frozenset())
    await redis.expire(STREAM, 30)
    await subscribed(redis, vendor, "AAPL")
    assert await redis.ttl(STREAM) == -1


async def test_a_stream_that_expires_from_an_earlier_run_is_kept_when_its_symbol_is_wanted(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The expiry goes before the symbol is live, also for a daemon that has not seen the stream before."""
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
        await daemon.until_live()
        await redis.xadd(STREAM, {"q": "[1,1,null,2,1,null,null,null,1]"}, id="1-0")
        await redis.expire(STREAM, 30)
        await subscribed(redis, vendor, "AAPL")
        assert await redis.ttl(STREAM) == -1


async def _expires(redis: Redis) -> bool:
    return bool(await redis.ttl(STREAM) > 0)

"""Three Sentinels choose another primary, and the address that the daemon knows follows them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Proxy
from tests.scenario.sentinels import SERVICE, sentinel
from tests.scenario.streams import cache_is_newest, subscribed
from tests.scenario.traffic import Traffic, is_quiet

AT_ONCE = ("--repl-diskless-sync-delay", "0")


async def follow(way: Proxy, sentinels: list[Redis], over: asyncio.Event) -> None:
    """What a balancer beside the Sentinels does: lead to the one that they call the primary, and end what leads
    elsewhere. It ends by the event, because redis-py may swallow a cancellation until Python 3.12."""
    while not over.is_set():
        for one in sentinels:
            with contextlib.suppress(RedisError, OSError):
                _, port = await one.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)  # type: ignore[no-untyped-call]
                if int(port) != way.target:
                    way.target = int(port)
                    way.cut()
        await asyncio.sleep(0.1)


@pytest.fixture
async def sentinels(own_pair: tuple[RedisServer, RedisServer], tmp_path: Path) -> AsyncIterator[list[Redis]]:
    """Three of them that know of the replica and of each other."""
    primary, _ = own_pair
    async with contextlib.AsyncExitStack() as stack:
        ports = [stack.enter_context(sentinel(tmp_path, primary)) for _ in range(3)]
        found = [
            await stack.enter_async_context(Redis(port=port, decode_responses=True, protocol=2))
            for port in ports
        ]
        for one in found:
            await until(lambda one=one: _knows(one), 30)  # type: ignore[misc]
        yield found


@pytest.fixture
async def own_pair() -> AsyncIterator[tuple[RedisServer, RedisServer]]:
    """A primary, and a replica in sync with it."""
    with RedisServer(options=AT_ONCE) as primary, RedisServer(options=AT_ONCE) as replica:
        async with Redis.from_url(replica.url, decode_responses=True, protocol=2) as on_replica:
            await on_replica.replicaof("127.0.0.1", str(primary.port))
            await until(lambda: _is_in_sync(on_replica))
        yield primary, replica


@pytest.mark.fault("K18")
async def test_a_failover_by_three_sentinels_is_followed_and_loses_nothing(
    own_pair: tuple[RedisServer, RedisServer], sentinels: list[Redis], vendor: AlpacaSimulator
) -> None:
    """The primary is killed amid traffic: the Sentinels promote the replica, the daemon goes on there, complete."""
    primary, replica = own_pair
    traffic = Traffic(vendor, "AAPL", "MSFT")
    async with (
        Redis.from_url(primary.url, decode_responses=True, protocol=2) as on_primary,
        Redis.from_url(replica.url, decode_responses=True, protocol=2) as on_replica,
        Proxy(primary.port) as way,
        asyncio.TaskGroup() as group,
    ):
        over = asyncio.Event()
        group.create_task(follow(way, sentinels, over))
        async with _sets(over), DaemonProcess(way.url, vendor.url("iex")) as daemon:
            await daemon.until_live()
            await subscribed(on_primary, vendor, "AAPL", "MSFT")
            async with traffic.flowing(500):
                await daemon.until(lambda status: status["stored"] > 500)
                primary.kill()
                await until(lambda: _is_primary(on_replica), 30)
                chosen_s = time.monotonic()
                await daemon.until(lambda status: status["state"] == "live", 15)
                # Three seconds behind the Sentinels' own delay, three times generous.
                assert time.monotonic() - chosen_s < 9.0
            await traffic.everything_arrived(daemon, on_replica)
            await subscribed(on_replica, vendor, "AAPL", "MSFT", "TSLA")
            for symbol in ("AAPL", "MSFT"):
                await until(lambda symbol=symbol: cache_is_newest(on_replica, symbol))  # type: ignore[misc]
            assert is_quiet(daemon), daemon.log


@contextlib.asynccontextmanager
async def _sets(event: asyncio.Event) -> AsyncIterator[None]:
    try:
        yield
    finally:
        event.set()


async def _knows(one: Redis) -> bool:
    with contextlib.suppress(RedisError, OSError):
        known = await one.execute_command("SENTINEL", "MASTER", SERVICE)  # type: ignore[no-untyped-call]
        facts = known if isinstance(known, dict) else dict(zip(known[::2], known[1::2], strict=True))
        return (int(facts["num-slaves"]), int(facts["num-other-sentinels"])) == (1, 2)
    return False


async def _is_in_sync(redis: Redis) -> bool:
    return bool((await redis.info("replication"))["master_link_status"] == "up")


async def _is_primary(redis: Redis) -> bool:
    # Whom the Sentinels promote, they tell to end its clients.
    with contextlib.suppress(RedisError):
        return bool((await redis.info("replication"))["role"] == "master")
    return False

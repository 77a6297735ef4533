"""A server that is there and will not serve: out of memory, a read-only replica, no room for clients."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer, free_port
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, cache_is_newest, numbered, numbers, subscribed
from tests.scenario.traffic import Traffic, is_quiet, unready

FILLER_BYTES = 30 * 1024 * 1024


@pytest.mark.parametrize("relief", ["more memory", "flushall"])
@pytest.mark.fault("K13")
async def test_a_server_out_of_memory_is_waited_for_and_then_gets_everything(
    own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator, relief: str
) -> None:
    """Refused whole, the quotes stay queued; once there is room they are stored, and those behind them."""
    await subscribed(own_redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 10))
    await own_daemon.until(lambda status: status["stored"] == 10)
    await own_redis.setrange("filler", FILLER_BYTES, "x")
    used = int((await own_redis.info("memory"))["used_memory"])
    await own_redis.config_set("maxmemory-policy", "noeviction")
    await own_redis.config_set("maxmemory", used - FILLER_BYTES // 2)
    vendor.send(numbered("AAPL", 11, 500), frame_size=10)
    await own_daemon.until(lambda status: status["state"] == "redis_away")
    assert "OOM" in (await own_daemon.status())["checks"]["redis"]
    await (own_redis.flushall() if relief == "flushall" else own_redis.config_set("maxmemory", 0))
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == 510)
    vendor.send(numbered("AAPL", 511, 500), frame_size=10)
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == 1010)
    assert await numbers(own_redis, "AAPL") == list(range(1, 1011))
    await own_daemon.until(lambda status: status["state"] == "live")


@pytest.mark.parametrize("right", ["xadd", "evalsha", "hset"])
@pytest.mark.fault("K53")
async def test_a_right_that_is_taken_away_for_a_while_costs_no_quote(
    own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator, right: str
) -> None:
    """Refused whole and named as a permission, the quotes wait; with the right back all are stored, once."""
    traffic = Traffic(vendor, "AAPL", "MSFT")
    await subscribed(own_redis, vendor, "AAPL", "MSFT")
    async with traffic.flowing():
        await own_daemon.until(lambda status: status["stored"] > 0)
        await own_redis.acl_setuser("default", commands=[f"-{right}"], enabled=True)
        try:
            await unready(own_daemon, "no permissions to run")
        finally:
            await own_redis.acl_setuser("default", categories=["+@all"], enabled=True)
        await own_daemon.until(lambda status: status["state"] == "live")
    await traffic.everything_arrived(own_daemon, own_redis)
    assert is_quiet(own_daemon), own_daemon.log


@pytest.mark.fault("K14")
async def test_memory_that_runs_out_every_few_milliseconds_tears_no_hole(
    own_server: RedisServer, own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator
) -> None:
    """The limit is flipped amid large batches: each is stored whole or refused whole, and none changes places."""
    traffic = Traffic(vendor, "AAPL", "MSFT")
    await subscribed(own_redis, vendor, "AAPL", "MSFT")
    await own_redis.config_set("maxmemory-policy", "noeviction")
    stop = asyncio.Event()
    async with Redis.from_url(own_server.url, protocol=2) as somebody, asyncio.TaskGroup() as group:
        group.create_task(_flip_memory(somebody, stop))
        for _ in range(20):
            traffic.send(2500, frame_size=500)
            await asyncio.sleep(0.1)
        await own_daemon.until(lambda status: status["received"] == traffic.sent * 2, 20)
        # Not until some have been refused, or nothing is shown.
        await until(lambda: _refused(own_daemon, 20), 20)
        stop.set()
    await traffic.everything_arrived(own_daemon, own_redis)
    for symbol in ("AAPL", "MSFT"):
        assert await cache_is_newest(own_redis, symbol)
    assert is_quiet(own_daemon), own_daemon.log


@pytest.mark.parametrize("master", ["unreachable", "empty"])
@pytest.mark.fault("K16")
async def test_a_server_that_becomes_a_replica_is_neither_hammered_nor_called_live(
    own_server: RedisServer,
    own_redis: Redis,
    own_daemon: DaemonProcess,
    vendor: AlpacaSimulator,
    master: str,
) -> None:
    """While it is read-only the daemon is unready and patient; as a master again it gets everything, once."""
    await subscribed(own_redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 10))
    await own_daemon.until(lambda status: status["stored"] == 10)
    with RedisServer(options=("--repl-diskless-sync-delay", "0")) as other:
        port = free_port() if master == "unreachable" else other.port
        await own_redis.replicaof("127.0.0.1", str(port))
        if master == "empty":
            await until(lambda: _is_in_sync(own_redis))
        vendor.send(numbered("AAPL", 11, 10))
        await own_daemon.until(lambda status: status["state"] == "redis_away")
        await own_daemon.told("redis_away")
        told = len(_comings_and_goings(own_daemon))
        states, sent, until_s = set(), 20, time.monotonic() + 3.0
        while time.monotonic() < until_s:
            vendor.send(numbered("AAPL", sent + 1, 10))
            sent += 10
            states.add((await own_daemon.until(lambda s, n=sent: s["received"] == n))["state"])  # type: ignore[misc]
            assert (await own_daemon.page("/readyz"))[0] == 503
            await asyncio.sleep(0.02)
        assert states == {"redis_away"}
        assert len(_comings_and_goings(own_daemon)) - told < 10
        await own_redis.replicaof("NO", "ONE")
        await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == sent, 15)
    vendor.send(numbered("AAPL", sent + 1, 10))
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == sent + 10)
    # A replica takes over what its master has; where that was nothing, all of it is sent again.
    assert await numbers(own_redis, "AAPL") == list(range(1, sent + 11))
    await own_daemon.until(lambda status: status["state"] == "live")


@pytest.mark.fault("K40")
async def test_a_server_without_room_for_clients_does_not_end_the_daemon(
    own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator
) -> None:
    """Turned away at the door, the daemon comes again, and stores what it received meanwhile."""
    await subscribed(own_redis, vendor, "AAPL")
    await own_redis.config_set("maxclients", 1)
    await _kill_the_others(own_redis)
    vendor.send(numbered("AAPL", 1, 500), frame_size=10)
    await own_daemon.until(lambda s: "max number of clients" in (s["checks"]["redis"] or ""))
    await own_daemon.until(lambda status: status["received"] == 500)
    assert (await own_daemon.page("/readyz"))[0] == 503
    await own_redis.config_set("maxclients", 500)
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == 500)
    await own_daemon.until(lambda status: status["state"] == "live" and status["tracking"])
    await subscribed(own_redis, vendor, "AAPL", "MSFT")
    assert await numbers(own_redis, "AAPL") == list(range(1, 501))
    assert len(vendor.closed) == 0


@pytest.mark.fault("K40")
async def test_a_daemon_that_starts_while_there_is_no_room_for_clients_waits_for_it(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """It is not live, and not dead either."""
    await own_redis.sadd(KEYS.symbols, "AAPL")
    await own_redis.config_set("maxclients", 1)
    async with DaemonProcess(own_server.url, vendor.url("iex")) as daemon:
        await daemon.told("redis_away")
        assert (await daemon.status())["state"] == "starting"
        await own_redis.config_set("maxclients", 500)
        await daemon.until_live()


async def _is_in_sync(redis: Redis) -> bool:
    return bool((await redis.info("replication"))["master_link_status"] == "up")


def _comings_and_goings(daemon: DaemonProcess) -> list[str]:
    return [kind for kind in daemon.kinds() if kind in ("redis_away", "redis_connected")]


async def _kill_the_others(redis: Redis) -> None:
    for kind in ("normal", "pubsub"):
        await redis.client_kill_filter(_type=kind, skipme=True)


async def _flip_memory(redis: Redis, stop: asyncio.Event) -> None:
    """Too little memory and enough of it in turn, a few milliseconds each, a hundred times at least."""
    flips = 0
    while flips < 100 or not stop.is_set():
        await redis.config_set("maxmemory", 1)
        await asyncio.sleep(0.002)
        await redis.config_set("maxmemory", 0)
        await asyncio.sleep(0.005)
        flips += 1


async def _refused(daemon: DaemonProcess, at_least: int) -> bool:
    _, metrics = await daemon.page("/metrics")
    name = 'quotebus_batches_refused_total{error="OOM"} '
    return float(metrics.partition(name)[2].split("\n")[0] or 0) >= at_least

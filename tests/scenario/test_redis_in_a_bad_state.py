"""A server that answers and will not serve for a while: paused, loading, out of disk, busy, without replicas."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer, find_server
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, subscribed
from tests.scenario.traffic import Traffic, answers, is_quiet, unready

SLOW_LOADING = (
    *("--key-load-delay", "20000", "--rdbcompression", "no"),
    # Between so many bytes it looks at its clients, and tells them LOADING.
    *("--loading-process-events-interval-bytes", "1024"),
)
FILLERS = 100
"""Each takes 20 ms to load again."""
BUSY_AFTER_MS = 100


@pytest.fixture
async def live(own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator) -> DaemonProcess:
    """The daemon on the server that will be harmed, with AAPL and MSFT live."""
    await subscribed(own_redis, vendor, "AAPL", "MSFT")
    return own_daemon


@pytest.fixture
def traffic(vendor: AlpacaSimulator) -> Traffic:
    """Quotes of both symbols."""
    return Traffic(vendor, "AAPL", "MSFT")


@pytest.mark.fault("K09")
async def test_a_pause_of_all_writes_is_waited_out(
    live: DaemonProcess, own_redis: Redis, traffic: Traffic
) -> None:
    """CLIENT PAUSE for 2 s: quotes wait, and all of them are stored when it ends."""
    async with traffic.flowing():
        await live.until(lambda status: status["stored"] > 0)
        await own_redis.client_pause(2000, all=False)
        await live.until(lambda status: status["queued"] + status["unanswered"] > 1000)
        assert (await live.page("/livez"))[0] == 200
    await traffic.everything_arrived(live, own_redis)
    assert is_quiet(live), live.log


@pytest.mark.fault("K19")
async def test_a_server_that_loads_its_data_is_waited_for(vendor: AlpacaSimulator, traffic: Traffic) -> None:
    """LOADING is answered to everything for seconds; the daemon is unready, patient, and then stores all."""
    with RedisServer(options=SLOW_LOADING) as server:
        async with (
            Redis.from_url(server.url, decode_responses=True, protocol=2) as redis,
            DaemonProcess(server.url, vendor.url("iex")) as daemon,
        ):
            await daemon.until_live()
            await subscribed(redis, vendor, "AAPL", "MSFT")
            for n in range(FILLERS):
                await redis.set(f"filler:{n}", "x" * 1024)
            traffic.send(5)
            await traffic.everything_arrived(daemon, redis)
            await redis.save()
            server.kill()
            async with traffic.flowing(), asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(server.start))
                await unready(daemon, "LOADING")
            await traffic.everything_arrived(daemon, redis)
            assert is_quiet(daemon), daemon.log


@pytest.fixture
def full_disk_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A server that outlives a full disk's error: it ignores the signal that comes with a file size limit."""
    script = tmp_path / "server"
    script.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {find_server()} \"$@\"\n")
    script.chmod(0o755)
    monkeypatch.setenv("QUOTEBUS_REDIS_SERVER", str(script))
    with RedisServer(appendonly=True) as server:
        yield server


@contextlib.contextmanager
def disk_full(server: RedisServer) -> Iterator[None]:
    """No file of the server can grow, as on a full disk; needs neither a mount nor root."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
async def full_disk_redis(full_disk_server: RedisServer) -> AsyncIterator[Redis]:
    """A client of the server whose disk fills up."""
    async with Redis.from_url(full_disk_server.url, decode_responses=True, protocol=2) as client:
        yield client


@pytest.mark.parametrize(
    "file",
    [
        pytest.param("RDB", marks=pytest.mark.fault("K20")),
        pytest.param("AOF", marks=pytest.mark.fault("K21")),
    ],
)
async def test_a_server_whose_disk_is_full_is_waited_for_and_then_gets_everything(
    full_disk_server: RedisServer,
    full_disk_redis: Redis,
    vendor: AlpacaSimulator,
    traffic: Traffic,
    file: str,
) -> None:
    """MISCONF refuses each write; reads of the control plane go on; with room again all of it is stored once."""
    server, redis = full_disk_server, full_disk_redis
    async with DaemonProcess(server.url, vendor.url("iex")) as daemon:
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL", "MSFT")
        if file == "RDB":
            await redis.config_set("appendonly", "no")
            await redis.config_set("save", "1 1")
        async with traffic.flowing():
            with disk_full(server):
                await unready(daemon, "MISCONF", 15)
                assert not await answers(redis)
                assert "symbols_not_read" not in daemon.kinds()
                assert await redis.smembers(KEYS.symbols) == {"AAPL", "MSFT"}
            if file == "RDB":
                # The server would try by itself again after five seconds.
                await until(lambda: _saved(redis))
            await daemon.until(lambda status: status["state"] == "live", 15)
        await traffic.everything_arrived(daemon, redis)
        assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K22")
async def test_a_server_that_is_busy_with_a_script_is_left_to_its_owner(
    live: DaemonProcess, own_server: RedisServer, own_redis: Redis, traffic: Traffic
) -> None:
    """BUSY is waited out: the daemon does not kill what is not its own, and stores everything afterwards."""
    await own_redis.config_set("lua-time-limit", BUSY_AFTER_MS)
    async with (
        Redis.from_url(own_server.url, protocol=2) as owner,
        traffic.flowing(),
        asyncio.TaskGroup() as group,
    ):
        script = group.create_task(_endless(owner))
        await unready(live, "BUSY")
        # Longer than any pause between two attempts of the daemon.
        await asyncio.sleep(1.5)
        assert not script.done()
        await own_redis.script_kill()
    await traffic.everything_arrived(live, own_redis)
    assert is_quiet(live), live.log


@pytest.mark.fault("K23")
async def test_a_server_without_the_replicas_it_wants_is_waited_for(
    live: DaemonProcess, own_redis: Redis, traffic: Traffic
) -> None:
    """NOREPLICAS is counted by its name; the quotes wait, and are stored when the server takes them."""
    async with traffic.flowing():
        await own_redis.config_set("min-replicas-to-write", 1)
        await unready(live, "NOREPLICAS")
        _, metrics = await live.page("/metrics")
        assert 'quotebus_batches_refused_total{error="NOREPLICAS"}' in metrics
        await own_redis.config_set("min-replicas-to-write", 0)
        await live.until(lambda status: status["state"] == "live")
    await traffic.everything_arrived(live, own_redis)
    assert is_quiet(live), live.log


async def _saved(redis: Redis) -> bool:
    with contextlib.suppress(RedisError):
        await redis.bgsave()
    return bool((await redis.info("persistence"))["rdb_last_bgsave_status"] == "ok")


async def _endless(owner: Redis) -> None:
    with pytest.raises(RedisError, match=r"(?i)killed"):
        await owner.execute_command("EVAL", "while true do end", 0)  # type: ignore[no-untyped-call]

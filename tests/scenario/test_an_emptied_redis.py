"""A database that loses what it held: by FLUSHALL, or by a restart of a server that keeps nothing."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import (
    KEYS,
    cache_is_newest,
    event_exists,
    numbered,
    numbers,
    state_is,
    subscribed,
)

MANY = tuple(f"SYM{n:02d}" for n in range(40))


@pytest.fixture
async def forgetful_server() -> AsyncIterator[RedisServer]:
    """A server that persists nothing, so that a restart empties it."""
    with RedisServer() as server:
        yield server


@pytest.mark.fault("K32", "K34")
@pytest.mark.parametrize("order", [("script", "data"), ("data", "script")])
@pytest.mark.fault("K34")
async def test_publishing_survives_the_loss_of_data_and_scripts(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, order: tuple[str, str]
) -> None:
    """SCRIPT FLUSH and FLUSHALL, in either order: what was there comes back, what is sent later follows it."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    for what in order:
        await (redis.script_flush() if what == "script" else redis.flushall())
    vendor.send(numbered("AAPL", 6, 5000), frame_size=10)
    await daemon.until(lambda status: status["stored"] + status["already_stored"] == 5005)
    assert await numbers(redis, "AAPL") == list(range(1, 5006))
    assert (await daemon.told("redis_forgot"))["lost_batches"] == 0
    await daemon.until(lambda status: status["state"] == "live")


@pytest.mark.fault("K32")
async def test_a_database_emptied_in_the_middle_of_traffic_has_everything_that_was_stored_later(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """All of it is there again: nothing is doubled, missing or held back, and the hash has the newest."""
    await subscribed(redis, vendor, "AAPL")
    for step in range(100):
        vendor.send(numbered("AAPL", 1 + step * 20, 20), frame_size=5)
        if step % 25 == 20:
            await redis.flushall()
        await daemon.until(lambda status, step=step: status["received"] == 20 + step * 20)  # type: ignore[misc]
    await daemon.until(lambda status: status["stored"] + status["already_stored"] == 2000)
    assert await numbers(redis, "AAPL") == list(range(1, 2001))
    assert await cache_is_newest(redis, "AAPL")


@pytest.mark.fault("K32")
async def test_after_flushall_the_states_of_all_symbols_are_written_anew(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """`quotes:subscriptions` is complete again within three seconds, and so is `quotes:status`."""
    await subscribed(redis, vendor, *MANY)
    await until(lambda: _are_live(redis, MANY))
    await redis.flushall()
    await until(lambda: _are_live(redis, MANY), 3)
    await until(lambda: _has_heartbeat(redis), 3)


async def test_after_flushall_a_change_of_one_symbol_does_not_hide_the_loss_of_the_others(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The set is put back at once with a symbol more and one less: all states are there, and no others."""
    await subscribed(redis, vendor, *MANY)
    await until(lambda: _are_live(redis, MANY))
    wanted = (*MANY[1:], "AAPL")
    pipe = redis.pipeline()
    pipe.flushall()
    pipe.sadd(KEYS.symbols, *wanted)
    await pipe.execute()
    await vendor.wait_for(lambda: vendor.symbols == set(wanted))
    await until(lambda: _are_live(redis, wanted), 3)


@pytest.mark.fault("K03")
async def test_after_a_restart_without_persistence_the_states_are_complete_again(
    forgetful_server: RedisServer, vendor: AlpacaSimulator
) -> None:
    """A server that comes back empty gets status, states and the last quotes within seconds, and new ones
    follow."""
    async with (
        Redis.from_url(forgetful_server.url, decode_responses=True, protocol=2) as redis,
        DaemonProcess(forgetful_server.url, vendor.url("iex")) as daemon,
    ):
        await subscribed(redis, vendor, *MANY)
        await until(lambda: _are_live(redis, MANY))
        vendor.send(numbered("SYM00", 1, 5))
        await daemon.until(lambda status: status["stored"] == 5)
        await asyncio.to_thread(forgetful_server.kill)
        vendor.send(numbered("SYM00", 6, 5))
        await daemon.until(lambda status: status["received"] == 10)
        await asyncio.to_thread(forgetful_server.start)
        await until(lambda: _are_live(redis, MANY), 4)
        await daemon.until(lambda status: status["stored"] == 10)
        assert await numbers(redis, "SYM00") == list(range(1, 11))


async def test_a_status_of_the_wrong_type_keeps_neither_states_nor_events_from_being_written(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Only the status is missing, and the log names its key."""
    await subscribed(redis, vendor, "AAPL")
    pipe = redis.pipeline()
    pipe.delete(KEYS.status)
    pipe.set(KEYS.status, "oops")
    await pipe.execute()
    assert (await daemon.told("not_reported", timeout_s=5))["subject"] == KEYS.status
    await subscribed(redis, vendor, "AAPL", "MSFT")
    await until(lambda: state_is(redis, "MSFT", "live"), 3)
    await until(lambda: event_exists(redis, "subscribed", symbols="MSFT"), 3)
    await redis.delete(KEYS.status)
    await until(lambda: _has_heartbeat(redis), 3)


async def test_a_daemon_starts_on_a_status_of_the_wrong_type(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A key for eyes is no reason to keep the quotes away."""
    await redis.set(KEYS.status, "oops")
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
        await daemon.until_live()


async def _are_live(redis: Redis, symbols: tuple[str, ...]) -> bool:
    values = await redis.hgetall(KEYS.subscriptions)
    return {s for s, v in values.items() if json.loads(v)["state"] == "live"} == set(symbols) == set(values)


async def _has_heartbeat(redis: Redis) -> bool:
    return bool(await redis.hexists(KEYS.status, "heartbeat"))

"""Two daemons and a bad day: the silence of a server is not the silence of the other daemon."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, numbers, subscribed

OUTAGE_S = 5.0
"""Longer than the silence after which a daemon is taken for dead."""


@dataclass(slots=True)
class Pair:
    """One daemon at work, with AAPL live and ten quotes stored, and one that stands by for it."""

    server: RedisServer
    redis: Redis
    first: DaemonProcess
    second: DaemonProcess


@contextlib.asynccontextmanager
async def pair_on(server: RedisServer, vendor: AlpacaSimulator) -> AsyncIterator[Pair]:
    """The pair at rest, each knowing of the other."""
    second = DaemonProcess(server.url, vendor.url("iex"))
    async with (
        Redis.from_url(server.url, decode_responses=True, protocol=2) as redis,
        DaemonProcess(server.url, vendor.url("iex")) as first,
        contextlib.aclosing(second),
    ):
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 10))
        await first.until(lambda status: status["stored"] == 10)
        second.start()
        await second.until(lambda status: status["state"] == "standby")
        pair = Pair(server, redis, first, second)
        # The first has heard the second's signs of life by then.
        await _beats(pair, 3)
        yield pair


@pytest.mark.fault("P15")
async def test_a_flushed_database_does_not_give_the_second_daemon_its_turn(
    own_server: RedisServer, vendor: AlpacaSimulator
) -> None:
    """Emptied again and again, at any moment between two heartbeats, the first goes on and the second waits."""
    async with pair_on(own_server, vendor) as pair:
        for n in range(4):
            await _beats(pair, 1)
            await asyncio.sleep(n * 0.25)  # the phase of the next flush, not a wait
            await pair.redis.flushall()
        vendor.send(numbered("AAPL", 11, 100))
        await _stored(pair, 110)
        await _beats(pair, 5)
        assert await numbers(pair.redis, "AAPL") == list(range(1, 111))
        await _is_as_before(pair, vendor)
        assert sum(action.kind == "connect" for action in vendor.actions) == 1


@pytest.mark.fault("P15")
async def test_a_frozen_server_does_not_give_the_second_daemon_its_turn(
    own_server: RedisServer, vendor: AlpacaSimulator
) -> None:
    """Nobody's heart can be heard for five seconds; the first leaves the vendor to be safe, and comes back."""
    async with pair_on(own_server, vendor) as pair:
        own_server.pause()
        try:
            await _outage(pair, vendor)
        finally:
            own_server.resume()
        await _stored(pair, 110)
        await _beats(pair, 5)
        assert await numbers(pair.redis, "AAPL") == list(range(1, 111))
        await _is_as_before(pair, vendor)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.fault("P15")
async def test_a_restarted_server_does_not_give_the_second_daemon_its_turn(
    vendor: AlpacaSimulator, persistent: bool
) -> None:
    """Away for five seconds, back with its data or without: the first comes back too, the second waits."""
    with RedisServer(appendonly=persistent) as server:
        async with pair_on(server, vendor) as pair:
            await asyncio.to_thread(server.stop)
            await _outage(pair, vendor)
            await asyncio.to_thread(server.start)
            await _stored(pair, 110)
            await _beats(pair, 5)
            assert await numbers(pair.redis, "AAPL") == list(range(1, 111))
            await _is_as_before(pair, vendor)


async def _outage(pair: Pair, vendor: AlpacaSimulator) -> None:
    vendor.send(numbered("AAPL", 11, 100))
    until_s = time.monotonic() + OUTAGE_S
    while time.monotonic() < until_s:
        assert (await pair.second.status())["state"] == "standby"
        await asyncio.sleep(0.05)
    await pair.first.until(lambda status: status["state"] == "redis_away" and status["received"] == 110)
    await pair.first.until(lambda status: "gave way" in status["checks"]["feed"])


async def _stored(pair: Pair, count: int) -> None:
    await pair.first.until(lambda status: status["stored"] + status["already_stored"] == count, 15)


async def _beats(pair: Pair, count: int) -> None:
    """Wait for so many heartbeats of the first, during all of which the second stands by."""
    heard: set[str] = set()

    async def enough() -> bool:
        assert (await pair.second.status())["state"] == "standby", pair.second.log[-3000:]
        beat = await pair.redis.hget(KEYS.status, "heartbeat")
        heard.update([str(beat)] if beat else [])
        return len(heard) > count

    await until(enough, 15)


async def _is_as_before(pair: Pair, vendor: AlpacaSimulator) -> None:
    await pair.first.until_live()
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    assert (await pair.second.status())["state"] == "standby"
    assert not any(action.code == 406 for action in vendor.actions)

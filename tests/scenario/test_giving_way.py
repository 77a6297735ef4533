"""The daemon at work loses its way to Redis while another one stands by: it leaves the vendor in time."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.account import metric
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Fault, Proxy
from tests.scenario.streams import KEYS, cache_is_newest, gaps, subscribed
from tests.scenario.traffic import Traffic, is_quiet

FENCED = 5
SLOT_TAKEN = 406
PATIENCE_S = 3.0
"""After so much silence of a heartbeat the other one begins."""


@dataclass(slots=True)
class Pair:
    """One daemon at work, with AAPL live, whose way to Redis can be cut; and one that stands by, with its own."""

    vendor: AlpacaSimulator
    redis: Redis
    way: Proxy
    first: DaemonProcess
    second: DaemonProcess
    traffic: Traffic


@pytest.fixture
async def pair(own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator) -> AsyncIterator[Pair]:
    """The pair at rest; the vendor allows one connection, and remembers a dead one for half a second."""
    async with (
        Proxy(own_server.port) as way,
        DaemonProcess(way.url, vendor.url("iex")) as first,
        contextlib.aclosing(DaemonProcess(own_server.url, vendor.url("iex"))) as second,
    ):
        await first.until_live()
        await subscribed(own_redis, vendor, "AAPL")
        second.start()
        await second.until(lambda status: status["state"] == "standby")
        await until(lambda: _is_known_to_wait(own_redis))
        yield Pair(vendor, own_redis, way, first, second, Traffic(vendor, "AAPL"))


@pytest.mark.fault("P17", "P16")
@pytest.mark.parametrize("fault", [Fault(black_hole=True), Fault(refuse=True)], ids=["silence", "resets"])
async def test_the_one_without_redis_leaves_the_vendor_to_the_one_that_has_it(
    pair: Pair, fault: Fault
) -> None:
    """Never refused for a second socket, the other works; the first, back too late, is fenced and ends; what it
    kept is not forced into the stream at its next start."""
    vendor, redis, traffic = pair.vendor, pair.redis, pair.traffic
    async with traffic.flowing(200):
        await pair.first.until(lambda status: status["stored"] > 200)
        began_s = time.monotonic()
        pair.way.bend(fault)
        if fault.refuse:
            pair.way.cut()
        await pair.first.until(lambda status: "gave way" in status["checks"]["feed"])
        await vendor.wait_for(lambda: vendor.symbols == set())
        left_s = time.monotonic() - began_s
        await pair.second.until(lambda status: status["live"] == 1, 30)
        assert left_s < PATIENCE_S
        assert (await pair.first.status())["state"] == "redis_away"
        await pair.second.until(lambda status: status["stored"] > 200)
        status = await pair.first.status()
        # Each attempt to come back takes some from the disk into memory: what waits is the sum.
        kept = status["spooled"] + status["queued"] + status["unanswered"]
        assert kept > 0
        assert pair.first.process is not None
        assert pair.first.process.poll() is None
        pair.way.straighten()
        assert await pair.first.ended() == FENCED
        stored = (await pair.second.status())["stored"]
        await pair.second.until(lambda status: status["stored"] > stored + 200)
    await until(lambda: _arrived(pair))
    assert not any(action.code == SLOT_TAKEN for action in vendor.actions)
    assert sum(action.kind == "connect" for action in vendor.actions) == 2
    verdict = await traffic.verdict(redis)
    assert verdict.is_honest, verdict
    assert verdict.missing_in_gaps > 0
    (marker,) = await gaps(redis, "AAPL")
    assert marker.reason == "daemon_stopped"
    await _takes_over_again(pair, kept)


async def _takes_over_again(pair: Pair, kept: int) -> None:
    """The first starts anew, and the second makes way for it: what it kept is dropped, and counted."""
    before = await pair.traffic.verdict(pair.redis)
    pair.first.start()
    await pair.first.until(lambda status: status["state"] == "standby")
    pair.second.signal(signal.SIGTERM)
    assert await pair.second.ended() == 0
    await pair.first.until(lambda status: status["live"] == 1, 30)
    status = await pair.first.until(
        lambda s: s["recovered"] > 0 and s["spooled"] == s["queued"] == s["unanswered"] == 0
    )
    assert status["recovered"] >= kept
    # Some may have been stored before the answer was lost.
    assert status["dropped"] + status["already_stored"] == status["recovered"]
    _, text = await pair.first.page("/metrics")
    assert metric(text, "quotebus_quotes_dropped_total", reason="superseded") == status["dropped"] > 0
    pair.traffic.epoch = 1
    pair.traffic.send(10)
    await until(lambda: _arrived(pair))
    verdict = await pair.traffic.verdict(pair.redis)
    assert verdict.is_honest, verdict
    assert verdict.arrived == before.arrived + 10
    assert await cache_is_newest(pair.redis, "AAPL")
    assert is_quiet(pair.first, 60), pair.first.log


@pytest.mark.fault("P17")
@pytest.mark.parametrize("after_s", [0.4, 0.8])
async def test_one_that_has_just_begun_to_wait_takes_over_as_well(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, after_s: float
) -> None:
    """The first loses Redis within a second of the other's beginning to wait: it leaves, and the other is live."""
    async with (
        Proxy(own_server.port) as way,
        DaemonProcess(way.url, vendor.url("iex")) as first,
        contextlib.aclosing(DaemonProcess(own_server.url, vendor.url("iex"))) as second,
    ):
        await first.until_live()
        await subscribed(own_redis, vendor, "AAPL")
        second.start()
        await until(lambda: _has_a_name(own_redis))
        await asyncio.sleep(after_s)  # the moment of the cut, not a wait
        way.bend(Fault(black_hole=True))
        await first.until(lambda status: "gave way" in status["checks"]["feed"], 20)
        await second.until(lambda status: status["live"] == 1, 30)
        assert vendor.symbols == {"AAPL"}
        assert len(vendor.connections) == 1


async def _has_a_name(redis: Redis) -> bool:
    return await redis.hget(KEYS.status, "standby") is not None


@pytest.mark.fault("P17")
async def test_an_outage_for_both_ends_with_the_first_at_work_again(
    pair: Pair, own_server: RedisServer
) -> None:
    """It cannot know that the other is as deaf: it leaves, comes back with its position, and the hole is marked."""
    vendor, traffic = pair.vendor, pair.traffic
    async with traffic.flowing(200):
        await pair.first.until(lambda status: status["stored"] > 200)
        own_server.pause()
        try:
            await pair.first.until(lambda status: "gave way" in status["checks"]["feed"])
            await vendor.wait_for(lambda: vendor.symbols == set())
        finally:
            own_server.resume()
        await pair.first.until(lambda status: status["live"] == 1)
        stored = (await pair.first.status())["stored"]
        await pair.first.until(lambda status: status["stored"] > stored + 200)
    await until(lambda: _arrived(pair))
    verdict = await traffic.verdict(pair.redis)
    assert verdict.is_honest, verdict
    (marker,) = await gaps(pair.redis, "AAPL")
    assert marker.reason == "feed_disconnected"
    assert "gave way to" in (await pair.first.told("disconnected"))["reason"]
    _, text = await pair.first.page("/metrics")
    assert metric(text, "quotebus_source_disconnects_total", reason="gave_way") == 1
    assert (await pair.second.status())["state"] == "standby"
    assert is_quiet(pair.first), pair.first.log


@pytest.mark.fault("P17")
async def test_one_that_was_killed_while_it_waited_is_given_way_to_no_more(pair: Pair) -> None:
    """Its name stands there still, and the daemon at work keeps the vendor through the outage: nothing is lost."""
    assert pair.second.process is not None
    pair.second.process.kill()
    await pair.second.ended()
    await asyncio.sleep(PATIENCE_S + 2.0)  # for so long it might still be thought to wait
    assert await pair.redis.hget(KEYS.status, "standby") is not None
    async with pair.traffic.flowing(200):
        pair.way.bend(Fault(black_hole=True))
        await pair.first.until(lambda status: status["state"] == "redis_away" and status["spooled"] > 0)
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            assert (await pair.first.status())["checks"]["feed"] == "ok"
            await asyncio.sleep(0.05)
        pair.way.straighten()
    await pair.traffic.everything_arrived(pair.first, pair.redis)
    assert sum(action.kind == "connect" for action in pair.vendor.actions) == 1


async def _is_known_to_wait(redis: Redis) -> bool:
    """Whether the daemon at work has read two signs of life of the other with its own heartbeats, and more."""
    beats = set()
    for _ in range(400):
        beats.add(await redis.hget(KEYS.status, "heartbeat"))
        await asyncio.sleep(0.01)
    return len(beats) > 3


async def _arrived(pair: Pair) -> bool:
    """Whether the last number that was sent is stored."""
    return (await pair.traffic.verdict(pair.redis)).outstanding == 0

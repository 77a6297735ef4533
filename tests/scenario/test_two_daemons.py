"""Two daemons on one namespace: one works, and the other takes over when it must, without a quote stored twice."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, stored, subscribed
from wire import EntryId, Gap, Quote

FENCED = {1, 5}
SILENCE_S = 3.0
"""Without a heartbeat for so long, a daemon is taken for dead."""


@dataclass(slots=True)
class Pair:
    """One daemon at work with AAPL live, and one that stands by; quotes are numbered on and dated to now."""

    vendor: AlpacaSimulator
    redis: Redis
    first: DaemonProcess
    second: DaemonProcess
    sent: int = 0

    def send(self, count: int) -> None:
        """The next quotes, dated to this moment."""
        base_ns = time.time_ns() - (self.sent + 1) * 1000
        self.vendor.send(numbered("AAPL", self.sent + 1, count, base_ns=base_ns, step_ns=1000))
        self.sent += count


@pytest.fixture
async def pair(shared_server: RedisServer, redis: Redis) -> AsyncIterator[Pair]:
    """The pair at rest; the vendor allows one connection and finds a dead one within two seconds."""
    rules = AccountRules(connection_limit=1, ghost_s=0.2)
    settings = SimulatorSettings(account=rules, ping_interval_s=1.0, ping_timeout_s=1.0)
    async with AlpacaSimulator(settings) as vendor:
        second = DaemonProcess(shared_server.url, vendor.url("iex"))
        async with (
            DaemonProcess(shared_server.url, vendor.url("iex")) as first,
            contextlib.aclosing(second),
        ):
            await subscribed(redis, vendor, "AAPL")
            second.start()
            await second.until(lambda status: status["state"] == "standby")
            found = Pair(vendor, redis, first, second)
            found.send(50)
            await first.until(lambda status: status["stored"] == 50)
            yield found


async def every_hole_is_marked(redis: Redis, last: int) -> list[Gap]:
    """The stream holds each number at most once, in order, with a marker at every hole; its markers."""
    found = await stored(redis, "AAPL")
    kept = [int(item.bid_size or 0) for item in found if isinstance(item, Quote)]
    assert kept == sorted(set(kept))
    assert kept[-1] == last
    ids = [EntryId.parse(item.id or "") for item in found]
    assert ids == sorted(set(ids))
    for before, after in pairwise(found):
        if isinstance(before, Quote) and isinstance(after, Quote):
            assert after.bid_size == (before.bid_size or 0) + 1
    return [item for item in found if isinstance(item, Gap)]


@pytest.mark.fault("P16", "P06")
async def test_a_leader_that_was_frozen_is_refused_when_it_comes_back_and_ends(pair: Pair) -> None:
    """Frozen for longer than the silence that is borne, it is replaced; what it then wants to write is refused."""
    pair.first.signal(signal.SIGSTOP)
    # In the frozen one's socket: it will read them when it comes back, and want to write them.
    pair.send(10)
    await pair.second.until(lambda status: status["live"] == 1, 30)
    await pair.vendor.wait_for(lambda: pair.vendor.symbols == {"AAPL"})
    pair.send(50)
    await pair.second.until(lambda status: status["stored"] == 50)
    pair.first.signal(signal.SIGCONT)
    assert await pair.first.ended() in FENCED
    await pair.first.told("fenced")
    pair.send(50)
    status = await pair.second.until(lambda status: status["stored"] == 100)
    assert status["state"] == "live"
    markers = await every_hole_is_marked(pair.redis, 160)
    assert [marker.reason for marker in markers] == ["daemon_stopped"]
    # Whoever took over reports, and is not spoken over by the one that ended.
    assert await pair.redis.hget(KEYS.status, "instance") == status["instance"]
    await until(lambda: _state_is(pair.redis, "live"), 3)


@pytest.mark.fault("P18")
async def test_a_leader_that_is_killed_is_followed_within_seconds(pair: Pair) -> None:
    """After the silence that is borne the standby works, and the hole is as long as that took."""
    began_s = time.monotonic()
    pair.first.signal(signal.SIGKILL)
    await pair.first.ended()
    pair.send(10)
    await pair.second.until(lambda status: status["live"] == 1, 30)
    took_s = time.monotonic() - began_s
    # Silence, and two seconds to begin, three times generous.
    assert SILENCE_S - 1.5 < took_s < (SILENCE_S + 2) * 3
    pair.send(50)
    await pair.second.until(lambda status: status["stored"] == 50)
    (marker,) = await every_hole_is_marked(pair.redis, 110)
    assert marker.reason == "daemon_stopped"
    assert marker.duration_s <= took_s + 2


@pytest.mark.fault("P19", "P15")
async def test_a_handover_on_purpose_is_short_and_marked(pair: Pair) -> None:
    """SIGTERM under traffic: everything received is stored, the standby goes on, one marker tells how long."""
    stop = asyncio.Event()

    async def traffic() -> None:
        while not stop.is_set():
            pair.send(5)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        group.create_task(traffic())
        await pair.first.until(lambda status: status["stored"] > 300)
        pair.first.signal(signal.SIGTERM)
        assert await pair.first.ended() == 0
        await pair.second.until(lambda status: status["live"] == 1 and status["stored"] > 100, 30)
        stop.set()
    await until(lambda: _is_last(pair), 10)
    (marker,) = await every_hole_is_marked(pair.redis, pair.sent)
    assert marker.reason == "daemon_stopped"
    # A second and a half, three times generous.
    assert marker.duration_s < 4.5
    assert not any(action.code == 406 for action in pair.vendor.actions)


async def _is_last(pair: Pair) -> bool:
    found = await stored(pair.redis, "AAPL")
    return isinstance(found[-1], Quote) and found[-1].bid_size == pair.sent


async def _state_is(redis: Redis, state: str) -> bool:
    return bool(await redis.hget(KEYS.status, "state") == state)

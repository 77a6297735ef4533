"""Streams that somebody takes away and puts back while the daemon writes: what went into the interim is told."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import BASE_NS, KEYS, event_exists, gaps, numbered, numbers, stored, subscribed
from wire import Gap, decode_gap

STREAM = KEYS.stream("AAPL")
STEP_NS = 1_000_003
LATE_S = 6.0
"""A second until the look, and what a busy machine adds."""


async def send(daemon: DaemonProcess, vendor: AlpacaSimulator, first: int, count: int) -> None:
    """Quotes with these numbers, one by one, and wait until they are stored."""
    before = (await daemon.status())["stored"]
    for number in range(first, first + count):
        vendor.send(numbered("AAPL", number, 1))
    await daemon.until(lambda status: status["stored"] == before + count)


async def interim(daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, first: int) -> None:
    """Five quotes go into a stream that has taken the place of the one renamed away, and a marker with them."""
    await redis.rename(STREAM, "away")
    await send(daemon, vendor, first, 1)
    await send(daemon, vendor, first + 1, 4)
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["stream_lost"]


def time_ns(number: int) -> int:
    """The venue time of the quote with this number."""
    return BASE_NS + number * STEP_NS


def untold(numbers_lost: Sequence[int], markers: list[Gap]) -> list[int]:
    """Those that no marker covers."""
    return [n for n in numbers_lost if not any(gap.from_ns <= time_ns(n) <= gap.to_ns for gap in markers)]


@pytest.mark.fault("K31")
@pytest.mark.parametrize("pause_s", [0.0, 0.4, 2.5])
async def test_what_went_into_a_stream_that_another_takes_the_place_of_again_is_told(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, pause_s: float
) -> None:
    """Renamed away and back, at once or after seconds: a marker in the old stream spans and counts the interim."""
    await subscribed(redis, vendor, "AAPL")
    await send(daemon, vendor, 1, 10)
    await interim(daemon, redis, vendor, 11)
    await asyncio.sleep(pause_s)
    await redis.rename("away", STREAM)
    await send(daemon, vendor, 16, 5)
    await until(lambda: event_exists(redis, "marker_lost", subject="AAPL", missing="5"), LATE_S)
    await send(daemon, vendor, 21, 2)
    assert await numbers(redis, "AAPL") == [*range(1, 11), *range(16, 23)]
    (marker,) = await gaps(redis, "AAPL")
    assert (marker.reason, marker.missing) == ("stream_lost", 5)
    assert untold(range(11, 16), [marker]) == []
    assert marker.from_ns == time_ns(10)
    assert (await stored(redis, "AAPL")).index(marker) == 15


@pytest.mark.fault("K30", "K31")
async def test_a_marker_that_goes_with_the_next_interim_is_told_until_one_stands(
    daemon: DaemonProcess, shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The stream is deleted, and RESTOREd from the same copy, three times: in the end all that went is told."""
    await subscribed(redis, vendor, "AAPL")
    await send(daemon, vendor, 1, 10)
    async with Redis.from_url(shared_server.url, protocol=2) as raw:
        copy = await raw.dump(STREAM)
        last = 10
        for _ in range(3):
            await redis.delete(STREAM)
            await send(daemon, vendor, last + 1, 1)
            await send(daemon, vendor, last + 2, 4)
            await raw.restore(STREAM, 0, copy, replace=True)  # type: ignore[arg-type]
            last = await until_told(daemon, vendor, redis, last + 5)
    assert {gap.reason for gap in await gaps(redis, "AAPL")} == {"stream_lost"}


@pytest.mark.fault("K31")
async def test_a_stream_that_was_away_when_the_daemon_began_is_told_of_when_it_is_back(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """What this daemon has never seen comes back over the stream that it took for the first."""
    old = numbered("AAPL", 1, 1)[0]
    await redis.xadd("away", {"q": "[]"}, f"{old.t_ns // 10**6}-0")
    await subscribed(redis, vendor, "AAPL")
    await send(daemon, vendor, 11, 5)
    await redis.rename("away", STREAM)
    await redis.xtrim(STREAM, maxlen=1)
    await until(lambda: event_exists(redis, "marker_lost", subject="AAPL"), LATE_S)
    await send(daemon, vendor, 16, 1)
    (marker,) = [gap for gap in await markers_only(redis) if gap.reason == "stream_lost"]
    assert marker.from_ns <= time_ns(11) <= time_ns(15) <= marker.to_ns


@pytest.mark.fault("K33")
async def test_databases_that_are_swapped_there_and_back_hide_nothing(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """What went into the other database is stored again or told, and so is the marker of a stream that vanished."""
    await subscribed(redis, vendor, "AAPL")
    await send(daemon, vendor, 1, 10)
    await redis.delete(STREAM)
    await send(daemon, vendor, 11, 1)
    await send(daemon, vendor, 12, 1)
    await redis.swapdb(0, 1)
    await daemon.until(lambda status: "vanished" in status["held"])
    await send(daemon, vendor, 13, 3)
    await redis.swapdb(0, 1)
    await until_told(daemon, vendor, redis, 15)


async def until_told(daemon: DaemonProcess, vendor: AlpacaSimulator, redis: Redis, last: int) -> int:
    """Send quotes behind this one until each that the stream lacks is in a marker; the number of the last one."""
    async with asyncio.timeout(LATE_S):
        while True:
            last += 1
            await send(daemon, vendor, last, 1)
            found = set(await numbers(redis, "AAPL"))
            if not untold([n for n in range(1, last) if n not in found], await gaps(redis, "AAPL")):
                return last
            await asyncio.sleep(0.2)


async def markers_only(redis: Redis) -> list[Gap]:
    """The gap markers, in a stream in which not every entry is one of ours."""
    entries: Any = await redis.xrange(STREAM)
    return [decode_gap("AAPL", entry_id, fields["gap"]) for entry_id, fields in entries if "gap" in fields]

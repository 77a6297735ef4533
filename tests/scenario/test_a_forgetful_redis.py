"""Redis acknowledges and then forgets: a shorter file, an older snapshot, a replica that had not caught up."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import (
    BASE_NS,
    KEYS,
    cache_is_newest,
    gaps,
    ledger_is_even,
    numbered,
    numbers,
    stored,
    subscribed,
)
from wire import Gap


async def store(daemon: DaemonProcess, vendor: AlpacaSimulator, first: int, count: int) -> None:
    """So many quotes of AAPL and of MSFT go through, in small batches."""
    before = (await daemon.status())["stored"]
    for n in range(first, first + count, 50):
        size = min(50, first + count - n)
        for symbol in ("AAPL", "MSFT"):
            vendor.send(numbered(symbol, n, size), frame_size=10)
        await daemon.until(lambda s, n=n, size=size: s["stored"] == before + 2 * (n + size - first), 15)  # type: ignore[misc]


def cut_file(server: RedisServer, most_bytes: int) -> None:
    """Take the end away from the server's append-only file, in the middle of a command."""
    path = max((server.folder / "appendonlydir").glob("*.incr.aof"), key=lambda found: found.stat().st_size)
    size = path.stat().st_size
    with Path(path).open("r+b") as file:
        file.truncate(max(size - most_bytes, size // 2) - 3)


@pytest.mark.fault("K04", "K45")
async def test_a_file_that_lost_its_end_gets_it_again(
    own_server: RedisServer, own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator
) -> None:
    """Killed, and back with a torn file: what it had acknowledged is sent again, once and in order."""
    await subscribed(own_redis, vendor, "AAPL", "MSFT")
    await store(own_daemon, vendor, 1, 1000)
    await asyncio.to_thread(own_server.kill)
    cut_file(own_server, 100_000)
    await asyncio.to_thread(own_server.start)
    for symbol in ("AAPL", "MSFT"):
        vendor.send(numbered(symbol, 1001, 10))
    status = await own_daemon.until(lambda s: s["stored"] == 2020, 15)
    assert ledger_is_even(status)
    for symbol in ("AAPL", "MSFT"):
        assert await numbers(own_redis, symbol) == list(range(1, 1011))
        assert await gaps(own_redis, symbol) == []
        assert await cache_is_newest(own_redis, symbol)
    forgot = await own_daemon.told("redis_forgot")
    assert forgot["lost_batches"] == 0
    assert forgot["replayed_quotes"] == status["replayed"] > 0


@pytest.mark.fault("K04")
async def test_what_was_forgotten_too_long_ago_is_marked_where_it_is_missing(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """With no memory for it nothing can be sent again: one marker per stream, and the loss is counted."""
    async with DaemonProcess(own_server.url, vendor.url("iex"), replay_bytes="0") as daemon:
        await subscribed(own_redis, vendor, "AAPL", "MSFT")
        await store(daemon, vendor, 1, 1000)
        await asyncio.to_thread(own_server.kill)
        cut_file(own_server, 100_000)
        await asyncio.to_thread(own_server.start)
        left = {symbol: len(await numbers(own_redis, symbol)) for symbol in ("AAPL", "MSFT")}
        for symbol in left:
            vendor.send(numbered(symbol, 1001, 10))
        status = await daemon.until(lambda s: s["stored"] == 2020, 15)
        assert status["lost_by_redis"] == 2000 - sum(left.values()) > 0
        for symbol, count in left.items():
            assert await numbers(own_redis, symbol) == [*range(1, count + 1), *range(1001, 1011)]
            (marker,) = await gaps(own_redis, symbol)
            assert marker.reason == "redis_lost"
            assert marker.from_ns <= BASE_NS + (count + 1) * 1_000_003
            assert marker.to_ns >= BASE_NS + 1000 * 1_000_003
            place = (await stored(own_redis, symbol)).index(marker)
            assert place == count


@pytest.mark.fault("K15", "K30")
async def test_a_stream_that_vanishes_is_begun_anew_and_says_so(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Deleted or evicted: the next quotes have larger ids, a marker tells what is gone, and it is counted."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    await store(daemon, vendor, 1, 100)
    last = (await stored(redis, "AAPL"))[-1].id
    await redis.delete(KEYS.stream("AAPL"))
    vendor.send(numbered("AAPL", 101, 1))
    await daemon.until(lambda s: s["stored"] == 201)
    vendor.send(numbered("AAPL", 102, 1))
    await daemon.until(lambda s: s["stored"] == 202)
    first, marker, second = await stored(redis, "AAPL")
    assert isinstance(marker, Gap)
    assert (marker.reason, marker.from_ns) == ("stream_lost", BASE_NS + 1_000_003)
    assert [first.bid_size, second.bid_size] == [101, 102]  # type: ignore[union-attr]
    assert _place(first.id) > _place(last)
    assert (await daemon.told("stream_vanished"))["subject"] == "AAPL"
    assert await gaps(redis, "MSFT") == []


@pytest.mark.fault("K31")
async def test_a_stream_that_is_renamed_is_begun_anew_and_says_so(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """What was taken away stays as it was, and the daemon writes where the contract says."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    await store(daemon, vendor, 1, 100)
    await redis.rename(KEYS.stream("AAPL"), "taken")
    vendor.send(numbered("AAPL", 101, 2), frame_size=1)
    await daemon.until(lambda s: s["stored"] == 202)
    assert await numbers(redis, "AAPL") == [101, 102]
    assert await redis.xlen("taken") == 100
    assert (await daemon.told("stream_vanished"))["subject"] == "AAPL"


@pytest.mark.fault("K27", "K47")
async def test_a_cache_that_could_not_be_written_is_repaired_from_the_streams(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A key of another type costs the streams nothing; once it is gone the hash has every newest quote again."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    await store(daemon, vendor, 1, 100)
    await redis.delete(KEYS.latest)
    await redis.set(KEYS.latest, "oops")
    for symbol in ("AAPL", "MSFT"):
        vendor.send(numbered(symbol, 101, 10))
    await daemon.until(lambda s: s["stored"] == 220)
    assert await numbers(redis, "AAPL") == list(range(1, 111))
    await redis.delete(KEYS.latest)
    await until(lambda: cache_is_newest(redis, "AAPL"), 10)
    await until(lambda: cache_is_newest(redis, "MSFT"), 10)


def _place(entry_id: str | None) -> tuple[int, int]:
    ms, n = (entry_id or "").split("-")
    return int(ms), int(n)

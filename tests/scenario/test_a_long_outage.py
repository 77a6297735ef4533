"""Redis is away for longer than memory lasts: the disk takes over, and gives back in order."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import (
    cache_is_newest,
    gaps,
    ledger_is_even,
    numbered,
    numbers,
    subscribed,
)

SMALL = {"memory_bytes": "1048576", "drain_s": "0.5"}


async def begin(redis: Redis, daemon: DaemonProcess, vendor: AlpacaSimulator) -> None:
    """AAPL is live, and its first ten quotes are stored."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 10))
    await daemon.until(lambda status: status["stored"] == 10)


async def send(daemon: DaemonProcess, vendor: AlpacaSimulator, first: int, count: int) -> None:
    """So many quotes of AAPL, no faster than a busy disk takes them: what memory gives up is another test's
    matter."""
    before = (await daemon.status())["received"]
    for done in range(0, count, 2500):
        size = min(2500, count - done)
        vendor.send(numbered("AAPL", first + done, size), frame_size=20)
        await daemon.until(
            lambda s, n=before + done + size: s["received"] == n and s["queued"] < 6000,  # type: ignore[misc]
            15,
        )


async def outage(
    server: RedisServer, daemon: DaemonProcess, vendor: AlpacaSimulator, first: int, count: int
) -> None:
    """Redis is frozen while so many quotes of AAPL come, until most of them are on disk."""
    server.pause()
    await send(daemon, vendor, first, count)
    await daemon.until(lambda s: s["spooled"] + s["unanswered"] == count and s["state"] == "redis_away", 15)


@pytest.mark.fault("K08")
async def test_what_memory_does_not_hold_goes_to_disk_and_comes_back_in_order(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Nothing is lost or doubled, the newest is in the cache, the disk is empty, and the vendor noticed nothing."""
    async with DaemonProcess(own_server.url, vendor.url("iex"), **SMALL) as daemon:
        await begin(own_redis, daemon, vendor)
        await outage(own_server, daemon, vendor, 11, 40_000)
        assert ledger_is_even(await daemon.status())
        assert (await daemon.page("/readyz"))[0] == 503
        own_server.resume()
        vendor.send(numbered("AAPL", 40_011, 1000), frame_size=20)
        await daemon.until(lambda s: s["stored"] + s["already_stored"] == 41_010, 20)
        assert ledger_is_even(await daemon.status())
        assert await numbers(own_redis, "AAPL") == list(range(1, 41_011))
        assert await gaps(own_redis, "AAPL") == []
        assert await cache_is_newest(own_redis, "AAPL")
        assert len(vendor.closed) == 0
        await until(_no_segments(daemon.spool), 5)


@pytest.mark.fault("P02")
async def test_stopped_while_redis_is_away_the_daemon_leaves_its_quotes_on_disk(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """It ends in time with a code of its own, and the next one stores them before what it receives itself."""
    async with DaemonProcess(own_server.url, vendor.url("iex"), **SMALL) as daemon:
        await begin(own_redis, daemon, vendor)
        own_server.pause()
        vendor.send(numbered("AAPL", 11, 5000), frame_size=20)
        await daemon.until(lambda status: status["received"] == 5010)
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended(10) == 3
        assert "wait on disk" in (await daemon.told("left_on_disk"))["reason"]
        own_server.resume()
        daemon.start()
        status = await daemon.until(lambda s: s["state"] == "live" and s["spooled"] == 0, 20)
        assert status["recovered"] == 5000
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 20)
        vendor.send(numbered("AAPL", 5011, 10))
        status = await daemon.until(lambda s: s["stored"] + s["already_stored"] == 5010)
        assert ledger_is_even(status)
    assert await numbers(own_redis, "AAPL") == list(range(1, 5021))
    (marker,) = await gaps(own_redis, "AAPL")
    assert marker.reason == "daemon_stopped"


@pytest.mark.fault("P04", "P05")
async def test_killed_in_a_long_outage_the_daemon_loses_only_the_last_moment(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """What was on disk is stored by the next one, once and in order, though some of it had arrived already."""
    async with DaemonProcess(own_server.url, vendor.url("iex"), **SMALL) as daemon:
        await begin(own_redis, daemon, vendor)
        await outage(own_server, daemon, vendor, 11, 5000)
        # Also what was on its way just then has a copy on disk by now.
        await until(_holds(daemon.spool, 5000 * 100), 5)
        daemon.signal(signal.SIGKILL)
        await daemon.ended()
        # The server reads what was on its way when the daemon died.
        own_server.resume()
        daemon.start()
        status = await daemon.until(lambda s: s["state"] == "live" and s["spooled"] == 0, 20)
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 20)
        vendor.send(numbered("AAPL", 5011, 10))
        status = await daemon.until(
            lambda s: (
                s["stored"] + s["already_stored"] == s["received"] + s["recovered"] and s["received"] == 10
            )
        )
        assert ledger_is_even(status)
    assert await numbers(own_redis, "AAPL") == list(range(1, 5021))
    (marker,) = await gaps(own_redis, "AAPL")
    assert marker.reason == "daemon_stopped"
    assert await cache_is_newest(own_redis, "AAPL")


@pytest.mark.fault("P04", "P05")
async def test_what_comes_after_the_disk_was_read_back_in_vain_is_on_disk_at_once(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Read back while Redis only seemed to answer: from the moment it is given up, new quotes go to disk."""
    async with DaemonProcess(own_server.url, vendor.url("iex"), **SMALL) as daemon:
        await begin(own_redis, daemon, vendor)
        own_server.pause()
        try:
            await send(daemon, vendor, 11, 12_000)
            status = await daemon.until(lambda s: s["state"] == "redis_away" and s["queued"] == 0)
            # On a slow machine it may be given up before everything was read back.
            spooled = status["spooled"]
            vendor.send(numbered("AAPL", 12_011, 100), frame_size=20)
            await daemon.until(lambda status: status["spooled"] == spooled + 100, 1.5)
            daemon.signal(signal.SIGKILL)
            await daemon.ended()
        finally:
            own_server.resume()
        daemon.start()
        await daemon.until(lambda s: s["state"] == "live" and s["spooled"] == 0, 20)
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 20)
        vendor.send(numbered("AAPL", 12_111, 10))
        await daemon.until(lambda s: s["received"] == 10 and s["queued"] == s["unanswered"] == 0)
    assert await numbers(own_redis, "AAPL") == list(range(1, 12_121))


async def test_a_full_spool_gives_up_the_oldest_and_leaves_one_marker(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Past the bound of the disk: counted by reason, one marker in the place of the hole, the rest in order."""
    settings = {**SMALL, "spool_bytes": "1048576"}
    async with DaemonProcess(own_server.url, vendor.url("iex"), **settings) as daemon:
        await begin(own_redis, daemon, vendor)
        own_server.pause()
        for first in range(11, 30_011, 3000):
            vendor.send(numbered("AAPL", first, 3000), frame_size=20)
            await daemon.until(lambda s, n=first: s["received"] == n + 2999 and s["queued"] == 0, 15)  # type: ignore[misc]
        status = await daemon.until(lambda s: s["dropped"] > 0)
        assert ledger_is_even(status)
        own_server.resume()
        status = await daemon.until(lambda s: s["spooled"] == 0 and s["unanswered"] == 0, 20)
        assert ledger_is_even(status)
        kept = await numbers(own_redis, "AAPL")
        (marker,) = await gaps(own_redis, "AAPL")
        assert (marker.reason, marker.missing) == ("spool_full", status["dropped"])
        assert kept == sorted(set(kept))
        assert len(kept) == 30_010 - status["dropped"]
        assert kept[-1] == 30_010


def _no_segments(spool: Path) -> Callable[[], Awaitable[bool]]:
    return _disk(spool, lambda used_bytes: used_bytes == 0)


def _holds(spool: Path, least_bytes: int) -> Callable[[], Awaitable[bool]]:
    return _disk(spool, lambda used_bytes: used_bytes >= least_bytes)


def _disk(spool: Path, condition: Callable[[int], bool]) -> Callable[[], Awaitable[bool]]:
    def used_bytes() -> int:
        files = (path for path in spool.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files if path.name not in ("lock", "bus.json"))

    async def check() -> bool:
        return condition(await asyncio.to_thread(used_bytes))

    return check

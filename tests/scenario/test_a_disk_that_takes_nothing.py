"""The spool's disk is full, small, shared or read-only, while Redis is away and when it is back."""

import asyncio
import errno
import signal
import time
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.preload.control import Call, Faults
from tests.scenario.account import metric
from tests.scenario.conftest import until
from tests.scenario.disk import spooling_daemon
from tests.scenario.livez import watching_livez
from tests.scenario.streams import gaps, ledger_is_even
from tests.scenario.traffic import is_quiet

KIB: Final = 1024
MIB: Final = 1024 * KIB
LIVEZ_S: Final = 0.1


@pytest.mark.fault("P10")
@pytest.mark.parametrize("room", [48 * KIB, 256 * KIB])
async def test_a_disk_that_our_own_quotes_have_filled_is_emptied_and_nothing_is_lost(
    own_server: RedisServer,
    own_redis: Redis,
    vendor: AlpacaSimulator,
    folder: Path,
    faults: Faults,
    room: int,
) -> None:
    """What the disk does not take waits in memory, what it took is read back when Redis is there again, also where
    not one whole file fits; and a stop is a stop."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults) as (daemon, traffic):
        faults.resize(room)
        own_server.pause()
        # The first of them find room.
        async with traffic.flowing(5):
            await daemon.until(lambda s: s["spooled"] > 50, 20)
        async with watching_livez(daemon) as livez, traffic.flowing(150):
            await daemon.until(lambda s: "No space" in s["spool"] and s["queued"] > 2000, 20)
            assert (await daemon.page("/readyz"))[0] == 503
            own_server.resume()
            await daemon.until(lambda s: s["spooled"] == 0 and s["queued"] == 0, 40)
        await traffic.everything_arrived(daemon, own_redis)
        # The room is there again, and so is the word that all is well.
        await daemon.until(lambda s: s["spool"] == "")
        await daemon.told("spool_works_again")
        assert "No space left" in (await daemon.told("spool_failed"))["reason"]
        assert livez.slowest_s < LIVEZ_S, vars(livez)
        assert is_quiet(daemon), daemon.log
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended() == 0


@pytest.mark.fault("P10", "P07")
async def test_with_disk_and_memory_full_the_oldest_in_memory_go_and_everybody_has_a_turn(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, folder: Path, faults: Faults
) -> None:
    """Redis is away for too long: `/livez` answers all the time, what is lost is counted and marked, and once Redis
    is back everything else is stored."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults, memory_bytes=str(MIB)) as (
        daemon,
        traffic,
    ):
        faults.resize(256 * KIB)
        own_server.pause()
        async with watching_livez(daemon) as livez, traffic.flowing(100):
            status = await daemon.until(lambda s: s["dropped"] > 2000, 60)
            assert ledger_is_even(status)
            own_server.resume()
            await daemon.until(lambda s: s["spooled"] == 0 and s["queued"] == 0, 40)
        status = await traffic.settled(daemon)
        verdict = await traffic.verdict(own_redis)
        assert verdict.is_honest, verdict
        assert verdict.missing_in_gaps == status["dropped"]
        _, page = await daemon.page("/metrics")
        assert metric(page, "quotebus_quotes_dropped_total", reason="queue_full") == status["dropped"]
        assert {gap.reason for gap in await gaps(own_redis, "S07")} == {"queue_full"}
        assert livez.slowest_s < LIVEZ_S, vars(livez)
        # Redis and the vendor were heard all the time.
        assert len(vendor.closed) == 0
        began_s = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended() == 0
        assert time.monotonic() - began_s < 5.0


@pytest.mark.fault("P10")
async def test_a_disk_that_something_else_fills_for_a_while_is_used_again_afterwards(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, folder: Path, faults: Faults
) -> None:
    """What did not fit meanwhile goes to disk as soon as there is room, long before Redis is back."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults) as (daemon, traffic):
        faults.resize(64 * MIB)
        own_server.pause()
        async with traffic.flowing(100):
            await daemon.until(lambda s: s["spooled"] > 500, 20)
            faults.resize(64 * MIB, hog_bytes=64 * MIB)
            await daemon.until(lambda s: "No space" in s["spool"] and s["queued"] > 2000, 20)
            faults.resize(64 * MIB)
            await daemon.until(lambda s: s["spool"] == "" and s["queued"] < 500)
            own_server.resume()
            await daemon.until(lambda s: s["spooled"] == 0)
        await traffic.everything_arrived(daemon, own_redis)


@pytest.mark.fault("P13")
@pytest.mark.parametrize(
    "calls", [(Call.WRITE, Call.TRUNCATE, Call.UNLINK, Call.RENAME), (Call.UNLINK,), (Call.SYNC,)]
)
async def test_a_disk_that_is_read_only_all_of_a_sudden_is_read_back(
    own_server: RedisServer,
    own_redis: Redis,
    vendor: AlpacaSimulator,
    folder: Path,
    faults: Faults,
    calls: tuple[Call, ...],
) -> None:
    """As after an error of the file system; also where only deleting or syncing fails. Nothing is lost or doubled,
    and the files go as soon as that is possible."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults) as (daemon, traffic):
        own_server.pause()
        async with traffic.flowing(50):
            await daemon.until(lambda s: s["spooled"] > 500, 20)
            for call in calls:
                faults.fail(call, errno.EROFS if len(calls) > 1 else errno.EIO)
            await asyncio.sleep(1.0)  # some rounds of the spool with it
            own_server.resume()
            await daemon.until(lambda s: s["spooled"] == 0 and s["queued"] == 0, 40)
        await traffic.everything_arrived(daemon, own_redis)
        faults.heal()
        await daemon.until(lambda s: s["spool"] == "")
        await until(lambda: _is_empty(folder))


async def _is_empty(folder: Path) -> bool:
    return not await asyncio.to_thread(lambda: list(folder.rglob("*.segment")))

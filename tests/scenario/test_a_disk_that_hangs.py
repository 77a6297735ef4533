"""The spool's disk does not answer, is slow, vanishes, or gives nothing back, with Redis away and back."""

import asyncio
import errno
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.preload.control import Call, Faults
from tests.scenario.account import metric
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.disk import SYMBOLS, spooling_daemon
from tests.scenario.livez import watching_livez
from tests.scenario.streams import gaps, ledger_is_even
from tests.scenario.traffic import unready

LIVEZ_S: Final = 0.1
MIB: Final = 1 << 20
STOP_S: Final = 25.0
"""A stop while Redis is away takes the 10 s of `QUOTEBUS_DRAIN_S`, 5 s for saving and 3 s for the farewell."""


@asynccontextmanager
async def stopping(daemon: DaemonProcess, *codes: int) -> AsyncIterator[None]:
    """Afterwards the daemon ends in time, with one of these codes, whatever its disk does."""
    yield
    began_s = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert await daemon.ended(60) in codes
    assert time.monotonic() - began_s < STOP_S


@pytest.mark.fault("P32")
@pytest.mark.parametrize("call", [Call.WRITE, Call.SYNC, Call.OPEN])
async def test_quotes_go_around_a_disk_that_hangs_from_the_start(
    own_server: RedisServer,
    own_redis: Redis,
    vendor: AlpacaSimulator,
    folder: Path,
    faults: Faults,
    call: Call,
) -> None:
    """Nothing lies on it unread: it is told, not ready, and all is stored once Redis is back; then it ends."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults) as (daemon, traffic):
        faults.hang(call)
        own_server.pause()
        async with watching_livez(daemon) as livez, traffic.flowing(20):
            await unready(daemon, "the disk has not answered", 30)
            own_server.resume()
            await daemon.until(lambda s: s["state"] == "live" and s["queued"] < 100 and s["spooled"] == 0, 40)
            assert "not answered" in (await daemon.status())["spool"]
            assert (await daemon.page("/readyz"))[0] == 503
        status = await traffic.settled(daemon)
        verdict = await traffic.verdict(own_redis)
        # What was on disk before it hung is lost, and marked with the reason; that is nothing or little.
        assert verdict.is_honest, verdict
        assert verdict.missing_in_gaps == status["dropped"]
        assert (await daemon.told("spool_failed"))["subject"] == "hang"
        _, page = await daemon.page("/metrics")
        assert metric(page, "quotebus_spool_usable") == 0
        assert livez.slowest_s < LIVEZ_S, vars(livez)
        async with stopping(daemon, 0):
            pass


@pytest.mark.fault("P32")
@pytest.mark.parametrize("is_back", [True, False])
async def test_what_a_hanging_disk_does_not_give_back_is_lost_counted_and_marked(
    own_server: RedisServer,
    own_redis: Redis,
    vendor: AlpacaSimulator,
    folder: Path,
    faults: Faults,
    is_back: bool,
) -> None:
    """Live quotes wait for a while and then go on behind the marker; if the disk comes back, what it has is void,
    and it is used again."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults) as (daemon, traffic):
        own_server.pause()
        async with traffic.flowing(20):
            await daemon.until(lambda s: s["spooled"] > 200, 30)
            for call in (Call.READ, Call.WRITE):
                faults.hang(call)
            await daemon.until(lambda s: "not answered" in s["spool"], 20)
            own_server.resume()
            status = await daemon.until(lambda s: s["dropped"] > 0 and s["queued"] < 100, 40)
            assert ledger_is_even(status)
            if is_back:
                faults.heal()
                await daemon.until(lambda s: s["spool"] == "" and s["checks"]["spool"] == "ok", 20)
                await until(lambda: _is_empty(folder))
                own_server.pause()
                await daemon.until(lambda s: s["spooled"] > 0, 30)
                own_server.resume()
        status = await traffic.settled(daemon, 40)
        verdict = await traffic.verdict(own_redis)
        assert verdict.is_honest, verdict
        assert verdict.missing_in_gaps == status["dropped"] > 200
        assert status["already_stored"] == 0
        _, page = await daemon.page("/metrics")
        assert metric(page, "quotebus_quotes_dropped_total", reason="spool_hung") == status["dropped"]
        markers = [marker for symbol in SYMBOLS for marker in await gaps(own_redis, symbol)]
        assert [marker.reason for marker in markers] == ["spool_hung"] * len(SYMBOLS)
        assert sum(marker.missing or 0 for marker in markers) == status["dropped"]
        async with stopping(daemon, 0):
            pass


@pytest.mark.fault("P32", "P02")
async def test_a_stop_does_not_wait_for_a_disk_that_hangs(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, folder: Path, faults: Faults
) -> None:
    """Redis is away as well: what is left is said, and the code is that of a loss; so while the disk is opened."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults, drain_s="0.5") as (
        daemon,
        traffic,
    ):
        faults.hang(Call.WRITE)
        own_server.pause()
        try:
            traffic.send(20)
            await daemon.until(lambda s: "not answered" in s["spool"], 30)
            async with stopping(daemon, 4):
                pass
            assert "were not stored" in (await daemon.told("undrained"))["reason"]
            daemon.start()
            await until(lambda: _hangs(faults), 30)
            daemon.signal(signal.SIGTERM)
            daemon.signal(signal.SIGTERM)
            assert await daemon.ended(20) in (0, 1, -signal.SIGTERM)
        finally:
            own_server.resume()


@pytest.mark.fault("P33")
@pytest.mark.parametrize("kind", ["deleted", "unreadable"])
async def test_what_was_in_a_spool_that_is_gone_is_marked_in_every_stream(
    own_server: RedisServer,
    own_redis: Redis,
    vendor: AlpacaSimulator,
    folder: Path,
    faults: Faults,
    kind: str,
) -> None:
    """Somebody deletes the folder, or it cannot be read any more: the loss is counted and marked in each stream,
    and the folder is made anew and used."""
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults) as (daemon, traffic):
        own_server.pause()
        async with traffic.flowing(20):
            await daemon.until(lambda s: s["spooled"] > 200, 30)
            if kind == "deleted":
                await asyncio.to_thread(shutil.rmtree, folder)
                lost = (await daemon.status())["spooled"]
                # Spooling goes on in a folder of its own.
                await daemon.until(lambda s: s["spooled"] > lost + 100 and s["spool"] == "", 20)
                assert await asyncio.to_thread(lambda: list(folder.rglob("*.segment")))
            else:
                faults.fail(Call.READ, errno.EIO)
            own_server.resume()
            await daemon.until(lambda s: s["spooled"] == 0 and s["queued"] < 100, 40)
            faults.heal()
        status = await traffic.settled(daemon, 40)
        verdict = await traffic.verdict(own_redis)
        assert verdict.is_honest, verdict
        assert verdict.missing_in_gaps == status["dropped"] > 200
        for symbol in SYMBOLS:
            assert {gap.reason for gap in await gaps(own_redis, symbol)} == {"spool_damaged"}


@pytest.mark.fault("P34")
async def test_a_wall_clock_that_jumps_two_days_ahead_costs_nothing_on_disk(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, folder: Path, faults: Faults
) -> None:
    """And back again: what waits on disk is as old as it is, and not as old as the clock says."""
    small = {"spool_bytes": str(MIB)}  # So that there are several files.
    async with spooling_daemon(own_server, own_redis, vendor, folder, faults, **small) as (daemon, traffic):
        own_server.pause()
        async with traffic.flowing(50):
            await daemon.until(lambda s: s["spooled"] > 2500, 30)
            faults.jump_clock(2 * 86_400)
            spooled = (await daemon.status())["spooled"]
            await daemon.until(lambda s: s["spooled"] > spooled + 200 or s["dropped"], 30)
            faults.jump_clock(-2 * 86_400)
            await daemon.until(lambda s: s["spooled"] > spooled + 400 or s["dropped"], 30)
            faults.jump_clock(0)
            own_server.resume()
            await daemon.until(lambda s: s["spooled"] == 0, 30)
        await traffic.everything_arrived(daemon, own_redis)


async def _is_empty(folder: Path) -> bool:
    return not await asyncio.to_thread(lambda: list(folder.rglob("*.segment")))


async def _hangs(faults: Faults) -> bool:
    return any(faults.hanging(call) for call in Call)

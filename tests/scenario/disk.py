"""A daemon whose spool lies on a disk of the test's own.

Decides what it has stored before a test begins. Must never know what befalls the disk.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.preload.control import Faults
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import subscribed
from tests.scenario.traffic import Traffic

SYMBOLS: Final = tuple(f"S{n:02}" for n in range(20))


@asynccontextmanager
async def spooling_daemon(
    server: RedisServer, redis: Redis, vendor: AlpacaSimulator, folder: Path, faults: Faults, **settings: str
) -> AsyncIterator[tuple[DaemonProcess, Traffic]]:
    """A daemon over this disk, with its symbols live and the first quotes stored."""
    daemon = DaemonProcess(server.url, vendor.url("iex"), **settings).with_environment(
        QUOTEBUS_SPOOL_DIR=str(folder), QUOTEBUS_STREAM_MAXLEN="0", **faults.environment
    )
    async with daemon:
        await daemon.until_live()
        await subscribed(redis, vendor, *SYMBOLS)
        traffic = Traffic(vendor, *SYMBOLS)
        traffic.send(10)
        await traffic.settled(daemon)
        yield daemon, traffic

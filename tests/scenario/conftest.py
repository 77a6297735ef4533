"""What every scenario stands on: a real server, emptied for each test, and a double of the vendor."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.preload.control import Faults
from tests.scenario.daemon import DaemonProcess
from tests.second_tries import NotInTime


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    """One server for all tests that do not harm it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def redis(shared_server: RedisServer) -> AsyncIterator[Redis]:
    """A client of the shared server, which is empty."""
    async with Redis.from_url(shared_server.url, decode_responses=True, protocol=2) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def vendor() -> AsyncIterator[AlpacaSimulator]:
    """An account with one connection and a short memory for ghosts, whose quotes the test sends itself."""
    rules = AccountRules(connection_limit=1, ghost_s=0.5)
    async with AlpacaSimulator(SimulatorSettings(account=rules)) as simulator:
        yield simulator


@pytest.fixture
async def daemon(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> AsyncIterator[DaemonProcess]:
    """A running daemon, connected on both sides, with nothing desired."""
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as process:
        await process.until_live()
        yield process


@pytest.fixture
async def own_server() -> AsyncIterator[RedisServer]:
    """A server with an append-only file, for this test to harm."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
async def own_redis(own_server: RedisServer) -> AsyncIterator[Redis]:
    """A client of the server that will be harmed."""
    async with Redis.from_url(own_server.url, decode_responses=True, protocol=2) as client:
        yield client


@pytest.fixture
async def own_daemon(own_server: RedisServer, vendor: AlpacaSimulator) -> AsyncIterator[DaemonProcess]:
    """A daemon on the server that will be harmed."""
    async with DaemonProcess(own_server.url, vendor.url("iex")) as process:
        await process.until_live()
        yield process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the spool will be; its disk is the test's."""
    return tmp_path / "disk"


@pytest.fixture
def faults(folder: Path, fault_library: Path) -> Iterator[Faults]:
    """The disk."""
    with Faults(folder, fault_library) as control:
        yield control


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Wait until the condition holds; the timeout is a failure."""
    deadline_s = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline_s:
            raise NotInTime(f"not so within {timeout_s} s")
        await asyncio.sleep(0.01)

"""A server for the readers, one for all tests and emptied before each, and a writer after the contract.

A module marked `both_servers` runs on a real server and on the one in memory, but for those of its tests that are
marked `real_server`, with the reason.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import Bus, Gap, Quote, Reconnect, connect
from consumers.link import CLIENT_NAME
from consumers.testing import MemoryServer
from simulator.redis_server import RedisServer
from wire import (
    GAP_FIELD,
    QUOTE_FIELD,
    ZERO_ID,
    EntryId,
    Keyspace,
    encode_gap,
    encode_latest,
    encode_quote,
    place,
)

T0_NS = 1_763_000_000_000_000_000
KEYS = Keyspace()
FAST = Reconnect(first_delay_s=0.02, max_delay_s=0.1)
_IN_MEMORY: weakref.WeakKeyDictionary[Redis, MemoryServer] = weakref.WeakKeyDictionary()


class Writer:
    """Appends quotes numbered by their bid size, with the ids and the cache that the contract asks for."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.sent: dict[str, list[int]] = {}
        self.ids: dict[str, list[str]] = {}
        self._last: dict[str, EntryId] = {}

    async def raw(self, *command: str | bytes | int) -> Any:
        """Send one command as it stands."""
        return await self.redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def quotes(
        self,
        symbol: str,
        count: int = 1,
        *,
        step_ns: int = 1_000_003,
        maxlen: int | None = None,
        at: int | None = None,
    ) -> None:
        """Append so many quotes in one transaction, numbered on from those before."""
        pipe = self.redis.pipeline(transaction=True)
        for _ in range(count):
            number = len(self.sent.setdefault(symbol, []))
            time_ns = T0_NS + number * step_ns if at is None else at
            entry_id, _ = place(time_ns, self._last.get(symbol, ZERO_ID), time_ns)
            row = (187.12, number, "V", 187.13, 200, "N", ["R"], "C", time_ns, 8052)
            options: dict[str, Any] = {} if maxlen is None else {"maxlen": maxlen, "approximate": False}
            pipe.xadd(KEYS.stream(symbol), {QUOTE_FIELD: encode_quote(row)}, str(entry_id), **options)
            pipe.hset(KEYS.latest, symbol, encode_latest(symbol, str(entry_id), row))
            self._last[symbol] = entry_id
            self.sent[symbol].append(number)
            self.ids.setdefault(symbol, []).append(str(entry_id))
        await pipe.execute()

    async def gap(self, symbol: str, reason: str, *, to_ns: int = T0_NS + 5) -> None:
        """Append a gap marker directly after the last entry."""
        entry_id = self._last.get(symbol, ZERO_ID).successor()
        await self.raw(
            "XADD", KEYS.stream(symbol), str(entry_id), GAP_FIELD, encode_gap(T0_NS, to_ns, reason, 7)
        )
        self._last[symbol] = entry_id

    async def rewind(self, symbol: str) -> None:
        """Delete the stream and forget its ids, as a foreign hand might."""
        await self.redis.delete(KEYS.stream(symbol))
        self._last[symbol] = ZERO_ID


async def take(items: AsyncIterator[Quote | Gap], count: int, timeout_s: float = 60.0) -> list[Quote | Gap]:
    """The next so many items, or `TimeoutError`."""
    async with asyncio.timeout(timeout_s):
        return [await anext(items) for _ in range(count)]


def numbers(items: list[Quote | Gap], symbol: str | None = None) -> list[int | float | None]:
    """The numbers that the writer gave to the quotes among these items."""
    return [item.bid_size for item in items if isinstance(item, Quote) and symbol in {None, item.symbol}]


async def until(is_so: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    """Wait for a state, asking often; `TimeoutError` if it does not come."""
    async with asyncio.timeout(timeout_s):
        while not await is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def forget_users(redis: Redis) -> None:
    """Only the default user is left, as on a new server."""
    names = await redis.acl_users()
    others = {name if isinstance(name, str) else name.decode() for name in names} - {"default"}
    if others:
        await redis.acl_deluser(*others)


async def readers(redis: Redis, command: str = "") -> int:
    """How many connections of the library the server has, or of those whose last command is this."""
    clients = await redis.client_list()
    return sum(c["name"].startswith(CLIENT_NAME) and c["cmd"].startswith(command) for c in clients)


async def blocked(redis: Redis, count: int = 1) -> None:
    """Wait until so many readers wait for the next entry."""

    async def enough() -> bool:
        if redis in _IN_MEMORY:
            return _IN_MEMORY[redis].waiting >= count
        info = await redis.info("clients")
        return int(info["blocked_clients"]) >= count

    await until(enough)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on both servers where its module says so and it does not object."""
    if "server" in metafunc.fixturenames:
        markers = metafunc.definition
        both = markers.get_closest_marker("both_servers") and not markers.get_closest_marker("real_server")
        metafunc.parametrize(
            "server", ["real", "memory"] if both else ["real"], indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | MemoryServer]:
    """The server of all tests that do not end it."""
    with MemoryServer() if request.param == "memory" else RedisServer() as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer | MemoryServer) -> AsyncIterator[Redis]:
    """A client of the empty server."""
    in_memory = server if isinstance(server, MemoryServer) else None
    async with in_memory.client() if in_memory else Redis.from_url(server.url, protocol=2) as client:
        if in_memory:
            _IN_MEMORY[client] = in_memory
        else:
            await forget_users(client)
        await client.flushall()
        yield client


@pytest.fixture
def writer(redis: Redis) -> Writer:
    """A writer on the empty server."""
    return Writer(redis)


@pytest.fixture
async def bus(server: RedisServer | MemoryServer, redis: Redis) -> AsyncIterator[Bus]:
    """An open bus on the empty server."""
    async with connect(server.url, reconnect=FAST) as opened:
        yield opened


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind."""
    yield
    # A generator that a loop left is closed in a task of its own, which has at most one step to go.
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}

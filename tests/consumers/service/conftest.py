"""A service on the empty server, and the loops that read it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import MarketDataService, Quote
from consumers.service import ServiceStream
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, readers, until


@pytest.fixture
async def service(server: RedisServer, redis: Redis) -> AsyncIterator[MarketDataService]:
    """A service without credentials on the empty server."""
    async with MarketDataService(redis_url=server.url, reconnect=FAST) as opened:
        yield opened


def spawn(coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """Run it beside the test, which awaits or cancels it."""
    return asyncio.create_task(coroutine)  # noqa: TID251


async def read(stream: ServiceStream, count: int, timeout_s: float = 20.0) -> list[Quote]:
    """So many quotes of a loop that is left afterwards, or `TimeoutError`."""
    found: list[Quote] = []
    async with asyncio.timeout(timeout_s):
        async for quote in stream:
            found.append(quote)
            if len(found) == count:
                break
    return found


def sizes(quotes: list[Quote], symbol: str | None = None) -> list[int | float | None]:
    """The numbers that the writer gave to these quotes."""
    return [quote.bid_size for quote in quotes if symbol in {None, quote.symbol}]


async def so(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a state that is told without asking; `TimeoutError` if it does not come."""

    async def told() -> bool:
        return is_so()

    await until(told, timeout_s)


async def let_go(redis: Redis, left: int = 1) -> None:
    """Wait until the library has so many connections left; a service in use has one of its own."""

    async def is_so() -> bool:
        return await readers(redis) == left

    await until(is_so)

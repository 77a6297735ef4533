"""Every way in which this product connects to a Redis, as one table.

Decides how each is tried and what its failure is called. Must never know why one fails.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import RedisError

from consumers import BusError, connect
from consumers.sync import connect as connect_in_threads
from ingestor.commands.quick_redis import QuickRedis, RedisProblem
from ingestor.control import control_client
from ingestor.redis_link import LinkFailure, RedisAddress
from wire.redis.url import BadRedisUrl

Door = Callable[[str], Awaitable[None]]


class Refused(Exception):
    """What any door says when it does not open."""


async def _writer(url: str) -> None:
    link = await RedisAddress(url).open("quotebus-test")
    try:
        assert await link.call("PING") == b"PONG"
    finally:
        link.abort("done")


async def _control(url: str) -> None:
    async with control_client(RedisAddress(url)) as client:
        assert await client.ping()


async def _command(url: str) -> None:
    def ask() -> None:
        with QuickRedis(url) as redis:
            assert redis.call("PING") in (b"PONG", "PONG")

    await asyncio.to_thread(ask)


async def _library(url: str) -> None:
    async with connect(url) as bus:
        assert await bus.latest("AAPL") is None


async def _without_await(url: str) -> None:
    def ask() -> None:
        with connect_in_threads(url) as bus:
            assert bus.latest("AAPL") is None

    await asyncio.to_thread(ask)


DOORS: Final[dict[str, Door]] = {
    "the daemon's writer": _writer,
    "the daemon's control connections": _control,
    "the command line": _command,
    "the library": _library,
    "the library without await": _without_await,
}


async def opened(door: str, url: str) -> None:
    """Go in and out again; `Refused` with the words of whichever failure it was."""
    try:
        async with asyncio.timeout(60):
            await DOORS[door](url)
    except (LinkFailure, RedisError, RedisProblem, BusError, BadRedisUrl) as failure:
        raise Refused(str(failure)) from None

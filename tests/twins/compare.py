"""Sends the same commands to both servers, over the library's own connections, and says where they differ."""

from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers import connect
from consumers.link import Link, Target
from consumers.testing import Publisher
from tests.twins.commands import Commands
from tests.twins.limits import error_of
from tests.twins.lives import Life


class Difference(NamedTuple):
    """What the two answered to one command."""

    seed: int
    command: tuple[str | int, ...]
    real: Any
    memory: Any
    before: list[tuple[str | int, ...]]


async def differences(seed: int, real: Link, memory: Link, count: int) -> list[Difference]:
    """Where the two differ first, at most once per seed: what follows would only follow from that."""
    for link in (real, memory):
        await link.ask(("FLUSHALL",))
    before: list[tuple[str | int, ...]] = []
    for command, comparable in Commands(seed).take(count):
        answers: list[Any] = []
        for link in (real, memory):
            (reply,) = await link.ask(command)
            if isinstance(reply, RedisError):
                answers.append(error_of(reply))
            else:
                answers.append(None if reply is None else comparable(reply))
        if answers[0] != answers[1]:
            return [Difference(seed, command, answers[0], answers[1], before[-25:])]
        before.append(command)
    return []


async def lived(seed: int, url: str, redis: Redis, count: int, *, is_untimed: bool) -> list[tuple[str, Any]]:
    """What the library did and saw on this server in so many deeds."""
    await redis.flushall()
    async with connect(url) as bus, Publisher(url) as publisher:
        seen = await Life(seed, bus, publisher, redis, is_untimed=is_untimed).live(count)
    return [*seen, ("leases when the bus is closed", await redis.zcard(publisher.keys.interest))]


def first_difference(
    real: list[tuple[str, Any]], memory: list[tuple[str, Any]]
) -> tuple[int, tuple[str, Any], tuple[str, Any]] | None:
    """Which deed was the first to be seen differently, and how."""
    for number, (one, other) in enumerate(zip(real, memory, strict=True)):
        if one != other:
            return number, one, other
    return None


async def linked(url: str) -> Link:
    """An open connection to this server."""
    link = Link(Target(url))
    await link.open()
    return link

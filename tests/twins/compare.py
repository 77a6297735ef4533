"""Sends the same commands to both servers, over the library's own connections, and says where they differ."""

import asyncio
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers import connect
from consumers.link import Link, Target
from consumers.testing import Publisher
from tests.twins.clock import SteppedLoop
from tests.twins.commands import Commands
from tests.twins.limits import error_of
from tests.twins.lives import Life


class Server(Protocol):
    """Either of the two."""

    @property
    def url(self) -> str:
        """What the library reaches it by."""

    def client(self) -> Redis:
        """What deeds are done with that are not the library's."""


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


def lived(seed: int, server: Server, count: int) -> list[tuple[str, Any]]:
    """What the library did and saw on this server in so many deeds, on a loop and a clock of its own."""

    async def live() -> list[tuple[str, Any]]:
        async with server.client() as redis:
            await redis.flushall()
            async with connect(server.url) as bus, Publisher(server.url) as publisher:
                seen = await Life(seed, bus, publisher, redis).live(count)
            left = await redis.zcard(publisher.keys.interest)
        return [*seen, ("leases when the bus is closed", left)]

    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(live())


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

"""A process forked from one that reads: it is told to open a bus of its own, and does the parent no harm."""

import asyncio
import gc
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable

import pytest
import uvloop
from redis.asyncio import Redis

from consumers import Bus, BusError, connect
from consumers.link import CLIENT_NAME
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, Writer, numbers, take


def in_child(work: Callable[[], None]) -> int:
    """The exit code of a forked process that does this work and then leaves."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


async def connections(redis: Redis) -> set[str]:
    """Those of the library, by the server's own number for each."""
    return {client["id"] for client in await redis.client_list() if client["name"].startswith(CLIENT_NAME)}


async def used_by_a_child(bus: Bus, writer: Writer) -> None:
    """Fork in the middle of an iteration, use everything there, and go on here."""
    await writer.quotes("AAPL", 5)
    stream = bus.quotes("AAPL", start="earliest")
    items = aiter(stream)
    assert numbers(await take(items, 2)) == [0, 1]

    async def refused() -> None:
        with pytest.raises(BusError, match=r"forked: .*connect\(\)"):
            await bus.latest("AAPL")
        with pytest.raises(BusError, match="forked"):
            bus.quotes("AAPL")
        with pytest.raises(BusError, match="forked"):
            await take(aiter(stream), 1)
        with pytest.raises(BusError, match="forked"):
            # What was read before the fork is still there to be handed over; the next read is refused.
            await take(items, 4)
        await stream.aclose()
        await bus.aclose()

    def work() -> None:
        asyncio.run(refused())
        gc.collect()

    before = await connections(writer.redis)
    assert in_child(work) == 0
    assert await connections(writer.redis) == before
    assert numbers(await take(items, 3)) == [2, 3, 4]
    await writer.quotes("AAPL", 2)
    assert numbers(await take(items, 2)) == [5, 6]
    assert await bus.latest("AAPL") is not None
    # Nothing was lost and opened anew without a word, either.
    assert await connections(writer.redis) == before


async def test_a_child_is_refused_and_the_parent_reads_on(bus: Bus, writer: Writer) -> None:
    """Neither what the child calls nor what it cleans up touches the connections."""
    await used_by_a_child(bus, writer)


def test_so_it_is_with_uvloop(server: RedisServer) -> None:
    """Whose transports close their sockets in a way of their own."""

    async def main() -> None:
        async with (
            Redis.from_url(server.url, protocol=2) as redis,
            connect(server.url, reconnect=FAST) as bus,
        ):
            await redis.flushall()
            await used_by_a_child(bus, Writer(redis))

    uvloop.run(main())


def worker(url: str, parents: Bus) -> None:
    """What a pool's worker does: it inherits a bus, and opens its own."""

    async def main() -> None:
        with pytest.raises(BusError, match="forked"):
            await parents.latest("AAPL")
        async with connect(url) as bus:
            assert await bus.latest("AAPL") is not None

    asyncio.run(main())


async def test_a_worker_of_multiprocessing_opens_its_own(
    server: RedisServer, bus: Bus, writer: Writer
) -> None:
    """While the parent's goes on."""
    await writer.quotes("AAPL", 1)
    assert await bus.latest("AAPL") is not None
    process = multiprocessing.get_context("fork").Process(target=worker, args=(server.url, bus))
    process.start()
    await asyncio.to_thread(process.join, 20)
    assert process.exitcode == 0
    assert await bus.latest("AAPL") is not None


async def test_a_bus_that_was_not_yet_open_may_be_opened_by_the_child(
    server: RedisServer, writer: Writer
) -> None:
    """There is nothing to share."""
    bus = connect(server.url)

    async def ask() -> None:
        async with bus:
            assert await bus.latest("AAPL") is None

    assert in_child(lambda: asyncio.run(ask())) == 0


async def test_a_child_does_not_give_back_its_parents_leases(bus: Bus, redis: Redis) -> None:
    """Neither by leaving what it inherited nor by closing the bus; and it can take none through it."""
    interest = bus.interest("AAPL")
    async with interest:
        before = await redis.zrange("quotes:interest", 0, -1, withscores=True)
        assert len(before) == 1

        async def meddle() -> None:
            with pytest.raises(BusError, match="forked"):
                bus.interest("MSFT")
            interest.add("MSFT")
            await interest.__aexit__(None, None, None)
            await bus.aclose()

        assert in_child(lambda: asyncio.run(meddle())) == 0
        assert await redis.zrange("quotes:interest", 0, -1, withscores=True) == before


@pytest.mark.fault("Q28")
async def test_a_connection_that_a_fork_took_away_is_no_news(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever was forked in the midst of a wait is told to open a bus, and not that Redis is away."""
    line = bus.quotes("AAPL")._line

    async def is_forked_meanwhile(_: object) -> list[object]:
        monkeypatch.setattr(line, "_pid", -1)
        raise ConnectionResetError

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(BusError, match="forked"):
        await line._persist(is_forked_meanwhile)
    assert caplog.text == ""

"""Readers while Redis is away, frozen, loading or closed to them."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop
from redis.asyncio import Redis

from consumers import Bus, BusUnavailable, Gap, Quote, Reconnect, connect
from consumers.link import Link, Target
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, Writer, blocked, numbers, take
from tests.scenario.proxy import Proxy


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    """A server that a test may kill; what it acknowledged survives."""
    with RedisServer(appendonly=True, options=("--appendfsync", "always")) as running:
        yield running


async def test_a_killed_server_costs_no_quote_and_repeats_none(
    mortal: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers go on from their positions, in each of several restarts, and log every attempt; one is a warning."""
    caplog.set_level("INFO")
    async with connect(mortal.url, reconnect=FAST) as bus, Redis.from_url(mortal.url, protocol=2) as redis:
        writer = Writer(redis)

        async def read(start: str) -> list[Quote | Gap]:
            return await take(aiter(bus.quotes("AAPL", "MSFT", start=start)), 1_200, 60)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(start)) for start in ("now", "snapshot", "earliest")]
            await blocked(redis, 3)
            for _ in range(3):
                for _ in range(10):
                    await writer.quotes("AAPL", 10)
                    await writer.quotes("MSFT", 10)
                mortal.kill()
                # Long enough that attempts fail, whatever the jitter.
                await asyncio.sleep(0.3)
                await asyncio.to_thread(mortal.start)
                for _ in range(10):
                    await writer.quotes("AAPL", 10)
                    await writer.quotes("MSFT", 10)
        for task in tasks:
            assert not any(isinstance(item, Gap) for item in task.result())
            assert numbers(task.result(), "AAPL") == numbers(task.result(), "MSFT") == list(range(600))
    assert "attempt 1 in" in caplog.text
    assert "attempt 2 in" in caplog.text
    # Each of the three loops once, within the minute.
    assert sum("attempt" in r.message for r in caplog.records if r.levelname == "WARNING") == 3


async def test_a_connection_cut_again_and_again_costs_nothing(bus: Bus, writer: Writer) -> None:
    """CLIENT KILL at any moment leads to the next connection, at the same place."""
    task = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 500))  # noqa: TID251
    await blocked(writer.redis)
    for _ in range(50):
        await writer.quotes("AAPL", 10)
        await writer.raw("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.005)
    assert numbers(await task) == list(range(500))


async def test_a_frozen_server_is_left_and_found_again(mortal: RedisServer) -> None:
    """A reply that does not come within the timeout is a lost connection."""
    async with (
        connect(mortal.url, reconnect=FAST, timeout_s=0.8) as bus,
        Redis.from_url(mortal.url, protocol=2) as redis,
    ):
        writer = Writer(redis)
        task = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 20))  # noqa: TID251
        await blocked(redis)
        await writer.quotes("AAPL", 10)
        mortal.pause()
        await asyncio.sleep(2)
        mortal.resume()
        await writer.quotes("AAPL", 10)
        assert numbers(await task) == list(range(20))


async def test_attempts_that_are_limited_end_with_the_reason(mortal: RedisServer) -> None:
    """After the last one the loop raises, and says how often it tried."""
    policy = Reconnect(first_delay_s=0.01, max_delay_s=0.02, attempts=3)
    async with connect(mortal.url, reconnect=policy) as bus, Redis.from_url(mortal.url, protocol=2) as redis:
        task = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 1))  # noqa: TID251
        await blocked(redis)
        mortal.kill()
        with pytest.raises(BusUnavailable, match=r"after 4 attempts.*is the server running"):
            await task
        with pytest.raises(BusUnavailable):
            await bus.latest("AAPL")


async def test_a_permission_that_is_missing_ends_the_loop_at_once(
    bus: Bus, writer: Writer, server: RedisServer
) -> None:
    """Trying again would not help; the message names what a reader needs."""
    await writer.raw(
        "ACL", "SETUSER", "poor", "on", ">pw", "~*", "+@connection", "+hmget", "+xread", "+multi", "+exec"
    )
    url = server.url.replace("//", "//poor:pw@")
    async with connect(url) as poor:
        with pytest.raises(BusUnavailable, match=r"lacks a permission .*ACL"):
            await take(aiter(poor.quotes("AAPL")), 1)


async def test_a_reader_needs_only_the_rights_to_read(writer: Writer, server: RedisServer) -> None:
    """The rules that the message recommends are enough."""
    await writer.quotes("AAPL", 2)
    await writer.raw(
        "ACL", "SETUSER", "reader", "on", ">pw", "~quotes:*", "+@read", "+@connection", "+multi", "+exec"
    )
    async with connect(server.url.replace("//", "//reader:pw@")) as bus:
        assert await bus.latest("AAPL") is not None
        assert numbers(await take(aiter(bus.quotes("AAPL", start="snapshot")), 1)) == [1]


def test_a_reset_connection_is_replaced_under_uvloop_too(server: RedisServer) -> None:
    """Its transports complain of a reset in words of their own, which must not reach a strategy."""

    async def ask_after_each_reset() -> None:
        async with Proxy(server.port) as proxy, connect(proxy.url) as bus:
            for _ in range(10):
                assert await bus.latest("NOBODY") is None
                proxy.cut()
                await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask_after_each_reset())


@pytest.mark.parametrize("is_gone", [True, False])
async def test_what_a_transport_without_its_loop_raises_is_the_loss_of_the_connection(
    monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    """As on Python 3.12.0 and 3.12.1, where the server ends it in the midst of a question; else it is a defect."""

    def fail(_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute '_add_writer'")

    with RedisServer() as server:
        link = Link(Target(server.url, timeout_s=5))
        await link.open()
        writer = link._connection._writer
        if is_gone:
            writer.transport.abort()
        monkeypatch.setattr(writer, "writelines", fail)
        with pytest.raises(ConnectionResetError if is_gone else AttributeError):
            await link.ask(("PING",))
        await link.close()

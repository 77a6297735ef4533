"""The next item with a limit of time: nothing is lost, and the place, connection and lease stay."""

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import Bus, BusClosed, BusError, Delivery, Gap, Newest, Quote, Reconnect, connect
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, Writer, blocked, readers, until

KINDS = ("quotes", "guarded", "newest", "group")


def of(kind: str, bus: Bus, start: str = "earliest") -> Any:
    """A stream of this kind."""
    if kind == "group":
        return bus.group("g", "AAPL", start=start)
    if kind == "newest":
        return bus.newest("AAPL", start=start)
    return bus.quotes("AAPL", start=start, max_age_s=1e9 if kind == "guarded" else None)


def number(item: Any) -> Any:
    """The number that the writer gave to it."""
    inner = item.item if isinstance(item, Delivery) else item.quote if isinstance(item, Newest) else item
    assert isinstance(inner, Quote)
    return inner.bid_size


@pytest.mark.parametrize("kind", KINDS)
async def test_a_limit_that_runs_out_ends_nothing(bus: Bus, redis: Redis, writer: Writer, kind: str) -> None:
    """The same connection waits on, and what came meanwhile comes in order."""
    async with of(kind, bus) as stream, asyncio.timeout(60):
        assert await stream.get(timeout_s=0.05) is None
        for count in range(3):
            await writer.quotes("AAPL")
            item = None
            while item is None:
                item = await stream.get(timeout_s=0.05)
            assert number(item) == count
            assert await stream.get(timeout_s=0) is None
            assert stream.is_connected
        assert await redis.zcard(KEYS.interest) == 1
    with pytest.raises(BusClosed):
        await stream.get(timeout_s=0)


@pytest.mark.parametrize("kind", ["quotes", "guarded", "group"])
async def test_get_and_loop_take_turns(bus: Bus, writer: Writer, kind: str) -> None:
    """Each goes on after the last item that the other handed out, and positions are exact in between."""
    await writer.quotes("AAPL", 21)
    found: list[Any] = []
    async with of(kind, bus) as stream, asyncio.timeout(60):
        while len(found) < 21:
            found.append(number(await stream.get()))
            if kind != "group":
                assert stream.positions == {"AAPL": writer.ids["AAPL"][len(found) - 1]}
            async for item in stream:
                found.append(number(item))
                if len(found) % 3 == 0:
                    break
    assert found == list(range(21))


@pytest.mark.parametrize("kind", ["quotes", "guarded", "group"])
async def test_a_get_that_is_cancelled_loses_nothing(bus: Bus, writer: Writer, kind: str) -> None:
    """Whether it waits for Redis or has its item."""
    found: list[Any] = []
    async with of(kind, bus) as stream, asyncio.timeout(90):
        for count in range(60):
            await writer.quotes("AAPL")
            getting = asyncio.Task(stream.get())
            for _ in range(count % 12):
                await asyncio.sleep(0)
            getting.cancel()
            await asyncio.wait({getting})
            if not getting.cancelled():
                found.append(number(getting.result()))
        while (item := await stream.get(timeout_s=2.0)) is not None:
            found.append(number(item))
    assert found == list(range(60))


async def test_two_cannot_wait_at_once(bus: Bus, redis: Redis) -> None:
    """The second is told so, and the first waits on until it is closed."""
    stream = bus.quotes("AAPL")
    async with asyncio.timeout(60):
        waiting = asyncio.Task(stream.get())
        await blocked(redis)
        with pytest.raises(BusError, match="read by another loop"):
            await stream.get(timeout_s=0)
        with pytest.raises(BusError, match="read by another loop"):
            await anext(aiter(stream))
        await stream.aclose()
        with pytest.raises(BusClosed):
            await waiting


async def test_a_limit_holds_while_redis_is_away() -> None:
    """It is no error before `Reconnect` gives up, and the items come when Redis is back."""
    with RedisServer() as mortal:
        async with connect(mortal.url, reconnect=FAST, timeout_s=1.0) as bus, asyncio.timeout(90):
            stream = bus.quotes("AAPL", start="earliest", lease=False)
            assert await stream.get(timeout_s=0) is None
            mortal.kill()
            for _ in range(3):
                assert await stream.get(timeout_s=0.1) is None
            assert stream.failures > 0
            await asyncio.to_thread(mortal.start)
            async with Redis.from_url(mortal.url, protocol=2) as redis:
                await Writer(redis).quotes("AAPL")
                assert isinstance(await stream.get(timeout_s=30), Quote | Gap)
            await stream.aclose()


async def test_asking_often_does_not_shorten_the_pauses_of_an_outage() -> None:
    """Nor does it use up the attempts of `Reconnect`, which are the server's."""
    slowly = Reconnect(first_delay_s=1.0, max_delay_s=8.0, jitter=0.0, attempts=3)
    with RedisServer() as mortal:
        async with connect(mortal.url, reconnect=slowly, timeout_s=1.0) as bus, asyncio.timeout(90):
            stream = bus.quotes("AAPL", start="earliest", lease=False)
            assert await stream.get(timeout_s=0) is None
            mortal.kill()
            began_s = time.monotonic()
            while time.monotonic() < began_s + 2.5:
                assert await stream.get(timeout_s=0.02) is None
            assert 1 <= stream.failures <= 2
            await stream.aclose()


async def test_closing_between_two_gets_hangs_up(bus: Bus, redis: Redis, writer: Writer) -> None:
    """No connection stays, and no lease."""
    await writer.quotes("AAPL", 3)
    stream = bus.quotes("AAPL", start="earliest")
    assert number(await stream.get(timeout_s=30)) == 0
    await stream.aclose()

    async def is_gone() -> bool:
        return await readers(redis, "xread") == 0 and await redis.zcard(KEYS.interest) == 0

    await until(is_gone)

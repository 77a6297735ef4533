"""Leaving a loop: no connection, no task and no waiting is left behind."""

import asyncio
import contextlib
import gc
import os
import signal
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers import Bus, BusClosed, BusError, Reconnect, connect
from consumers.link import Link, Target
from consumers.reading.quotes import QuoteStream
from consumers.reading.source import Source
from consumers.reading.unserved import Unserved
from consumers.shared_link import SharedLink
from simulator.redis_server import RedisServer, free_port
from tests.consumers.conftest import FAST, KEYS, Writer, blocked, numbers, readers, take, until

pytestmark = pytest.mark.both_servers


async def gone(redis: Redis, left: int = 1) -> None:
    """Wait until only so many connections of the library are left; the bus has one of its own."""

    async def is_so() -> bool:
        return await readers(redis) == left

    await until(is_so)


async def test_a_break_closes_the_connection(bus: Bus, writer: Writer) -> None:
    """Without waiting for the garbage collector."""
    await writer.quotes("AAPL", 10)
    gc.disable()
    try:
        async for _ in bus.quotes("AAPL", start="earliest"):
            assert await readers(writer.redis) == 2
            break
        await gone(writer.redis)
    finally:
        gc.enable()


async def test_a_cancelled_task_closes_the_connection(bus: Bus, writer: Writer) -> None:
    """In the middle of a blocking read, promptly."""
    task = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 1))  # noqa: TID251
    await blocked(writer.redis)
    task.cancel()
    async with asyncio.timeout(0.2):
        with pytest.raises(asyncio.CancelledError):
            await task
    await gone(writer.redis)


async def test_a_timeout_around_the_next_item_closes_the_connection(bus: Bus, writer: Writer) -> None:
    """And the stream can be read on afterwards, from where it stood."""
    stream = bus.quotes("AAPL", start="earliest")
    with pytest.raises(TimeoutError):
        await take(aiter(stream), 1, 0.1)
    await gone(writer.redis)
    await writer.quotes("AAPL", 2)
    assert numbers(await take(aiter(stream), 2)) == [0, 1]


async def test_an_exception_in_the_loop_closes_the_connection(bus: Bus, writer: Writer) -> None:
    """A strategy's own error is not swallowed."""
    await writer.quotes("AAPL", 10)

    async def strategy() -> None:
        async for item in bus.quotes("AAPL", start="earliest"):
            raise ZeroDivisionError(item.symbol)

    with pytest.raises(ZeroDivisionError):
        await strategy()
    await gone(writer.redis)


async def test_aclose_ends_a_loop_that_waits(bus: Bus, writer: Writer) -> None:
    """The loop ends as if there were no more items."""
    stream = bus.quotes("AAPL")

    async def read() -> int:
        return len([item async for item in stream])

    task = asyncio.create_task(read())  # noqa: TID251
    await blocked(writer.redis)
    await stream.aclose()
    await stream.aclose()
    async with asyncio.timeout(0.2):
        assert await task == 0
    await gone(writer.redis)


async def test_aclose_ends_a_loop_that_has_items_left(bus: Bus, writer: Writer) -> None:
    """What was read and not handed out stays behind."""
    await writer.quotes("AAPL", 100)
    stream = bus.quotes("AAPL", start="earliest")
    seen = 0
    async for _ in stream:
        seen += 1
        await stream.aclose()
    assert seen == 1
    assert stream.positions == {"AAPL": writer.ids["AAPL"][0]}


async def test_closing_the_bus_ends_its_loops(redis: Redis, server: RedisServer) -> None:
    """Those that wait, and those that are held between two items."""
    writer = Writer(redis)
    await writer.quotes("AAPL", 10)
    async with connect(server.url, reconnect=FAST) as bus:
        held = aiter(bus.quotes("AAPL", start="earliest"))
        await take(held, 1)
        waiting = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 1))  # noqa: TID251
        await blocked(redis)
    await gone(redis, 0)
    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(held)
    with pytest.raises(BusClosed):
        await bus.latest("AAPL")


@pytest.mark.real_server("a server that is killed")
async def test_a_stream_is_closed_by_async_with(bus: Bus, writer: Writer) -> None:
    """As each twin is by `with`, and a group's stream is."""
    await writer.quotes("AAPL", 10)
    streams: list[Any] = [bus.quotes("AAPL", start="earliest"), bus.newest("AAPL", start="earliest")]
    for stream in streams:
        async with stream as same:
            items = aiter(same)
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        await gone(writer.redis)


async def test_a_bus_that_was_closed_may_be_opened_again(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """As a notebook does whose cell runs twice: with leases, too. One that is open is not opened within."""
    bus = connect(server.url, reconnect=FAST)
    for _ in range(2):
        async with bus:
            with pytest.raises(BusError, match=r"open already.*call connect\(\) again"):
                await bus.__aenter__()
            async with asyncio.TaskGroup() as tasks:
                first = tasks.create_task(take(aiter(bus.quotes("AAPL")), 1))
                await blocked(redis)
                await until(lambda: leased(redis))
                await writer.quotes("AAPL")
            assert len(first.result()) == 1


async def leased(redis: Redis) -> bool:
    """Whether somebody wants anything."""
    return bool(await redis.zcard(KEYS.interest))


async def test_a_bus_belongs_to_one_loop(server: RedisServer, bus: Bus, writer: Writer) -> None:
    """Another one, such as a second asyncio.run, is told so in words, whatever it asks."""
    await writer.quotes("AAPL", 10)
    stream, group = bus.quotes("AAPL", start="earliest"), bus.group("g", "AAPL", start="earliest")

    async def elsewhere() -> None:
        loops: list[Any] = [aiter(stream), aiter(group)]
        for items in loops:
            with pytest.raises(BusError, match="another event loop"):
                await anext(items)
        with pytest.raises(BusError, match=r"another event loop.*call connect\(\) in this one too"):
            await bus.latest("AAPL")
        with pytest.raises(BusError, match="another event loop"):
            bus.newest("AAPL")

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert numbers(await take(aiter(stream), 2)) == [0, 1]


@pytest.mark.real_server("a server that stands still")
async def test_a_close_that_is_cancelled_closes_all_the_same(server: RedisServer, redis: Redis) -> None:
    """Streams of groups, which say goodbye to a server that does not answer, leases, and connections."""
    bus = connect(server.url)
    await bus.__aenter__()
    stream = bus.quotes("AAPL")
    groups = [bus.group(f"g{k}", "AAPL") for k in range(3)]
    loops: list[Any] = [aiter(stream), *(aiter(each) for each in groups)]
    waiting = [asyncio.create_task(anext(items)) for items in loops]  # noqa: TID251
    await blocked(redis)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await bus.aclose()
        assert not bus._shared.is_open
        async with asyncio.timeout(10):
            await asyncio.wait(waiting)
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await gone(redis, 0)


async def test_aclose_does_not_wait_for_a_reconnect(server: RedisServer, redis: Redis) -> None:
    """A loop in its pause between attempts ends at once."""
    with RedisServer() as mortal:
        async with connect(mortal.url) as bus, Redis.from_url(mortal.url, protocol=2) as probe:
            stream = bus.quotes("AAPL")
            task = asyncio.create_task(take(aiter(stream), 1))  # noqa: TID251
            await blocked(probe)
            mortal.kill()
            await asyncio.wait([task], timeout=0.3)
            assert not task.done()
            async with asyncio.timeout(0.2):
                await stream.aclose()
                with pytest.raises(StopAsyncIteration):
                    await task


async def test_one_stream_has_one_loop(bus: Bus, writer: Writer) -> None:
    """A second one is refused while the first waits, and otherwise takes over."""
    stream = bus.quotes("AAPL")
    task = asyncio.create_task(take(aiter(stream), 1))  # noqa: TID251
    await blocked(writer.redis)
    with pytest.raises(BusError, match="another loop"):
        await take(aiter(stream), 1)
    await writer.quotes("AAPL", 3)
    assert numbers(await task) == [0]
    old = aiter(stream)
    assert numbers(await take(old, 1)) == [1]
    assert numbers(await take(aiter(stream), 1)) == [2]
    with pytest.raises(BusError, match="another loop"):
        await anext(old)


async def test_a_bus_that_could_not_open_leaves_nothing(redis: Redis) -> None:
    """Neither a connection nor an open bus."""
    bus = connect(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(BusError):
        await bus.__aenter__()
    with pytest.raises(BusClosed):
        bus.quotes("AAPL")
    await bus.aclose()


async def test_cancelling_a_question_does_not_mix_up_the_answers(bus: Bus, writer: Writer) -> None:
    """The next question is not answered with the reply to the cancelled one."""
    await writer.quotes("AAPL")
    for turns in range(30):
        task = asyncio.create_task(bus.latest("NONE"))  # noqa: TID251
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        quote = await bus.latest("AAPL")
        assert quote is not None
        assert quote.symbol == "AAPL"
    await gone(writer.redis)


async def test_a_task_that_is_cancelled_while_it_runs_ends_with_its_next_question(
    bus: Bus, writer: Writer
) -> None:
    """As by a Ctrl-C that comes in the midst of a callback: once that was lost, and the program went on."""
    await writer.quotes("AAPL")
    assert await bus.latest("AAPL") is not None

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await bus.latest("AAPL")

    task = asyncio.create_task(work())  # noqa: TID251
    await asyncio.wait([task])
    assert task.cancelled()


class Roll:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, list[str]]] = []

    def began(self, symbols: frozenset[str]) -> None:
        self.notes.append(("began", sorted(symbols)))

    def changed(self, added: frozenset[str], removed: frozenset[str]) -> None:
        self.notes.append(("changed", [*(f"+{s}" for s in added), *(f"-{s}" for s in removed)]))

    def ended(self) -> None:
        self.notes.append(("ended", []))

    def follows(self, symbols: frozenset[str]) -> None:
        pass

    unserved: Final[dict[str, Unserved]] = {}
    subscribed: Final[frozenset[str]] = frozenset()


async def test_who_attends_knows_what_is_read_and_when(server: RedisServer, bus: Bus, writer: Writer) -> None:
    """From the first step of a loop to its end, with each change between, and nothing outside of loops."""
    await writer.quotes("AAPL", 9)
    roll = Roll()
    source = Source(Target(server.url, timeout_s=5), KEYS, FAST, SharedLink(Target(server.url, timeout_s=5)))
    stream = QuoteStream(source, ("AAPL",), "earliest", attendance=roll)
    stream.add("MSFT")
    assert roll.notes == []
    items = aiter(stream)
    await take(items, 1)
    stream.add("TSLA", "AAPL")
    stream.remove("MSFT", "NONE")
    # Another loop takes over: reading never ends in between.
    await take(aiter(stream), 1)
    # A place that only Redis can tell is told first.
    assert roll.notes == [
        ("began", ["AAPL"]),
        ("changed", ["+MSFT"]),
        ("changed", ["-MSFT"]),
        ("changed", ["+TSLA"]),
    ]
    async for _ in stream:
        break
    await asyncio.sleep(0)
    await until(lambda: asyncio.sleep(0, roll.notes[-1] == ("ended", [])))
    stream.add("NEW")
    assert len(roll.notes) == 5
    await take(aiter(stream), 1)
    await stream.aclose()
    await stream.aclose()
    assert roll.notes[5:] == [("began", ["AAPL", "TSLA"]), ("changed", ["+NEW"]), ("ended", [])]


@pytest.mark.real_server("each step of a handshake over a socket")
async def test_a_connection_closed_at_any_moment_of_its_opening_stays_closed(
    server: RedisServer, redis: Redis
) -> None:
    """Whoever opens it sees it as lost at once, and no other error; the server keeps none of them."""
    for moment in range(180):
        link = Link(Target(server.url, timeout_s=5))
        opening = asyncio.get_running_loop().create_task(link.open())
        for _ in range(moment % 60):
            await asyncio.sleep(0)
        await link.close()
        done, _ = await asyncio.wait([opening], timeout=2)
        assert done, moment
        with contextlib.suppress(RedisError, OSError):
            await opening
        assert not link.is_open, moment

    async def none_is_left() -> bool:
        return await readers(redis) == 0

    await until(none_is_left)


@pytest.mark.real_server("a server that says something else")
async def test_a_question_ends_at_once_when_its_bus_is_closed_while_it_connects() -> None:
    """Its server takes the connection and does not answer: the bus is closed, and that is what is said."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        link = SharedLink(Target(f"redis://:secret@127.0.0.1:{port}", timeout_s=30))
        for pause_s in (0.0, 0.1):
            link.open()
            task = asyncio.create_task(link.ask(("PING",)))  # noqa: TID251
            await asyncio.sleep(pause_s)  # before it is connected, and while it waits for an answer
            async with asyncio.timeout(5):
                await link.close()
                with pytest.raises(BusClosed):
                    await task


@pytest.mark.real_server("a server that says something else")
async def test_a_server_that_is_full_is_told_in_its_own_words() -> None:
    """It has answered, so it did not hang up without a word, and nothing is said of TLS."""

    async def full(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"secret")
        writer.write(b"-ERR max number of clients reached\r\n")
        writer.close()

    async with await asyncio.start_server(full, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bus = connect(f"redis://:secret@127.0.0.1:{port}", reconnect=Reconnect(attempts=1))
        with pytest.raises(BusError, match="max number of clients reached") as refusal:
            await bus.__aenter__()
        assert "TLS" not in str(refusal.value)
        await bus.aclose()

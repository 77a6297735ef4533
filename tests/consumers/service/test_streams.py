"""Streams of a service: loops, callbacks alone, several at once, symbols that come and go, and the end."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import BadStart, BadSymbol, BusClosed, BusError, Gap, MarketDataService, Quote
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, Writer, blocked, readers, until
from tests.consumers.service.conftest import let_go, read, sizes, so, spawn


async def test_stream_quotes_is_an_async_iterator_of_quotes(
    service: MarketDataService, writer: Writer
) -> None:
    """Each quote comes with its symbol and its mid price, in order."""
    await writer.quotes("AAPL", 3)
    task = spawn(read(service.stream_quotes(["AAPL"]), 5))
    await blocked(writer.redis)
    await writer.quotes("AAPL", 5)
    quotes = await task
    assert sizes(quotes) == [3, 4, 5, 6, 7]
    assert all(isinstance(quote, Quote) and quote.symbol == "AAPL" for quote in quotes)
    assert quotes[0].mid_price == pytest.approx(187.125)


async def test_stream_quotes_answers_anext_too(service: MarketDataService, writer: Writer) -> None:
    """Who steps through it by hand ends it by hand."""
    await writer.quotes("AAPL", 3)
    async with service.stream_quotes("AAPL", start="earliest") as stream:
        assert isinstance(stream, AsyncIterator)
        assert sizes([await anext(stream), await anext(stream)]) == [0, 1]
        assert await readers(writer.redis) == 2
    await let_go(writer.redis)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("kind", [list, tuple, set, iter])
async def test_stream_quotes_takes_symbols_in_any_collection(
    service: MarketDataService, writer: Writer, kind: Any
) -> None:
    """A list, a tuple, a set, whatever can be iterated."""
    await writer.quotes("AAPL", 2)
    await writer.quotes("MSFT", 2)
    quotes = await read(service.stream_quotes(kind(["AAPL", "MSFT"]), start="earliest"), 4)
    assert sizes(quotes, "AAPL") == sizes(quotes, "MSFT") == [0, 1]


async def test_stream_quotes_takes_one_symbol_as_text(service: MarketDataService, writer: Writer) -> None:
    """It is not taken for a collection of letters."""
    await writer.quotes("AAPL", 1)
    stream = service.stream_quotes("AAPL", start="earliest")
    assert stream.symbols == {"AAPL"}
    assert sizes(await read(stream, 1)) == [0]


@pytest.mark.parametrize("symbols", [["aapl"], "A APL", [], [""], [7], 7, None, ["AAPL", "*"]])
async def test_stream_quotes_refuses_a_bad_symbol_at_once(service: MarketDataService, symbols: Any) -> None:
    """Before anything is read, and in words."""
    with pytest.raises(BadSymbol):
        service.stream_quotes(symbols)


async def test_stream_quotes_refuses_a_bad_start_or_callback_at_once(service: MarketDataService) -> None:
    """A place that is none, a symbol that is not among them, a callback that cannot be called."""
    with pytest.raises(BadStart):
        service.stream_quotes("AAPL", start="yesterday")
    with pytest.raises(BadStart, match="MSFT"):
        service.stream_quotes("AAPL", start={"MSFT": "now"})
    with pytest.raises(TypeError, match="coroutine function"):
        service.stream_quotes("AAPL", "print")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_age_s"):
        service.stream_quotes("AAPL", max_age_s=-1)
    with pytest.raises(ValueError, match="max_age_s"):
        MarketDataService(max_age_s=0)
    with pytest.raises(ValueError, match="callback_timeout_s"):
        MarketDataService(callback_timeout_s=0)


async def test_stream_quotes_does_not_block_the_loop(service: MarketDataService, writer: Writer) -> None:
    """While one stream waits and another one is busy, everything else has its turn."""
    waiting = spawn(read(service.stream_quotes("QUIET"), 1))
    await blocked(writer.redis)
    await writer.quotes("AAPL", 6_000)
    turns = 0

    async def feel_the_pulse() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    pulse = spawn(feel_the_pulse())
    quotes = await read(service.stream_quotes("AAPL", start="earliest"), 6_000, 60)
    pulse.cancel()
    waiting.cancel()
    await asyncio.wait([pulse, waiting])
    assert sizes(quotes) == list(range(6_000))
    # One read brings at most 1000 entries of a stream, and the loop turns between two reads.
    assert turns >= 6


async def test_several_streams_run_at_once_on_one_service(service: MarketDataService, writer: Writer) -> None:
    """Each has all of its own symbols, also those that another one has too."""
    wanted = (["AAPL"], ["AAPL", "MSFT"], ["MSFT"])
    tasks = [spawn(read(service.stream_quotes(names), 100 * len(names))) for names in wanted]
    await blocked(writer.redis, 3)
    # One connection for each, and one for the questions of all.
    assert await readers(writer.redis) == 4
    await writer.quotes("AAPL", 100)
    await writer.quotes("MSFT", 100)
    one, both, other = [await task for task in tasks]
    assert sizes(one) == sizes(other) == sizes(both, "AAPL") == sizes(both, "MSFT") == list(range(100))
    await let_go(writer.redis)


async def test_a_gap_is_not_a_quote(service: MarketDataService, writer: Writer) -> None:
    """It is counted, and told to whoever asked for it."""
    gaps: list[Gap] = []
    await writer.quotes("AAPL", 2)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 2)
    stream = service.stream_quotes("AAPL", start="earliest", on_gap=gaps.append)
    assert sizes(await read(stream, 4)) == [0, 1, 2, 3]
    assert [gap.reason for gap in gaps] == ["feed_disconnected"]
    assert service.get_stream_status()["gaps"] == 1


async def test_malformed_entries_are_logged_skipped_and_counted(
    service: MarketDataService, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream goes on behind them."""
    await writer.quotes("AAPL", 2)
    ms = writer.ids["AAPL"][-1].split("-")[0]
    for field, value in (("q", "{"), ("q", "[]"), ("q", "[1,2]"), ("x", "y")):
        await writer.raw("XADD", KEYS.stream("AAPL"), f"{ms}-*", field, value)
    await writer.quotes("AAPL", 2)
    assert sizes(await read(service.stream_quotes("AAPL", start="earliest"), 4)) == [0, 1, 2, 3]
    assert service.get_stream_status()["malformed"] == 4
    assert "skipped" in caplog.text


async def test_add_and_remove_symbols_while_a_stream_runs(service: MarketDataService, writer: Writer) -> None:
    """What is removed is silent at once, what is added comes."""
    stream = service.stream_quotes(["AAPL"], start="earliest")
    found: list[Quote] = []
    for symbol in ("AAPL", "MSFT"):
        stream.add_callback(symbol, found.append)
    task = spawn(stream.run())
    await blocked(writer.redis)
    await writer.quotes("AAPL")
    await so(lambda: len(found) == 1)
    stream.add_symbols(["MSFT", "TSLA"], start="earliest")
    stream.remove_symbols("TSLA")
    await writer.quotes("MSFT", 2)
    await so(lambda: len(found) == 3)
    stream.remove_symbols("AAPL")
    assert stream.symbols == {"MSFT"}
    await writer.quotes("AAPL", 2)
    await writer.quotes("MSFT")
    await so(lambda: len(found) == 4)
    assert (sizes(found, "AAPL"), sizes(found, "MSFT")) == ([0], [0, 1, 2])
    with pytest.raises(BadSymbol):
        stream.add_symbols("nope")
    await stream.aclose()
    await task


async def test_add_and_remove_symbols_of_the_whole_service(
    service: MarketDataService, writer: Writer
) -> None:
    """They count for every stream; without one there is nothing to add to."""
    with pytest.raises(BusError, match="stream_quotes"):
        service.add_symbols("AAPL")
    first, second = service.stream_quotes("AAPL"), service.stream_quotes("MSFT")
    service.add_symbols(("TSLA", "NVDA"), start="earliest")
    service.remove_symbols(["AAPL", "NVDA"])
    assert sorted(first.symbols) == ["TSLA"]
    assert sorted(second.symbols) == ["MSFT", "TSLA"]
    await writer.quotes("TSLA", 2)
    for stream in (first, second):
        assert sizes(await read(stream, 2)) == [0, 1]


async def test_a_stream_may_lose_all_its_symbols_and_get_others(
    service: MarketDataService, writer: Writer
) -> None:
    """Before it begins as well as while it runs."""
    stream = service.stream_quotes("AAPL", start="earliest")
    stream.remove_symbols("AAPL")
    task = spawn(read(stream, 2))
    await so(lambda: stream.source is not None)
    assert stream.symbols == frozenset()
    await writer.quotes("AAPL", 2)
    await writer.quotes("MSFT", 2)
    stream.add_symbols("MSFT", start="earliest")
    quotes = await task
    assert [quote.symbol for quote in quotes] == ["MSFT", "MSFT"]


async def test_cleanup_after_a_break(service: MarketDataService, writer: Writer) -> None:
    """The connection is closed and the callbacks are forgotten, without the garbage collector."""
    await writer.quotes("AAPL", 10)
    stream = service.stream_quotes("AAPL", repr, start="earliest")
    stream.add_callback("AAPL", str)
    assert service.get_stream_status()["active_callbacks"] == 2
    gc.disable()
    try:
        async for _ in stream:
            break
        await let_go(writer.redis)
    finally:
        gc.enable()
    status = service.get_stream_status()
    assert (status["active_callbacks"], status["subscribed_symbols"], status["connected"]) == (0, [], False)
    assert status["quotes"] == 1
    assert stream.positions == {"AAPL": writer.ids["AAPL"][0]}
    with pytest.raises(BusError, match="has ended"):
        await read(stream, 1)


async def test_cleanup_after_an_exception_in_the_loop(service: MarketDataService, writer: Writer) -> None:
    """The strategy's own error is not swallowed."""
    await writer.quotes("AAPL", 10)

    async def strategy() -> None:
        async for quote in service.stream_quotes("AAPL", start="earliest"):
            raise ZeroDivisionError(quote.symbol)

    with pytest.raises(ZeroDivisionError):
        await strategy()
    await let_go(writer.redis)


async def test_cleanup_after_a_cancellation(service: MarketDataService, writer: Writer) -> None:
    """In the middle of a read, of a loop as of callbacks alone."""
    tasks = [
        spawn(read(service.stream_quotes("AAPL"), 1)),
        spawn(service.stream_quotes("AAPL", repr).run()),
    ]
    await blocked(writer.redis, 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    await let_go(writer.redis)
    assert service.get_stream_status()["active_callbacks"] == 0


async def test_cleanup_of_an_iterator_that_is_dropped(service: MarketDataService, writer: Writer) -> None:
    """Nobody has to close it, as nobody has to close that of a loop."""
    await writer.quotes("AAPL", 10)
    stream = service.stream_quotes("AAPL", start="earliest")
    items = aiter(stream)
    await anext(items)
    assert await readers(writer.redis) == 2
    del items
    await let_go(writer.redis)
    assert service.get_stream_status()["subscribed_symbols"] == []


async def test_disconnect_stream_ends_all_and_the_service_streams_again(
    service: MarketDataService, writer: Writer
) -> None:
    """Loops end as if there were no more quotes; a second call does nothing."""
    await writer.quotes("AAPL", 4)
    service.add_callback("AAPL", repr)
    held = service.stream_quotes("AAPL", start="earliest")
    await anext(held)
    loop = spawn(read(service.stream_quotes("AAPL"), 100))
    run = spawn(service.stream_quotes("MSFT", repr).run())
    await blocked(writer.redis, 2)
    await service.disconnect_stream()
    async with asyncio.timeout(5):
        assert await loop == []
        assert await run is None
    with pytest.raises(StopAsyncIteration):
        await anext(held)
    await let_go(writer.redis)
    assert service.get_stream_status()["active_callbacks"] == 0
    await service.disconnect_stream()
    assert sizes(await read(service.stream_quotes("AAPL", start=held.positions), 3)) == [1, 2, 3]


async def test_disconnect_stream_from_within_a_callback(service: MarketDataService, writer: Writer) -> None:
    """The callback that ends everything is the last that is called."""
    calls: list[str] = []

    async def last(quote: Quote) -> None:
        calls.append(quote.symbol)
        await service.disconnect_stream()

    await writer.quotes("AAPL", 10)
    stream = service.stream_quotes("AAPL", last, start="earliest")
    stream.add_callback("AAPL", lambda _: calls.append("too late"))
    async with asyncio.timeout(5):
        await stream.run()
    assert calls == ["AAPL"]


async def test_disconnect_stream_before_a_stream_had_its_first_turn(
    service: MarketDataService, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends as any other does, without complaint; that its callback was forgotten is no news."""
    tasks = [spawn(service.stream_quotes("AAPL", repr).run()), spawn(read(service.stream_quotes("AAPL"), 1))]
    await service.disconnect_stream()
    assert await asyncio.gather(*tasks) == [None, []]
    assert caplog.text == ""


async def test_disconnect_stream_before_anything_is_nothing(server: RedisServer) -> None:
    """Neither is closing a service that was never used."""
    service = MarketDataService(redis_url=server.url)
    await service.disconnect_stream()
    await service.aclose()
    await service.aclose()
    with pytest.raises(BusClosed, match="MarketDataService"):
        service.stream_quotes("AAPL")


async def test_a_service_is_lazy(redis: Redis, server: RedisServer) -> None:
    """Nothing connects before the first quote is asked for, and `async with` is not needed."""
    writer = Writer(redis)
    await writer.quotes("AAPL", 2)
    service = MarketDataService(redis_url=server.url, reconnect=FAST)
    async with MarketDataService(redis_url=server.url):
        stream = service.stream_quotes("AAPL", start="earliest")
        assert await readers(redis) == 0
    assert sizes(await read(stream, 2)) == [0, 1]
    await let_go(redis)
    await service.aclose()
    await let_go(redis, 0)


async def test_one_stream_has_one_loop(service: MarketDataService, writer: Writer) -> None:
    """A second one is refused, and does not disturb the first."""
    stream = service.stream_quotes("AAPL")
    task = spawn(read(stream, 1))
    await blocked(writer.redis)
    with pytest.raises(BusError, match="another loop"):
        await read(stream, 1)
    await writer.quotes("AAPL")
    assert sizes(await task) == [0]


async def test_positions_survive_the_stream(service: MarketDataService, writer: Writer) -> None:
    """A strategy that ends and comes back misses nothing and gets nothing twice."""
    await writer.quotes("AAPL", 10)
    await writer.quotes("MSFT", 10)
    first = service.stream_quotes(["AAPL", "MSFT"], start="earliest")
    quotes = await read(first, 13)
    quotes += await read(service.stream_quotes(["AAPL", "MSFT"], start=first.positions), 7)
    assert sizes(quotes, "AAPL") == sizes(quotes, "MSFT") == list(range(10))


def test_a_service_belongs_to_one_event_loop(server: RedisServer) -> None:
    """In a second one it says so, instead of hanging."""
    service = MarketDataService(redis_url=server.url)

    async def use() -> None:
        stream = service.stream_quotes("AAPL")
        task = spawn(stream.run())
        await so(lambda: task.done() or stream.status()["connected"])
        await stream.aclose()
        await task

    with asyncio.Runner() as runner:
        runner.run(use())
        with asyncio.Runner() as other, pytest.raises(BusError, match="another event loop"):
            other.run(use())
        runner.run(service.aclose())


@pytest.mark.fault("Q15")
async def test_a_stream_that_nobody_reads_is_told(
    service: MarketDataService, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback alone does not run a stream; one that was ended, or never came to be, is no mistake."""
    ended = service.stream_quotes("MSFT")
    await service.disconnect_stream()
    del ended
    with pytest.raises(BadSymbol):
        service.stream_quotes("no symbol")
    assert "never read" not in caplog.text
    service.stream_quotes("AAPL", print)
    gc.collect()
    assert caplog.text.count("a stream of AAPL was made and never read") == 1


@pytest.mark.fault("Q08")
async def test_a_stream_without_a_daemon_says_so(
    service: MarketDataService, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, within seconds, with symbols and reason, in the log and in its status."""
    stream = service.stream_quotes("AAPL")
    task = spawn(read(stream, 1))
    await so(lambda: "no daemon has written here" in caplog.text, 5)
    unserved = service.get_stream_status()["unserved"]
    assert unserved == {"AAPL": {"state": "no_daemon", "reason": "no daemon has written here"}}
    await blocked(writer.redis)
    await writer.quotes("AAPL", 1)
    assert await task
    assert caplog.text.count("no daemon") == 1


@pytest.mark.fault("Q15")
@pytest.mark.parametrize("way", ["task", "await", "run", "group"])
async def test_a_stream_with_a_callback_is_awaited(
    service: MarketDataService, writer: Writer, way: str
) -> None:
    """As a task, in a group, or where it stands: `asyncio.create_task(service.stream_quotes(…, callback=f))`."""
    got: list[Quote] = []
    stream = service.stream_quotes(["AAPL"], callback=got.append)

    async def where_it_stands() -> None:
        await (stream.run() if way == "run" else stream)

    async with asyncio.TaskGroup() as group:
        task = {
            "task": lambda: asyncio.create_task(stream),  # noqa: TID251 - what is tried
            "group": lambda: group.create_task(stream),
        }.get(way, lambda: group.create_task(where_it_stands()))()
        await blocked(writer.redis)
        await writer.quotes("AAPL", 3)
        await so(lambda: len(got) == 3)
        if way == "await":
            await stream.aclose()
            await task
        else:
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
    assert not stream.is_running
    await let_go(writer.redis)

    async def is_given_back() -> bool:
        return await writer.redis.zcard(KEYS.interest) == 0

    await until(is_given_back)


async def test_a_stream_that_is_cancelled_before_its_first_step_is_let_go(
    service: MarketDataService, caplog: pytest.LogCaptureFixture
) -> None:
    """And nobody is told that it was never read."""
    task = spawn(service.stream_quotes("AAPL", repr))
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert service.get_stream_status()["streams"] == []
    service.stream_quotes("AAPL", repr).close()
    gc.collect()
    assert caplog.text == ""


def test_what_ends_a_program_ends_it_through_an_awaited_stream(server: RedisServer) -> None:
    """A callback may call `sys.exit`."""

    def interrupt(_: Quote) -> None:
        raise SystemExit(3)

    async def program() -> None:
        async with MarketDataService(redis_url=server.url, reconnect=FAST) as service:
            async with Redis.from_url(server.url) as redis:
                await redis.flushall()
                await Writer(redis).quotes("AAPL", 1)
            await service.stream_quotes("AAPL", interrupt, start="earliest")

    with pytest.raises(SystemExit):
        asyncio.run(program())


@pytest.mark.fault("Q15")
async def test_quotes_that_go_to_nobody_are_told(
    service: MarketDataService, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever awaits a stream without a callback meant to iterate."""
    task = spawn(service.stream_quotes("AAPL"))
    await blocked(redis)
    task.cancel()
    await asyncio.wait((task,))
    assert "quotes of AAPL go to nobody: pass a callback, add one, or read with `async for`" in caplog.text

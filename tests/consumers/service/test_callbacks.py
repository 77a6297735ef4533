"""Callbacks: of every kind, in order, isolated from each other and from the stream."""

import asyncio
import functools
import time
import tracemalloc
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import BusClosed, Gap, MarketDataService, Quote
from consumers.service.book import CallbackBook, Seldom
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, Writer, blocked
from tests.consumers.service.conftest import read, sizes, so, spawn
from wire import Symbol


class Recorder:
    """Callbacks of several kinds that write down what they were given."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | float | None]] = []

    def plain(self, quote: Quote) -> None:
        self.seen.append(("plain", quote.bid_size))

    async def coroutine(self, quote: Quote) -> None:
        await asyncio.sleep(0)
        self.seen.append(("coroutine", quote.bid_size))

    def __call__(self, quote: Quote) -> Any:
        return self.coroutine(quote)


async def test_callback_sync_or_async_gets_each_quote_before_the_loop(
    service: MarketDataService, writer: Writer
) -> None:
    """A function, a coroutine function, a partial one, an object: each is called in its turn, the loop last."""
    recorder = Recorder()
    await writer.quotes("AAPL", 2)
    stream = service.stream_quotes("AAPL", recorder.plain, start="earliest")
    stream.add_callback("AAPL", recorder.coroutine)
    stream.add_callback("AAPL", functools.partial(Recorder.plain, recorder))
    stream.add_callback("AAPL", recorder)
    async for quote in stream:
        recorder.seen.append(("loop", quote.bid_size))
        if quote.bid_size == 1:
            break
    order = ["plain", "coroutine", "plain", "coroutine", "loop"]
    assert recorder.seen == [(kind, number) for number in (0, 1) for kind in order]


async def test_run_lives_by_callbacks_alone(service: MarketDataService, writer: Writer) -> None:
    """Without a loop, until the stream is ended."""
    found: list[Quote] = []
    stream = service.stream_quotes("AAPL", found.append, start="earliest")
    task = spawn(stream.run())
    await writer.quotes("AAPL", 50)
    await so(lambda: len(found) == 50)
    await stream.aclose()
    assert await task is None
    assert sizes(found) == list(range(50))


async def test_callbacks_per_symbol_come_and_go(service: MarketDataService, writer: Writer) -> None:
    """Several for one symbol, each with its own symbol's quotes; one that is removed is not called."""
    apple: list[Quote] = []
    also: list[Quote] = []
    microsoft: list[Quote] = []
    everything: list[Quote] = []
    stream = service.stream_quotes(["AAPL", "MSFT"], everything.append, start="earliest")
    stream.add_callback("AAPL", apple.append)
    stream.add_callback("AAPL", also.append)
    stream.add_callback("AAPL", also.append)
    stream.add_callback("MSFT", microsoft.append)
    assert service.get_stream_status()["active_callbacks"] == 4
    task = spawn(stream.run())
    await writer.quotes("AAPL", 2)
    await writer.quotes("MSFT", 1)
    await so(lambda: len(everything) == 3)
    assert stream.remove_callback("AAPL", also.append) == 1
    assert stream.remove_callback("AAPL", also.append) == 0
    assert stream.remove_callback("MSFT") == 1
    await writer.quotes("AAPL", 1)
    await writer.quotes("MSFT", 1)
    await so(lambda: len(everything) == 5)
    assert (sizes(apple), sizes(also), sizes(microsoft)) == ([0, 1, 2], [0, 1], [0])
    await stream.aclose()
    await task


async def test_callbacks_of_the_service_get_each_quote_once(
    service: MarketDataService, writer: Writer
) -> None:
    """However many streams have the symbol, and however far apart they read."""
    found: list[int | float | None] = []
    under_way = 0

    async def slow(quote: Quote) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        found.append(quote.bid_size)
        under_way -= 1

    service.add_callback("AAPL", slow)
    await writer.quotes("AAPL", 100)
    streams = [service.stream_quotes("AAPL", start="earliest") for _ in range(3)]
    tasks = [spawn(read(stream, 200)) for stream in streams]
    await so(lambda: len(found) == 100)
    await writer.quotes("AAPL", 100)
    for task in tasks:
        assert sizes(await task) == list(range(200))
    assert found == list(range(200))
    assert service.get_stream_status()["callback_errors"] == 0
    # It outlives the streams.
    await writer.quotes("AAPL", 1)
    await read(service.stream_quotes("AAPL", start=streams[0].positions), 1)
    assert found == list(range(201))
    assert service.remove_callback("AAPL") == 1


@pytest.mark.fault("Q25")
async def test_callbacks_of_the_service_are_told_of_what_a_stream_catches_up_with(
    service: MarketDataService, writer: Writer
) -> None:
    """One stream begins now, another with the earliest: each quote once, though later ones were told before."""
    found: list[int | float | None] = []
    service.add_callback("AAPL", lambda quote: found.append(quote.bid_size))
    await writer.quotes("AAPL", 500)
    live = spawn(read(service.stream_quotes("AAPL", start="now"), 338))
    await blocked(writer.redis)
    await writer.quotes("AAPL", 300)
    await so(lambda: len(found) == 300)
    late = spawn(read(service.stream_quotes("AAPL", start="earliest"), 838))
    await so(lambda: len(found) == 800)
    await writer.quotes("AAPL", 38)
    assert sizes(await live) == list(range(500, 838))
    assert sizes(await late) == list(range(838))
    await so(lambda: len(found) >= 838)
    assert sorted(number or 0 for number in found) == list(range(838))
    assert found[300:800] == list(range(500))


@pytest.mark.fault("Q25")
async def test_a_quote_whose_stream_ends_before_its_turn_is_told_by_another(
    service: MarketDataService, writer: Writer
) -> None:
    """It has waited for a slow callback, and has told nobody."""
    found: list[int | float | None] = []
    gate = asyncio.Event()

    async def slow(quote: Quote) -> None:
        found.append(quote.bid_size)
        await gate.wait()

    service.add_callback("AAPL", slow)
    await writer.quotes("AAPL", 1)
    first = spawn(service.stream_quotes("AAPL", start="earliest").run())
    await so(lambda: found == [0])
    await writer.quotes("AAPL", 1)
    waits = asyncio.Event()
    ends = service.stream_quotes("AAPL", lambda _: waits.set(), start=writer.ids["AAPL"][0])
    second = spawn(ends.run())
    await waits.wait()
    second.cancel()
    await asyncio.wait([second])
    gate.set()
    await so(lambda: found == [0, 1])
    first.cancel()
    await asyncio.wait([first])


async def test_a_callback_that_is_added_later_has_an_account_of_its_own(
    service: MarketDataService, writer: Writer
) -> None:
    """What a stream brings after that is news to it, whatever others were told before."""
    early: list[Quote] = []
    later: list[Quote] = []
    service.add_callback("AAPL", early.append)
    await writer.quotes("AAPL", 5)
    await read(service.stream_quotes("AAPL", start="earliest"), 5)
    service.add_callback("AAPL", later.append)
    await read(service.stream_quotes("AAPL", start="earliest"), 5)
    assert (sizes(early), sizes(later)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])


async def test_what_one_stream_finds_too_old_another_may_tell(
    service: MarketDataService, writer: Writer
) -> None:
    """Only what was brought counts as told."""
    found: list[int | float | None] = []
    gaps: list[Gap] = []
    service.add_callback("AAPL", lambda quote: found.append(quote.bid_size))
    await writer.quotes("AAPL", 3)
    strict = spawn(service.stream_quotes("AAPL", on_gap=gaps.append, start="earliest", max_age_s=60).run())
    await so(lambda: bool(gaps))
    await writer.quotes("AAPL", 1, at=time.time_ns())
    await so(lambda: found == [3])
    await read(service.stream_quotes("AAPL", start="earliest"), 4)
    assert found == [3, 0, 1, 2]
    strict.cancel()
    await asyncio.wait([strict])


async def test_callbacks_of_the_service_follow_a_stream_that_begins_anew(
    service: MarketDataService, writer: Writer
) -> None:
    """Its smaller ids are not taken for old quotes."""
    found: list[Quote] = []
    service.add_callback("AAPL", found.append)
    await writer.quotes("AAPL", 5)
    task = spawn(read(service.stream_quotes("AAPL", start="earliest"), 10))
    await so(lambda: len(found) == 5)
    await writer.redis.delete(KEYS.stream("AAPL"))
    for number in range(5):
        row = f'[1.0,{100 + number},"V",2.0,1,"V",null,"C",{5_000_000 + number},0]'
        await writer.raw("XADD", KEYS.stream("AAPL"), f"5-{number + 1}", "q", row)
    await task
    assert sizes(found) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


async def test_callback_errors_stop_neither_the_stream_nor_other_callbacks(
    service: MarketDataService, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """They are caught, counted, and logged with their traceback, but not a thousand times."""
    good: list[Quote] = []

    def bad(quote: Quote) -> None:
        raise ZeroDivisionError(quote.symbol)

    async def worse(_: Quote) -> None:
        await asyncio.sleep(0)
        raise KeyError("missing")

    await writer.quotes("AAPL", 500)
    stream = service.stream_quotes("AAPL", bad, start="earliest")
    stream.add_callback("AAPL", worse)
    stream.add_callback("AAPL", good.append)
    service.add_callback("AAPL", bad)
    assert sizes(await read(stream, 500)) == list(range(500))
    assert len(good) == 500
    # The last quote had its callbacks too, before the loop was left.
    assert service.get_stream_status()["callback_errors"] == 1500
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert 2 <= len(told) <= 4
    assert "ZeroDivisionError" in caplog.text
    assert "missing" in caplog.text
    assert told[0].exc_info is not None


async def test_a_gap_callback_that_fails_is_isolated_too(service: MarketDataService, writer: Writer) -> None:
    """The quotes behind the gap come."""

    async def bad(gap: Gap) -> None:
        raise RuntimeError(gap.reason)

    await writer.quotes("AAPL", 1)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 1)
    assert sizes(await read(service.stream_quotes("AAPL", on_gap=bad, start="earliest"), 2)) == [0, 1]
    assert service.get_stream_status()["callback_errors"] == 1


@pytest.mark.fault("Q19")
async def test_a_callback_that_raises_a_cancellation_of_its_own_is_an_error_like_others(
    service: MarketDataService, writer: Writer
) -> None:
    """Nobody asked the stream to end."""

    async def bad(_: Quote) -> None:
        inner = spawn(asyncio.sleep(10))
        inner.cancel()
        await inner

    def worse(_: Quote) -> None:
        raise asyncio.CancelledError

    await writer.quotes("AAPL", 3)
    stream = service.stream_quotes("AAPL", bad, start="earliest")
    stream.add_callback("AAPL", worse)
    assert sizes(await read(stream, 3)) == [0, 1, 2]
    assert service.get_stream_status()["callback_errors"] == 6


async def test_a_cancellation_in_the_middle_of_a_callback_ends_the_stream(
    service: MarketDataService, writer: Writer
) -> None:
    """It is not taken for the callback's own, and the callback sees it."""
    seen: list[str] = []

    async def waits(_: Quote) -> None:
        try:
            seen.append("waits")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    await writer.quotes("AAPL", 3)
    task = spawn(service.stream_quotes("AAPL", waits, start="earliest").run())
    await so(lambda: seen == ["waits"])
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert seen == ["waits", "cancelled"]
    assert service.get_stream_status()["callback_errors"] == 0


def test_a_keyboard_interrupt_in_a_callback_ends_the_program(server: RedisServer) -> None:
    """Like one anywhere else, and everything is let go of."""

    async def strategy() -> None:
        def interrupt(_: Quote) -> None:
            raise KeyboardInterrupt

        async with (
            MarketDataService(redis_url=server.url, reconnect=FAST) as service,
            Redis.from_url(server.url) as redis,
        ):
            run = spawn(service.stream_quotes("INT", interrupt).run())
            await blocked(redis)
            await Writer(redis).quotes("INT", 1)
            await run

    with asyncio.Runner() as runner, pytest.raises(KeyboardInterrupt):
        runner.run(strategy())


async def test_a_slow_async_callback_bounds_memory(service: MarketDataService, writer: Writer) -> None:
    """The stream waits for it; what piles up does so in Redis, and other streams do not notice."""
    for _ in range(4):
        await writer.quotes("AAPL", 5_000)
    gate = asyncio.Event()
    calls = 0

    async def slow(_: Quote) -> None:
        nonlocal calls
        calls += 1
        await gate.wait()

    tracemalloc.start()
    try:
        stuck = spawn(service.stream_quotes("AAPL", slow, start="earliest").run())
        await so(lambda: calls == 1)
        before, _ = tracemalloc.get_traced_memory()
        other = await read(service.stream_quotes("AAPL", start="earliest"), 2_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(other) == 2_000
    assert calls == 1
    # 20 000 raw entries would be some 6 MB; the 2000 quotes of the other loop are among what is measured.
    assert after - before < 4_000_000
    stuck.cancel()
    await asyncio.wait([stuck])


async def test_a_callback_that_hangs_is_given_up_after_its_time(server: RedisServer, writer: Writer) -> None:
    """It counts as an error, and the stream goes on."""
    async with MarketDataService(redis_url=server.url, callback_timeout_s=0.05) as service:

        async def hangs(_: Quote) -> None:
            await asyncio.Event().wait()

        await writer.quotes("AAPL", 3)
        assert sizes(await read(service.stream_quotes("AAPL", hangs, start="earliest"), 3)) == [0, 1, 2]
        assert service.get_stream_status()["callback_errors"] == 3


async def test_a_callback_may_change_callbacks_and_symbols(
    service: MarketDataService, writer: Writer
) -> None:
    """While it is called: the round goes on with those there were."""
    seen: list[str] = []
    stream = service.stream_quotes("AAPL", start="earliest")

    def once(quote: Quote) -> None:
        seen.append("once")
        stream.remove_callback("AAPL", once)
        stream.add_callback("AAPL", later)
        stream.add_symbols("MSFT", start="earliest")

    def later(quote: Quote) -> None:
        seen.append(quote.symbol)

    stream.add_callback("AAPL", once)
    await writer.quotes("AAPL", 2)
    await writer.quotes("MSFT", 1)
    quotes = await read(stream, 3)
    assert seen == ["once", "AAPL"]
    assert [quote.symbol for quote in quotes] == ["AAPL", "AAPL", "MSFT"]


async def test_callbacks_are_refused_after_the_end(service: MarketDataService) -> None:
    """Nothing would ever call them."""
    await service.aclose()
    with pytest.raises(BusClosed):
        service.add_callback("AAPL", repr)


def test_the_book_counts_what_it_holds() -> None:
    """Through every order of adding and removing."""
    book = CallbackBook()
    name = Symbol("AAPL")
    book.add(name, repr)
    book.add(name, str)
    book.add(name, repr)
    assert (len(book), book.of("AAPL")) == (2, (repr, str))
    assert book.remove(Symbol("MSFT")) == 0
    assert book.remove(name, repr) == 1
    assert (len(book), book.of("AAPL")) == (1, (str,))
    assert book.remove(name) == 1
    assert (len(book), book.of("AAPL")) == (0, ())
    book.add(name, repr)
    book.clear()
    assert (len(book), book.of("AAPL")) == (0, ())


def test_messages_of_a_kind_pass_seldom() -> None:
    """The next one that passes says how many did not; kinds do not disturb each other, nor grow for ever."""
    seldom = Seldom(60.0)
    assert [seldom.lets_pass("a", now_s) for now_s in (0.0, 1.0, 59.9, 60.0, 61.0)] == [
        0,
        None,
        None,
        2,
        None,
    ]
    assert seldom.lets_pass("b", 61.0) == 0
    for kind in range(5_000):
        assert seldom.lets_pass(kind, 62.0) == 0

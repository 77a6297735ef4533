"""The stand-in for alpaca-py's stream: same surface, same quotes, and nothing that waits for itself."""

import asyncio
import inspect
import logging
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from alpaca.data.enums import DataFeed
from alpaca.data.live import StockDataStream as Original
from msgpack import Timestamp, packb, unpackb
from redis.asyncio import Redis

from consumers import BadSymbol, BadUrl, BusError, Gap, NotCarried, Reconnect
from consumers.alpaca import StockDataStream
from consumers.alpaca import stream as dropin
from consumers.alpaca.shapes import model, raw
from simulator.redis_server import RedisServer
from tests.consumers.conftest import KEYS, Writer, blocked, until
from wire import decode_quote, encode_quote


class Handler:
    """A coroutine function that keeps what it gets."""

    def __init__(self, then: Callable[[Any], Any] | None = None) -> None:
        self.got: list[Any] = []
        self.then = then

    def function(self) -> Any:
        """What is handed to the stream."""

        async def handle(quote: Any) -> None:
            self.got.append(quote)
            if self.then is not None:
                done = self.then(quote)
                if inspect.isawaitable(done):
                    await done

        return handle

    @property
    def numbers(self) -> list[int]:
        """The numbers of the quotes, as the writer gave them."""
        return [int(quote.bid_size) for quote in self.got]

    async def has(self, count: int) -> None:
        """Wait for so many."""

        async def enough() -> bool:
            return len(self.got) >= count

        await until(enough, 20)


@asynccontextmanager
async def running(stream: StockDataStream, redis: Redis | None = None) -> AsyncIterator[threading.Thread]:
    """`run` in a thread of its own, as scripts do it; at the end it has to stop promptly."""
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    try:
        if redis is not None:
            await blocked(redis)
        yield thread
    finally:
        began_s = time.monotonic()
        stream.stop()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
        assert time.monotonic() - began_s < 3  # a third of it on a quiet machine


async def leased(redis: Redis) -> set[str]:
    """The symbols that somebody wants."""
    members = await redis.zrange(KEYS.interest, 0, -1)
    return {str(member, "ascii").split("@")[0] for member in members}  # type: ignore[arg-type]


async def settled(stream: StockDataStream, *symbols: str) -> None:
    """Wait until these have their places in the streams."""

    async def known() -> bool:
        streams = list(stream._streams.values())
        return {name for each in streams for name in each.positions} == set(symbols)

    await until(known)


def test_the_surface_is_that_of_the_other_class() -> None:
    """Every public name, with the same parameters in front; what we add is by keyword only."""
    for name in (each for each in dir(Original) if not each.startswith("_") or each == "_run_forever"):
        theirs, ours = getattr(Original, name), getattr(StockDataStream, name)
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), name
    theirs = inspect.signature(Original).parameters
    parameters = list(inspect.signature(StockDataStream).parameters.values())
    assert [(each.name, each.default) for each in parameters[: len(theirs)]] == [
        (each.name, each.default) for each in theirs.values()
    ]
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters[len(theirs) :])


@pytest.mark.parametrize("row", [
    (187.12, 300, "V", 187.13, 200, "N", ["R"], "C", 1_763_000_004_123_456_789, 8052),
    (0.0, 0, " ", 187.13, 1.5, "Q", ["R", "O"], "A", 1_763_000_004_999_999_999, None),
    (187.0, 300, "V", 188.0, 200, "N", [], "B", 1_763_000_004_000_000_001, -5),
])  # fmt: skip
def test_a_quote_equals_what_alpaca_py_makes_of_the_same_message(row: Any) -> None:
    """The model and the raw dict, field by field, after the way through the bus's own spelling."""
    fields = dict(zip(("bp", "bs", "bx", "ap", "as", "ax", "c", "z"), row, strict=False))
    wire = packb({"T": "q", "S": "AAPL", **fields, "t": Timestamp.from_unix_nano(row[8])})
    quote = decode_quote("AAPL", "1-0", encode_quote(row))
    original = Original("key", "secret", raw_data=True)
    assert raw(quote) == original._cast(unpackb(wire))
    assert [type(value) for value in raw(quote).values()] == [
        type(value)
        for _, value in sorted(unpackb(wire).items(), key=lambda item: list(raw(quote)).index(item[0]))
    ]
    theirs = Original("key", "secret")._cast(unpackb(wire))
    assert model(quote) == theirs
    assert type(model(quote)) is type(theirs)
    assert repr(model(quote)) == repr(theirs)


def test_what_alpaca_did_not_send_is_absent_and_does_not_break_the_model() -> None:
    """A row of nothing but a time."""
    quote = decode_quote(
        "AAPL", "1-0", encode_quote((None, None, None, None, None, None, None, None, 5, None))
    )
    assert raw(quote) == {"T": "q", "S": "AAPL", "bp": 0.0, "ap": 0.0, "t": Timestamp(0, 5)}
    assert model(quote).bid_size == 0


def test_wrong_arguments_are_refused_as_there(server: RedisServer) -> None:
    """And those that only this class has, with their own errors."""
    with pytest.raises(ValueError, match="only IEX and SIP"):
        StockDataStream("k", "s", feed=DataFeed.OTC)
    with pytest.raises(ValueError, match="positive number of seconds"):
        StockDataStream("k", "s", data_timeout=0)
    with pytest.raises(BadUrl):
        StockDataStream("k", "s", redis_url="http://nowhere")
    stream = StockDataStream("k", "s", redis_url=server.url)
    with pytest.raises(ValueError, match="handler must be a coroutine function"):
        stream.subscribe_quotes(print, "AAPL")  # type: ignore[arg-type]
    with pytest.raises(BadSymbol):
        stream.subscribe_quotes(Handler().function(), "no symbol")


CHANNELS = [
    name for name in dir(Original) if re.match("(un)?subscribe_|register_", name) and "quotes" not in name
]


@pytest.mark.parametrize("name", CHANNELS)
def test_what_the_bus_does_not_carry_is_refused_by_name(name: str) -> None:
    """The error says what the bus has, and where the rest is to be had."""
    with pytest.raises(NotCarried, match=r"the bus carries quotes and no \w+.*REST"):
        getattr(StockDataStream("k", "s"), name)(Handler().function(), "AAPL")


async def test_quotes_reach_the_handler_of_their_symbol(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """Each symbol's own handler, in order, and a lease for each while it runs."""
    one, two = Handler(), Handler()
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(one.function(), "AAPL")
    stream.subscribe_quotes(two.function(), "MSFT")
    async with running(stream, redis):
        await writer.quotes("AAPL", 1200)
        await writer.quotes("MSFT", 3)
        await one.has(1200)
        await two.has(3)
        assert await leased(redis) == {"AAPL", "MSFT"}
    assert one.numbers == list(range(1200))
    assert [quote.symbol for quote in two.got] == ["MSFT"] * 3
    assert await redis.zcard(KEYS.interest) == 0


async def test_symbols_change_from_handlers_and_from_threads(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """Neither deadlocks; after unsubscribing nothing more comes, not even of the same read."""
    others = Handler()

    def change(quote: Any) -> None:
        if quote.bid_size == 2:
            stream.subscribe_quotes(others.function(), "MSFT")
            stream.unsubscribe_quotes("AAPL", "NEVER")

    first = Handler(change)
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(first.function(), "AAPL")
    async with running(stream, redis):
        await writer.quotes("AAPL", 50)
        await settled(stream, "MSFT")
        assert first.numbers == [0, 1, 2]
        await writer.quotes("MSFT", 2)
        await others.has(2)
        await asyncio.to_thread(stream.subscribe_quotes, others.function(), "NVDA")
        await settled(stream, "MSFT", "NVDA")
        await asyncio.to_thread(stream.unsubscribe_quotes, "MSFT", "NVDA")
        await settled(stream)
        stream.subscribe_quotes(others.function(), "AAPL")  # and from the outside, with a loop running here
        await settled(stream, "AAPL")
        await writer.quotes("AAPL", 1)
        await others.has(3)
    assert others.numbers == [0, 1, 50]


async def test_a_handler_that_fails_is_told_and_the_next_quote_goes_on(
    server: RedisServer, redis: Redis, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises, a time-out included."""

    def fail(quote: Any) -> None:
        if quote["bs"] == 3:
            raise TimeoutError("as a slow disk would")
        if quote["bs"] == 4:
            raise KeyError("oops")

    handler = Handler(fail)
    stream = StockDataStream("k", "s", True, redis_url=server.url)
    stream.subscribe_quotes(handler.function(), "AAPL")
    async with running(stream, redis):
        await writer.quotes("AAPL", 10)
        await handler.has(10)
    assert [quote["bs"] for quote in handler.got] == list(range(10))
    assert [
        str(record.exc_info[1]) for record in caplog.records if record.exc_info and record.exc_info[1]
    ] == [
        "as a slow disk would",
        "'oops'",
    ]


@pytest.mark.fault("Q18")
async def test_a_handler_that_always_fails_is_told_once_and_counted(
    server: RedisServer, redis: Redis, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """One traceback of a kind, and at the end how many there were: a log of tracebacks hides everything else."""

    def fail(quote: Any) -> None:
        raise KeyError("oops") if quote.bid_size % 2 else ValueError("ouch")

    handler = Handler(fail)
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(handler.function(), "AAPL")
    async with running(stream, redis):
        await writer.quotes("AAPL", 600)
        await handler.has(600)
    assert sum(record.exc_info is not None for record in caplog.records) == 2
    assert "Handler.function.<locals>.handle failed 299 more times with KeyError" in caplog.text
    assert "Handler.function.<locals>.handle failed 299 more times with ValueError" in caplog.text


async def test_the_asterisk_is_all_that_the_bus_carries(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """Followed as symbols come and go; a symbol with a handler of its own keeps it, and none is leased for it."""
    everything, own = Handler(), Handler()
    await redis.hset(KEYS.subscriptions, mapping={"AAPL": "{}", "MSFT": "{}", "not a symbol": "{}"})
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(everything.function(), "*")
    stream.subscribe_quotes(own.function(), "AAPL")
    async with running(stream, redis):
        await settled(stream, "AAPL", "MSFT")
        await redis.hset(KEYS.subscriptions, "NVDA", "{}")
        await settled(stream, "AAPL", "MSFT", "NVDA")
        for symbol in ("AAPL", "MSFT", "NVDA"):
            await writer.quotes(symbol, 2)
        await everything.has(4)
        await own.has(2)
        assert await leased(redis) == {"AAPL"}
        stream.unsubscribe_quotes("AAPL")

        async def handed_over() -> bool:
            return await redis.zcard(KEYS.interest) == 0 and "AAPL" in stream._streams[False].positions

        await until(handed_over)
        await writer.quotes("AAPL", 1)
        await everything.has(5)
        await redis.hdel(KEYS.subscriptions, "NVDA")
        await settled(stream, "AAPL", "MSFT")
    assert sorted((quote.symbol, quote.bid_size) for quote in everything.got) == [
        *(("AAPL", 2), ("MSFT", 0), ("MSFT", 1), ("NVDA", 0), ("NVDA", 1))
    ]
    assert own.numbers == [0, 1]


async def test_gaps_are_told(
    server: RedisServer, redis: Redis, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, or to whoever asked for them; never to the handler of quotes."""
    handler = Handler()
    gaps: list[Gap] = []
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(handler.function(), "AAPL")
    async with running(stream, redis):
        await writer.quotes("AAPL", 1)
        await writer.gap("AAPL", "feed_disconnected")
        await writer.quotes("AAPL", 1)
        await handler.has(2)
    assert "AAPL: 0.000 s are missing (feed_disconnected)" in caplog.text
    stream = StockDataStream("k", "s", redis_url=server.url, on_gap=gaps.append)
    stream.subscribe_quotes(handler.function(), "AAPL")
    async with running(stream, redis):
        await writer.gap("AAPL", "queue_full")
        await writer.quotes("AAPL", 1)
        await handler.has(3)
    assert [(type(gap), gap.reason) for gap in gaps] == [(Gap, "queue_full")]
    assert handler.numbers == [0, 1, 2]


@pytest.mark.parametrize(("carried", "told"), [("sip", True), ("iex", False), ("custom", False)])
async def test_another_feed_than_asked_for_is_told(
    server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture, carried: str, told: bool
) -> None:
    """The program hears which feed it gets, and what to change."""
    await redis.hset(KEYS.status, "feed", carried)
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(Handler().function(), "AAPL")
    async with running(stream, redis):
        pass
    assert ("asks for feed iex, and the bus carries sip" in caplog.text) is told


@pytest.mark.fault("Q08")
async def test_a_script_that_gets_nothing_at_all_is_told_why_once(
    server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has to ask for it: there is no daemon, and a script that waits in silence looks like a broken one."""
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(Handler().function(), "AAPL")

    def lines() -> int:
        return caplog.text.count("no daemon has written here")

    async def told() -> bool:
        return lines() > 0

    async with running(stream, redis):
        await until(told, 5)
        assert stream.unserved["AAPL"].state == "no_daemon"
        # Were it told again and again, or by somebody else as well, it would be by now.
        await asyncio.sleep(3)
    assert lines() == 1
    assert "AAPL: no_daemon, no quotes come: " in caplog.text


async def test_silence_is_explained_where_that_was_asked_for(
    server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """`data_timeout` tells why nothing comes, in the daemon's words."""
    stream = StockDataStream("k", "s", data_timeout=0.1, redis_url=server.url)
    stream.subscribe_quotes(Handler().function(), "AAPL")
    async with running(stream, redis):

        async def told() -> bool:
            return "no data received on data stream for 0.1s: AAPL is stale" in caplog.text

        await until(told)


async def test_it_stops_from_a_handler_and_runs_again(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """`stop`, `stop_ws` and `close` may all be called there; a later run goes on."""
    for way in ("stop", "stop_ws", "close"):
        stream = StockDataStream("k", "s", redis_url=server.url)
        end = getattr(stream, way)
        handler = Handler(partial(lambda end, _: end(), end))
        stream.subscribe_quotes(handler.function(), "AAPL")
        for count in (1, 2):
            async with running(stream, redis) as thread:
                await writer.quotes("AAPL", 5)
                await asyncio.to_thread(thread.join, 10)
                assert not thread.is_alive()
                assert len(handler.got) == count
        stream.stop()  # once more does no harm


@pytest.mark.fault("Q20")
@pytest.mark.parametrize("catch_up", [False, True])
async def test_a_new_run_begins_with_what_is_new_or_catches_up_where_that_was_asked_for(
    server: RedisServer, redis: Redis, writer: Writer, catch_up: bool
) -> None:
    """The past is not handed out as if it were now; by choice all of it is, what a stop cut off included."""
    options: dict[str, Any] = {"catch_up": True} if catch_up else {}
    stream = StockDataStream("k", "s", redis_url=server.url, **options)

    def end(quote: Any) -> None:
        if quote.bid_size == 2:
            stream.stop()

    handler = Handler(end)
    stream.subscribe_quotes(handler.function(), "AAPL")
    async with running(stream, redis) as thread:
        await writer.quotes("AAPL", 10)  # in one read
        await asyncio.to_thread(thread.join, 10)
    assert handler.numbers == [0, 1, 2]
    await writer.quotes("AAPL", 10)
    async with running(stream):
        await settled(stream, "AAPL")
        await blocked(redis)
        await writer.quotes("AAPL", 2)
        await handler.has(22 if catch_up else 5)
    assert handler.numbers == ([*range(22)] if catch_up else [0, 1, 2, 20, 21])


async def test_handlers_are_called_one_at_a_time(server: RedisServer, redis: Redis, writer: Writer) -> None:
    """Also where one has named symbols and the other all the rest, which are two readers here."""
    under_way: list[str] = []
    most = 0

    async def work(quote: Any) -> None:
        nonlocal most
        under_way.append(quote.symbol)
        most = max(most, len(under_way))
        await asyncio.sleep(0.001)
        under_way.remove(quote.symbol)

    named, everything = Handler(work), Handler(work)
    await redis.hset(KEYS.subscriptions, mapping={"AAPL": "{}", "MSFT": "{}"})
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(named.function(), "AAPL")
    stream.subscribe_quotes(everything.function(), "*")
    async with running(stream, redis):
        await settled(stream, "AAPL", "MSFT")
        await writer.quotes("AAPL", 50)
        await writer.quotes("MSFT", 50)
        await named.has(50)
        await everything.has(50)
    assert most == 1


@pytest.mark.parametrize("moves", ["to a name", "to the asterisk"])
async def test_a_symbol_that_changes_handlers_amid_what_was_read_stays_in_order(
    server: RedisServer, redis: Redis, writer: Writer, moves: str
) -> None:
    """It changes readers as well; what the first has in hand comes once, and before what the other reads."""
    gate, begun, got = threading.Event(), threading.Event(), list[int]()

    async def work(quote: Any) -> None:
        got.append(int(quote.bid_size))
        begun.set()
        await asyncio.to_thread(gate.wait, 20)

    await redis.hset(KEYS.subscriptions, mapping={"AAPL": "{}"})
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(Handler(work).function(), "*")
    if moves == "to the asterisk":
        stream.subscribe_quotes(Handler(work).function(), "AAPL")
    async with running(stream, redis):
        await settled(stream, "AAPL")
        await writer.quotes("AAPL", 40)
        assert await asyncio.to_thread(begun.wait, 20)
        if moves == "to a name":
            stream.subscribe_quotes(Handler(work).function(), "AAPL")
        else:
            stream.unsubscribe_quotes("AAPL")

        async def has_moved() -> bool:
            now = stream._streams.get(moves == "to a name")
            return now is not None and "AAPL" in now.symbols

        await until(has_moved)
        await writer.quotes("AAPL", 10)
        other = stream._streams[moves == "to a name"]

        async def has_read() -> bool:
            return other.positions["AAPL"] in writer.ids["AAPL"][39:]

        await until(has_read)
        gate.set()

        async def has_all() -> bool:
            return len(got) >= 50

        await until(has_all, 20)
    assert got == list(range(50))


async def test_a_stream_runs_once_at_a_time(server: RedisServer, redis: Redis) -> None:
    """A second `run` beside the first would have half of the first one's affairs."""
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(Handler().function(), "AAPL")
    async with running(stream, redis):
        with pytest.raises(BusError, match="runs already"):
            await asyncio.to_thread(stream.run)


async def test_handlers_that_never_wait_leave_the_loop_its_turns(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """Or the leases would end in the middle of a long batch."""
    seen: list[bool] = []
    other = asyncio.Event()

    def work(_: Any) -> None:
        time.sleep(0.005)
        seen.append(other.is_set())

    handler = Handler(work)
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(handler.function(), "AAPL")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stream._run_forever())
        await blocked(redis)
        await writer.quotes("AAPL", 200)
        await handler.has(1)
        other.set()
        await handler.has(200)
        task.cancel()
    assert not seen[0]
    assert seen[100]


async def test_it_runs_within_a_loop_and_is_cancelled_there(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """`_run_forever`, which programs with a loop of their own use, closes its connections when it is cancelled."""
    handler = Handler()
    stream = StockDataStream("k", "s", redis_url=server.url)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stream._run_forever())
        stream.subscribe_quotes(handler.function(), "AAPL")
        await blocked(redis)
        await writer.quotes("AAPL", 2)
        await handler.has(2)
        task.cancel()
    assert task.cancelled()
    assert not [client for client in await redis.client_list() if client["name"].startswith("quotebus")]


async def test_a_stop_that_comes_first_is_not_lost(server: RedisServer) -> None:
    """A run that begins after it ends at once, so a thread cannot miss it."""
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.stop()
    await asyncio.to_thread(stream.run)


async def test_stop_is_prompt_without_redis_and_beside_a_slow_handler(
    server: RedisServer, redis: Redis, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a server that is not there nor a full batch holds it up."""
    nowhere = StockDataStream("k", "s", redis_url="redis://127.0.0.1:1")
    nowhere.subscribe_quotes(Handler().function(), "AAPL")
    async with running(nowhere):

        async def tried() -> bool:
            return "attempt 1 in" in caplog.text

        await until(tried)
    slow = Handler(lambda _: time.sleep(0.05))
    stream = StockDataStream("k", "s", redis_url=server.url)
    stream.subscribe_quotes(slow.function(), "AAPL")
    async with running(stream, redis):
        await writer.quotes("AAPL", 1000)
        await slow.has(3)
    assert len(slow.got) < 500


async def test_of_the_attempts_to_reach_redis_one_a_minute_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are for information, each with its one count."""
    monkeypatch.setattr(dropin, "OPENING", Reconnect(first_delay_s=0.01, max_delay_s=0.02))
    caplog.set_level(logging.INFO)
    nowhere = StockDataStream("k", "s", redis_url="redis://127.0.0.1:1")
    nowhere.subscribe_quotes(Handler().function(), "AAPL")
    async with running(nowhere):

        async def tried() -> bool:
            return "; attempt 4 in" in caplog.text

        await until(tried)
    tries = [record for record in caplog.records if "attempt" in record.message]
    assert [record.levelno for record in tries[:4]] == [logging.WARNING] + [logging.INFO] * 3
    assert all(record.message.count("attempt") == 1 for record in tries)


def _start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def test_ctrl_c_ends_run_as_there(server: RedisServer, redis: Redis) -> None:
    """With the same farewell, no traceback, and exit code 0."""
    program = f"""
    from consumers.alpaca import StockDataStream
    stream = StockDataStream("k", "s", redis_url={server.url!r})
    async def handler(quote): pass
    stream.subscribe_quotes(handler, "AAPL")
    stream.run()
    """
    process = _start(textwrap.dedent(program))
    try:
        await blocked(redis)
        process.send_signal(signal.SIGINT)
        out, errors = await asyncio.to_thread(process.communicate, timeout=20)
    finally:
        process.kill()
    assert (out, errors, process.returncode) == ("keyboard interrupt, bye\n", "", 0)
    assert await leased(redis) == set()


@pytest.mark.fault("Q28")
@pytest.mark.parametrize(
    ("ending", "out", "code"),
    [
        ("raise KeyboardInterrupt", "keyboard interrupt, bye\nthe end\n", 0),
        ("sys.exit(3)", "", 3),
    ],
)
async def test_what_ends_a_program_in_a_handler_leaves_no_task_behind(
    server: RedisServer, redis: Redis, writer: Writer, ending: str, out: str, code: int
) -> None:
    """No traceback, no task that Python has to destroy, no lease."""
    program = f"""
    import sys
    from consumers.alpaca import StockDataStream
    stream = StockDataStream("k", "s", redis_url={server.url!r})
    async def handler(quote):
        {ending}
    stream.subscribe_quotes(handler, "AAPL")
    stream.run()
    print("the end")
    """
    process = _start(textwrap.dedent(program))
    try:
        await blocked(redis)
        await writer.quotes("AAPL", 5)
        found = await asyncio.to_thread(process.communicate, timeout=20)
    finally:
        process.kill()
    assert (found, process.returncode) == ((out, ""), code)
    assert await leased(redis) == set()


def test_without_alpaca_py_the_remedy_is_told() -> None:
    """One sentence that says what is missing, and how to get it."""
    program = "import sys; sys.modules['alpaca'] = None; import consumers.alpaca"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert 'pip install "quotebus[rest]"' in done.stderr.splitlines()[-1]

"""The twin without await: the same items and positions, in threads, interrupted, forked, and never left behind."""

import asyncio
import contextlib
import gc
import inspect
import multiprocessing
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import consumers
from consumers import BadSymbol, BusClosed, BusError, BusUnavailable, Gap, Quote, sync
from consumers.link import CLIENT_NAME
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, T0_NS, Writer, numbers


class Pen:
    """The writer of these tests, for a test without a loop."""

    def __init__(self, runner: asyncio.Runner, writer: Writer) -> None:
        self._run = runner.run
        self._writer = writer

    def quotes(self, symbol: str, count: int = 1, **options: Any) -> list[str]:
        """Append so many quotes; the ids of all of this symbol so far."""
        self._run(self._writer.quotes(symbol, count, **options))
        return self._writer.ids[symbol]

    def raw(self, *command: str | bytes | int) -> Any:
        """Send one command."""
        return self._run(self._writer.raw(*command))

    def leased(self) -> set[str]:
        """The symbols that somebody wants."""
        return {member.decode().split("@")[0] for member in self.raw("ZRANGE", KEYS.interest, 0, -1)}

    def connections(self) -> int:
        """How many connections of the library the server has."""

        async def clients() -> list[dict[str, str]]:
            return list(await self._writer.redis.client_list())

        return sum(client["name"].startswith(CLIENT_NAME) for client in self._run(clients()))


@pytest.fixture
def pen(server: RedisServer) -> Iterator[Pen]:
    """A writer on the empty server."""
    with asyncio.Runner() as runner:
        client = Redis.from_url(server.url, protocol=2)
        runner.run(client.execute_command("FLUSHALL"))  # type: ignore[no-untyped-call]
        yield Pen(runner, Writer(client))
        runner.run(client.aclose())


@pytest.fixture
def bus(server: RedisServer, pen: Pen) -> Iterator[sync.Bus]:
    """An open twin; whatever a test does, it leaves no thread and no connection."""
    before = set(threading.enumerate())
    with sync.connect(server.url, reconnect=FAST) as opened:
        yield opened
    assert set(threading.enumerate()) <= before
    until(lambda: pen.connections() == 0)


def until(is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for a state, asking often; a failure if it does not come."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def first(items: Iterator[Quote | Gap], count: int) -> list[Quote | Gap]:
    """The next so many."""
    return [next(items) for _ in range(count)]


def test_short_questions_have_the_same_answers(bus: sync.Bus, pen: Pen) -> None:
    """Newest quotes and their quality come without await."""
    assert bus.latest("AAPL") is None
    ids = pen.quotes("AAPL", 3)
    latest = bus.latest("AAPL")
    assert latest is not None
    assert latest.id == ids[-1]
    assert bus.latest_many("AAPL", "MSFT") == {"AAPL": latest}
    assert bus.quality("AAPL")["AAPL"].level is consumers.Level.STALE
    with pytest.raises(BadSymbol, match="no symbol given"):
        bus.latest_many()


def test_a_loop_reads_a_snapshot_and_what_follows_across_batches(bus: sync.Bus, pen: Pen) -> None:
    """Every quote once and in order, while more are written."""
    pen.quotes("AAPL", 10)
    items = iter(bus.quotes("AAPL", start="snapshot"))
    seen = [next(items)]
    for _ in range(5):
        pen.quotes("AAPL", 700)
        seen += first(items, 700)
    assert numbers(seen) == list(range(9, 3510))


def test_positions_are_those_of_each_item_handed_out(bus: sync.Bus, pen: Pen) -> None:
    """Within a batch, at its borders, and for a symbol of which nothing was handed out yet."""
    ids = {symbol: pen.quotes(symbol, 1200) for symbol in ("AAPL", "MSFT")}
    stream = bus.quotes("AAPL", "MSFT", start="earliest")
    handed = dict.fromkeys(ids, "0-0")
    for number, item in enumerate(stream):
        assert item.id is not None
        handed[item.symbol] = item.id
        if number % 97 == 0 or number in {0, 998, 999, 1000, 1001, 2399}:
            assert stream.positions == handed
        if number == 2399:
            break
    assert handed == {symbol: each[-1] for symbol, each in ids.items()}


def test_reading_goes_on_from_a_saved_position_at_any_item(bus: sync.Bus, pen: Pen) -> None:
    """Whoever saves positions in the middle of a batch, and starts anew, misses nothing and sees nothing twice."""
    pen.quotes("AAPL", 300)
    pen.quotes("MSFT", 300)
    for count in (1, 150, 299, 300, 301, 599):
        stream = bus.quotes("AAPL", "MSFT", start="earliest")
        seen = first(iter(stream), count)
        seen += first(iter(bus.quotes("AAPL", "MSFT", start=stream.positions)), 600 - count)
        assert numbers(seen, "AAPL") == list(range(300))
        assert numbers(seen, "MSFT") == list(range(300))


def test_a_second_loop_goes_on_where_the_first_was_left(bus: sync.Bus, pen: Pen) -> None:
    """Leaving by break or by an exception closes the connection, and the rest of the batch is not lost."""
    pen.quotes("AAPL", 2500)
    stream = bus.quotes("AAPL", start="earliest")
    seen: list[Quote | Gap] = []
    for stop in (10, 1500, 2500):
        with contextlib.suppress(ZeroDivisionError):
            for item in stream:
                seen.append(item)
                _ = 1 / (stop - len(seen))
        until(lambda: pen.connections() == 1)
    assert numbers(seen) == list(range(2500))


def test_a_wait_for_the_next_item_has_a_limit(bus: sync.Bus, pen: Pen) -> None:
    """`get` returns None in time, loses nothing by that, and shares its place with a loop."""
    with bus.quotes("AAPL") as stream:
        began_s = time.monotonic()
        assert stream.get(timeout_s=0.3) is None
        assert 0.25 < time.monotonic() - began_s < 5
        pen.quotes("AAPL", 4)
        until(lambda: stream.get(timeout_s=0) is not None)
        assert numbers([item for _ in range(2) if (item := stream.get(timeout_s=10))]) == [1, 2]
        assert stream.get(timeout_s=10) is not None
        assert stream.get(timeout_s=0) is None
        pen.quotes("AAPL", 2)
        assert numbers(first(iter(stream), 2)) == [4, 5]
    with pytest.raises(BusClosed, match="stream is closed"):
        stream.get(timeout_s=1)


def test_leaving_is_prompt_at_any_moment_of_a_read(bus: sync.Bus, pen: Pen) -> None:
    """Also when the answer comes in the instant of leaving, and nothing is lost by it."""
    pen.quotes("AAPL", 40_000)
    stream = bus.quotes("AAPL", start="earliest")
    seen: list[Quote | Gap] = []
    for moment in range(30):
        items = iter(stream)
        seen.append(next(items))
        while (item := stream.get(timeout_s=0)) is not None:
            seen.append(item)
        # Now a read is under way.
        time.sleep(moment / 10_000)
        began_s = time.monotonic()
        items.close()  # type: ignore[attr-defined]
        assert time.monotonic() - began_s < 5
    assert numbers(seen) == list(range(len(seen)))


def test_batches_are_whole_reads(bus: sync.Bus, pen: Pen) -> None:
    """Lists, never empty, whose positions lie behind them."""
    ids = pen.quotes("AAPL", 2500)
    stream = bus.quotes("AAPL", start="earliest")
    seen: list[Quote | Gap] = []
    for batch in stream.batches():
        assert batch
        seen += batch
        assert stream.positions == {"AAPL": batch[-1].id}
        if len(seen) == 2500:
            break
    assert [item.id for item in seen] == ids


def test_nothing_is_read_before_it_is_asked_for(bus: sync.Bus, pen: Pen) -> None:
    """A strategy that is busy with one batch has at most that one in memory."""
    pen.quotes("AAPL", 3000)
    stream = bus.quotes("AAPL", start="earliest")
    items = iter(stream)
    next(items)
    assert bus.latest("AAPL") is not None  # the loop has had its turns
    assert len(list(stream._waiting())) == 999
    first(items, 1000)
    assert len(list(stream._waiting())) == 999


def test_symbols_come_and_go_at_once(bus: sync.Bus, pen: Pen) -> None:
    """What was read of a removed symbol is not handed out, also in the middle of a batch."""
    pen.quotes("AAPL", 100)
    pen.quotes("MSFT", 100)
    stream = bus.quotes("AAPL", start="earliest")
    items = iter(stream)
    first(items, 10)
    stream.remove("AAPL")
    assert stream.symbols == frozenset()
    stream.add("MSFT", start="earliest")
    assert {item.symbol for item in first(items, 100)} == {"MSFT"}
    assert set(stream.positions) == {"MSFT"}
    assert stream.unreadable == 0


def test_history_is_a_plain_iterator(bus: sync.Bus, pen: Pen) -> None:
    """All of a stretch, across pages; leaving it early leaves nothing open."""
    pen.quotes("AAPL", 2500)
    assert numbers(list(bus.history("AAPL", 0))) == list(range(2500))
    assert numbers(list(bus.history("AAPL", T0_NS, T0_NS + 5_000_000))) == [0, 1, 2, 3, 4]
    for item in bus.history("AAPL", 0):
        assert item.symbol == "AAPL"
        break
    with pytest.raises(consumers.BadStart):
        next(iter(bus.history("AAPL", -5)))


def test_latest_only_passes_over_what_nobody_asked_for(bus: sync.Bus, pen: Pen) -> None:
    """The newest of each, with the number passed over; positions lie behind it."""
    pen.quotes("AAPL", 50)
    with bus.newest("AAPL", start="earliest") as stream:
        for item in stream:
            assert isinstance(item, sync.Newest)
            assert (item.quote.bid_size, item.conflated) == (49, 49)
            assert stream.positions == {"AAPL": item.quote.id}
            assert stream.lag()["AAPL"].entries == 0
            break
        assert stream.get(timeout_s=0.05) is None
        ids = pen.quotes("AAPL", 1)
        again = stream.get(timeout_s=15)
        assert isinstance(again, sync.Newest)
        assert again.quote.id == ids[-1]


def test_workers_of_a_group_share_the_entries(bus: sync.Bus, pen: Pen) -> None:
    """Each entry goes to one of them, and is acknowledged without await."""
    pen.quotes("AAPL", 60)
    seen: list[str | None] = []
    with (
        bus.group("g", "AAPL", consumer="one", start="earliest", prefetch=20) as one,
        bus.group("g", "AAPL", consumer="two", start="earliest", prefetch=20) as two,
    ):
        while len(seen) < 60:
            for worker in (one, two):
                delivery = worker.get(timeout_s=0.2)
                if delivery is not None:
                    seen.append(delivery.id)
                    assert worker.unacknowledged == 1
                    worker.ack(delivery)
                    assert (worker.unacknowledged, worker.acks_waiting) == (0, 0)
        lag = one.lag()["AAPL"]
        assert (lag.entries, lag.pending, {member.name for member in lag.members}) == (0, 0, {"one", "two"})
    assert len(set(seen)) == 60


def test_lag_counts_what_was_read_and_not_handed_out(bus: sync.Bus, pen: Pen) -> None:
    """Entry by entry, within a batch and behind it."""
    pen.quotes("AAPL", 1500, step_ns=1_000_000)
    stream = bus.quotes("AAPL", start="earliest")
    items = iter(stream)
    so_far = 0
    for handed in (1, 400, 999, 1000, 1001, 1500):
        first(items, handed - so_far)
        so_far = handed
        lag = stream.lag()["AAPL"]
        assert (lag.entries, lag.is_exact) == (1500 - handed, True)
        assert lag.ms == pytest.approx(max(0, 1500 - handed), abs=1.1)


def test_a_limit_of_age_holds_for_what_waited_here(bus: sync.Bus, pen: Pen) -> None:
    """A quote that was fresh when it was read, and is not when it is asked for, is told as too old."""
    with bus.quotes("AAPL", max_age_s=2.0) as stream:
        assert stream.get(timeout_s=0.1) is None
        pen.quotes("AAPL", 1, at=time.time_ns() - 8_052_000)
        time.sleep(3)  # the strategy is busy
        item = stream.get(timeout_s=10)
        assert isinstance(item, Gap)
        assert (item.reason, item.missing) == ("too_old", 1)
        pen.quotes("AAPL", 1, at=time.time_ns() - 8_052_000)
        assert isinstance(stream.get(timeout_s=10), Quote)
    pen.quotes("MSFT", 1)
    with pytest.raises(consumers.StaleQuote):
        bus.latest("MSFT", max_age_s=5)


def test_a_lease_is_kept_as_long_as_reading_goes_on(bus: sync.Bus, pen: Pen) -> None:
    """By a loop, by `get`, and by interest alone; each gives it back."""
    with bus.interest("NVDA") as interest:
        interest.add("TSLA")
        assert interest.symbols == {"NVDA", "TSLA"}
        until(lambda: pen.leased() == {"NVDA", "TSLA"})
        assert interest.trouble is None
        interest.remove("TSLA")
        until(lambda: pen.leased() == {"NVDA"})
    until(lambda: pen.leased() == set())
    with bus.quotes("AAPL") as stream:
        stream.get(timeout_s=0.1)
        until(lambda: pen.leased() == {"AAPL"})
        assert stream.get(timeout_s=0.1) is None
        assert pen.leased() == {"AAPL"}
    until(lambda: pen.leased() == set())
    pen.quotes("AAPL")
    for _ in bus.quotes("AAPL", start="earliest"):
        until(lambda: pen.leased() == {"AAPL"})
        break
    until(lambda: pen.leased() == set())


def test_many_threads_share_one_bus(bus: sync.Bus, pen: Pen) -> None:
    """Each reads its own stream and asks short questions in between."""
    pen.quotes("AAPL", 1500)

    def read(_: int) -> list[Any]:
        items = iter(bus.quotes("AAPL", start="earliest"))
        seen = first(items, 700)
        assert bus.latest("AAPL") is not None
        return numbers(seen + first(items, 800))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(16))) == [list(range(1500))] * 16


def test_one_stream_is_read_by_one_thread_at_a_time(bus: sync.Bus, pen: Pen) -> None:
    """A second one is refused with the remedy; a nested loop takes over."""
    stream = bus.quotes("AAPL")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(stream.get, 30)
        until(lambda: pen.connections() == 2)
        with pytest.raises(BusError, match="another thread: ask the bus for a second one"):
            stream.get(0)
        stream.close()
        with pytest.raises(BusClosed):
            waiting.result(10)


def test_an_inner_loop_takes_over(bus: sync.Bus, pen: Pen) -> None:
    """The outer one says so instead of sharing items by chance."""
    pen.quotes("AAPL", 5)
    stream = bus.quotes("AAPL", start="earliest")
    outer = iter(stream)
    next(outer)
    assert numbers(first(iter(stream), 2)) == [1, 2]
    with pytest.raises(BusError, match="another loop"):
        next(outer)


def test_closing_from_another_thread_ends_a_waiting_loop(server: RedisServer, pen: Pen) -> None:
    """The loop ends, as when the stream is closed in the loop's own program."""
    with sync.connect(server.url) as bus, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(list, bus.quotes("AAPL"))
        until(lambda: pen.connections() == 2)
        bus.close()
        assert waiting.result(10) == []
    with pytest.raises(BusClosed, match="with connect"):
        bus.latest("AAPL")
    bus.close()


def test_a_forgotten_stream_and_a_forgotten_bus_close_themselves(server: RedisServer, pen: Pen) -> None:
    """Neither connection nor thread outlives the last reference."""
    before = set(threading.enumerate())
    bus = sync.connect(server.url).open()
    stream = bus.quotes("AAPL")
    stream.get(0.1)
    until(lambda: pen.connections() == 2)
    del bus
    gc.collect()
    stream.get(0.1)
    del stream
    gc.collect()
    until(lambda: pen.connections() == 0 and set(threading.enumerate()) <= before)


def test_a_server_that_is_not_there_is_told_in_one_sentence() -> None:
    """Opening fails as the native bus does, and leaves no thread."""
    before = set(threading.enumerate())
    with (
        pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1/0 is not usable"),
        sync.connect("redis://127.0.0.1:1"),
    ):
        pass
    assert set(threading.enumerate()) <= before
    with pytest.raises(consumers.BadUrl):
        sync.connect("http://nowhere")


def test_a_server_that_stands_still_does_not_hold_a_call_for_ever(pen: Pen) -> None:
    """Each wait is bounded by the bus's own limit."""
    with RedisServer() as server, sync.connect(server.url, timeout_s=0.2) as bus:
        server.pause()
        try:
            with pytest.raises(BusUnavailable):
                bus.latest("AAPL")
        finally:
            server.resume()


def _child(bus: sync.Bus, results: Any) -> None:
    try:
        bus.latest("AAPL")
    except BusError as error:
        results.put(str(error))
    bus.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_reading_without_await_costs_little_more(server: RedisServer, pen: Pen) -> None:
    """Quotes cross to the strategy's thread in batches, so it reads nearly as fast as the native loop."""
    count = 20_000
    for _ in range(count // 1000):
        pen.quotes("AAPL", 1000)

    async def native() -> None:
        async with consumers.connect(server.url) as bus:
            seen = 0
            async for _ in bus.quotes("AAPL", start="earliest", lease=False):
                seen += 1
                if seen == count:
                    break

    def plain() -> None:
        with sync.connect(server.url) as bus:
            first(iter(bus.quotes("AAPL", start="earliest", lease=False)), count)

    def took_s(read: Callable[[], object]) -> float:
        began_s = time.process_time()
        read()
        return time.process_time() - began_s

    pairs = [(took_s(lambda: asyncio.run(native())), took_s(plain)) for _ in range(3)]
    assert min(each for _, each in pairs) < 3 * min(each for each, _ in pairs)


def test_a_forked_child_is_told_to_open_its_own(bus: sync.Bus, pen: Pen) -> None:
    """The child gets a clear error, and the parent's bus goes on."""
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=_child, args=(bus, results))
    child.start()
    assert "open a bus of its own in each process" in results.get(timeout=20)
    child.join(20)
    assert child.exitcode == 0
    pen.quotes("AAPL")
    assert bus.latest("AAPL") is not None


WAITING = {
    "a loop": "for item in bus.quotes('AAPL'): pass",
    "a get": "bus.quotes('AAPL').get()",
}


@pytest.mark.parametrize("wait", WAITING)
def test_ctrl_c_ends_a_wait_and_closes_the_connections(server: RedisServer, pen: Pen, wait: str) -> None:
    """KeyboardInterrupt comes out of the wait, and the program ends by itself."""
    program = f"""
    import threading
    from consumers.sync import connect
    try:
        with connect({server.url!r}) as bus:
            {WAITING[wait]}
    except KeyboardInterrupt:
        print("interrupted", len(threading.enumerate()))
    """
    done = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: bool(pen.raw("CLIENT", "LIST").count(b"cmd=xread")))
        done.send_signal(signal.SIGINT)
        out, errors = done.communicate(timeout=20)
    finally:
        done.kill()
    assert (out, errors, done.returncode) == ("interrupted 1\n", "", 0)
    assert pen.connections() == 0


STORM = """
import os, random, signal, sys, threading, time
from consumers.sync import connect

begun = threading.Event()

def interrupt():
    begun.wait()
    while True:
        time.sleep(0.001 + random.random() * 0.02)
        os.kill(os.getpid(), signal.SIGINT)

def strike(number, frame):
    # Within the `try` alone: the way back to it, and its `except`, are nobody's but this program's.
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

taken, interrupts, armed = [], 0, False
signal.signal(signal.SIGINT, strike)
with connect(sys.argv[1]) as bus:
    stream = bus.quotes("AAPL", start="earliest")
    threading.Thread(target=interrupt, daemon=True).start()
    while True:
        try:
            armed = True
            begun.set()
            if stream.positions.get("AAPL") == sys.argv[2]:
                armed = False
                break
            LOOP
            armed = False
        except KeyboardInterrupt:
            interrupts += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
seen = [quote.bid_size for each in taken for quote in (each if isinstance(each, list) else [each])]
assert interrupts, "not one interrupt"
assert seen == list(range(40_000)), (len(seen), seen[-1], interrupts)
"""
# One call without a Python frame takes what was handed out, so that an interrupt comes before it or after it.
TAKING = {
    "for": "for item in stream: taken.append(item)",
    "batches": "for batch in stream.batches(): taken.append(batch)",
    "get": "while (item := stream.get(0.2)) is not None: taken.append(item)",
}


@pytest.mark.parametrize("way", TAKING)
def test_a_storm_of_ctrl_c_loses_nothing(server: RedisServer, pen: Pen, way: str) -> None:
    """Who goes on after an interrupt finds every item that was not handed out, and none that was."""
    for _ in range(4):
        ids = pen.quotes("AAPL", 10_000)
    done = subprocess.run(
        [sys.executable, "-c", STORM.replace("LOOP", TAKING[way]), server.url, ids[-1]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]


def test_positions_are_to_be_had_when_the_bus_is_closed(bus: sync.Bus, pen: Pen) -> None:
    """So that they can be saved behind the `with` as well as within it."""
    ids = pen.quotes("AAPL", 100)
    stream = bus.quotes("AAPL", start="earliest")
    items = iter(stream)
    first(items, 10)
    bus.close()
    assert stream.positions == {"AAPL": ids[9]}
    assert stream.symbols == {"AAPL"}


def test_a_stream_that_is_closed_hands_nothing_out(bus: sync.Bus, pen: Pen) -> None:
    """Not even the rest of the batch that was read already, as with the bus in a loop."""
    pen.quotes("AAPL", 100)
    stream = bus.quotes("AAPL", start="earliest")
    seen = 0
    for _ in stream:
        seen += 1
        stream.close()
    assert seen == 1
    held = iter(bus.quotes("AAPL", start="earliest"))
    next(held)
    bus.close()
    assert list(held) == []


def test_a_history_that_another_thread_closes_says_that_it_is_not_whole(bus: sync.Bus, pen: Pen) -> None:
    """It ended as if there were no more; one that has come to its end is whole."""
    pen.quotes("AAPL", 3_000)
    whole = list(bus.history("AAPL", 0))
    assert len(whole) == 3_000
    items = bus.history("AAPL", 0)
    first(items, 10)
    closing = threading.Thread(target=bus.close)
    closing.start()
    closing.join()
    with pytest.raises(BusClosed, match="before all had been read"):
        list(items)


def test_loops_end_when_another_thread_closes_the_bus_wherever_they_wait(
    bus: sync.Bus, pen: Pen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that look after the bus in the midst of its closing."""
    monkeypatch.setattr("consumers.sync.pump.WATCH_S", 0.000_1)
    pen.quotes("AAPL", 1)
    ended: list[Exception | None] = []

    def read() -> None:
        try:
            for _ in bus.quotes("AAPL", start="earliest"):
                begun.release()
        except Exception as error:
            ended.append(error)
        else:
            ended.append(None)

    begun = threading.Semaphore(0)
    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    for _ in readers:
        assert begun.acquire(timeout=30)
    bus.close()
    for reader in readers:
        reader.join(30)
    assert ended == [None] * 8


async def test_it_works_where_a_loop_runs_already(server: RedisServer, writer: Writer) -> None:
    """Called from a coroutine it blocks that loop for the call, and no more."""
    await writer.quotes("AAPL", 5)
    with sync.connect(server.url) as bus:
        assert numbers(first(iter(bus.quotes("AAPL", start="earliest")), 5)) == [0, 1, 2, 3, 4]
        async with consumers.connect(server.url) as native:
            assert await native.latest("AAPL") == bus.latest("AAPL")


@pytest.mark.keeps_open("the client of notebooks keeps its event loop for the next one")
def test_a_notebook_uses_both(
    server: RedisServer, pen: Pen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real kernel: top-level await, and the twin in the same cells."""
    # Jupyter keeps files in the home folder, which need not be there.
    monkeypatch.setenv("HOME", str(tmp_path))
    import nbclient
    from nbformat.v4 import new_code_cell, new_notebook

    pen.quotes("AAPL", 20)
    cells = [
        f"import consumers, consumers.sync\nnative = await consumers.connect({server.url!r}).__aenter__()",
        f"bus = consumers.sync.connect({server.url!r}).open()",
        "newest = await native.latest('AAPL')\nassert newest == bus.latest('AAPL')",
        "stream = native.quotes('AAPL', start='earliest')\nasync for item in stream:\n    break\nitem.bid_size",
        "plain = bus.quotes('AAPL', start='earliest')\nfor item in plain:\n    if item.bid_size == 4: break",
        "for again in plain:\n    break\nagain.bid_size",
        "bus.close()\nawait native.aclose()",
    ]
    book = new_notebook(cells=[new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute()
    shown = [
        output["data"]["text/plain"] for cell in book.cells for output in cell.outputs if "data" in output
    ]
    assert shown == ["0", "5"]


TWINS = [
    (getattr(consumers, name), getattr(sync, name))
    for name in sync.__all__
    if name.endswith(("Bus", "Stream"))
]
RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}

SPECIAL = {*RENAMED, *RENAMED.values()}


def _public(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__[:-1]):
        found |= {
            name: value for name, value in vars(each).items() if not name.startswith("_") or name in SPECIAL
        }
    return found


def _shape(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in parameters]


@pytest.mark.parametrize(("native", "twin"), TWINS, ids=lambda kind: kind.__name__)
def test_the_twin_has_every_name_with_the_same_parameters(native: type, twin: type) -> None:
    """Neither can change without the other."""
    ours = _public(twin)
    for name, value in _public(native).items():
        same = ours[RENAMED.get(name, name)]
        if isinstance(value, property):
            assert isinstance(same, property), name
        elif callable(value) and name not in RENAMED:
            assert _shape(same) == _shape(value), name


def test_every_property_of_a_twin_can_be_had(bus: sync.Bus) -> None:
    """None asks its native half for what that has not."""
    for stream in (bus.quotes("AAPL"), bus.newest("AAPL"), bus.group("g", "AAPL")):
        names = [name for name, value in _public(type(stream)).items() if isinstance(value, property)]
        assert {"symbols", "unreadable", "is_connected", "failures"} <= set(names)
        for name in names:
            getattr(stream, name)
        stream.close()


def test_every_stream_of_the_library_has_a_twin() -> None:
    """A class that a bus hands out is there in both, and `connect` takes the same."""
    kinds = {name for name in consumers.__all__ if name.endswith(("Stream", "Interest"))}
    assert kinds <= set(sync.__all__)
    assert _shape(sync.connect) == _shape(consumers.connect)

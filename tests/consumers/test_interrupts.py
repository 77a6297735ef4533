"""A Ctrl-C at each place of the twin's code where Python may raise it, one after the other, instead of by chance.

Python looks for signals where a function begins and behind a call of C (ceval.c, `eval_breaker`); a profile
function is called at the same places, and what it raises comes out there.
"""

import asyncio
import contextlib
import gc
import itertools
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import BusUnavailable, sync
from consumers.sync.pump import Pump
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, Writer, numbers

pytestmark = [
    # An interrupt in a destructor is told to nobody else.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(120),
]
TIMEOUT_S = 0.5
"""A bus whose loop stands still is given up after six times this."""


def strike(work: Callable[[], object], at: int) -> bool:
    """Do this work, and raise KeyboardInterrupt at this place of it; whether there was one so far on."""
    places = 0

    def look(_: object, event: str, __: object) -> None:
        nonlocal places
        if event in {"call", "c_return"}:
            places += 1
            if places == at:
                raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return places >= at


@pytest.fixture
def writer(server: RedisServer) -> Iterator[Callable[[int], list[str]]]:
    """Appends so many quotes of AAPL to the empty server; the ids of all so far."""
    with asyncio.Runner() as runner:
        client = Redis.from_url(server.url, protocol=2)
        runner.run(client.execute_command("FLUSHALL"))  # type: ignore[no-untyped-call]
        pen = Writer(client)

        def write(count: int) -> list[str]:
            runner.run(pen.quotes("AAPL", count))
            return pen.ids["AAPL"]

        yield write
        runner.run(client.aclose())


@pytest.fixture
def bus(server: RedisServer, writer: object) -> Iterator[sync.Bus]:
    """An open twin that gives up soon."""
    with sync.connect(server.url, reconnect=FAST, timeout_s=TIMEOUT_S) as opened:
        yield opened


def test_a_question_interrupted_anywhere_leaves_a_bus_that_answers(
    bus: sync.Bus, writer: Callable[[int], list[str]]
) -> None:
    """Once the loop stood still for good, waiting for a lock that the interrupted thread had never given back."""
    ids = writer(1)
    for at in itertools.count(1):
        if not strike(lambda: bus.latest("AAPL"), at):
            break
        latest = bus.latest("AAPL")
        assert latest is not None, at
        assert latest.id == ids[-1]
    assert at > 20


def by_for(stream: sync.QuoteStream, taken: list[Any]) -> None:
    """Begin a loop and leave it."""
    for item in stream:
        taken.append(item)
        break


def by_get(stream: sync.QuoteStream, taken: list[Any]) -> None:
    """Ask for one item, and give up once before."""
    if (item := stream.get(0)) is not None:
        taken.append(item)
    if (item := stream.get(5)) is not None:
        taken.append(item)


def by_batch(stream: sync.QuoteStream, taken: list[Any]) -> None:
    """Ask for one list."""
    for batch in stream.batches():
        taken.extend(batch)
        break


@pytest.mark.parametrize("way", [by_for, by_get, by_batch])
def test_reading_interrupted_anywhere_goes_on_with_the_next_item(
    bus: sync.Bus, writer: Callable[[int], list[str]], way: Callable[[sync.QuoteStream, list[Any]], None]
) -> None:
    """In this thread as in another, and from the positions as over the same stream."""
    writer(1_500)
    # With a limit of age each item is a batch of its own, so that each is waited for.
    stream = bus.quotes("AAPL", start="earliest", max_age_s=1e9)
    taken: list[Any] = []
    with ThreadPoolExecutor(1) as threads:
        for at in itertools.count(1):
            if not strike(lambda: way(stream, taken), at):
                break
            assert len(taken) < 1_400
            before = stream.positions
            item = threads.submit(stream.get, 10).result(20)
            assert item is not None, at
            taken.append(item)
            if before:
                with contextlib.closing(iter(bus.quotes("AAPL", start=before))) as again:  # type: ignore[type-var]
                    assert next(again).id == item.id, at
    assert at > 20
    assert numbers(taken) == list(range(len(taken)))


def test_acknowledging_interrupted_anywhere_loses_no_delivery(
    bus: sync.Bus, writer: Callable[[int], list[str]]
) -> None:
    """What was not acknowledged is there for who acknowledges it again, and the worker goes on."""
    ids = writer(400)
    seen = []
    with bus.group("g", "AAPL", consumer="one", start="earliest") as worker:
        for at in itertools.count(1):
            delivery = worker.get(10)
            assert delivery is not None
            seen.append(delivery.id)
            is_struck = strike(lambda each=delivery: worker.ack(each), at)  # type: ignore[misc]
            worker.ack(delivery)
            assert worker.unacknowledged == 0, at
            if not is_struck:
                break
        assert worker.lag()["AAPL"].pending == 0 or worker.acks_waiting == 0
    assert seen == ids[: len(seen)]


@pytest.mark.parametrize("what", ["open", "close"])
def test_opening_and_closing_interrupted_anywhere_leave_no_thread_when_closed_again(
    server: RedisServer, what: str
) -> None:
    """Once a close behind an interrupted one waited for nothing, and connections and leases outlived it."""
    before = set(threading.enumerate())
    for at in itertools.count(1):
        bus = sync.connect(server.url, timeout_s=TIMEOUT_S)
        if what == "close":
            bus.open()
        is_struck = strike(getattr(bus, what), at)
        bus.close()
        thread = bus._portal._thread
        assert not thread.is_alive(), at
        if not is_struck:
            break
    assert set(threading.enumerate()) <= before


def test_positions_asked_by_another_thread_are_never_ahead_of_what_was_handed_out(
    bus: sync.Bus, writer: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the reader takes a batch in the instant in which they are put together."""
    ids = writer(100)
    stream = bus.quotes("AAPL", start="earliest")
    with ThreadPoolExecutor(1) as threads:
        assert stream.get(0) is None
        pump: Any = stream._pump
        while pump._brought[0] == 0:
            time.sleep(0.005)
        # Now a batch waits there, and was not taken.
        waiting = Pump.waiting
        taken: list[Any] = []

        def meanwhile(pump: Pump[Any]) -> list[Any]:
            if bus._portal.is_here and not taken:
                taken.append(threads.submit(stream.get, 10).result(20))
            found: list[Any] = waiting.fget(pump)  # type: ignore[attr-defined]
            return found

        monkeypatch.setattr(Pump, "waiting", property(meanwhile))
        positions = stream.positions
    assert numbers(taken) == [0]
    assert positions in ({"AAPL": "0-0"}, {"AAPL": ids[0]})


def test_positions_do_not_pass_what_comes_while_the_bus_is_closed(
    bus: sync.Bus, writer: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item that was on its way when another thread closed the bus was not handed out."""
    ids = writer(10)
    stream = bus.quotes("AAPL", start="earliest")
    on_its_way, goes_on = threading.Event(), asyncio.Event()

    async def slow(source: Any) -> AsyncGenerator[list[Any], None]:
        number = 0
        async for item in source:
            number += 1
            if number == 2:
                on_its_way.set()
                # As an answer that comes together with a cancellation.
                with contextlib.suppress(asyncio.CancelledError):
                    await goes_on.wait()
            yield [item]

    monkeypatch.setattr(stream, "_batches_of", slow)
    items = iter(stream)
    assert next(items).id == ids[0]
    assert stream.get(0) is None
    assert on_its_way.wait(10)
    closing = threading.Event()
    end = bus._portal._leaving
    assert end is not None

    def late() -> None:
        closing.wait(10)
        asyncio.Event.set(end)

    monkeypatch.setattr(end, "set", late)
    with ThreadPoolExecutor(1) as threads:
        closed = threads.submit(bus.close)
        while not bus._portal.is_closed:
            time.sleep(0.001)
        threading.Timer(0.2, closing.set).start()
        assert list(items) == []
        assert stream.positions == {"AAPL": ids[0]}
        closed.result(20)


@pytest.mark.parametrize("is_closed_too", [False, True])
def test_positions_do_not_pass_what_a_slow_loop_brings_after_the_bus_was_closed(
    bus: sync.Bus,
    writer: Callable[[int], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    is_closed_too: bool,
) -> None:
    """A loop that has no processor for longer than closing waits has moved on, and not yet brought what it read."""
    ids = writer(10)
    monkeypatch.setattr("consumers.sync.portal.LEAVE_S", 0.05)
    stream = bus.quotes("AAPL", start="earliest")
    is_read, goes_on = threading.Event(), threading.Event()

    async def slow(source: Any) -> AsyncGenerator[list[Any], None]:
        number = 0
        async for item in source:
            number += 1
            if number == 2:
                is_read.set()
                # As a thread that is not scheduled: nothing of the loop runs.
                goes_on.wait(10)
            yield [item]

    monkeypatch.setattr(stream, "_batches_of", slow)
    items = iter(stream)
    assert next(items).id == ids[0]
    assert stream.get(0) is None
    assert is_read.wait(10)
    bus.close()
    if is_closed_too:
        stream.close()
    threading.Timer(0.5, goes_on.set).start()
    assert stream.positions == {"AAPL": ids[0]}
    assert not bus._portal._thread.is_alive()
    assert stream.positions == {"AAPL": ids[0]}


def test_a_loop_that_stands_still_is_told_and_nothing_is_read_beside_it(
    bus: sync.Bus, writer: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a second task began to read while the first had not ended; what that brought was handed to nobody."""
    ids = writer(10)
    monkeypatch.setattr(bus._portal, "_limit_s", 0.3)
    stream = bus.quotes("AAPL", start="earliest")
    is_read, goes_on = threading.Event(), threading.Event()

    async def slow(source: Any) -> AsyncGenerator[list[Any], None]:
        number = 0
        async for item in source:
            number += 1
            if number == 2:
                is_read.set()
                goes_on.wait(10)
            yield [item]

    monkeypatch.setattr(stream, "_batches_of", slow)
    items: Any = iter(stream)
    assert next(items).id == ids[0]
    assert stream.get(0) is None
    assert is_read.wait(10)
    items.close()
    with pytest.raises(BusUnavailable):
        stream.get(5)
    goes_on.set()
    assert [stream.get(5).id for _ in range(9)] == ids[1:]  # type: ignore[union-attr]
    assert stream.positions == {"AAPL": ids[-1]}


def test_a_wait_outlives_a_loop_over_the_same_stream_that_ends_late(
    bus: sync.Bus, writer: Callable[[int], list[str]]
) -> None:
    """As when only the collector closes it: the stream is not closed with it."""
    ids = writer(1)
    stream = bus.quotes("AAPL", start="earliest")
    left: Any = iter(stream)
    assert next(left).id == ids[0]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(stream.get, 20)
        pump: Any = stream._pump
        while not (stream._takers and pump._wanted > 1):
            time.sleep(0.005)
        left.close()
        while not pump._call.is_given:
            time.sleep(0.005)
        ids = writer(1)
        found = waiting.result(20)
    assert found is not None
    assert found.id == ids[1]


def test_positions_do_not_pass_what_was_put_together_while_a_list_was_on_its_way(
    bus: sync.Bus, writer: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread closes in the instant in which what is left of one read would be handed out as a list."""
    writer(9)
    stream = bus.quotes("AAPL", start="earliest")

    async def by_fives(source: Any) -> AsyncGenerator[list[Any], None]:
        async for batch in source.batches():
            for at in range(0, len(batch), 5):
                yield batch[at : at + 5]

    monkeypatch.setattr(stream, "_batches_of", by_fives)
    taken: list[Any] = [stream.get(10) for _ in range(4)]
    pump: Any = stream._pump
    bus._portal.tell(lambda: pump._want(2))
    while pump._brought[0] < 2:
        time.sleep(0.005)
    with ThreadPoolExecutor(1) as threads:
        main = threading.get_ident()

        def meanwhile(_: object, event: str, what: Any) -> None:
            # Where another thread may have its turn: behind each call.
            if event == "c_return" and what is len and threading.get_ident() == main and not stream._closed:
                threads.submit(stream.close).result(20)

        lists = stream.batches()
        sys.setprofile(meanwhile)
        try:
            for batch in lists:
                taken.extend(batch)
        finally:
            sys.setprofile(None)
    assert stream._closed
    assert stream.positions == {"AAPL": taken[-1].id}


@pytest.mark.parametrize("what", ["connect", "quotes", "newest", "group", "interest"])
def test_what_is_interrupted_while_it_is_made_ends_without_a_word(
    server: RedisServer, bus: sync.Bus, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing that is half made is called back when it goes: once `no attribute '_loop'` was printed."""
    words: list[str] = []

    def told(raised: Any) -> None:
        if not isinstance(raised.exc_value, KeyboardInterrupt):
            words.append(repr(raised.exc_value))

    monkeypatch.setattr(sys, "unraisablehook", told)
    make: Callable[[], object] = {
        "connect": lambda: sync.connect(server.url),
        "quotes": lambda: bus.quotes("AAPL"),
        "newest": lambda: bus.newest("AAPL"),
        "group": lambda: bus.group("g", "AAPL"),
        "interest": lambda: bus.interest("AAPL"),
    }[what]
    for at in itertools.count(1):
        if not strike(make, at):
            break
        # The youngest alone: all of them, hundreds of times, take a large suite minutes.
        gc.collect(0)
        assert not words, at
    gc.collect()
    assert not words
    assert at > 20


def test_positions_do_not_pass_a_batch_that_is_taken_while_another_thread_closes(
    bus: sync.Bus, writer: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader had looked before the stream was closed, and takes what was brought before all is put together."""
    writer(100)
    stream = bus.quotes("AAPL", start="earliest")
    assert stream.get(0) is None
    pump: Any = stream._pump
    while pump._brought[0] == 0:
        time.sleep(0.005)
    waiting = Pump.waiting

    def meanwhile(pump: Pump[Any]) -> list[Any]:
        found: list[Any] = waiting.fget(pump)  # type: ignore[attr-defined]
        if stream._closed and stream._pump is not None:
            stream._batch, stream._index = found, 0
        return found

    monkeypatch.setattr(Pump, "waiting", property(meanwhile))
    stream.close()
    assert stream.positions == {"AAPL": "0-0"}

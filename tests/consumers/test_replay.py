"""Replay: the same decisions as on the live stream, at the strategy's own speed or at a chosen one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumers import Bus, Gap, Quote, connect
from consumers.testing import (
    MemoryServer,
    Publisher,
    a_gap,
    a_quote,
    by_time,
    memory_bus,
    quotes_of,
    replay,
    write_recording,
)
from consumers.testing.pace import Pace
from simulator.redis_server import RedisServer
from tests.consumers.conftest import blocked, take

pytestmark = pytest.mark.both_servers

Decision = tuple[Any, ...]


async def decide(
    bus: Bus, decisions: list[Decision], pause: Callable[[], Awaitable[None]] | None = None
) -> None:
    """A toy strategy: trades on a spread that closes, each symbol by itself, and stands aside at a gap."""
    wide: dict[str, bool] = {}
    async for item in bus.quotes("AAPL", "MSFT"):
        if pause is not None:
            await pause()
        if isinstance(item, Gap):
            decisions.append(("aside", item.symbol, item.reason, item.from_ns, item.to_ns))
            wide.pop(item.symbol, None)
        elif item.spread is not None:
            if wide.get(item.symbol) and item.spread < 0.015:
                decisions.append(
                    ("buy", item.symbol, item.ask_price, item.time_ns, item.id, item.receive_delay_us)
                )
            wide[item.symbol] = item.spread > 0.015


async def a_day() -> list[Quote | Gap]:
    """Two symbols and a hole."""
    hole = [a_gap("AAPL", start="09:30:03", end="09:30:04", reason="feed_disconnected", missing=None)]
    walks = [quotes_of(symbol, count=1_500, rate=300) for symbol in ("AAPL", "MSFT")]
    return [item async for item in by_time(*walks, hole)]


@pytest.mark.parametrize("through", ["history", "file"])
async def test_decisions_on_a_replay_are_those_of_the_live_stream(
    bus: Bus, server: RedisServer | MemoryServer, redis: Redis, tmp_path: Path, through: str
) -> None:
    """Live on one server, recorded from its streams, replayed in memory: the same decisions, to the last digit."""
    live: list[Decision] = []
    async with Publisher(server.url) as publisher, asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(decide(bus, live))
        await blocked(redis)
        day = await a_day()
        for start in range(0, len(day), 70):
            stored = await publisher.publish(*day[start : start + 70])
            await asyncio.sleep(0.001)
        last = {item.symbol: item.id for item in stored}
        async for item in bus.quotes(*last, start="snapshot"):
            last.pop(item.symbol, None)
            if not last:
                break
        await blocked(redis)
        await asyncio.sleep(0.1)
        stream.cancel()
    assert sum(decision[0] == "buy" for decision in live) > 50
    recording = by_time(*(bus.history(symbol, 0) for symbol in ("AAPL", "MSFT")))
    replayed: list[Decision] = []
    async with memory_bus() as memory, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(decide(memory, replayed))
        if through == "history":
            count = await replay(recording, memory)
        else:
            count = await write_recording(tmp_path / "day.ndjson.gz", recording)
            assert await replay(tmp_path / "day.ndjson.gz", memory) == count
        running.cancel()
    assert count == len(day)
    for symbol in ("AAPL", "MSFT"):
        assert [d for d in replayed if d[1] == symbol] == [d for d in live if d[1] == symbol]


async def test_a_slow_strategy_gets_every_entry_of_a_bounded_stream() -> None:
    """Of a recording ten times as long as its stream may be: the replay waits for it, and nothing is trimmed."""
    seen: list[Quote | Gap] = []

    async def read(bus: Bus) -> None:
        async for item in bus.quotes("AAPL"):
            if len(seen) % 100 == 0:
                await asyncio.sleep(0.01)
            seen.append(item)

    async with memory_bus(maxlen=300) as bus, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(read(bus))
        assert await replay(quotes_of("AAPL", count=3_000), bus, ahead=100) == 3_000
        running.cancel()
    assert [type(item) for item in seen] == [Quote] * 3_000


async def test_a_stream_on_any_server_is_kept_up_with_by_its_position(
    bus: Bus, server: RedisServer | MemoryServer, redis: Redis
) -> None:
    """Where nobody knows who reads, the caller names whom to wait for."""
    stream = bus.quotes("AAPL")
    seen: list[Quote | Gap] = []

    async def read() -> None:
        async for item in stream:
            if len(seen) % 100 == 0:
                await asyncio.sleep(0.01)
            seen.append(item)

    async with Publisher(server.url, maxlen=300) as publisher, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(read())
        await replay(quotes_of("AAPL", count=2_000), publisher, streams=[stream], ahead=100)
        running.cancel()
    assert [type(item) for item in seen] == [Quote] * 2_000


async def test_a_speed_is_kept() -> None:
    """Recorded seconds pass at that speed, and no item comes before it is due."""
    quotes = [a_quote("AAPL", at=f"09:30:{second:02d}") for second in range(9)]
    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:
        arrived: list[float] = []

        async def read() -> None:
            async for _ in bus.quotes("AAPL"):
                arrived.append(asyncio.get_running_loop().time())  # noqa: PERF401

        running = tasks.create_task(read())
        began_s = asyncio.get_running_loop().time()
        await replay(quotes, bus, speed=20)
        running.cancel()
    assert len(arrived) == 9
    # Never early; how late is the machine's business. The first is due when the replay begins.
    assert all(at_s - began_s >= 0.05 * k - 0.001 for k, at_s in enumerate(arrived))


@pytest.mark.parametrize(
    ("times", "is_fresh", "keeps_time"),
    [("fresh", True, True), ("now", True, False), ("recorded", False, True)],
)
async def test_times_are_as_the_caller_wants_them(times: Any, is_fresh: bool, keeps_time: bool) -> None:
    """As recorded, received now, or moved to now as a whole."""
    recorded = [a_quote("AAPL", at=second, delay_ms=5) for second in ("09:30:00", "09:30:01")]
    async with memory_bus() as bus:
        await replay(recorded, bus, speed=50, times=times, readers=0)
        quality = (await bus.quality("AAPL"))["AAPL"]
        items = [item async for item in bus.history("AAPL", 0)]
    assert quality.is_live is is_fresh
    assert (
        [item.time_ns for item in items if isinstance(item, Quote)] == [q.time_ns for q in recorded]
    ) is keeps_time
    if times == "now":
        last = items[-1]
        assert isinstance(last, Quote)
        assert abs(time.time_ns() - last.time_ns) < 60 * 10**9


async def test_without_a_reader_nothing_begins() -> None:
    """A strategy that was not started, or that hangs, is told of, instead of a replay to nobody."""
    async with memory_bus() as bus:
        with pytest.raises(TimeoutError, match="does the strategy run"):
            await replay(quotes_of("AAPL", count=3), bus, timeout_s=0.1)
        assert await bus.latest("AAPL") is None
        items = aiter(bus.quotes("AAPL"))
        reading = asyncio.create_task(take(items, 1))  # noqa: TID251
        await bus.caught_up()
        with pytest.raises(TimeoutError, match="does each loop come back"):
            await replay(quotes_of("AAPL", count=3), bus, timeout_s=0.3)
        await reading


async def test_a_strategy_that_ends_does_not_hold_the_replay() -> None:
    """Who has left its loop is waited for no more."""
    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:
        tasks.create_task(take(aiter(bus.quotes("AAPL")), 10))
        assert await replay(quotes_of("AAPL", count=2_000), bus, timeout_s=20) == 2_000


async def test_choices_that_contradict_each_other_are_refused(
    server: RedisServer | MemoryServer, redis: Redis
) -> None:
    """Each with what to choose instead."""
    publisher = Publisher(server.url)
    for options, remedy in (
        ({"speed": 0}, "speed=0"),
        ({"times": "now"}, "needs a speed"),
        ({"times": "past", "speed": 1}, "take 'recorded'"),
        ({"ahead": 0}, "ahead=0"),
        ({}, "name the streams"),
    ):
        with pytest.raises(ValueError, match=remedy):
            await replay([], publisher, **options)
    async with Publisher(server.url, maxlen=None) as unbounded, connect(server.url) as bus:
        assert await replay(quotes_of("AAPL", count=20), unbounded) == 20
        assert len([item async for item in bus.history("AAPL", 0)]) == 20


@given(st.floats(0.01, 1000), st.lists(st.integers(-(10**10), 10**10), min_size=1, max_size=20))
def test_distances_are_divided_by_the_speed(speed: float, offsets_ns: list[int]) -> None:
    """Due times and dates agree, whatever the order of the items."""
    pace = Pace(speed, "now")
    first_ns = a_quote(at="09:30").time_ns
    for number, offset_ns in enumerate([0, *offsets_ns]):
        quote = a_quote(at=first_ns + offset_ns)
        due_s = pace.due_s(quote, 100.0 + number, 10**18 + number)
        dated = pace.dated(quote)
        assert isinstance(dated, Quote)
        assert due_s == pytest.approx(100.0 + offset_ns / 1e9 / speed, abs=1e-6)
        assert dated.time_ns - 10**18 == pytest.approx(offset_ns / speed, abs=2)

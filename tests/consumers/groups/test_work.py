"""Sharing work on a real server: who gets what, and how often."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from consumers import Bus, BusUnavailable, Delivery, GroupStream, Quote, connect
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, Writer, until

WORKER = """
import asyncio, sys
from consumers import connect

async def main():
    async with connect(sys.argv[1]) as bus:
        async for delivery in bus.group("g", *sys.argv[3:], consumer=sys.argv[2], start="earliest"):
            print(delivery.id, flush=True)

asyncio.run(main())
"""
"""A worker that acknowledges nothing, and so has all its entries pending when it is killed."""


async def deliver(
    items: GroupStream, count: int, *, ack: bool = True, timeout_s: float = 30.0
) -> list[Delivery]:
    """The next so many deliveries, acknowledged."""
    found: list[Delivery] = []
    async with asyncio.timeout(timeout_s):
        async for delivery in items:
            found.append(delivery)
            if len(found) == count:
                break
    if ack:
        await items.ack(*found)
    return found


def numbers(found: list[Delivery], symbol: str | None = None) -> list[int | float | None]:
    """The numbers that the writer gave to the quotes among these."""
    return [d.item.bid_size for d in found if isinstance(d.item, Quote) and symbol in {None, d.symbol}]


async def has_group(redis: Redis, symbol: str, group: str = "g") -> bool:
    """Whether this stream has the group."""
    if not await redis.exists(KEYS.stream(symbol)):
        return False
    return any(found["name"] == group.encode() for found in await redis.xinfo_groups(KEYS.stream(symbol)))


async def pending(redis: Redis, symbol: str, group: str = "g") -> int:
    """Entries of the group that nobody has acknowledged."""
    return int((await redis.xpending(KEYS.stream(symbol), group))["pending"])


async def test_three_workers_share_twenty_symbols_and_handle_everything_once(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """Without faults each entry goes to exactly one of them, and nothing is left pending."""
    symbols = [f"S{number}" for number in range(20)]
    handled: Counter[tuple[str, float | None]] = Counter()
    shares: Counter[int] = Counter()

    async def work(bus: Bus, number: int) -> None:
        stream = bus.group(
            "g", *symbols, consumer=f"w{number}", start="earliest", auto_ack=bool(number), prefetch=40
        )
        async for delivery in stream:
            assert isinstance(delivery.item, Quote)
            assert delivery.times_delivered == 1
            handled[delivery.symbol, delivery.item.bid_size] += 1
            shares[number] += 1
            if number == 0:
                await stream.ack(delivery)

    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(connect(server.url, reconnect=FAST)) for _ in range(3)]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work(bus, number)) for number, bus in enumerate(buses)]
            for _ in range(10):
                for symbol in symbols:
                    await writer.quotes(symbol, 25)
            await until(lambda: _is(sum(handled.values()) >= 5_000), 60)
            await until(lambda: _none_pending(redis, symbols), 30)
            for task in running:
                task.cancel()
    assert len(handled) == 5_000
    assert set(handled.values()) == {1}
    assert len(shares) == 3


async def _is(state: bool) -> bool:
    return state


async def _none_pending(redis: Redis, symbols: list[str]) -> bool:
    return sum([await pending(redis, symbol) for symbol in symbols]) == 0


async def test_what_was_not_acknowledged_comes_first_after_a_restart(bus: Bus, writer: Writer) -> None:
    """Under the same name a worker gets its own entries back at once, then the new ones."""
    await writer.quotes("AAPL", 5)
    first = bus.group("g", "AAPL", consumer="w", start="earliest")
    found = await deliver(first, 5, ack=False)
    await first.ack(*found[:2])
    await first.aclose()
    await writer.quotes("AAPL", 2)
    again = await deliver(bus.group("g", "AAPL", consumer="w"), 5)
    assert numbers(again) == [2, 3, 4, 5, 6]
    assert [d.times_delivered for d in again] == [2, 2, 2, 1, 1]
    assert not any(d.is_claimed for d in again)


async def test_a_loop_that_was_left_goes_on_with_what_it_had_in_hand(bus: Bus, writer: Writer) -> None:
    """What was read and not handed over comes in the next loop; what was handed over is not repeated."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest")
    assert numbers(await deliver(stream, 4, ack=False)) == [0, 1, 2, 3]
    assert stream.unacknowledged == 4
    assert numbers(await deliver(stream, 6, ack=False)) == [4, 5, 6, 7, 8, 9]


async def test_automatic_acknowledgement_leaves_out_the_item_at_which_the_loop_ended(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """Its body has not come to its end, so it is delivered again."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest", consumer="w", auto_ack=True)
    seen = 0

    async def fail_at_the_fourth() -> None:
        nonlocal seen
        async for _ in stream:
            seen += 1
            if seen == 4:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_at_the_fourth()
    await stream.aclose()
    await until(lambda: _is_pending(redis, "AAPL", 7))
    again = await deliver(bus.group("g", "AAPL", consumer="w"), 7)
    assert numbers(again) == [3, 4, 5, 6, 7, 8, 9]


async def _is_pending(redis: Redis, symbol: str, count: int) -> bool:
    return await pending(redis, symbol) == count


@pytest.mark.parametrize("start", ["now", "earliest", "snapshot", "id", "time"])
async def test_the_start_means_what_it_means_to_a_reader(bus: Bus, writer: Writer, start: str) -> None:
    """It applies where there is no group yet."""
    await writer.quotes("AAPL", 5)
    origin: object = {"id": writer.ids["AAPL"][1], "time": 1_763_000_000_003_000_000}.get(start, start)
    stream = bus.group("g", "AAPL", start=origin)  # type: ignore[arg-type]
    expected = {"now": [5], "earliest": [0, 1, 2, 3, 4, 5], "snapshot": [4, 5], "id": [2, 3, 4, 5]}
    wanted = expected.get(start, [3, 4, 5])
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(deliver(stream, len(wanted)))
        await until(lambda: has_group(writer.redis, "AAPL"))
        await writer.quotes("AAPL")
    assert numbers(reading.result()) == wanted
    later = bus.group("g", "AAPL", start="earliest")
    await writer.quotes("AAPL")
    assert numbers(await deliver(later, 1)) == [6]


async def test_a_symbol_without_a_stream_is_waited_for(bus: Bus, writer: Writer, redis: Redis) -> None:
    """Nothing of it is missed, and no empty stream is left for the daemon to stumble on."""
    await writer.quotes("AAPL")
    stream = bus.group("g", "AAPL", "NEW")
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(deliver(stream, 4))
        await until(lambda: has_group(redis, "AAPL"))
        assert not await redis.exists(KEYS.stream("NEW"))
        await writer.quotes("NEW", 3)
        await writer.quotes("AAPL")
    assert numbers(reading.result(), "NEW") == [0, 1, 2]
    assert numbers(reading.result(), "AAPL") == [1]


async def test_symbols_come_and_go_while_a_loop_runs(bus: Bus, writer: Writer) -> None:
    """Of one that is removed nothing more comes; one that is added comes from its start on."""
    await writer.quotes("AAPL", 3)
    await writer.quotes("MSFT", 3)
    stream = bus.group("g", "AAPL", start="earliest")
    found = []
    async with asyncio.timeout(20):
        async for delivery in stream:
            found.append(delivery)
            if len(found) == 2:
                stream.remove("AAPL")
                stream.add("MSFT", start="earliest")
            if len(found) == 5:
                break
    assert [d.symbol for d in found] == ["AAPL", "AAPL", "MSFT", "MSFT", "MSFT"]
    assert stream.symbols == {"MSFT"}


async def test_the_entries_of_a_killed_worker_are_claimed(
    server: RedisServer, bus: Bus, writer: Writer
) -> None:
    """Another process has them within twice `claim_after_s` of the kill, and is told that they were claimed."""
    await writer.quotes("AAPL", 20)
    await writer.quotes("MSFT", 20)
    worker = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", WORKER, server.url, "doomed", "AAPL", "MSFT"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    handed = [await asyncio.to_thread(worker.stdout.readline) for _ in range(40)]
    os.kill(worker.pid, signal.SIGKILL)
    killed_at_s = time.monotonic()
    worker.wait()
    worker.stdout.close()
    found = await deliver(bus.group("g", "AAPL", "MSFT", claim_after_s=2.0), 40)
    took_s = time.monotonic() - killed_at_s
    assert len(handed) == 40
    assert sorted(d.id or "" for d in found) == sorted(line.strip() for line in handed)
    assert all(d.is_claimed and d.times_delivered == 2 for d in found)
    print(f"claimed {took_s:.2f} s after the kill, claim_after_s=2")  # noqa: T201
    assert 1.0 < took_s < 12.0


async def test_an_entry_that_fails_again_and_again_shows_how_often(bus: Bus, writer: Writer) -> None:
    """A worker that does not acknowledge gets it back with a higher count, and can set it aside."""
    await writer.quotes("AAPL", 2)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=0.2)
    counts = []
    async with asyncio.timeout(30):
        async for delivery in stream:
            if delivery.id == writer.ids["AAPL"][1]:
                await stream.ack(delivery)
                continue
            counts.append(delivery.times_delivered)
            if len(counts) == 4:
                await stream.ack(delivery)
                break
    assert counts == [1, 2, 3, 4]


async def test_an_unreadable_entry_is_acknowledged_and_counted(
    bus: Bus, writer: Writer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It would otherwise come back for ever."""
    await writer.raw("XADD", KEYS.stream("AAPL"), "1-1", "q", "no quote")
    await writer.quotes("AAPL")
    stream = bus.group("g", "AAPL", start="earliest")
    assert numbers(await deliver(stream, 1)) == [0]
    assert stream.unreadable == 1
    assert await pending(redis, "AAPL") == 0
    assert "acknowledged unread: AAPL entry 1-1" in caplog.text


async def test_a_slow_worker_keeps_what_it_has_in_hand(bus: Bus, writer: Writer) -> None:
    """Its entries are renewed between two items, so another worker that waits for them gets none."""
    await writer.quotes("AAPL", 12)
    slow = bus.group("g", "AAPL", consumer="slow", start="earliest", claim_after_s=0.6)
    other = bus.group("g", "AAPL", consumer="other", claim_after_s=0.6)
    stolen: list[Delivery] = []

    async def lurk() -> None:
        async for delivery in other:
            stolen.append(delivery)  # noqa: PERF401 - a list that is looked at while this runs

    found = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        lurking = None
        async for delivery in slow:
            found.append(delivery)
            lurking = lurking or tasks.create_task(lurk())
            # A strategy that takes its time: what is waited for here is no state.
            await asyncio.sleep(0.12)
            await slow.ack(delivery)
            if len(found) == 12:
                break
        assert lurking is not None
        lurking.cancel()
    assert numbers(found) == list(range(12))
    assert all(d.times_delivered == 1 for d in found)
    assert stolen == []


async def test_a_worker_that_was_too_slow_does_not_hand_over_what_others_claimed(
    bus: Bus, writer: Writer
) -> None:
    """Each entry that it had in hand when it stopped is handled by one of the two."""
    await writer.quotes("AAPL", 6)
    slow = bus.group("g", "AAPL", consumer="slow", start="earliest", claim_after_s=0.3)
    other = bus.group("g", "AAPL", consumer="other", claim_after_s=0.3)
    found = []
    async with asyncio.timeout(30):
        async for delivery in slow:
            found.append(delivery)
            await slow.ack(delivery)
            if len(found) == 2:
                break
            assert numbers(await deliver(other, 5)) == [1, 2, 3, 4, 5]
            await writer.quotes("AAPL")
    assert numbers(found) == [0, 6]


async def test_a_key_of_records_that_holds_something_else_is_named(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """Whether it is found when the group begins or comes while a worker is at work."""
    await writer.quotes("AAPL", 2)
    key = KEYS.group("g", "AAPL")
    await redis.set(key, "mine")
    with pytest.raises(BusUnavailable, match=f"not what the contract says .*; the key is {key}"):
        await deliver(bus.group("g", "AAPL", start="earliest"), 1)
    await redis.delete(key)
    stream = bus.group("g", "AAPL", start="earliest")
    await deliver(stream, 2)

    async def is_written() -> bool:
        return bool(await redis.exists(key))

    await until(is_written)
    await redis.delete(key)
    await redis.set(key, "mine")
    await writer.quotes("AAPL", 1)
    with pytest.raises(BusUnavailable, match=f"the key is {key}"):
        await deliver(stream, 2)

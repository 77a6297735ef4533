"""Following streams: each start, each kind of entry, and the hand-over from snapshot to stream under load."""

import asyncio
import random

import pytest
from redis.asyncio import Redis

from consumers import BadStart, BadSymbol, Bus, Gap, Quote, connect
from consumers.reading.start import MARKERS_BACK
from simulator.redis_server import RedisServer
from tests.consumers.conftest import KEYS, T0_NS, Writer, blocked, numbers, take

pytestmark = pytest.mark.both_servers


async def test_now_begins_with_the_first_entry_after_the_call(bus: Bus, writer: Writer) -> None:
    """What was there before is not shown, what comes while the call waits is."""
    await writer.quotes("AAPL", 3)
    first = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 1))  # noqa: TID251
    await blocked(writer.redis)
    await writer.quotes("AAPL")
    assert numbers(await first) == [3]


async def test_now_is_settled_once(bus: Bus, writer: Writer) -> None:
    """Entries that come between two reads, and of a stream that did not exist, are all seen."""
    items = aiter(bus.quotes("AAPL", "NEW"))
    first = asyncio.create_task(take(items, 1))  # noqa: TID251
    await blocked(writer.redis)
    await writer.quotes("AAPL")
    await first
    await writer.quotes("AAPL", 5)
    await writer.quotes("NEW", 5)
    rest = await take(items, 10)
    assert (numbers(rest, "AAPL"), numbers(rest, "NEW")) == ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4])


async def test_earliest_reads_all_there_is_and_goes_on(bus: Bus, writer: Writer) -> None:
    """Over several reads, with the symbols' own order kept."""
    for symbol in ("AAPL", "MSFT"):
        await writer.quotes(symbol, 2_500)
    items = aiter(bus.quotes("AAPL", "MSFT", start="earliest"))
    found = await take(items, 5_000)
    assert numbers(found, "AAPL") == numbers(found, "MSFT") == list(range(2_500))
    await writer.quotes("MSFT")
    assert numbers(await take(items, 1)) == [2_500]


async def test_an_id_is_resumed_strictly_after(bus: Bus, writer: Writer) -> None:
    """The entry itself does not come again."""
    await writer.quotes("AAPL", 5)
    items = aiter(bus.quotes("AAPL", start=writer.ids["AAPL"][2]))
    assert numbers(await take(items, 2)) == [3, 4]


async def test_a_time_begins_with_the_first_of_its_ties(bus: Bus, writer: Writer) -> None:
    """Of entries with one timestamp none is left out."""
    await writer.quotes("AAPL", 3, at=T0_NS)
    await writer.quotes("AAPL", 3, at=T0_NS + 1)
    await writer.quotes("AAPL", 3, at=T0_NS + 2)
    items = aiter(bus.quotes("AAPL", start=T0_NS + 1))
    assert numbers(await take(items, 6)) == [3, 4, 5, 6, 7, 8]


async def test_a_time_within_a_hole_begins_with_its_marker(bus: Bus, writer: Writer) -> None:
    """The marker stands where the hole begins, which is before; one whose hole is over by then is not told."""
    await writer.quotes("AAPL", 1, at=T0_NS)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 1, at=T0_NS + 5)
    gap, quote = await take(aiter(bus.quotes("AAPL", start=T0_NS + 2)), 2)
    assert isinstance(gap, Gap)
    assert (gap.from_ns, gap.to_ns) == (T0_NS, T0_NS + 5)
    assert isinstance(quote, Quote)
    await writer.quotes("AAPL", 1, at=T0_NS + 20)
    (behind,) = await take(aiter(bus.quotes("AAPL", start=T0_NS + 15)), 1)
    (at_its_end,) = await take(aiter(bus.quotes("AAPL", start=T0_NS + 5)), 1)
    assert [item.time_ns for item in (behind, at_its_end) if isinstance(item, Quote)] == [
        T0_NS + 20,
        T0_NS + 5,
    ]


async def test_a_time_behind_markers_in_a_row_begins_with_the_one_whose_hole_it_lies_in(
    bus: Bus, writer: Writer
) -> None:
    """As many in a row as the guide says; one more, and the hole is not told."""
    for name, others in (("AAPL", MARKERS_BACK - 1), ("MSFT", MARKERS_BACK)):
        await writer.quotes(name, 1, at=T0_NS)
        await writer.gap(name, "feed_disconnected", to_ns=T0_NS + 5_000)
        for _ in range(others):
            await writer.gap(name, "not_subscribed", to_ns=T0_NS + 10)
        await writer.quotes(name, 1, at=T0_NS + 5_000)
    found = await take(aiter(bus.quotes("AAPL", start=T0_NS + 2_000)), MARKERS_BACK + 1)
    assert [item.reason for item in found if isinstance(item, Gap)] == [
        "feed_disconnected",
        *["not_subscribed"] * (MARKERS_BACK - 1),
    ]
    assert numbers(found) == [1]
    assert numbers(await take(aiter(bus.quotes("MSFT", start=T0_NS + 2_000)), 1)) == [1]


async def test_a_time_to_come_waits_for_it(bus: Bus, writer: Writer) -> None:
    """A stream that has not reached the time is not mistaken for a new one."""
    await writer.quotes("AAPL", 5, step_ns=1_000)
    items = aiter(bus.quotes("AAPL", start=T0_NS + 7_000))
    first = asyncio.create_task(take(items, 1))  # noqa: TID251
    await asyncio.wait([first], timeout=2.5)
    await writer.quotes("AAPL", 5, step_ns=1_000)
    assert numbers(await first) == [7]


async def test_positions_resume_without_a_miss_or_a_repeat(bus: Bus, writer: Writer) -> None:
    """A strategy that saves its positions and comes back reads on."""
    for symbol in ("AAPL", "MSFT"):
        await writer.quotes(symbol, 50)
    stream = bus.quotes("AAPL", "MSFT", start="earliest")
    assert stream.positions == {"AAPL": "0-0", "MSFT": "0-0"}
    seen = await take(aiter(stream), 70)
    assert stream.positions == {"AAPL": writer.ids["AAPL"][49], "MSFT": writer.ids["MSFT"][19]}
    seen += await take(aiter(bus.quotes("AAPL", "MSFT", start=stream.positions)), 30)
    assert numbers(seen, "AAPL") == numbers(seen, "MSFT") == list(range(50))


async def test_a_loop_that_was_left_is_entered_again_where_it_stood(bus: Bus, writer: Writer) -> None:
    """Entries that were read but not handed out come in the next loop."""
    await writer.quotes("AAPL", 10)
    stream = bus.quotes("AAPL", start="snapshot")
    seen: list[Quote | Gap] = []
    for _ in range(3):
        async for item in stream:
            seen.append(item)
            await writer.quotes("AAPL", 2)
            if len(seen) % 2 == 0:
                break
    assert numbers(seen) == [9, 10, 11, 12, 13, 14]


async def test_snapshot_begins_with_the_cache_and_follows_from_its_id(bus: Bus, writer: Writer) -> None:
    """First the newest quote of each symbol, then what comes after exactly that."""
    await writer.quotes("AAPL", 10)
    await writer.quotes("MSFT", 20)
    stream = bus.quotes("AAPL", "MSFT", "NONE", start="snapshot")
    items = aiter(stream)
    assert numbers(await take(items, 2)) == [9, 19]
    await writer.quotes("NONE", 2)
    await writer.quotes("AAPL", 2)
    rest = await take(items, 4)
    assert (numbers(rest, "NONE"), numbers(rest, "AAPL")) == ([0, 1], [10, 11])


async def test_a_snapshot_not_yet_handed_out_is_not_lost_to_a_resume(bus: Bus, writer: Writer) -> None:
    """Positions saved between two quotes of the snapshot lead to the second."""
    await writer.quotes("AAPL", 3)
    await writer.quotes("MSFT", 3)
    stream = bus.quotes("AAPL", "MSFT", start="snapshot")
    await take(aiter(stream), 1)
    items = aiter(bus.quotes("AAPL", "MSFT", start=stream.positions))
    assert [(item.symbol, item.bid_size) for item in await take(items, 1) if isinstance(item, Quote)] == [
        ("MSFT", 2)
    ]


async def test_a_snapshot_left_halfway_goes_on_in_the_next_loop(bus: Bus, writer: Writer) -> None:
    """The second quote comes once, whether from the cache or from the stream."""
    await writer.quotes("AAPL", 3)
    await writer.quotes("MSFT", 3)
    stream = bus.quotes("AAPL", "MSFT", start="snapshot")
    assert numbers(await take(aiter(stream), 1), "AAPL") == [2]
    await writer.quotes("MSFT", 2)
    assert numbers(await take(aiter(stream), 3), "MSFT") == [2, 3, 4]


async def test_snapshot_without_a_cached_quote_begins_with_the_newest_entry(bus: Bus, writer: Writer) -> None:
    """A lost cache neither hides the newest quote nor brings the whole past."""
    await writer.quotes("AAPL", 10)
    await writer.redis.delete(KEYS.latest)
    items = aiter(bus.quotes("AAPL", start="snapshot"))
    assert numbers(await take(items, 1)) == [9]
    await writer.quotes("AAPL")
    assert numbers(await take(items, 1)) == [10]


@pytest.mark.fault("Q03")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.fault("Q03")
async def test_snapshot_and_stream_join_under_load(bus: Bus, writer: Writer, seed: int) -> None:
    """Readers that come at any moment see a run of numbers without hole or repeat up to the last."""
    chance = random.Random(seed)
    symbols = ("A", "B", "C")
    total = 3_000

    async def write() -> None:
        while any(len(writer.sent.get(symbol, ())) < total for symbol in symbols):
            symbol = chance.choice(symbols)
            left = total - len(writer.sent.get(symbol, ()))
            await writer.quotes(symbol, min(left, chance.randint(1, 40)))

    async def read(after: int) -> dict[str, list[int | float | None]]:
        while sum(map(len, writer.sent.values())) < after:  # noqa: ASYNC110
            await asyncio.sleep(0)
        found: dict[str, list[int | float | None]] = {symbol: [] for symbol in symbols}
        async for item in bus.quotes(*symbols, start="snapshot"):
            assert isinstance(item, Quote)
            found[item.symbol].append(item.bid_size)
            if all(run and run[-1] == total - 1 for run in found.values()):
                break
        return found

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        joins = [group.create_task(read(chance.randrange(3 * total))) for _ in range(8)]
        group.create_task(write())
    for join in joins:
        for run in join.result().values():
            assert run == list(range(int(run[0] or 0), total))


async def test_gap_markers_come_in_their_place(bus: Bus, writer: Writer) -> None:
    """Between the quotes around the hole, with what the daemon wrote."""
    await writer.quotes("AAPL", 2)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 1)
    items = await take(aiter(bus.quotes("AAPL", start="earliest")), 4)
    assert [type(item) for item in items] == [Quote, Quote, Gap, Quote]
    gap = items[2]
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.from_ns, gap.to_ns, gap.epoch) == ("feed_disconnected", T0_NS, T0_NS + 5, 7)
    assert gap.id is not None


async def test_what_cannot_be_read_is_counted_and_skipped(
    bus: Bus, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is counted, the log has one line, and the iteration goes on past them."""
    bad: list[tuple[str | bytes, ...]] = [
        ("q", "not json"),
        ("q", b"\xff\xfe"),
        ("q", '{"bp":1}'),
        ("q", "[1,2]"),
        ("gap", "[]"),
        ("other", "1"),
    ]
    await writer.quotes("AAPL")
    for k, fields in enumerate(bad):
        await writer.raw("XADD", KEYS.stream("AAPL"), f"{T0_NS // 10**6}-{k + 1}", *fields)
    await writer.quotes("AAPL")
    stream = bus.quotes("AAPL", start="earliest")
    assert numbers(await take(aiter(stream), 2)) == [0, 1]
    assert stream.unreadable == len(bad)
    assert caplog.text.count("skipped:") == 1


@pytest.mark.fault("Q07")
async def test_fields_and_positions_of_a_later_contract_are_ignored(bus: Bus, writer: Writer) -> None:
    """A newer daemon may append to both."""
    row = b'[1.5,1,"V",2.5,2,"N",null,"C",1763000000000000000,5,"new",7]'
    await writer.raw("XADD", KEYS.stream("AAPL"), "1-1", "q", row, "more", "x")
    await writer.raw("XADD", KEYS.stream("AAPL"), "1-2", "more", "x", "q", row)
    items = await take(aiter(bus.quotes("AAPL", start="earliest")), 2)
    assert [item.bid_price for item in items if isinstance(item, Quote)] == [1.5, 1.5]


async def test_symbols_come_and_go_while_the_loop_runs(bus: Bus, writer: Writer) -> None:
    """An added one is followed from its own start, a removed one is silent at once."""
    for symbol in ("AAPL", "MSFT"):
        await writer.quotes(symbol, 5)
    stream = bus.quotes("AAPL", start="earliest")
    items = aiter(stream)
    assert numbers(await take(items, 2), "AAPL") == [0, 1]
    stream.add("MSFT", "AAPL", start="earliest")
    stream.remove("AAPL")
    assert stream.symbols == {"MSFT"}
    assert numbers(await take(items, 5), "MSFT") == [0, 1, 2, 3, 4]
    stream.remove("MSFT")
    stream.add("NEW")
    first = asyncio.create_task(take(items, 1))  # noqa: TID251
    await blocked(writer.redis)
    await writer.quotes("NEW")
    assert numbers(await first, "NEW") == [0]


async def test_several_loops_read_at_once(bus: Bus, writer: Writer) -> None:
    """None waits for another, and each sees everything."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(take(aiter(bus.quotes("AAPL")), 100)) for _ in range(5)]
        await blocked(writer.redis, 5)
        await writer.quotes("AAPL", 100)
        assert await bus.latest("AAPL") is not None
    assert all(numbers(task.result()) == list(range(100)) for task in tasks)


async def test_five_hundred_symbols_are_read_together(bus: Bus, writer: Writer) -> None:
    """In one read each time, none starved."""
    symbols = [f"S{k}" for k in range(500)]
    for symbol in symbols:
        await writer.quotes(symbol, 60)
    items = await take(aiter(bus.quotes(*symbols, start="earliest")), 30_000)
    assert all(numbers(items, symbol) == list(range(60)) for symbol in symbols[::50])


async def test_bad_arguments_are_refused_by_the_call(bus: Bus) -> None:
    """Not by the loop, where the line would tell less."""
    with pytest.raises(BadSymbol):
        bus.quotes("aapl")
    with pytest.raises(BadStart):
        bus.quotes("AAPL", start="$")


async def test_batches_hold_what_the_loop_would_give(bus: Bus, writer: Writer) -> None:
    """The same items in the same order, several at once, and none empty."""
    await writer.quotes("AAPL", 1_500)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 1_000)
    await writer.quotes("MSFT", 5)
    one_by_one = await take(aiter(bus.quotes("AAPL", "MSFT", start="earliest")), 2_506)
    found: list[Quote | Gap] = []
    sizes: list[int] = []
    stream = bus.quotes("AAPL", "MSFT", start="earliest")
    async for batch in stream.batches():
        found += batch
        sizes.append(len(batch))
        assert stream.positions["AAPL"] == [item.id for item in found if item.symbol == "AAPL"][-1]
        if len(found) == 2_506:
            break
    assert [i for i in found if i.symbol == "AAPL"] == [i for i in one_by_one if i.symbol == "AAPL"]
    assert numbers(found, "MSFT") == list(range(5))
    assert min(sizes) >= 1
    assert len(sizes) < 10
    await writer.quotes("MSFT")
    assert numbers(await take(aiter(stream), 1)) == [5]


async def test_batches_begin_with_the_snapshot(bus: Bus, writer: Writer) -> None:
    """And go on exactly behind it."""
    await writer.quotes("AAPL", 3)
    batches = aiter(bus.quotes("AAPL", start="snapshot").batches())
    assert numbers(await anext(batches)) == [2]
    await writer.quotes("AAPL", 2)
    assert numbers(await anext(batches)) == [3, 4]


async def test_batches_skip_what_cannot_be_read(bus: Bus, writer: Writer) -> None:
    """It is counted, and makes no batch of its own."""
    await writer.raw("XADD", KEYS.stream("AAPL"), "1-1", "q", "junk")
    stream = bus.quotes("AAPL", start="earliest")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(stream.batches().__anext__())
        await blocked(writer.redis)
        await writer.quotes("AAPL", 2)
    assert numbers(first.result())[:1] == [0]
    assert stream.unreadable == 1


@pytest.mark.fault("Q12")
@pytest.mark.real_server("in memory no answer is late")
@pytest.mark.parametrize("url_says_so", [False, True])
async def test_silence_for_longer_than_an_answer_may_take_is_no_failure(
    server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture, url_says_so: bool
) -> None:
    """The server is asked to wait for half as long, in loops and groups; nothing is logged, nor connects anew."""
    url = f"{server.url}?socket_timeout=0.4" if url_says_so else server.url
    writer = Writer(redis)
    await writer.quotes("AAPL")
    async with connect(url, timeout_s=None if url_says_so else 0.4) as bus:
        stream, worker = bus.quotes("AAPL"), bus.group("g", "AAPL")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stream.get(timeout_s=1.5))
            tasks.create_task(worker.get(timeout_s=1.5))
        assert (stream.failures, worker.failures) == (0, 0)
        await stream.aclose()
        await worker.aclose()
    assert "failed" not in caplog.text

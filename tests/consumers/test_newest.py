"""Latest-only: what is passed over is counted, nothing newer is withheld, and gaps are never conflated away."""

import asyncio
import random

import pytest

from consumers import Bus, EntryId, Gap, Newest
from tests.consumers.conftest import KEYS, Writer, blocked

pytestmark = pytest.mark.both_servers


async def one(items: object, timeout_s: float = 60.0) -> Newest | Gap:
    """The next item, or `TimeoutError`."""
    async with asyncio.timeout(timeout_s):
        item = await anext(items)  # type: ignore[call-overload]
    assert isinstance(item, Newest | Gap)
    return item


def number(item: Newest | Gap) -> int:
    """What the writer called it."""
    assert isinstance(item, Newest)
    return int(item.quote.bid_size or 0)


async def test_only_the_newest_comes_with_the_number_of_the_others(bus: Bus, writer: Writer) -> None:
    """And with the stretch of venue time that they took."""
    await writer.quotes("AAPL", 3_500)
    items = aiter(bus.newest("AAPL", start="earliest"))
    found = await one(items)
    assert isinstance(found, Newest)
    assert (number(found), found.conflated, found.symbol) == (3_499, 3_499, "AAPL")
    ids = [EntryId.parse(entry_id).time_ns for entry_id in writer.ids["AAPL"]]
    assert (found.from_ns, found.to_ns) == (ids[0], ids[3_498])
    await writer.quotes("AAPL")
    found = await one(items)
    assert isinstance(found, Newest)
    assert (number(found), found.conflated, found.from_ns, found.to_ns) == (3_500, 0, None, None)


async def test_it_begins_with_the_snapshot(bus: Bus, writer: Writer) -> None:
    """Which what follows meanwhile replaces, and counts."""
    await writer.quotes("AAPL", 3)
    await writer.quotes("MSFT", 3)
    items = aiter(bus.newest("AAPL", "MSFT", start="snapshot"))
    assert number(await one(items)) == 2
    await writer.quotes("MSFT", 4)
    await asyncio.sleep(0.05)
    found = await one(items)
    assert isinstance(found, Newest)
    assert (found.symbol, number(found), found.conflated) == ("MSFT", 6, 4)


async def test_gaps_are_told_before_the_quote_after_them(bus: Bus, writer: Writer) -> None:
    """Each of them, however many quotes are passed over around it."""
    await writer.quotes("AAPL", 5)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 5)
    await writer.gap("AAPL", "queue_full")
    await writer.quotes("AAPL", 5)
    items = aiter(bus.newest("AAPL", start="earliest"))
    found = [await one(items) for _ in range(3)]
    assert [item.reason for item in found if isinstance(item, Gap)] == ["feed_disconnected", "queue_full"]
    assert isinstance(found[2], Newest)
    assert (number(found[2]), found[2].conflated) == (14, 14)


async def test_a_gap_behind_the_newest_quote_comes_behind_it(bus: Bus, writer: Writer) -> None:
    """That quote is still the newest there is."""
    await writer.quotes("AAPL", 5)
    await writer.gap("AAPL", "feed_disconnected")
    items = aiter(bus.newest("AAPL", start="earliest"))
    assert number(await one(items)) == 4
    assert isinstance(await one(items), Gap)


async def test_what_retention_took_is_told(bus: Bus, writer: Writer) -> None:
    """With its number, as with every quote."""
    await writer.quotes("AAPL", 10)
    stream = bus.newest("AAPL", start="earliest")
    items = aiter(stream)
    await one(items)
    await writer.quotes("AAPL", 100, maxlen=20)
    await asyncio.sleep(0.3)
    gap, newest = await one(items), await one(items)
    assert isinstance(gap, Gap)
    assert isinstance(newest, Newest)
    assert (gap.reason, gap.missing, newest.conflated, number(newest)) == ("trimmed", 80, 19, 109)


async def test_what_cannot_be_read_does_not_hide_the_quote_before_it(bus: Bus, writer: Writer) -> None:
    """It is counted, and the newest that can be read is handed over."""
    await writer.quotes("AAPL", 5)
    await writer.raw("XADD", KEYS.stream("AAPL"), "1899999999999-0", "q", "junk")
    stream = bus.newest("AAPL", start="earliest")
    found = await one(aiter(stream))
    assert isinstance(found, Newest)
    assert (number(found), found.conflated, stream.unreadable) == (4, 4, 1)


async def test_nothing_is_handed_over_that_was_replaced_while_others_took_their_time(
    bus: Bus, writer: Writer
) -> None:
    """A strategy that is slow with one symbol finds the newest of the next."""
    symbols = [f"S{k}" for k in range(20)]
    for symbol in symbols:
        await writer.quotes(symbol)
    items = aiter(bus.newest(*symbols, start="earliest"))
    for k in range(20):
        found = await one(items)
        assert isinstance(found, Newest)
        assert number(found) == len(writer.sent[found.symbol]) - 1
        assert found.conflated == (k > 0) * k
        for symbol in symbols:
            await writer.quotes(symbol)
        await asyncio.sleep(0.03)


async def test_no_symbol_is_starved(bus: Bus, writer: Writer) -> None:
    """However often the busy ones change, each gets its turn."""
    symbols = [f"S{k}" for k in range(50)]
    for symbol in symbols:
        await writer.quotes(symbol)
    items = aiter(bus.newest(*symbols, start="earliest"))
    seen = set()
    for _ in range(50):
        seen.add((await one(items)).symbol)
        await writer.quotes("S0", 3)
        await asyncio.sleep(0.021)
    assert seen == set(symbols)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.real_server("it ends only while the reader is behind, and in memory it is not")
async def test_counts_add_up_whenever_the_strategy_asks(bus: Bus, writer: Writer, seed: int) -> None:
    """What was handed over, passed over and resumed by saved positions is what was written, once."""
    chance = random.Random(seed)
    symbols = ("A", "B", "C")
    plan = [(chance.choice(symbols), chance.randint(1, 60)) for _ in range(150)]
    total = {symbol: sum(count for name, count in plan if name == symbol) for symbol in symbols}
    stream = bus.newest(*symbols, start="earliest")
    told = dict.fromkeys(symbols, 0)
    last = dict.fromkeys(symbols, -1)

    async def write() -> None:
        for symbol, count in plan:
            await writer.quotes(symbol, count)
            await asyncio.sleep(chance.choice((0, 0.001, 0.01)))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(write())
        while told != total:
            left = chance.randint(1, 12)
            async for item in stream:
                assert isinstance(item, Newest)
                assert number(item) == last[item.symbol] + item.conflated + 1
                last[item.symbol] = number(item)
                told[item.symbol] += item.conflated + 1
                left -= 1
                if not left or told == total:
                    break
                await asyncio.sleep(chance.choice((0, 0.002, 0.03)))
            if chance.random() < 0.5:
                stream = bus.newest(*symbols, start=stream.positions)


async def test_it_waits_without_a_question_when_nothing_comes(bus: Bus, writer: Writer) -> None:
    """And wakes with the first entry."""
    items = aiter(bus.newest("AAPL"))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(one(items))
        await blocked(writer.redis)
        await writer.quotes("AAPL")
    assert number(first.result()) == 0


async def test_symbols_come_and_go(bus: Bus, writer: Writer) -> None:
    """One that was removed is silent at once, though its quote waits already."""
    await writer.quotes("AAPL", 2)
    await writer.quotes("MSFT", 2)
    stream = bus.newest("AAPL", "MSFT", start="earliest")
    items = aiter(stream)
    assert (await one(items)).symbol == "AAPL"
    stream.remove("MSFT")
    stream.add("NEW", start="earliest")
    await writer.quotes("NEW", 2)
    found = await one(items)
    assert (found.symbol, number(found)) == ("NEW", 1)
    assert stream.positions == {"AAPL": writer.ids["AAPL"][1], "NEW": writer.ids["NEW"][1]}

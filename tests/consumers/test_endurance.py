"""Readers that are cancelled at any moment, slow, or follow a thousand symbols."""

import asyncio
import random
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from consumers import Bus, Gap, Newest, Quote, connect
from consumers.reading.conflation import GAPS_MAX, Conflation
from consumers.reading.gaps import Anchor
from consumers.reading.track import Run, Track
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, Writer, blocked, numbers, readers
from wire import encode_gap, encode_quote

SYMBOLS = ("A", "B", "C")
EACH = 2_000


class Account:
    """What was handed over of each symbol, checked on the way: every number once and in order."""

    def __init__(self) -> None:
        self.told = dict.fromkeys(SYMBOLS, 0)

    def note(self, item: Quote | Newest | Gap) -> None:
        """Take one item into account."""
        assert not isinstance(item, Gap)
        conflated, quote = (item.conflated, item.quote) if isinstance(item, Newest) else (0, item)
        assert quote.bid_size == self.told[quote.symbol] + conflated
        self.told[quote.symbol] += conflated + 1

    @property
    def is_complete(self) -> bool:
        """Whether all that will ever come has come."""
        return all(count == EACH for count in self.told.values())


async def read_items(bus: Bus, start: dict[str, str], account: Account) -> dict[str, str]:
    """One by one, until cancelled."""
    stream = bus.quotes(*SYMBOLS, start=start or "earliest")
    try:
        async for item in stream:
            account.note(item)
            if account.is_complete:
                break
    except asyncio.CancelledError:
        pass
    return {**start, **stream.positions}


async def read_batches(bus: Bus, start: dict[str, str], account: Account) -> dict[str, str]:
    """In batches, until cancelled."""
    stream = bus.quotes(*SYMBOLS, start=start or "earliest")
    try:
        async for batch in stream.batches():
            for item in batch:
                account.note(item)
            if account.is_complete:
                break
    except asyncio.CancelledError:
        pass
    return {**start, **stream.positions}


async def read_newest(bus: Bus, start: dict[str, str], account: Account) -> dict[str, str]:
    """The newest alone, until cancelled."""
    stream = bus.newest(*SYMBOLS, start=start or "earliest")
    try:
        async for item in stream:
            account.note(item)
            if account.is_complete:
                break
    except asyncio.CancelledError:
        pass
    return {**start, **stream.positions}


@pytest.mark.parametrize("read", [read_items, read_batches, read_newest])
@pytest.mark.parametrize("seed", range(2))
async def test_cancelled_at_any_moment_nothing_is_lost_and_nothing_comes_twice(
    bus: Bus,
    writer: Writer,
    read: Callable[[Bus, dict[str, str], Account], Awaitable[dict[str, str]]],
    seed: int,
) -> None:
    """Each next reader begins at the positions of the one that was cancelled."""
    chance = random.Random(seed)
    account = Account()
    positions: dict[str, str] = {}
    cancelled = fruitless = told = 0

    async def write() -> None:
        while any(len(writer.sent.get(symbol, ())) < EACH for symbol in SYMBOLS):
            symbol = chance.choice(SYMBOLS)
            left = EACH - len(writer.sent.get(symbol, ()))
            await writer.quotes(symbol, min(left, chance.randint(1, 8)))
            await asyncio.sleep(chance.choice((0, 0.002)))

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        group.create_task(write())
        while not account.is_complete:
            task = asyncio.ensure_future(read(bus, positions, account))  # noqa: TID251
            if chance.random() < 0.5:
                for _ in range(chance.randint(0, 40)):
                    await asyncio.sleep(0)
            else:
                # On a machine so busy that no reader gets anywhere in this time, the next has more of it.
                await asyncio.sleep(chance.random() * 0.01 * (1 + fruitless))
            cancelled += task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():  # else it had not begun
                positions = task.result()
            told, before = sum(account.told.values()), told
            fruitless = 0 if told > before else fruitless + 1
    assert cancelled > 20
    assert account.told == dict.fromkeys(SYMBOLS, EACH)


async def test_a_slow_strategy_holds_one_reply_in_memory(bus: Bus, writer: Writer) -> None:
    """However much waits in Redis: the rest stays there."""
    for _ in range(20):
        await writer.quotes("AAPL", 1_000)
    tracemalloc.start()
    try:
        count = 0
        before, _ = tracemalloc.get_traced_memory()
        async for _ in bus.quotes("AAPL", start="earliest"):
            count += 1
            if count % 500 == 0:
                await asyncio.sleep(0.02)
            if count == 20_000:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A thousand entries are some 0.6 MB, twenty thousand 12 MB.
    assert peak - before < 3_000_000


def test_what_waits_for_a_slow_strategy_is_bounded_per_symbol() -> None:
    """One quote, and gaps that are joined when there are too many; none of their counts is lost."""
    waiting = Conflation()
    track = Track("A", b"quotes:stream:A", "0-0", Anchor.CHOSEN)
    quote = encode_quote((1.0, 1, "V", 2.0, 1, "N", None, "C", 5, 0))
    for k in range(1_000):
        gap = encode_gap(k, k + 1, f"reason {k}", 1, missing=2)
        waiting.take(
            Run(
                track,
                None,
                [[f"{2 * k + 1}-0".encode(), [b"gap", gap]], [f"{2 * k + 2}-0".encode(), [b"q", quote]]],
            )
        )
    items = []
    while waiting:
        items.append(waiting.next())
    gaps = [item for item in items if isinstance(item, Gap)]
    assert len(items) == GAPS_MAX + 1
    assert sum(gap.missing or 0 for gap in gaps) == 2_000
    assert (gaps[-1].from_ns, gaps[-1].to_ns, gaps[-1].reason) == (
        GAPS_MAX - 1,
        1_000,
        f"reason {GAPS_MAX - 1}",
    )
    newest = items[-1]
    assert isinstance(newest, Newest)
    assert newest.conflated == 999


async def test_a_thousand_symbols_share_one_connection(bus: Bus, writer: Writer) -> None:
    """All of what is there and all of what comes, every quote as well as the newest alone."""
    symbols = [f"S{k}" for k in range(1_000)]
    for symbol in symbols:
        await writer.quotes(symbol, 12)
    found: list[Quote | Gap] = []
    async with asyncio.timeout(90):
        async for item in bus.quotes(*symbols, start="earliest"):
            found.append(item)
            if len(found) == 12_000:
                assert await readers(writer.redis) == 2
                for symbol in symbols:
                    await writer.quotes(symbol)
            if len(found) == 13_000:
                break
        assert all(numbers(found, symbol) == list(range(13)) for symbol in symbols)
        newest = bus.newest(*symbols, start="earliest")
        seen = {}
        async for latest in newest:
            assert isinstance(latest, Newest)
            seen[latest.symbol] = (latest.quote.bid_size, latest.conflated)
            if len(seen) == len(symbols):
                assert await readers(writer.redis) == 2
                break
    assert set(seen.values()) == {(12, 12)}
    assert sum(lag.entries for lag in (await newest.lag()).values()) == 0


async def test_a_newest_reader_survives_a_killed_server(caplog: pytest.LogCaptureFixture) -> None:
    """It comes back where it stood, and its counts still add up."""
    with RedisServer(appendonly=True, options=("--appendfsync", "always")) as mortal:
        async with (
            connect(mortal.url, reconnect=FAST) as bus,
            Redis.from_url(mortal.url, protocol=2) as redis,
        ):
            writer = Writer(redis)
            told = 0

            async def read() -> None:
                nonlocal told
                async for item in bus.newest("AAPL"):
                    assert isinstance(item, Newest)
                    told += item.conflated + 1
                    if told == 400:
                        break

            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(read())
                await blocked(redis)
                for _ in range(2):
                    await writer.quotes("AAPL", 100)
                    mortal.kill()
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(mortal.start)
                    await writer.quotes("AAPL", 100)
    assert "attempt 1 in" in caplog.text

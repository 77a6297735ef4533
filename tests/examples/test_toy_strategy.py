"""How a strategy is tested without a server: the toy one of `examples/`, on a bus in memory.

Copy this file for your own. The fixture `quote_bus` comes with quotebus[testing], and so do the builders, and
pytest-asyncio for tests that await.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from consumers.testing import MemoryBus, a_gap, a_quote, an_old_quote
from examples.toy_strategy import CALM_QUOTES, Maker, trade

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def running(bus: MemoryBus, *, silence_s: float = 60.0) -> AsyncIterator[list[str]]:
    """The strategy at work on this bus; what it does, in order."""
    done: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(trade(bus, "AAPL", Maker(done.append), silence_s=silence_s))
        await bus.caught_up()  # it waits for its first quote
        yield done
        task.cancel()


async def publish(bus: MemoryBus, *items: object) -> None:
    """Publish, and wait until the strategy has seen it."""
    await bus.publish(*items)  # type: ignore[arg-type]
    await bus.caught_up()


async def test_it_quotes_when_prices_have_been_whole_for_a_while(quote_bus: MemoryBus) -> None:
    """Not at the first quote, but at the third, and again when the mid moves."""
    async with running(quote_bus) as done:
        for _ in range(CALM_QUOTES - 1):
            await publish(quote_bus, a_quote("AAPL", bid=100.0, ask=100.5))
        assert done == []
        await publish(quote_bus, a_quote("AAPL", bid=100.0, ask=100.5))
        await publish(quote_bus, a_quote("AAPL", bid=100.0, ask=100.5))
        await publish(quote_bus, a_quote("AAPL", bid=100.5, ask=101.0))
        assert done == ["quote around 100.250", "quote around 100.750"]


async def test_a_gap_stops_it_until_prices_are_whole_again(quote_bus: MemoryBus) -> None:
    """Whatever the reason: it does not know what happened in between."""
    async with running(quote_bus) as done:
        await publish(quote_bus, *[a_quote("AAPL", bid=100.0, ask=100.5)] * CALM_QUOTES)
        await publish(quote_bus, a_gap("AAPL", reason="feed_disconnected"), a_quote("AAPL", bid=90, ask=90.5))
        assert done[1:] == ["cancel: 1.0 s are missing (feed_disconnected)"]
        await publish(quote_bus, *[a_quote("AAPL", bid=90.0, ask=90.5)] * (CALM_QUOTES - 1))
        assert done[-1] == "quote around 90.250"


async def test_old_quotes_are_never_acted_upon(quote_bus: MemoryBus) -> None:
    """What comes too late comes as a gap, and stops it."""
    async with running(quote_bus) as done:
        await publish(quote_bus, *[a_quote("AAPL", bid=100.0, ask=100.5)] * CALM_QUOTES)
        await publish(quote_bus, *[an_old_quote("AAPL", age_s=30, bid=50.0, ask=50.5)] * CALM_QUOTES)
        assert len(done) == 2
        assert done[1].startswith("cancel:")
        assert "too_old" in done[1]


async def test_a_side_without_a_price_stops_it(quote_bus: MemoryBus) -> None:
    """One cannot quote around half a market, nor around a crossed one."""
    async with running(quote_bus) as done:
        await publish(quote_bus, *[a_quote("AAPL", bid=100.0, ask=100.5)] * CALM_QUOTES)
        await publish(quote_bus, a_quote("AAPL", bid=None, ask=100.5))
        assert done[1:] == ["cancel: one side is missing, or the market is crossed"]


async def test_silence_stops_it_only_when_it_is_a_fault(quote_bus: MemoryBus) -> None:
    """A quiet market is no reason to go; a daemon that has stopped is."""
    async with running(quote_bus, silence_s=0.05) as done:
        await publish(quote_bus, *[a_quote("AAPL", bid=100.0, ask=100.5)] * CALM_QUOTES)
        await asyncio.sleep(0.2)  # traffic: three silences, and nothing wrong
        assert done == ["quote around 100.250"]
        await quote_bus.publisher.daemon("stopped")
        async with asyncio.timeout(10):
            while len(done) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert done[1].startswith("cancel: stale:")

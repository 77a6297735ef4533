"""The judge: alpaca-py's own stream, unmodified, takes the double for Alpaca."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from simulator import AlpacaSimulator, SimQuote, SimulatorSettings

NS = 1_700_000_000_123_456_789


@asynccontextmanager
async def streaming(sim: AlpacaSimulator, handler: Any, *, raw_data: bool) -> AsyncIterator[Any]:
    """alpaca-py's stream in a thread and loop of its own, as its authors mean it to run."""
    from alpaca.data.live import StockDataStream

    stream = StockDataStream("key", "secret", raw_data=raw_data, url_override=sim.url("iex"))
    stream.subscribe_quotes(handler, "AAPL")
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    try:
        # Until it takes itself for running, it keeps a further subscription to itself.
        await sim.wait_for(lambda: sim.symbols == {"AAPL"} and stream._running, timeout_s=15)
        yield stream
    finally:
        await asyncio.to_thread(stream.stop)
        # It looks for the stop only between two receipts: give it something to receive.
        await sim.wait_for(_nudged(sim, thread), timeout_s=10)
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()


def _nudged(sim: AlpacaSimulator, thread: threading.Thread) -> Callable[[], bool]:
    def ended() -> bool:
        sim.send([SimQuote("AAPL", NS, 1.0, 1, 2.0, 1)])
        return not thread.is_alive()

    return ended


async def test_alpaca_py_raw() -> None:
    """It logs in, subscribes, changes its subscription at run time, and reads every nanosecond."""
    got: list[dict[str, Any]] = []

    async def handler(quote: dict[str, Any]) -> None:
        got.append(quote)

    async with AlpacaSimulator() as sim:
        async with streaming(sim, handler, raw_data=True) as stream:
            await asyncio.to_thread(stream.subscribe_quotes, handler, "MSFT", "NVDA")
            await sim.wait_for(lambda: sim.symbols == {"AAPL", "MSFT", "NVDA"})
            await asyncio.to_thread(stream.unsubscribe_quotes, "MSFT")
            await sim.wait_for(lambda: sim.symbols == {"AAPL", "NVDA"})
            sim.send(
                [
                    SimQuote("AAPL", NS, 187.41, 300, 187.43, 200, "V", "Q", ("R",), "C"),
                    SimQuote("MSFT", NS, 1.0, 1, 2.0, 1),
                    SimQuote("NVDA", NS + 1, 2.5, 1, 2.75, 2),
                ]
            )
            await sim.wait_for(lambda: len(got) >= 2)
            assert [quote["S"] for quote in got[:2]] == ["AAPL", "NVDA"]
            assert got[0].pop("t").to_unix_nano() == NS
            venues = {"bx": "V", "ax": "Q", "c": ["R"], "z": "C"}
            assert got[0] == {
                "T": "q",
                "S": "AAPL",
                "bp": 187.41,
                "bs": 300,
                "ap": 187.43,
                "as": 200,
                **venues,
            }
            (link,) = sim.connections
            assert link.encoding == "msgpack"
        await sim.wait_for(lambda: bool(sim.closed))
        assert sim.closed[0].clean
        assert [a.kind for a in sim.actions] == [
            *("connect", "auth", "subscribe", "subscribe", "unsubscribe", "close")
        ]


async def test_alpaca_py_models() -> None:
    """Its own model accepts the double's quotes, from the synthetic market as well."""
    got: list[Any] = []

    async def handler(quote: Any) -> None:
        got.append(quote)

    async with AlpacaSimulator(SimulatorSettings(rate=200)) as sim:
        async with streaming(sim, handler, raw_data=False):
            await sim.wait_for(lambda: len(got) >= 20)
        assert {quote.symbol for quote in got} == {"AAPL"}
        assert all(type(quote).__name__ == "Quote" for quote in got)
        assert all(quote.ask_price > quote.bid_price > 0 and quote.timestamp.tzinfo for quote in got[:20])


async def test_alpaca_py_comes_back_after_a_drop() -> None:
    """After a drop it reconnects by itself and subscribes its whole set again."""
    got: list[Any] = []

    async def handler(quote: Any) -> None:
        got.append(quote)

    async with AlpacaSimulator(SimulatorSettings(rate=200)) as sim:
        async with streaming(sim, handler, raw_data=True):
            await sim.wait_for(lambda: len(got) >= 5)
            sim.drop(ghost=False)
            await sim.wait_for(lambda: bool(sim.closed) and sim.symbols == {"AAPL"}, timeout_s=15)
            seen = len(got)
            await sim.wait_for(lambda: len(got) > seen)
        assert not sim.closed[0].clean

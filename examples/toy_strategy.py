"""A toy market maker that trusts nothing: it quotes while prices are whole and fresh, and stops when they are not.

python examples/toy_strategy.py redis://127.0.0.1:6379/0 AAPL     # it places no orders, it prints what it would do

tests/examples/test_toy_strategy.py shows how such a strategy is tested without a server.
"""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from consumers import Bus, BusError, Gap, Quote, connect

MAX_AGE_S = 1.0
"""A quote that is older when its turn comes is not acted upon."""
SILENCE_S = 3.0
"""Nothing new for so long: ask whether that is the market or a fault."""
CALM_QUOTES = 3
"""So many quotes in a row after a stop before it quotes again."""


@dataclass
class Maker:
    """Decides what to do; knows neither Redis nor a clock."""

    act: Callable[[str], None]
    is_quoting: bool = False
    calm: int = 0
    price: float | None = None
    stops: list[str] = field(default_factory=list)

    def on_quote(self, quote: Quote) -> None:
        """Quote around the mid, once the market has been whole for a while."""
        self.calm += 1
        if quote.mid_price is None or quote.spread is None or quote.spread < 0:
            self.stop("one side is missing, or the market is crossed")
        elif self.calm >= CALM_QUOTES and (not self.is_quoting or quote.mid_price != self.price):
            self.is_quoting, self.price = True, quote.mid_price
            self.act(f"quote around {quote.mid_price:.3f}")

    def stop(self, why: str) -> None:
        """Take back what stands in the market, and wait for calm."""
        self.calm = 0
        self.stops.append(why)
        if self.is_quoting:
            self.is_quoting = False
            self.act(f"cancel: {why}")


async def trade(bus: Bus, symbol: str, maker: Maker, *, silence_s: float = SILENCE_S) -> None:
    """Read for ever. Whatever says that the picture has holes, or is old, stops the maker."""
    stream = bus.quotes(symbol, start="now", max_age_s=MAX_AGE_S)
    heard = asyncio.Event()

    async def read() -> None:
        async for item in stream:
            heard.set()
            if isinstance(item, Gap):
                maker.stop(f"{item.duration_s:.1f} s are missing ({item.reason})")
            else:
                maker.on_quote(item)

    async def watch() -> None:
        while True:
            heard.clear()
            try:
                async with asyncio.timeout(silence_s):
                    await heard.wait()
            except TimeoutError:
                try:
                    quality = (await bus.quality(symbol))[symbol]
                except BusError as error:
                    maker.stop(str(error))
                    continue
                if not quality.is_live:
                    maker.stop(f"{quality.level}: {quality.reason}")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        tasks.create_task(watch())


async def main(url: str, symbol: str) -> None:
    """The parts, put together."""
    async with connect(url) as bus:
        await trade(bus, symbol, Maker(lambda text: print(text, flush=True)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/toy_strategy.py REDIS_URL SYMBOL")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))
    except ExceptionGroup as errors:
        sys.exit("\n".join(map(str, errors.exceptions)))

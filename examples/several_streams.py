"""Three streams at once on one bus: every quote of one symbol, the newest of the others, and the last minute again.

python examples/several_streams.py redis://127.0.0.1:6379/0 AAPL MSFT TSLA
"""

import asyncio
import sys
import time

from consumers import Bus, BusError, Gap, connect


async def every_quote(bus: Bus, symbol: str) -> None:
    """One loop that must see everything."""
    async for item in bus.quotes(symbol):
        what = item.reason if isinstance(item, Gap) else f"{item.bid_price} x {item.ask_price}"
        print(f"every  {item.symbol} {what}", flush=True)


async def newest_only(bus: Bus, symbols: tuple[str, ...]) -> None:
    """One loop that is slow, and is handed the present whenever it asks."""
    async for item in bus.newest(*symbols):
        if not isinstance(item, Gap):
            quote = item.quote
            print(f"newest {quote.symbol} {quote.bid_price} ({item.conflated} passed over)", flush=True)
        await asyncio.sleep(0.5)


async def last_minute(bus: Bus, symbol: str) -> None:
    """One that ends by itself. Times are the venue's, in nanoseconds."""
    count = 0
    async for _ in bus.history(symbol, time.time_ns() - 60_000_000_000):
        count += 1
    print(f"before  {symbol} {count} entries in the last minute", flush=True)


async def main(url: str, first: str, *others: str) -> None:
    """Each loop has a connection of its own, so that none waits for another. One failure ends all three."""
    async with connect(url) as bus, asyncio.TaskGroup() as tasks:
        tasks.create_task(every_quote(bus, first))
        tasks.create_task(newest_only(bus, others))
        tasks.create_task(last_minute(bus, first))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python examples/several_streams.py REDIS_URL SYMBOL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))
    except ExceptionGroup as errors:
        sys.exit("\n".join(map(str, errors.exceptions)))

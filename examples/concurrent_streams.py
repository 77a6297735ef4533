"""Two streams at once on one service: each has its own symbols, its own pace, and its own end.

python examples/concurrent_streams.py redis://127.0.0.1:6379/0 AAPL MSFT     # Ctrl-C ends it
"""

import asyncio
import sys

from consumers import BusError, MarketDataService


async def fast(service: MarketDataService, symbol: str) -> None:
    """Takes each quote as it comes."""
    async for quote in service.stream_quotes([symbol]):
        print(f"fast {quote.symbol} {quote.mid_price}", flush=True)


async def slow(service: MarketDataService, symbol: str) -> None:
    """Takes half a second for each, which keeps nobody waiting, and has enough after three."""
    count = 0
    async with service.stream_quotes([symbol]) as stream:
        async for quote in stream:
            print(f"slow {quote.symbol} {quote.mid_price}", flush=True)
            await asyncio.sleep(0.5)
            count += 1
            if count == 3:
                break
    print(f"slow has ended, {service.get_stream_status()['subscribed_symbols']} goes on", flush=True)


async def main(url: str, first: str, second: str) -> None:
    """One service, so one bus, and the leases of both streams renewed by one task."""
    async with MarketDataService(redis_url=url) as service, asyncio.TaskGroup() as tasks:
        tasks.create_task(fast(service, first))
        tasks.create_task(slow(service, second))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/concurrent_streams.py REDIS_URL SYMBOL SYMBOL")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))
    except ExceptionGroup as errors:
        sys.exit("\n".join(map(str, errors.exceptions)))

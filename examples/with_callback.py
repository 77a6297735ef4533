"""A stream with a callback: it is called for each quote before the loop has it, and what it raises stops neither.

python examples/with_callback.py redis://127.0.0.1:6379/0 AAPL 20     # ends after 20 quotes
"""

import asyncio
import sys

from consumers import BusError, MarketDataService, Quote

highest: dict[str, float] = {}


async def note_highest_bid(quote: Quote) -> None:
    """A coroutine function here; a plain function does as well. A side that nobody quotes is None."""
    if quote.bid_price is None:
        raise ValueError(f"nobody bids for {quote.symbol}")
    highest[quote.symbol] = max(highest.get(quote.symbol, 0.0), quote.bid_price)


async def main(url: str, symbol: str, count: int) -> None:
    """The loop counts, the callback looks at prices."""
    async with MarketDataService(redis_url=url) as service:
        seen = 0
        async for quote in service.stream_quotes([symbol], callback=note_highest_bid):
            seen += 1
            print(f"{seen:4} {quote.symbol} {quote.bid_price}, highest {highest.get(symbol)}", flush=True)
            if seen == count:
                break
        print(f"{service.get_stream_status()['callback_errors']} errors in the callback")


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdecimal():
        sys.exit("usage: python examples/with_callback.py REDIS_URL SYMBOL COUNT")
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))

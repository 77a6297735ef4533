"""Print the newest quote of some symbols and leave.

python examples/latest.py redis://127.0.0.1:6379/0 AAPL MSFT
"""

import asyncio
import sys

from consumers import BusError, connect


async def main(url: str, *symbols: str) -> None:
    """One round trip to the cache."""
    async with connect(url) as bus:
        quotes = await bus.latest_many(*symbols)
    for symbol in symbols:
        quote = quotes.get(symbol)
        if quote is None:
            print(f"{symbol:8} no quote yet")
        else:
            print(f"{symbol:8} {quote.bid_price} x {quote.ask_price}  at {quote.time:%H:%M:%S.%f} UTC")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/latest.py REDIS_URL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (BusError, ValueError) as error:
        sys.exit(str(error))

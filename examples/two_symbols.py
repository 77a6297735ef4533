"""Two symbols in one loop: `MarketDataService.stream_quotes`, and nothing else.

python examples/two_symbols.py redis://127.0.0.1:6379/0 AAPL MSFT     # Ctrl-C ends it
"""

import asyncio
import sys

from consumers import BusError, MarketDataService


async def main(url: str, *symbols: str) -> None:
    """Needs no Alpaca key: streams come from Redis alone."""
    async with MarketDataService(redis_url=url) as service:
        async for quote in service.stream_quotes(symbols):
            print(f"{quote.symbol:8} {quote.mid_price}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python examples/two_symbols.py REDIS_URL SYMBOL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))

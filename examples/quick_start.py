"""The newest quote of some symbols, then every quote that follows, until Ctrl-C.

python examples/quick_start.py redis://127.0.0.1:6379/0 AAPL MSFT
"""

import asyncio
import sys

from consumers import BusError, Gap, connect


async def main(url: str, *symbols: str) -> None:
    """No quote is missed between the first one and the stream; where one is missing, a gap says so."""
    async with connect(url) as bus:
        newest = await bus.latest_many(*symbols)
        print(
            "in the cache:",
            ", ".join(f"{s} {newest[s].bid_price} x {newest[s].ask_price}" for s in newest) or "nothing yet",
            flush=True,
        )
        async for item in bus.quotes(*symbols, start="snapshot"):
            if isinstance(item, Gap):
                print(f"{item.symbol:8} {item.duration_s:.3f} s are missing: {item.reason}", flush=True)
            else:
                print(f"{item.symbol:8} {item.bid_price} x {item.ask_price}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/quick_start.py REDIS_URL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))

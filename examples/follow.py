"""Follow some symbols: the newest quote of each, then every one that comes, until Ctrl-C.

python examples/follow.py redis://127.0.0.1:6379/0 AAPL MSFT
"""

import asyncio
import sys

from consumers import BusError, Gap, connect


async def main(url: str, *symbols: str) -> None:
    """No quote is missed between the snapshot and the stream, and where one is missing a gap says so."""
    async with connect(url) as bus:
        async for item in bus.quotes(*symbols, start="snapshot"):
            if isinstance(item, Gap):
                print(f"{item.symbol:8} {item.duration_s:.3f} s are missing: {item.reason}")
            else:
                print(f"{item.symbol:8} {item.bid_price} x {item.ask_price}  mid {item.mid_price}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/follow.py REDIS_URL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))

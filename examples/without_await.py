"""The same bus without asyncio: plain `with` and `for`, and a wait with a time limit.

python examples/without_await.py redis://127.0.0.1:6379/0 AAPL MSFT     # Ctrl-C ends it
"""

import sys

from consumers import BusError
from consumers.sync import Gap, connect


def main(url: str, *symbols: str) -> None:
    """A strategy that has other things to do asks for the next item with a time limit."""
    with connect(url) as bus:
        for symbol, quote in bus.latest_many(*symbols).items():
            print(f"{symbol:8} {quote.bid_price} x {quote.ask_price} (cache)", flush=True)
        with bus.quotes(*symbols) as stream:
            while True:
                item = stream.get(timeout_s=1.0)
                if item is None:
                    print("nothing for a second", flush=True)
                elif isinstance(item, Gap):
                    print(f"{item.symbol:8} {item.duration_s:.3f} s are missing: {item.reason}", flush=True)
                else:
                    print(f"{item.symbol:8} {item.bid_price} x {item.ask_price}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/without_await.py REDIS_URL SYMBOL...")
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))

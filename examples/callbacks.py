"""Callbacks instead of a loop: one for a whole stream, one for a single symbol, sync and async, and one that fails.

python examples/callbacks.py redis://127.0.0.1:6379/0 AAPL MSFT     # Ctrl-C ends it, and prints the status
"""

import asyncio
import sys

from consumers import BusError, Gap, MarketDataService, Quote

widest: dict[str, float] = {}


def note_spread(quote: Quote) -> None:
    """A plain function: for work that takes microseconds."""
    if quote.spread is not None:
        widest[quote.symbol] = max(widest.get(quote.symbol, 0.0), quote.spread)


async def print_quote(quote: Quote) -> None:
    """A coroutine function: it is awaited, and may wait for other things."""
    await asyncio.sleep(0)
    print(f"{quote.symbol:8} {quote.bid_price} x {quote.ask_price}", flush=True)


def fail(quote: Quote) -> None:
    """A defect in one callback is logged and counted; the stream and the other callbacks go on."""
    raise RuntimeError(f"no idea what to do with {quote.symbol}")


def print_gap(gap: Gap) -> None:
    """Gaps do not come to the other callbacks."""
    print(f"{gap.symbol:8} {gap.duration_s:.3f} s are missing: {gap.reason}", flush=True)


async def main(url: str, *symbols: str) -> None:
    """Needs no Alpaca key: streams come from Redis alone."""
    async with MarketDataService(redis_url=url) as service:
        stream = service.stream_quotes(symbols, note_spread, on_gap=print_gap)
        for symbol in symbols:
            stream.add_callback(symbol, print_quote)
        stream.add_callback(symbols[0], fail)
        try:
            await stream
        finally:
            status = service.get_stream_status()
            print(f"{status['quotes']} quotes, {status['callback_errors']} errors in callbacks")
            print("widest spreads:", {symbol: round(spread, 4) for symbol, spread in widest.items()})


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/callbacks.py REDIS_URL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))

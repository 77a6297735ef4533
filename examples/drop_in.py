"""The stream example of alpaca-py, with one line changed: quotes come from the bus, so any number may run.

QUOTEBUS_REDIS_URL=redis://127.0.0.1:6379/0 python examples/drop_in.py AAPL MSFT     # needs quotebus[rest]
"""

import sys

from consumers.alpaca import StockDataStream  # was: from alpaca.data.live import StockDataStream

wss_client = StockDataStream("api-key", "secret-key")


async def quote_data_handler(data):
    """Gets alpaca-py's own model of a quote."""
    print(data, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/drop_in.py SYMBOL...")
    wss_client.subscribe_quotes(quote_data_handler, *sys.argv[1:])
    wss_client.run()

"""A stand-in for alpaca-py's stream: the same class, fed by the bus instead of a connection to Alpaca.

    from consumers.alpaca import StockDataStream  # was: from alpaca.data.live import StockDataStream

    stream = StockDataStream("key", "secret")
    stream.subscribe_quotes(handler, "AAPL")
    stream.run()

Decides only what is public. Needs alpaca-py, whose models it hands out: `pip install "quotebus[rest]"`.
"""

from consumers.alpaca.shapes import DataFeed
from consumers.alpaca.stream import StockDataStream

__all__ = ["DataFeed", "StockDataStream"]

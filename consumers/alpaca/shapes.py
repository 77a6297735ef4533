"""A quote of the bus in the shapes that alpaca-py hands out: its model, and the raw message.

Decides what stands where Alpaca sent nothing. Must never know where a quote comes from or goes to.
"""

from typing import Any

from wire import Quote

try:
    from alpaca.data.enums import DataFeed
    from alpaca.data.models import Quote as Model
    from msgpack import Timestamp
except ImportError as missing:
    raise ImportError(
        f"consumers.alpaca stands in for alpaca-py's stream and uses its models; {missing.name} is not installed: "
        'pip install "quotebus[rest]"',
        name=missing.name,
    ) from None

__all__ = ["DataFeed", "Model", "model", "raw"]


def raw(quote: Quote) -> dict[str, Any]:
    """The message as alpaca-py hands it out with `raw_data`; what Alpaca did not send is absent, a price is 0."""
    fields = {
        "T": "q",
        "S": quote.symbol,
        "bx": quote.bid_exchange,
        "bp": quote.bid_price or 0.0,
        "bs": quote.bid_size,
        "ax": quote.ask_exchange,
        "ap": quote.ask_price or 0.0,
        "as": quote.ask_size,
        "c": None if quote.conditions is None else list(quote.conditions),
        "z": quote.tape,
        "t": Timestamp.from_unix_nano(quote.time_ns),
    }
    return {name: value for name, value in fields.items() if value is not None}


def model(quote: Quote) -> Model:
    """alpaca-py's own model of it; a size that Alpaca did not send is 0, because the model must have one."""
    return Model(
        quote.symbol,
        {
            "t": quote.time,
            "bx": quote.bid_exchange,
            "bp": quote.bid_price or 0.0,
            "bs": quote.bid_size or 0,
            "ax": quote.ask_exchange,
            "ap": quote.ask_price or 0.0,
            "as": quote.ask_size or 0,
            "c": None if quote.conditions is None else list(quote.conditions),
            "z": quote.tape,
        },
    )

"""The bus for programs without an event loop: the same names as `consumers`, plain `with` and `for`.

    from consumers.sync import Gap, connect

    with connect("redis://127.0.0.1:6379/0") as bus:
        print(bus.latest("AAPL"))
        for item in bus.quotes("AAPL", "MSFT", start="snapshot"):
            if isinstance(item, Gap):
                print(f"{item.symbol}: {item.duration_s:.3f} s are missing ({item.reason})")
            else:
                print(item.symbol, item.bid_price, item.ask_price, item.time)

A strategy that has other things to do asks for the next item with a time limit:

        with bus.quotes("AAPL") as stream:
            while trading:
                item = stream.get(timeout_s=1.0)  # None when nothing came
                ...

Decides how another thread's loop is used as if there were none. Must never decide anything about quotes.
"""

from consumers.groups.delivery import Delivery
from consumers.reading.conflation import Newest
from consumers.sync.bus import Bus, connect
from consumers.sync.interest import Interest
from consumers.sync.streams import GroupStream, NewestStream, QuoteStream
from wire import Gap, Quality, Quote

__all__ = [
    "Bus",
    "Delivery",
    "Gap",
    "GroupStream",
    "Interest",
    "Newest",
    "NewestStream",
    "Quality",
    "Quote",
    "QuoteStream",
    "connect",
]

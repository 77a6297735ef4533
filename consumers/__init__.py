"""Quotes for a strategy: the newest of a symbol, and every one that follows, read from Redis.

    import asyncio
    from consumers import Gap, connect

    async def main() -> None:
        async with connect("redis://127.0.0.1:6379/0") as bus:
            print(await bus.latest("AAPL"))
            async for item in bus.quotes("AAPL", "MSFT", start="snapshot"):
                if isinstance(item, Gap):
                    print(f"{item.symbol}: {item.duration_s:.3f} s are missing ({item.reason})")
                else:
                    print(item.symbol, item.bid_price, item.ask_price, item.time)

    asyncio.run(main())

Decides the names that strategies may rely on. Must never import the daemon: a strategy installs `consumers` and
`wire` alone.
"""

from consumers.bus import Bus, connect
from consumers.errors import (
    BadNamespace,
    BadStart,
    BadSymbol,
    BadUrl,
    BusClosed,
    BusError,
    BusUnavailable,
    ContractTooNew,
    ExtraMissing,
    NotCarried,
    StaleQuote,
)
from consumers.groups.delivery import Delivery, GroupLag, Member
from consumers.groups.worker import GroupStream
from consumers.leases.interest import Interest
from consumers.reading.conflation import Newest
from consumers.reading.lag import Lag
from consumers.reading.newest import NewestStream
from consumers.reading.quotes import QuoteStream
from consumers.reading.start import Start
from consumers.reading.unserved import Unserved
from consumers.reconnect import Reconnect
from consumers.service import MarketDataService
from wire import EntryId, Gap, Level, Quality, Quote

__all__ = [
    "BadNamespace",
    "BadStart",
    "BadSymbol",
    "BadUrl",
    "Bus",
    "BusClosed",
    "BusError",
    "BusUnavailable",
    "ContractTooNew",
    "Delivery",
    "EntryId",
    "ExtraMissing",
    "Gap",
    "GroupLag",
    "GroupStream",
    "Interest",
    "Lag",
    "Level",
    "MarketDataService",
    "Member",
    "Newest",
    "NewestStream",
    "NotCarried",
    "Quality",
    "Quote",
    "QuoteStream",
    "Reconnect",
    "StaleQuote",
    "Start",
    "Unserved",
    "connect",
]

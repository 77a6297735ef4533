"""One object for a strategy that wants quotes and does not want to know how: `MarketDataService`.

Decides nothing itself: streams, callbacks and questions each have a module. Must never be needed by the rest of the
library.
"""

from consumers.service.latest import LatestQuotes
from consumers.service.market_data import MarketDataService
from consumers.service.status import DaemonStatus, ServiceStatus, StreamStatus, WhyUnserved
from consumers.service.stream import ServiceStream

__all__ = [
    "DaemonStatus",
    "LatestQuotes",
    "MarketDataService",
    "ServiceStatus",
    "ServiceStream",
    "StreamStatus",
    "WhyUnserved",
]

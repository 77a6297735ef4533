"""One object for a strategy that wants quotes and does not want to know how: `MarketDataService`.

Decides nothing itself: streams, callbacks and questions each have a module. Must never be needed by the rest of the
library.
"""

from consumers.service.market_data import MarketDataService, ServiceStatus
from consumers.service.stream import ServiceStream, StreamStatus

__all__ = ["MarketDataService", "ServiceStatus", "ServiceStream", "StreamStatus"]

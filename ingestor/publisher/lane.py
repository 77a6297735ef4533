"""The tail of one symbol's stream, as the one who writes it knows it.

Decides nothing: the stamper does. Must never know Redis or the clock. A class of its own with slots, because there
is one for each symbol and every quote passes through one.
"""

from ingestor.publisher.batch import Row
from wire import EntryId


class Lane:
    """The tail of one symbol's stream, as this writer knows it."""

    __slots__ = (
        "exists",
        "gap_from_ns",
        "gap_missing",
        "gap_reason",
        "last_ms",
        "last_n",
        "last_time_ns",
        "row",
        "since_ns",
        "symbol",
    )

    def __init__(self, symbol: str, last: EntryId, last_time_ns: int | None, exists: bool) -> None:
        self.symbol = symbol
        self.last_ms, self.last_n = last
        self.last_time_ns = last_time_ns
        self.since_ns = last_time_ns
        self.exists = exists
        self.gap_from_ns: int | None = None
        self.gap_reason = ""
        self.gap_missing: int | None = None
        self.row: Row | None = None

"""Quotes, gaps and bars as frames: pandas, polars, Arrow.

    from consumers.analysis import collect, to_pandas

    items = await collect(bus.history("AAPL", start, end))
    quotes = to_pandas(items)
    gaps = to_pandas(items, of=Gap)

`columns` decides names and kinds, `frames` hands them to a library that is imported only then. Must never read
from Redis.
"""

from consumers.analysis.collect import collect
from consumers.analysis.frames import to_arrow, to_pandas, to_polars

__all__ = ["collect", "to_arrow", "to_pandas", "to_polars"]

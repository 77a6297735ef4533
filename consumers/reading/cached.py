"""What a field of the two caches holds, the daemon's and the one of REST.

Decides that a field that cannot be read is no quote, and is told. Must never ask for one.
"""

import logging

from wire import BadEntry, Quote, Symbol, decode_latest

_log = logging.getLogger(__name__)


def readable_quote(symbol: Symbol, value: bytes | None) -> Quote | None:
    """The quote in this field; None where there is none, or none that can be read."""
    if value is None:
        return None
    try:
        return decode_latest(symbol, value)
    except BadEntry as error:
        _log.warning("ignored: %s", str(error)[:300])
        return None

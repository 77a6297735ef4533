"""What a raw stream entry says: a quote, a gap marker, or nothing that this contract knows.

Decides which field counts. Must never know where the entry came from.
"""

from typing import Final

from wire import GAP_FIELD, QUOTE_FIELD, BadEntry, Gap, Quote, decode_gap, decode_quote

QUOTE: Final = QUOTE_FIELD.encode()
GAP: Final = GAP_FIELD.encode()


def decode_entry(symbol: str, entry_id: str, fields: list[bytes]) -> Quote | Gap:
    """The quote or gap of one raw entry (field, value, field, value, ...); `BadEntry` if it is neither."""
    if fields[0] == QUOTE:
        return decode_quote(symbol, entry_id, fields[1])
    values = dict(zip(fields[::2], fields[1::2], strict=False))
    if QUOTE in values:
        return decode_quote(symbol, entry_id, values[QUOTE])
    if GAP in values:
        return decode_gap(symbol, entry_id, values[GAP])
    raise BadEntry(symbol, entry_id, f"it has neither a {QUOTE_FIELD!r} nor a {GAP_FIELD!r} field")

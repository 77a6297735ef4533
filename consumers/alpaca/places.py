"""Where streams are to be read from: each one's end, or where one goes on that was left in the midst of a batch.

Decides what the bus carries, for who wants all of it. Must never read a quote.
"""

import contextlib

from consumers.bus import Bus, parts_of
from consumers.reading.start import before
from wire import BadSymbol, EntryId, Gap, Quote, parse_symbol


async def carried(bus: Bus) -> set[str]:
    """All symbols that the daemon subscribes, or would."""
    link, keys = parts_of(bus)
    (names,) = await link.ask(("HKEYS", keys.subscriptions))
    carried: set[str] = set()
    for name in names:
        # The daemon shows names that it refused, too.
        with contextlib.suppress(BadSymbol, UnicodeDecodeError):
            carried.add(parse_symbol(name.decode()))
    return carried


async def ends(bus: Bus, symbols: list[str]) -> dict[str, str]:
    """Where the stream of each symbol ends now; `earliest` where there is none yet."""
    if not symbols:
        return {}
    link, keys = parts_of(bus)
    replies = await link.ask_each(
        *(("XREVRANGE", keys.stream(symbol), "+", "-", "COUNT", 1) for symbol in symbols)
    )
    return {
        symbol: reply[0][0].decode() if reply else "earliest"
        for symbol, reply in zip(symbols, replies, strict=True)
        if isinstance(reply, list)
    }


def places_before(items: list[Quote | Gap]) -> dict[str, str]:
    """Where each symbol has to go on for these to come again."""
    places: dict[str, str] = {}
    for item in items:
        if item.id is not None:
            places.setdefault(item.symbol, str(before(EntryId.parse(item.id))))
    return places

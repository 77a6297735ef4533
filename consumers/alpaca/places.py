"""Where streams are to be read from: each one's end, or where one goes on that was left in the midst of a batch.

Decides what the bus carries, for who wants all of it. Must never read a quote.
"""

import contextlib
from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

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


class Hand:
    """What one reader has read and not handed out; the stream's own positions are those behind it."""

    def __init__(self) -> None:
        self._items: deque[Quote | Gap] = deque()

    def take(self, items: Iterable[Quote | Gap]) -> None:
        """All of these are to be handed out next."""
        self._items.extend(items)

    def next(self) -> Quote | Gap | None:
        """The next to be handed out; None when there is none."""
        return self._items.popleft() if self._items else None

    def places(self) -> dict[str, str]:
        """Where each symbol has to go on for these to come again."""
        places: dict[str, str] = {}
        for item in self._items:
            if item.id is not None:
                places.setdefault(item.symbol, str(before(EntryId.parse(item.id))))
        return places

    def leave(self, symbols: AbstractSet[str]) -> dict[str, str]:
        """Another reader takes these over, from the places that are returned on: they are not handed out here."""
        places = self.places()
        self._items = deque(item for item in self._items if item.symbol not in symbols)
        return {symbol: place for symbol, place in places.items() if symbol in symbols}

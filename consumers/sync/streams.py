"""The twins of what a bus lets one read: every quote, the newest ones, a share of a group's work.

Decides what positions and lag are while the loop has read more than was handed out. Must never know Redis: whatever
is asked of it is asked of the twin in the loop.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any, TypeVar

from consumers import bus as native
from consumers.groups.delivery import Delivery, GroupLag
from consumers.reading import quotes
from consumers.reading.conflation import Newest
from consumers.reading.freshness import too_old
from consumers.reading.lag import Lag
from consumers.reading.start import before
from consumers.sync.portal import Portal
from consumers.sync.reading import Reading, singly
from wire import EntryId, Gap, Quote

T = TypeVar("T")


class Following(Reading[T]):
    """What streams without a group have: a place of their own in each symbol's stream."""

    def __init__(self, owner: object, portal: Portal[native.Bus], source: Any) -> None:
        super().__init__(owner, portal, source)
        # Symbol -> id of the last entry handed out; None behind a gap that has no entry.
        self._after: dict[str, str | None] = {}

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> entry id after which reading goes on: that of the last item handed out.

        Save it, and pass it as `start` later: nothing is missed and nothing comes twice. A symbol whose start
        Redis has not yet been asked for is absent. To be had after the bus was closed, too.
        """
        return self._even_closed(self._places)

    def _places(self) -> dict[str, str]:
        positions: dict[str, str] = dict(self._source.positions)
        places: dict[str, str | None] = {}
        for item in self._waiting():
            symbol, entry_id = item.symbol, self._id_of(item)  # type: ignore[attr-defined]
            if places.get(symbol) is None:
                behind = None if entry_id is None else str(before(EntryId.parse(entry_id)))
                places[symbol] = self._after.get(symbol) or behind
        return positions | {symbol: place for symbol, place in places.items() if place is not None}

    @staticmethod
    def _id_of(item: Any) -> str | None:
        entry_id: str | None = item.id
        return entry_id

    def _note(self, item: T) -> None:
        self._after[item.symbol] = self._id_of(item)  # type: ignore[attr-defined]

    def _begin(self) -> None:
        self._after |= self._on_loop(lambda: dict(self._source.positions))

    def _forget(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self._after.pop(symbol, None)


class QuoteStream(Following[Quote | Gap]):
    """Quotes and gaps of some symbols, to be read with `for`; made by `Bus.quotes`.

    Entries of one symbol come in the stream's order; between symbols they come as they were read, which while
    catching up is not by time. Leaving the loop (break, exception, Ctrl-C) closes the connection; another `for`
    over the same object goes on after the last item that was handed out. Nothing is read before it is asked for.
    """

    def batches(self) -> Iterator[list[Quote | Gap]]:
        """The same items in lists, one per read, never empty: the quickest way through a long stream.

        All items of a list count as handed out with it: `positions` lie behind the list.
        """
        turn = self._take_over()
        portal = self._portal
        try:
            while True:
                batch = self._batch
                rest = [item for item in batch[self._index :] if item is not None]
                after, end = {item.symbol: item.id for item in rest}, len(batch)
                # No call between here and the hand-over, so that a Ctrl-C, or another thread that closes this and
                # puts together what is left, comes before all or after all.
                if rest and not (self._closed or portal.is_closed):
                    self._after |= after
                    self._index = end
                    yield rest
                    if turn != self._turn:
                        raise self._taken_over()
                elif not self._refill(None):
                    return
        finally:
            self._leave(turn)

    def lag(self, *symbols: str) -> dict[str, Lag]:
        """How far behind the strategy is, by symbol (all of them, if none is named); see `Lag`.

        A symbol that is not followed, or whose start Redis has not yet been asked for, is absent. Raises
        `BadSymbol`, `BusUnavailable`, `BusClosed`.
        """

        async def ask(_: native.Bus) -> dict[str, Lag]:
            waiting: dict[str, list[str]] = {}
            for item in self._waiting():
                if item.id is not None:
                    waiting.setdefault(item.symbol, []).append(item.id)
            places: dict[str, str] = self._source.positions
            lags: dict[str, Lag] = await self._source.lag(*symbols)
            return {
                symbol: _with_waiting(lag, waiting.get(symbol, []), places.get(symbol, "0-0"))
                for symbol, lag in lags.items()
            }

        return self._portal.call(ask)

    def _note(self, item: Quote | Gap) -> None:
        self._after[item.symbol] = item.id

    def _look_again(self, batch: list[Quote | Gap]) -> None:
        source: quotes.QuoteStream = self._source
        guard = source._guard
        if guard is None:
            return

        def judge() -> None:
            # In place: a batch is known by being itself.
            for at, item in enumerate(batch):
                if isinstance(item, Quote) and not source._is_fresh(guard, item):
                    batch[at] = too_old(item.symbol, 1, item.time_ns, item.time_ns)

        self._on_loop(judge)

    @staticmethod
    def _batches_of(source: quotes.QuoteStream) -> AsyncGenerator[list[Quote | Gap], None]:
        # With a limit of age each quote is judged when it is handed over, and so crosses by itself.
        return source.batches() if source._guard is None else singly(source)


class NewestStream(Following[Newest | Gap]):
    """The newest quote of each symbol as `Newest`, and gaps; to be read with `for`; made by `Bus.newest`.

    Symbols take turns in the order in which something new came. A gap comes before the first quote after it that is
    handed over. Leaving the loop closes the connection; another loop over the same object goes on where it stood.
    After a `get` that gave up, the next item is the first that came since, and those after it are the newest.
    """

    def lag(self, *symbols: str) -> dict[str, Lag]:
        """How far behind the strategy is, by symbol (all of them, if none is named); see `Lag`.

        A symbol that is not followed, or whose start Redis has not yet been asked for, is absent. Raises
        `BadSymbol`, `BusUnavailable`, `BusClosed`.
        """
        return dict(self._portal.call(lambda _: self._source.lag(*symbols)))

    @staticmethod
    def _id_of(item: Newest | Gap) -> str | None:
        return item.quote.id if isinstance(item, Newest) else item.id


class GroupStream(Reading[Delivery]):
    """This worker's share of some symbols' entries, to be read with `for`; made by `Bus.group`.

    Yields `Delivery`. Entries of one symbol come in the stream's order, but for those that are delivered again.
    Leaving the loop closes the connection; what was handed over and not acknowledged stays this worker's. `with`
    leaves for good at its end.
    """

    @property
    def group(self) -> str:
        """The group's name."""
        return str(self._source.group)

    @property
    def consumer(self) -> str:
        """This worker's name in the group."""
        return str(self._source.consumer)

    @property
    def unacknowledged(self) -> int:
        """Entries handed over by this object and not acknowledged."""
        return int(self._source.unacknowledged)

    @property
    def acks_waiting(self) -> int:
        """Acknowledgements that Redis has not confirmed; they are sent again with each step of the loop."""
        return int(self._source.acks_waiting)

    def ack(self, *deliveries: Delivery) -> None:
        """These have been handled and shall not be delivered again; many at once cost one round trip.

        When Redis does not answer, returns all the same: the loop sends them again when it is back, and until
        then they count as `acks_waiting`. Raises `BusUnavailable` when Redis refuses us, `BusClosed`.
        """
        self._portal.call(lambda _: self._source.ack(*deliveries))

    def lag(self, *symbols: str) -> dict[str, GroupLag]:
        """How far the group is behind in each symbol (all of this worker's, if none is named), and who has what.

        Right after trimming, too. Raises `BadSymbol`, `BusUnavailable`, `BusClosed`.
        """
        return dict(self._portal.call(lambda _: self._source.lag(*symbols)))


def _with_waiting(lag: Lag, waiting: list[str], read_to: str) -> Lag:
    """The lag of who has read up to `read_to`, with the entries that were read and not handed out."""
    if not waiting:
        return lag
    held_ms = (EntryId.parse(read_to).time_ns - EntryId.parse(waiting[0]).time_ns) / 1e6
    return Lag(lag.symbol, lag.entries + len(waiting), lag.is_exact, lag.ms + max(held_ms, 0.0))

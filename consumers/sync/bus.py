"""The twin of the bus: the same names, asked without `await`.

Decides nothing of its own: each question goes to the bus in the loop, and its answer or its error comes back. Must
never hold a connection.
"""

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar

from consumers import bus as native
from consumers.errors import BusClosed
from consumers.reading.history import PastQuotes
from consumers.reading.start import Start
from consumers.reconnect import Reconnect
from consumers.rest.budget import CALLS_PER_MINUTE, Budget
from consumers.sync.interest import Interest
from consumers.sync.portal import Portal
from consumers.sync.pump import Pump
from consumers.sync.reading import in_chunks
from consumers.sync.streams import GroupStream, NewestStream, QuoteStream
from wire import QUIET_AFTER_S, Gap, Quality, Quote

R = TypeVar("R")

CHUNK: Final = 1_000
"""Items of a history that cross from thread to thread together."""
CALL_LIMITS: Final = 6
"""A question may open a connection, log in and be asked, twice: six waits of `timeout_s` each."""


def connect(
    url: str | None = None,
    *,
    namespace: str = "quotes",
    reconnect: Reconnect | None = None,
    timeout_s: float | None = None,
    name: str | None = None,
) -> "Bus":
    """The bus on this Redis, to be opened with `with`; parameters and errors as those of `consumers.connect`."""
    bus = native.connect(url, namespace=namespace, reconnect=reconnect, timeout_s=timeout_s, name=name)
    return Bus(bus, limit_s=CALL_LIMITS * bus._target.timeout_s)


class Bus:
    """The quotes of one namespace on one Redis server, for programs without an event loop; made by `connect`.

    Any number of threads may use it at once; each stream belongs to the thread that reads it. Its own loop runs in
    one daemon thread, from `with` (or `open`) to its end, so it works where a loop runs already, as in a
    notebook. No call waits for ever: after six times `timeout_s` it raises `BusUnavailable`. Ctrl-C ends any wait.
    After a fork the child opens a bus of its own; this one raises `BusError` there.
    """

    def __init__(self, bus: native.Bus, *, limit_s: float) -> None:
        self.name: Final = bus.name
        """Who asks, as CLIENT LIST has it after the library's own name."""
        self._portal: Final = Portal(f"quotebus {bus.name}", bus, bus._target.address, limit_s)
        # Whoever forgets to close, or leaves the interpreter, leaves no lease behind either.
        self._forgotten: Final = weakref.finalize(self, self._portal.close)

    def open(self) -> Self:
        """What entering `with` does, for a notebook whose cells cannot share one; then `close` ends it."""
        self._portal.open()
        return self

    def close(self) -> None:
        """End every iteration and close every connection, within 5 s. May be called again, from any thread."""
        self._portal.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def latest(self, symbol: str, *, max_age_s: float | None = None) -> Quote | None:
        """The newest known quote of a symbol, or None: the newer, by venue time, of stream cache and REST cache.

        With `max_age_s` one that was received longer ago, by the server's clock, raises `StaleQuote`. Raises
        `BadSymbol`, `ValueError`, `BusUnavailable`.
        """
        return self._ask(lambda bus: bus.latest(symbol, max_age_s=max_age_s))

    def latest_many(self, *symbols: str, max_age_s: float | None = None) -> dict[str, Quote]:
        """The newest known quotes in one round trip.

        A symbol without one is absent, and so is one whose quote was received more than `max_age_s` ago. Raises as
        `latest` does, but for `StaleQuote`.
        """
        return self._ask(lambda bus: bus.latest_many(*symbols, max_age_s=max_age_s))

    def quality(self, *symbols: str, quiet_after_s: float = QUIET_AFTER_S) -> dict[str, Quality]:
        """How far each symbol's cached quote can be trusted now, in one round trip; see `Level`.

        A symbol is quiet when its newest quote was received more than `quiet_after_s` ago. Raises `BadSymbol`,
        `BusUnavailable`.
        """
        return self._ask(lambda bus: bus.quality(*symbols, quiet_after_s=quiet_after_s))

    def quotes(
        self,
        *symbols: str,
        start: Start | Mapping[str, Start] = "now",
        max_age_s: float | None = None,
        lease: bool = True,
    ) -> QuoteStream:
        """Follow symbols for as long as the loop runs; see `Start` for where to begin.

        A mapping gives each symbol its own start, as `QuoteStream.positions` does; a symbol it lacks begins
        now. A `Gap` stands where quotes are missing. While Redis is away the iteration waits and goes on where it
        stood. With `max_age_s` a quote that was received longer ago when its turn comes is not handed over: a `Gap`
        with the reason `too_old` stands for it. That costs a good deal of speed here, because quotes then cross to
        this thread one by one.

        From the first item on, until the loop or the stream ends, the bus keeps a lease on each symbol, so that the
        daemon subscribes it; `lease=False` takes none. Raises `BadSymbol`, `BadStart` and `ValueError` at once,
        `BusUnavailable` from the iteration, `BusClosed`.
        """
        source = self._made(lambda bus: bus.quotes(*symbols, start=start, max_age_s=max_age_s, lease=lease))
        return QuoteStream(self, self._portal, source)

    def newest(
        self,
        *symbols: str,
        start: Start | Mapping[str, Start] = "now",
        max_age_s: float | None = None,
        lease: bool = True,
    ) -> NewestStream:
        """Follow symbols, but only the newest quote of each whenever the loop asks: for who need not see every one.

        Yields `Newest`, which says how many quotes were passed over, and `Gap`. Starts, errors, `max_age_s` and
        `lease` as with `quotes`; a gap `too_old` counts the quote and those it stood for.
        """
        source = self._made(lambda bus: bus.newest(*symbols, start=start, max_age_s=max_age_s, lease=lease))
        return NewestStream(self, self._portal, source)

    def group(
        self,
        group: str,
        *symbols: str,
        consumer: str | None = None,
        start: Start | Mapping[str, Start] = "now",
        claim_after_s: float = 30.0,
        lease: bool = True,
        auto_ack: bool = False,
        leave: bool | None = None,
        prefetch: int = 500,
    ) -> GroupStream:
        """Share the work on these symbols with every other worker of this group: each entry goes to one of them.

        Each delivery is to be acknowledged: `stream.ack(delivery)`. What its worker does not acknowledge within
        `claim_after_s` is delivered again, so each entry is handled at least once. `auto_ack` acknowledges a
        delivery when the next one is asked for. All else as `consumers.Bus.group` says.

        Raises `BadSymbol`, `BadStart` and `ValueError` at once, `BusUnavailable` from the iteration, `BusClosed`.
        """
        source = self._made(
            lambda bus: bus.group(
                group,
                *symbols,
                consumer=consumer,
                start=start,
                claim_after_s=claim_after_s,
                lease=lease,
                auto_ack=auto_ack,
                leave=leave,
                prefetch=prefetch,
            )
        )
        return GroupStream(self, self._portal, source)

    def interest(self, *symbols: str) -> Interest:
        """Symbols that shall be subscribed while `with` runs, without reading them.

        A loop over `quotes` takes its leases by itself; this is for who only asks for `latest`, or reads in another
        program. Raises `BadSymbol`, `BusClosed`.
        """
        return Interest(self, self._portal, self._made(lambda bus: bus.interest(*symbols)))

    def history(
        self,
        symbol: str,
        start: datetime | int,
        end: datetime | int | None = None,
        *,
        rest: PastQuotes | None = None,
    ) -> Iterator[Quote | Gap]:
        """What the stream holds from `start` up to, not including, `end` (None: up to its last entry now).

        With `rest` (an `AlpacaRest` that nothing else uses) what the stream no longer holds comes from there. Times
        are venue times, as aware datetimes or nanoseconds since the epoch. Unreadable entries are logged and
        skipped. Raises `BadSymbol`, `BadStart`, `BusUnavailable`, `RestError`, and `BusClosed` where another thread
        closes the bus meanwhile, from the iteration.
        """
        return self._all(lambda bus: bus.history(symbol, start, end, rest=rest))

    def budget(self, key_id: str, calls_per_minute: int = CALLS_PER_MINUTE) -> Budget:
        """The count of REST calls that all strategies of this Alpaca key share; for `AlpacaRest(…, budget=…)`."""
        return self._made(lambda bus: bus.budget(key_id, calls_per_minute))

    def share(self, *quotes: Quote) -> None:
        """Let everybody's `latest` have quotes that `AlpacaRest.latest_quotes` brought, where they are newer.

        Raises `ValueError` for one that a stream brought, `BusUnavailable`, `BusClosed`.
        """
        self._ask(lambda bus: bus.share(*quotes))

    def _ask(self, ask: Callable[[native.Bus], Awaitable[R]]) -> R:
        return self._portal.call(ask)

    def _made(self, make: Callable[[native.Bus], R]) -> R:
        """What is made on the loop, because the bus keeps account of it there."""

        async def made(bus: native.Bus) -> R:
            return make(bus)

        return self._portal.call(made)

    def _all(self, items: Callable[[native.Bus], AsyncGenerator[R, None]]) -> Iterator[R]:
        self._portal.check()
        pump: Pump[R] = Pump(self._portal, lambda: in_chunks(items(self._portal.thing), CHUNK))
        chunk: list[R] | None = None
        try:
            while (chunk := pump.take(chunk)) is not None:
                yield from chunk
            if not pump.is_whole:
                # Of a stream that is followed there is always more to come; of these there would be some missing.
                raise BusClosed("the bus was closed before all had been read")
        finally:
            pump.stop()

    def __repr__(self) -> str:
        return f"<sync.Bus {'open' if self._portal.is_open else 'closed'} {self._portal.address}>"

"""One stream of a service: quotes to a loop, to callbacks, or to both.

Decides the order of things for one item (count, callbacks, loop) and what is let go of at the end. Must never
decide how entries are read or when a connection is given up: that is the bus's reader, which it stands on.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from consumers.arguments import check_max_age_s
from consumers.bus import Bus
from consumers.errors import BusError, BusUnavailable
from consumers.reading.gaps import STREAM_RECREATED
from consumers.reading.quotes import QuoteStream
from consumers.reading.reader import following_of
from consumers.reading.start import Start, parse_starts, parse_symbols
from consumers.reconnect import Loudness, Reconnect
from consumers.service.awaiting import RunsWhenAwaited
from consumers.service.book import Callback, CallbackBook, checked
from consumers.service.callbacks import Caller, SharedCallbacks
from consumers.service.status import StreamStatus, WhyUnserved
from wire import Gap, Quote, Symbol

_log = logging.getLogger(__name__)
_names: Final = itertools.count(1)


def symbols_of(symbols: object) -> list[Symbol]:
    """The symbols a caller named: one as text, or several in a list, tuple or set; `BadSymbol` with the reason."""
    if isinstance(symbols, str) or not isinstance(symbols, Iterable):
        return parse_symbols((symbols,))
    return parse_symbols(tuple(symbols))


class ServiceStream(RunsWhenAwaited):
    """The quotes of some symbols; made by `MarketDataService.stream_quotes`.

    Read it with `async for`, which yields each `Quote`, or await it to live by callbacks alone: `await stream`,
    `asyncio.create_task(stream)` and `await stream.run()` are the same. For each quote the callbacks are called
    first, one after the other, and then the loop has it. They are awaited: a slow one makes this stream slower and
    no other, and nothing piles up in memory.

    It is read once. Leaving the loop, an exception, cancellation, `aclose()` and the garbage collector all end it:
    its lease on the symbols is withdrawn, its callbacks are forgotten, its connection is closed.
    """

    def __init__(
        self,
        open_bus: Callable[[], Awaitable[Bus]],
        ended: Callable[["ServiceStream"], None],
        reconnect: Reconnect,
        shared: SharedCallbacks,
        symbols: str | Iterable[str],
        callback: Callback | None,
        *,
        on_gap: Callable[[Gap], Any] | None,
        start: Start | Mapping[str, Start],
        max_age_s: float | None,
        callback_timeout_s: float | None,
    ) -> None:
        names = symbols_of(symbols)
        parse_starts(names, start)
        check_max_age_s(max_age_s)
        self._starts: dict[str, Start] = {
            name: start.get(name, "now") if isinstance(start, Mapping) else start for name in names
        }
        self._open_bus: Final = open_bus
        self._ended: Final = ended
        self._reconnect: Final = reconnect
        self._shared: Final = shared
        self._name: Final = next(_names)
        """Which stream of the service it is, for the callbacks that several may bring the same to."""
        self._callback = None if callback is None else checked(callback)
        self._on_gap = None if on_gap is None else checked(on_gap)
        self._max_age_s: Final = max_age_s
        self._book: Final = CallbackBook()
        self._caller: Final = Caller(callback_timeout_s)
        self._closing: Final = asyncio.Event()
        self._source: QuoteStream | None = None
        self._own: AsyncGenerator[Quote, None] | None = None
        self._is_begun = False
        self._opening_failures = 0
        self._loudness: Final = Loudness()
        self._quotes = 0
        self._gaps = 0
        self._lag_ms: float | None = None

    # -- what it reads -----------------------------------------------------------------------------------------

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed; none after the end."""
        if self._closing.is_set():
            return frozenset()
        return frozenset(self._starts) if self._source is None else self._source.symbols

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> id of the last entry handed out: pass it as `start` to go on there, also after the end."""
        return {} if self._source is None else self._source.positions

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._is_begun and not self._closing.is_set()

    @property
    def source(self) -> QuoteStream | None:
        """The native stream underneath, once it has begun."""
        return self._source

    def add_symbols(self, symbols: str | Iterable[str], *, start: Start = "now") -> None:
        """Follow more symbols, from the next read on (within half a second). Raises `BadSymbol` and `BadStart`."""
        names = symbols_of(symbols)
        self._check_not_ended()
        if self._source is not None:
            self._source.add(*names, start=start)
            return
        parse_starts(names, start)
        for name in names:
            self._starts.setdefault(name, start)

    def remove_symbols(self, symbols: str | Iterable[str]) -> None:
        """Follow these symbols no more, at once, and forget their own callbacks. Raises `BadSymbol`."""
        for name in symbols_of(symbols):
            self._book.remove(name)
            self._starts.pop(name, None)
            if self._source is not None:
                self._source.remove(name)

    def add_callback(self, symbol: str, callback: Callback) -> None:
        """Call this with each quote of one symbol that the stream follows. Raises `BadSymbol`, `TypeError`."""
        (name,) = symbols_of(symbol)
        self._check_not_ended()
        self._book.add(name, callback)

    def remove_callback(self, symbol: str, callback: Callback | None = None) -> int:
        """Call it no more, or, without one, none of the symbol's; how many that were. Raises `BadSymbol`."""
        (name,) = symbols_of(symbol)
        return self._book.remove(name, callback)

    # -- how it is read ----------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Quote]:
        # A generator and not __anext__: Python closes a generator that a loop has left, and nothing else.
        return self._items()

    async def __anext__(self) -> Quote:
        if self._own is None:
            self._own = self._items()
        return await anext(self._own)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def run(self) -> None:
        """Read until the stream is ended, for the callbacks alone. Raises as the loop does."""
        is_heard = self._callback or self._on_gap or len(self._book) + len(self._shared)
        # One that was ended before its first turn has forgotten its callbacks.
        if not is_heard and not self._closing.is_set():
            _log.warning(
                "quotes of %s go to nobody: pass a callback, add one, or read with `async for`",
                ", ".join(sorted(self._starts)[:5]) or "no symbols",
            )
        async with contextlib.aclosing(self._items()) as quotes:
            async for _ in quotes:
                pass

    async def aclose(self) -> None:
        """End it wherever it waits, and let go of all it holds; a callback under way ends by itself."""
        self._let_go()
        if self._source is not None:
            await self._source.aclose()

    def status(self) -> StreamStatus:
        """How it stands, from its own state: nothing is asked, so it costs nothing."""
        source = self._source
        reading = source is not None and self.is_running
        return StreamStatus(
            connected=reading and source is not None and source.is_connected,
            wanted_symbols=sorted(self.symbols),
            subscribed_symbols=[] if source is None else sorted(source.subscribed),
            unserved={
                symbol: WhyUnserved(state=why.state, reason=why.reason)
                for symbol, why in ({} if source is None else source.unserved).items()
            },
            active_callbacks=len(self._book) + (self._callback is not None) + (self._on_gap is not None),
            reconnect_attempts=self._opening_failures if source is None else source.failures,
            quotes=self._quotes,
            gaps=self._gaps,
            malformed=0 if source is None else source.unreadable,
            callback_errors=self._caller.errors,
            lag_ms=self._lag_ms,
        )

    def __del__(self) -> None:
        # Its constructor may have raised.
        closing = getattr(self, "_closing", None)
        if closing is not None and not closing.is_set() and not self._is_begun:
            _log.warning(
                "a stream of %s was made and never read, so no callback was called: "
                "use `async for`, or await it",
                ", ".join(sorted(self._starts)[:5]) or "no symbols",
            )

    def __repr__(self) -> str:
        state = "running" if self.is_running else "ended" if self._closing.is_set() else "not begun"
        return f"<ServiceStream {state} {len(self.symbols)} symbols>"

    def _let_go(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            self._ended(self)
        self._callback = self._on_gap = None
        self._book.clear()
        self._shared.forget(self._name)

    async def _items(self) -> AsyncGenerator[Quote, None]:
        if self._closing.is_set() and not self._is_begun:
            # Ended between its making and its first turn, as by a disconnect: there is nothing to complain of.
            return
        self._check_not_ended()
        if self._is_begun:
            raise BusError(f"{self!r} is read by another loop: call stream_quotes() again for a second one")
        self._is_begun = True
        try:
            bus = await self._reach()
            if bus is None:
                return
            self._source = self._begin(bus)
            self._shared.join(self._name, self._following)
            # Its __aiter__ returns a generator, which has to be closed here and now, not by the garbage collector.
            items: Any = aiter(self._source)
            async with contextlib.aclosing(items):
                async for item in items:
                    await self._hand_to_callbacks(item)
                    if self._closing.is_set():
                        return
                    if isinstance(item, Quote):
                        yield item
        finally:
            await self.aclose()

    def _following(self, symbol: str) -> Hashable:
        """See `OnceEach`. The source is asked, which a strategy may tell by itself what to follow."""
        return None if self._source is None else following_of(self._source, symbol)

    async def _hand_to_callbacks(self, item: Quote | Gap) -> None:
        call = self._caller.call
        # Before any callback, which may remove the symbol, and even add it again.
        following = self._following(item.symbol)
        if isinstance(item, Gap):
            self._gaps += 1
            if item.reason == STREAM_RECREATED:
                self._shared.begin_anew(self._name, following, item.symbol)
            elif item.id is None:
                # Found by this reader: what it passes over here, another one may bring.
                self._shared.skipped(self._name, item.symbol)
            if self._on_gap is not None:
                await call(self._on_gap, item)
            return
        self._quotes += 1
        self._lag_ms = (time.time_ns() - (item.received_ns or item.time_ns)) / 1e6
        if self._callback is not None:
            await call(self._callback, item)
        for callback in self._book.of(item.symbol):
            await call(callback, item)
        await self._shared.tell(self._name, following, item)

    async def _reach(self) -> Bus | None:
        while not self._closing.is_set():
            try:
                bus = await self._open_bus()
            except BusUnavailable as error:
                self._opening_failures += 1
                failures = self._opening_failures
                if not error.is_passing or self._reconnect.gives_up(failures):
                    raise BusUnavailable(
                        error.address, error.why, attempts=failures, is_passing=error.is_passing
                    ) from None
                delay_s = self._reconnect.delay_s(failures, random.random())
                limit = "" if self._reconnect.attempts is None else f" of {self._reconnect.attempts}"
                # Without the attempts of the one question: those of the stream are what counts.
                why = BusUnavailable(error.address, error.why)
                level = self._loudness.level(asyncio.get_running_loop().time())
                _log.log(level, "%s; attempt %d%s in %.2f s", why, failures, limit, delay_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._closing.wait()
            else:
                return None if self._closing.is_set() else bus
        return None

    def _begin(self, bus: Bus) -> QuoteStream:
        starts = dict(self._starts)
        if starts:
            return bus.quotes(*starts, start=starts, max_age_s=self._max_age_s)
        # All symbols were removed before the first read: begin with nothing, for those that may come.
        source = bus.quotes("NONE", max_age_s=self._max_age_s)
        source.remove("NONE")
        return source

    def _check_not_ended(self) -> None:
        if self._closing.is_set():
            raise BusError(
                "this stream has ended: call stream_quotes() again, with start=stream.positions to go on there"
            )

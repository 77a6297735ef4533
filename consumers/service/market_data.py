"""The service: its streams, its callbacks, and one bus that all of them share, made when it is first needed.

Decides what is shared and when it is made or let go. Must never show a key, a secret or a password.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, overload

from consumers.arguments import NO_LIMIT, check_seconds
from consumers.bus import Bus, connect, parts_of
from consumers.errors import BusClosed, BusError, BusUnavailable
from consumers.reading.lags import Standing, lags_of
from consumers.reading.reader import standings_of
from consumers.reading.start import Start
from consumers.reconnect import Reconnect
from consumers.rest.budget import CALLS_PER_MINUTE
from consumers.rest.client import AlpacaRest
from consumers.rest.errors import RestError
from consumers.rest.retry import Retry
from consumers.rest.rows import Bar, MarketClock
from consumers.service.account import REMEDY, Account
from consumers.service.book import Callback
from consumers.service.callbacks import CALLBACK_TIMEOUT_S, Caller, SharedCallbacks
from consumers.service.latest import Latest, LatestQuotes
from consumers.service.status import COUNTS, DaemonStatus, ServiceStatus, summed_up
from consumers.service.stream import ServiceStream, symbols_of
from wire import Gap, Quote

Time: TypeAlias = datetime | int
"""An aware datetime, or nanoseconds since the epoch."""

MAX_AGE_S: Final = 5.0
MAX_QUOTES: Final = 200_000
CLOCK_HOLDS_S: Final = 60.0
RECONNECT: Final = Reconnect(first_delay_s=2.0, factor=2.0, max_delay_s=32.0, jitter=0.0, attempts=5)
"""Waits of 2, 4, 8, 16 and 32 s, and then `BusUnavailable`."""


class MarketDataService:
    """Quotes as they come, the newest one, history and market hours, for one Alpaca account.

        async with MarketDataService() as service:
            async for quote in service.stream_quotes(["AAPL", "MSFT"]):
                print(quote.symbol, quote.mid_price)

    Streams and the cache come from Redis and need no credentials. Also usable without `async with`: connections are
    made with the first question; `await aclose()` ends them. Belongs to one event loop.

    `api_key` and `api_secret` are for REST alone; without them they are those of the environment (APCA_API_KEY_ID
    and APCA_API_SECRET_KEY), read when REST is first needed. `paper` picks the trading host. `redis_url` and `name`
    are as for `connect`. `feed` is whose quotes REST is asked for: take the daemon's. `max_age_s` is how old the
    answer of `get_latest_quote` may be. `reconnect` says how streams come back; `timeout_s` bounds each reply of
    Redis and each attempt of a REST call (default: as the URL says, and 5 s), `retry` the attempts together,
    `callback_timeout_s` each callback that is awaited (None: not at all). `calls_per_minute` is what REST allows
    the account; give all its strategies the same. Raises `BadUrl`, `BadNamespace` and `ValueError`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_secret: str | None = None,
        paper: bool = True,
        redis_url: str | None = None,
        *,
        namespace: str = "quotes",
        feed: str = "iex",
        rest_url: str | None = None,
        max_age_s: float = MAX_AGE_S,
        reconnect: Reconnect = RECONNECT,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        calls_per_minute: int = CALLS_PER_MINUTE,
        callback_timeout_s: float | None = CALLBACK_TIMEOUT_S,
        name: str | None = None,
    ) -> None:
        check_seconds("max_age_s", max_age_s, for_ever=True)
        if callback_timeout_s is not None:
            check_seconds("callback_timeout_s", callback_timeout_s, otherwise=NO_LIMIT, for_ever=True)
        self._reconnect: Final = reconnect
        # Connects nowhere yet; a mistake in the URL is told where it was made.
        self._bus: Final = connect(
            redis_url, namespace=namespace, reconnect=reconnect, timeout_s=timeout_s, name=name
        )
        self._is_open = False
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: Final = asyncio.Lock()
        self._streams: Final[weakref.WeakSet[ServiceStream]] = weakref.WeakSet()
        self._callback_timeout_s: Final = callback_timeout_s
        self._caller: Final = Caller(callback_timeout_s)
        self._shared: Final = SharedCallbacks(self._caller)
        self._max_age_s: Final = max_age_s
        self._account: Final = Account(
            api_key,
            api_secret,
            paper=paper,
            feed=feed,
            rest_url=rest_url,
            timeout_s=timeout_s,
            retry=retry,
            calls_per_minute=calls_per_minute,
        )
        self._latest: Final = Latest(
            self._reach_bus,
            lambda: self._account.rest(self._bus),
            lambda: None if self._account.is_known else REMEDY,
        )
        self._clock: tuple[float, MarketClock] | None = None
        self._past: Final = dict.fromkeys(COUNTS, 0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- streams -----------------------------------------------------------------------------------------------

    def stream_quotes(
        self,
        symbols: str | Iterable[str],
        callback: Callback | None = None,
        *,
        on_gap: Callable[[Gap], Any] | None = None,
        start: Start | Mapping[str, Start] = "now",
        max_age_s: float | None = None,
    ) -> ServiceStream:
        """Each quote of these symbols from `start` on, to a loop, or to the callback of one that is awaited.

        Any number at once, also as tasks: `create_task(service.stream_quotes("AAPL", decide))`. The symbols become
        desired. `callback` and `on_gap` may be coroutine functions. A `Gap` is not yielded: it is counted, and goes
        to `on_gap`. With `max_age_s` a quote received longer ago than that is left out, and the gap says so.

        Raises `BadSymbol`, `BadStart` and `TypeError` here; `BusUnavailable` from the loop, after the last attempt.
        """
        self._check_usable()
        stream = ServiceStream(
            self._reach_bus,
            self._stream_ended,
            self._reconnect,
            self._shared,
            symbols,
            callback,
            on_gap=on_gap,
            start=start,
            max_age_s=max_age_s,
            callback_timeout_s=self._callback_timeout_s,
        )
        self._streams.add(stream)
        return stream

    def add_symbols(self, symbols: str | Iterable[str], *, start: Start = "now") -> None:
        """Follow more symbols in every stream of this service; a stream's own `add_symbols` is for that one alone.

        Raises `BadSymbol`, `BadStart`, and `BusError` when there is no stream.
        """
        names = symbols_of(symbols)
        if not self._streams:
            raise BusError("there is no stream to add symbols to: call stream_quotes() first")
        for stream in list(self._streams):
            stream.add_symbols(names, start=start)

    def remove_symbols(self, symbols: str | Iterable[str]) -> None:
        """Follow these symbols no more, in any stream of this service. Raises `BadSymbol`."""
        names = symbols_of(symbols)
        for stream in list(self._streams):
            stream.remove_symbols(names)

    def add_callback(self, symbol: str, callback: Callback) -> None:
        """Call this once for each quote of a symbol, whichever stream of this service brings it.

        What a stream brings that catches up is told when it comes, though later quotes may have been told before.
        It outlives the streams, until it is removed or `disconnect_stream()`. Raises `BadSymbol`, `TypeError`.
        """
        self._check_usable()
        (name,) = symbols_of(symbol)
        self._shared.add(name, callback)

    def remove_callback(self, symbol: str, callback: Callback | None = None) -> int:
        """Call it no more, or, without one, none of the symbol's; how many that were. Raises `BadSymbol`."""
        (name,) = symbols_of(symbol)
        return self._shared.remove(name, callback)

    async def disconnect_stream(self) -> None:
        """End all streams as if there were no more quotes, and forget all callbacks. May be called again.

        Their leases are withdrawn and their connections closed. New streams may be begun afterwards.
        """
        self._shared.clear()
        for stream in list(self._streams):
            await stream.aclose()

    def get_stream_status(self) -> ServiceStatus:
        """How the streams stand, from their own state: nothing is asked, so it may be called often."""
        streams = [(stream.status(), stream.is_running) for stream in list(self._streams)]
        return summed_up(streams, self._past, len(self._shared), self._caller.errors)

    async def fetch_stream_status(self) -> DaemonStatus:
        """The same, and what stands on Redis: the daemon's own status, trust and lag of each symbol.

        `lag` is of the stream that is furthest behind. Raises `BusUnavailable`.
        """
        bus = await self._reach_bus()
        link, keys = parts_of(bus)
        (raw,) = await link.ask(("HGETALL", keys.status))
        symbols: set[str] = set()
        furthest: dict[str, Standing] = {}
        for stream in list(self._streams):
            symbols |= stream.symbols
            if stream.is_running and stream.source is not None:
                for standing in standings_of(stream.source):
                    known = furthest.setdefault(standing.track.symbol, standing)
                    if standing.position < known.position:
                        furthest[standing.track.symbol] = standing
        return DaemonStatus(
            **self.get_stream_status(),
            daemon={name.decode(): value.decode() for name, value in zip(raw[::2], raw[1::2], strict=True)},
            quality=await bus.quality(*sorted(symbols)) if symbols else {},
            lag=await lags_of(link, list(furthest.values())),
        )

    # -- questions ---------------------------------------------------------------------------------------------

    async def get_latest_quote(self, symbol: str, max_age_s: float | None = None) -> Quote:
        """The newest quote, received or confirmed at most `max_age_s` ago (default: the service's, 5 s).

        From Redis where it is that fresh, else from REST, whose answer is then shared with every other strategy.
        Raises `StaleQuote`, which says why and has the older one, `BadSymbol`, `BusUnavailable`.
        """
        (name,) = symbols_of(symbol)
        found = await self.get_latest_quotes(name, max_age_s)
        if name in found.stale:
            raise found.stale[name]
        return found[name]

    async def get_latest_quotes(
        self, symbols: str | Iterable[str], max_age_s: float | None = None
    ) -> LatestQuotes:
        """The same for several, in one round trip and at most one REST call per 500.

        Whatever cannot be had that fresh is absent, and `.stale` of the result says why. Raises `BadSymbol`,
        `BusUnavailable`.
        """
        self._check_usable()
        limit_s = self._max_age_s if max_age_s is None else max_age_s
        return await self._latest.get(symbols_of(symbols), limit_s)

    @overload
    async def get_historical_bars(  # type: ignore[overload-overlap]
        self,
        symbols: str,
        timeframe: str = ...,
        *,
        start: Time,
        end: Time | None = ...,
        limit: int | None = ...,
    ) -> list[Bar]: ...

    @overload
    async def get_historical_bars(
        self,
        symbols: Iterable[str],
        timeframe: str = ...,
        *,
        start: Time,
        end: Time | None = ...,
        limit: int | None = ...,
    ) -> dict[str, list[Bar]]: ...

    async def get_historical_bars(
        self,
        symbols: str | Iterable[str],
        timeframe: str = "1Min",
        *,
        start: Time,
        end: Time | None = None,
        limit: int | None = None,
    ) -> list[Bar] | dict[str, list[Bar]]:
        """Bars that begin from `start` up to, not including, `end`: a list, or one for each of several symbols.

        `timeframe` is a number and Min, Hour, Day, Week or Month; times are aware datetimes or nanoseconds. `limit`
        is for each symbol. Raises `BadSymbol`, `BadStart`, `RestError` and its children.
        """
        rest = await self._rest()
        found: dict[str, list[Bar]] = {}
        for name in symbols_of(symbols):
            found[name] = await rest.bars(name, timeframe, start=start, end=end, limit=limit)
        return next(iter(found.values())) if isinstance(symbols, str) else found

    @overload
    async def get_historical_quotes(  # type: ignore[overload-overlap]
        self, symbols: str, start: Time, end: Time | None = ..., limit: int | None = ...
    ) -> list[Quote]: ...

    @overload
    async def get_historical_quotes(
        self, symbols: Iterable[str], start: Time, end: Time | None = ..., limit: int | None = ...
    ) -> dict[str, list[Quote]]: ...

    async def get_historical_quotes(
        self,
        symbols: str | Iterable[str],
        start: Time,
        end: Time | None = None,
        limit: int | None = None,
    ) -> list[Quote] | dict[str, list[Quote]]:
        """Quotes of REST from `start` up to, not including, `end`, in the shapes of `get_historical_bars`.

        Without `limit` more than 200 000 of a symbol are refused with `RestError`, not cut: `Bus.history` reads any
        number, one by one. Raises as `get_historical_bars` does.
        """
        rest = await self._rest()
        found: dict[str, list[Quote]] = {}
        for name in symbols_of(symbols):
            quotes = found[name] = []
            async with contextlib.aclosing(rest.quotes(name, start, end, limit=limit)) as pages:
                async for quote in pages:
                    quotes.append(quote)
                    if len(quotes) > MAX_QUOTES and limit is None:
                        raise RestError(
                            f"more than {MAX_QUOTES} quotes of {name}: ask for a shorter time, give a limit, "
                            "or read them one by one with Bus.history"
                        )
        return next(iter(found.values())) if isinstance(symbols, str) else found

    async def get_market_status(self) -> MarketClock:
        """Whether the regular session is open, and when it opens and closes next. Raises `RestError`."""
        rest = await self._rest()
        asked_s = asyncio.get_running_loop().time()
        clock = await rest.clock()
        self._clock = asked_s, clock
        return clock

    async def is_market_open(self) -> bool:
        """Whether the regular session is open; asks at most once a minute, and when it opens or closes."""
        now_s = asyncio.get_running_loop().time()
        if self._clock is not None:
            asked_s, clock = self._clock
            now_ns = clock.time_ns + int((now_s - asked_s) * 1e9)
            change_ns = clock.next_close_ns if clock.is_open else clock.next_open_ns
            if now_s - asked_s < CLOCK_HOLDS_S and now_ns < change_ns:
                return clock.is_open
        return (await self.get_market_status()).is_open

    # -- the end -----------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End all streams and close all connections; the service cannot be used again. May be called again."""
        self._is_closed = True
        await self.disconnect_stream()
        await self._account.aclose()
        await self._bus.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._is_open else "not connected yet"
        return (
            f"<MarketDataService {state} {len(self._streams)} streams over {self._bus!r}, {self._account!r}>"
        )

    async def _reach_bus(self) -> Bus:
        self._check_usable()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise BusError("this service belongs to another event loop: make one MarketDataService per loop")
        async with self._opening:
            if not self._is_open:
                # A bus that could not open has been closed.
                await self._bus.__aenter__()
                self._is_open = True
        return self._bus

    async def _rest(self) -> AlpacaRest:
        self._check_usable()
        rest = self._account.rest(self._bus)
        # The bus counts the account's calls; without it they are counted here alone, which the budget says.
        with contextlib.suppress(BusUnavailable):
            await self._reach_bus()
        return rest

    def _check_usable(self) -> None:
        if self._is_closed:
            raise BusClosed("this service is closed: make a new MarketDataService")

    def _stream_ended(self, stream: ServiceStream) -> None:
        status = stream.status()
        for name in COUNTS:
            self._past[name] += status[name]
        self._streams.discard(stream)

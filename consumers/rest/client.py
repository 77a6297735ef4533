"""Alpaca's REST service for a strategy: newest quotes, past quotes and bars, the market's clock and calendar.

Decides which question each method asks, and in what pieces. Must never block the event loop: the calls are
alpaca-py's, in threads. alpaca-py is imported with the first question; importing this costs nothing.
"""

import logging
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import date, datetime
from types import TracebackType
from typing import Any, Final, Self

from consumers.arguments import NO_LIMIT, is_count
from consumers.rest.asker import Account, Asker
from consumers.rest.budget import Budget
from consumers.rest.errors import RestError, RestUnavailable
from consumers.rest.paging import NoProgress, Paging
from consumers.rest.retry import Retry
from consumers.rest.rows import (
    Asset,
    BadAnswer,
    Bar,
    MarketClock,
    MarketDay,
    member,
    page,
    read_assets,
    read_bar,
    read_clock,
    read_days,
    read_quote,
)
from consumers.rest.times import format_rfc3339, to_day, to_ns
from wire import BadSymbol, Keyspace, Quote, Symbol, parse_symbol
from wire.web_url import BadWebUrl, check_rest_url

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0
SYMBOLS_PER_CALL: Final = 500
"""A URL of some four thousand characters, which every proxy lets pass."""
PAGE: Final = 10_000
"""Rows per page: the most that Alpaca gives."""
MAX_BARS: Final = 200_000

KEY_NAMES: Final = ("APCA_API_KEY_ID", "ALPACA_API_KEY_ID", "ALPACA_API_KEY")
SECRET_NAMES: Final = ("APCA_API_SECRET_KEY", "ALPACA_API_SECRET_KEY", "ALPACA_SECRET_KEY")
URL_NAME: Final = "QUOTEBUS_REST_URL"


class AlpacaRest:
    """Questions to Alpaca's REST service in the name of one account; close it, or use it with `async with`.

    `paper` chooses the trading host that clock, calendar and assets are asked of: paper keys work there only.
    `feed` is whose quotes and bars (`iex`, `sip`, `delayed_sip`, …): take the daemon's, or cache and REST will
    not agree. `data_url` and `trading_url` lead elsewhere, as to the simulator. `timeout_s` bounds each attempt,
    `retry` all of them together. `budget` counts the account's calls; None counts those of this object alone,
    200 in any minute.

    Every method raises `RestUnavailable`, `RestRefused`, `RestLimited` or `RestMissing`, all of them `RestError`.
    Belongs to one event loop and one process. Raises `ValueError` for keys that can be none.
    """

    def __init__(
        self,
        key_id: str,
        secret_key: str,
        *,
        paper: bool = True,
        feed: str = "iex",
        data_url: str | None = None,
        trading_url: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retry: Retry | None = None,
        budget: Budget | None = None,
    ) -> None:
        account = Account(
            key_id=key_id,
            secret_key=secret_key,
            paper=paper,
            data_url=base_url(data_url),
            trading_url=base_url(trading_url),
            timeout_s=timeout_s,
        )
        self.feed: Final = feed
        self.paper: Final = paper
        self.budget: Final = budget or Budget(None, Keyspace(), key_id)
        if not isinstance(retry, Retry | None):
            raise TypeError(f"retry={retry!r}: pass a Retry(…), or None for the default")
        self._asker: Final = Asker(account, retry or Retry(), self.budget)
        self.unreadable = 0
        """Rows that were left out because they were not what the service promises."""

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **options: Any) -> Self:
        """The same, with key and secret from APCA_API_KEY_ID and APCA_API_SECRET_KEY (or the ALPACA_ spellings).

        QUOTEBUS_REST_URL leads both hosts elsewhere. `options` are the constructor's. Raises `RestError`
        when key or secret is not there.
        """
        names = os.environ if environment is None else environment
        url = names.get(URL_NAME) or None
        options = {"data_url": url, "trading_url": url, **options}
        return cls(_first(names, KEY_NAMES), _first(names, SECRET_NAMES), **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the calls that are on their way, and close the connections. May be called again."""
        await self._asker.aclose()

    @property
    def calls(self) -> int:
        """HTTP requests sent so far, retries among them."""
        return self._asker.calls

    async def latest_quotes(self, *symbols: str) -> dict[str, Quote]:
        """The newest quotes that the service knows, one call for up to 500 symbols; one it has none of is absent.

        `id` is None. `received_ns` is when the service was asked, by this machine's clock: so late it was the
        newest for certain. Raises `BadSymbol` besides.
        """
        found = await self.latest_answers(*symbols)
        return {symbol: quote for symbol, quote in found.items() if isinstance(quote, Quote)}

    async def latest_answers(self, *symbols: str) -> dict[str, Quote | RestUnavailable]:
        """As `latest_quotes`, and of a symbol whose quote is not readable why."""
        found: dict[str, Quote | RestUnavailable] = {}
        names = sorted(set(_names(symbols)))
        for first in range(0, len(names), SYMBOLS_PER_CALL):
            some = names[first : first + SYMBOLS_PER_CALL]
            params: dict[str, str | int] = {"symbols": ",".join(some), "feed": self.feed}
            answer = await self._asker.ask("data", "/stocks/quotes/latest", params)
            rows = self._read(member, answer.raw, "quotes")
            for symbol in some:
                raw = rows.get(symbol)
                if raw is not None:
                    try:
                        found[symbol] = read_quote(symbol, raw, answer.asked_ns)
                    except BadAnswer as error:
                        self._left_out(error)
                        found[symbol] = RestUnavailable(f"Alpaca REST: {error}")
        return found

    async def quotes(
        self,
        symbol: str,
        start: datetime | int,
        end: datetime | int | None = None,
        *,
        limit: int | None = None,
    ) -> AsyncGenerator[Quote, None]:
        """Past quotes from `start` up to, not including, `end` (None: until now), oldest first, at most `limit`.

        Times are venue times, as aware datetimes or nanoseconds since the epoch. One page of up to 10 000 is in
        memory at a time, and each page is one call of the budget. `id` and `received_ns` are None. Raises
        `BadSymbol`, `BadStart` and `RestError` from the iteration.
        """
        (name,) = _names((symbol,))
        stop_ns = None if end is None else to_ns(end, "end")
        async with aclosing(self._pages("quotes", name, start, end, {}, limit)) as rows:
            async for raw in rows:
                try:
                    quote = read_quote(name, raw)
                except BadAnswer as error:
                    self._left_out(error)
                    continue
                if stop_ns is None or quote.time_ns < stop_ns:
                    yield quote

    async def bars(
        self,
        symbol: str,
        timeframe: str = "1Min",
        *,
        start: datetime | int,
        end: datetime | int | None = None,
        limit: int | None = None,
        adjustment: str = "raw",
    ) -> list[Bar]:
        """Bars that begin from `start` up to, not including, `end`, oldest first.

        `timeframe` is a number and Min, Hour, Day, Week or Month. Without `limit` more than 200 000 bars are
        refused with `RestError`, not cut. Raises `BadSymbol` and `BadStart` besides.
        """
        (name,) = _names((symbol,))
        stop_ns = None if end is None else to_ns(end, "end")
        options: dict[str, str | int] = {"timeframe": timeframe, "adjustment": adjustment}
        found: list[Bar] = []
        async with aclosing(self._pages("bars", name, start, end, options, limit)) as rows:
            async for raw in rows:
                try:
                    bar = read_bar(name, raw)
                except BadAnswer as error:
                    self._left_out(error)
                    continue
                if stop_ns is None or bar.time_ns < stop_ns:
                    found.append(bar)
                if len(found) > MAX_BARS and limit is None:
                    raise RestError(
                        f"more than {MAX_BARS} bars of {name}: ask for a shorter time, or give a limit"
                    )
        return found

    async def clock(self) -> MarketClock:
        """The market's clock: whether the regular session is open, and when it opens and closes next."""
        answer = await self._asker.ask("trading", "/clock", {})
        clock: MarketClock = self._read(read_clock, answer.raw)
        return clock

    async def calendar(self, start: date, end: date) -> list[MarketDay]:
        """The trading days from `start` to `end`, both included. Raises `BadStart` besides."""
        params: dict[str, str | int] = {"start": to_day(start, "start"), "end": to_day(end, "end")}
        answer = await self._asker.ask("trading", "/calendar", params)
        days: list[MarketDay] = self._read(read_days, answer.raw)
        return days

    async def assets(self, status: str = "active", asset_class: str = "us_equity") -> list[Asset]:
        """What can be traded: some ten thousand rows in one call."""
        params: dict[str, str | int] = {"status": status, "asset_class": asset_class}
        answer = await self._asker.ask("trading", "/assets", params)
        assets: list[Asset] = self._read(read_assets, answer.raw)
        return assets

    async def _pages(
        self,
        kind: str,
        name: Symbol,
        start: datetime | int,
        end: datetime | int | None,
        options: dict[str, str | int],
        limit: int | None,
    ) -> AsyncGenerator[Any, None]:
        if limit is not None and not is_count(limit, 1):
            raise ValueError(f"limit={limit!r}: take 1 or more{NO_LIMIT}")
        params: dict[str, str | int] = {"symbols": name, "feed": self.feed, "sort": "asc", **options}
        params["start"] = format_rfc3339(to_ns(start, "start"))
        if end is not None:
            params["end"] = format_rfc3339(to_ns(end, "end"))
        left = limit
        paging = Paging()
        while left is None or left > 0:
            params["limit"] = PAGE if left is None else min(PAGE, left)
            answer = await self._asker.ask("data", f"/stocks/{kind}", params)
            rows, token = self._read(page, answer.raw, kind, name)
            try:
                paging.turned(rows, token)
            except NoProgress as why:
                raise RestUnavailable(f"Alpaca REST: {why}; what came until then is not all") from None
            rows = rows if left is None else rows[:left]
            for raw in rows:
                yield raw
            left = None if left is None else left - len(rows)
            if token is None:
                return
            params["page_token"] = token

    def _read(self, read: Any, *raw: Any) -> Any:
        try:
            return read(*raw)
        except BadAnswer as error:
            raise RestUnavailable(f"Alpaca REST: {error}") from None

    def _left_out(self, error: BadAnswer) -> None:
        self.unreadable += 1
        if self.unreadable.bit_count() == 1:
            # The first, the second, the fourth, …: a page of ten thousand must not flood the log.
            _log.warning("left out, %d so far: %s", self.unreadable, str(error)[:300])

    def __repr__(self) -> str:
        return f"<AlpacaRest {'paper' if self.paper else 'live'} feed={self.feed}>"


def base_url(url: str | None) -> str | None:
    """The address as alpaca-py wants it; `ValueError` for one that cannot be used."""
    if url is None:
        return None
    try:
        check_rest_url(url)
    except BadWebUrl as reason:
        raise ValueError(
            f"a REST URL is https://host[:port], without path and password; this one {reason}"
        ) from None
    # alpaca-py adds the version by itself.
    return url.rstrip("/").removesuffix("/v2")


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if environment.get(name):
            return environment[name]
    raise RestError(f"questions to Alpaca's REST service need a key: set {names[0]} in the environment")


def _names(symbols: Iterable[str]) -> list[Symbol]:
    names = []
    for symbol in symbols:
        try:
            names.append(parse_symbol(symbol))
        except BadSymbol as why:
            raise BadSymbol(f"{str(symbol)[:60]!r}: {why}") from None
        except TypeError:
            raise BadSymbol(f"a {type(symbol).__name__} is no symbol: pass names such as 'AAPL'") from None
    return names

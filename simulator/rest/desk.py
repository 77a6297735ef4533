"""The desk where REST calls are answered: who may ask, what there is at which path, and what the account allows.

Decides every answer. Must never know sockets or the clock: a call, and the time in nanoseconds since the epoch,
are arguments. Facts: the paths and bodies of https://docs.alpaca.markets/reference, and what alpaca-py 0.44 reads
of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ingestor.feed.messages import time_as_json
from simulator.account import AccountRules
from simulator.credentials import credentials_of
from simulator.frames import SimQuote
from simulator.rest import clock
from simulator.rest.allowance import Allowance
from simulator.rest.answers import STOCKS, Refused, RestAnswer, RestRequest, breakdown, granted, refused
from simulator.rest.asking import check_feed, range_of, symbols_of
from simulator.rest.assets import Assets
from simulator.rest.bars import bar_body, bars_in, timeframe_of
from simulator.rest.faults import RefuseRest
from simulator.rest.history import History, page


class Desk:
    """Answers calls. `refresh` is told which symbols' newest quotes are wanted, before they are looked up."""

    def __init__(
        self,
        rules: AccountRules,
        history: History,
        symbols: Callable[[], Sequence[str]],
        refresh: Callable[[Sequence[str], int], None],
        *,
        always_open: bool = True,
    ) -> None:
        self.allowance: Final = Allowance(rules.calls_per_minute)
        self._rules = rules
        self._history = history
        self._assets = Assets(symbols, rules)
        self._refresh = refresh
        self._always_open = always_open

    def answer(self, request: RestRequest, now_ns: int) -> RestAnswer:
        """The answer to one call."""
        try:
            answer = self._admitted(request, now_ns)
        except Refused as refusal:
            answer = refusal.answer()
        headers = self.allowance.headers(self.key_of(request), now_ns)
        return RestAnswer(answer.status, answer.body, {**headers, **answer.headers}, answer.content_type)

    def broken(self, request: RestRequest, fault: RefuseRest, now_ns: int) -> RestAnswer:
        """What a call gets that meets this fault, whatever it asks for; it costs nothing of the allowance."""
        answer = breakdown(request.path, fault.status)
        headers = self.allowance.headers(self.key_of(request), now_ns)
        if fault.status == 429:
            headers["X-RateLimit-Remaining"] = "0"
            if fault.reset_s is not None:
                headers["X-RateLimit-Reset"] = str(math.ceil(now_ns / 1e9 + fault.reset_s))
        return RestAnswer(answer.status, answer.body, headers, answer.content_type)

    def key_of(self, request: RestRequest) -> str:
        """Whose call this is; empty when it does not say."""
        try:
            return (credentials_of(request.headers) or ("", ""))[0]
        except ValueError:
            return ""

    def _admitted(self, request: RestRequest, now_ns: int) -> RestAnswer:
        try:
            key, secret = credentials_of(request.headers) or ("", "")
        except ValueError:
            key = secret = ""
        if not self._rules.accept(key, secret):
            raise refused(request.path, 401)
        if not self.allowance.spend(key, now_ns):
            raise refused(request.path, 429)
        if request.method != "GET":
            raise refused(request.path, 405)
        return granted(self._found(request, now_ns))

    def _found(self, request: RestRequest, now_ns: int) -> object:
        path, query = request.path.rstrip("/"), request.query
        if path == "/v2/clock":
            return clock.clock(now_ns, always_open=self._always_open)
        if path == "/v2/calendar":
            return clock.calendar(query)
        if path == "/v2/assets":
            return self._assets.listed(query)
        if path.startswith("/v2/assets/"):
            return self._assets.one(path.removeprefix("/v2/assets/"))
        if path.startswith(STOCKS):
            rest = path.removeprefix(STOCKS)
            for tail, find in (
                ("quotes/latest", self._latest),
                ("quotes", self._quotes),
                ("bars", self._bars),
            ):
                if rest == tail:
                    return find(None, query, now_ns)
                if rest.endswith("/" + tail) and "/" not in (symbol := rest.removesuffix("/" + tail)):
                    return find(symbol, query, now_ns)
        raise refused(path, 404)

    def _latest(self, single: str | None, query: Mapping[str, str], now_ns: int) -> object:
        symbols = self._symbols(single, query)
        check_feed(query, self._rules.feeds_in_plan, None, now_ns)
        self._refresh(symbols, now_ns)
        newest = {symbol: self._history.latest(symbol, now_ns) for symbol in symbols}
        found = {symbol: _quote_body(quote) for symbol, quote in newest.items() if quote is not None}
        if single is None:
            return {"quotes": found}
        if single not in found:
            raise Refused(404, f"no quote found for {single}")
        return {"symbol": single, "quote": found[single]}

    def _quotes(self, single: str | None, query: Mapping[str, str], now_ns: int) -> object:
        asked = range_of(query, self._symbols(single, query), now_ns)
        check_feed(query, self._rules.feeds_in_plan, asked.end_ns, now_ns)
        found, token = page(
            asked,
            lambda symbol, part: self._history.quotes(
                symbol, part.start_ns, part.end_ns, now_ns, newest_first=part.newest_first
            ),
            lambda quote: quote.t_ns,
        )
        bodies = {symbol: [_quote_body(quote) for quote in quotes] for symbol, quotes in found.items()}
        return _paged("quotes", single, bodies, token)

    def _bars(self, single: str | None, query: Mapping[str, str], now_ns: int) -> object:
        frame = timeframe_of(query.get("timeframe"))
        asked = range_of(query, self._symbols(single, query), now_ns)
        check_feed(query, self._rules.feeds_in_plan, asked.end_ns, now_ns)
        found, token = page(
            asked,
            lambda symbol, part: bars_in(self._history, symbol, part, frame, now_ns),
            lambda bar: bar.t_ns,
        )
        bodies = {symbol: [bar_body(bar) for bar in bars] for symbol, bars in found.items()}
        return _paged("bars", single, bodies, token)

    def _symbols(self, single: str | None, query: Mapping[str, str]) -> tuple[str, ...]:
        return symbols_of(query.get("symbols", "") if single is None else single, self._rules.refused_symbols)


def _paged(name: str, single: str | None, bodies: Mapping[str, object], token: str | None) -> object:
    if single is None:
        return {name: bodies, "next_page_token": token}
    return {"symbol": single, name: bodies.get(single, []), "next_page_token": token}


def _quote_body(quote: SimQuote) -> dict[str, object]:
    return {
        "t": msgspec.Raw(time_as_json(quote.t_ns)),
        "ax": quote.ask_exchange,
        "ap": quote.ask_price,
        "as": quote.ask_size,
        "bx": quote.bid_exchange,
        "bp": quote.bid_price,
        "bs": quote.bid_size,
        "c": quote.conditions,
        "z": quote.tape,
    }

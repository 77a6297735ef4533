"""The newest quote, from Redis while it is fresh, else from REST, which then is everybody's.

Decides the order of questions; `rest.freshness` decides what may be handed out. Must never hand out a quote that is
older than allowed: ages are counted from before the question, by the Redis server's clock. A daemon whose clock is
ahead of that one stamps its quotes too late; its heartbeat tells by how much, but for the second between two beats.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from consumers.arguments import check_seconds
from consumers.bus import Bus, parts_of
from consumers.errors import BusError, BusUnavailable, StaleQuote
from consumers.reading.cached import readable_quote
from consumers.reading.freshness import server_time_ns
from consumers.rest.client import AlpacaRest
from consumers.rest.errors import RestError
from consumers.rest.flights import Flights
from consumers.rest.freshness import NOT_ASKED, Asked, Judgement, Verdict, decide
from consumers.rest.sharing import share
from consumers.service.book import Seldom
from consumers.service.callbacks import LOG_EVERY_S
from wire import Quote, Symbol
from wire.quality import time_ns_of
from wire.quote import newer

_log = logging.getLogger(__name__)

REDIS_PATIENCE_S: Final = 2.0
"""How long Redis is waited for where REST can stand in."""
REDIS_PAUSE_S: Final = 1.0
"""How long it is left alone then."""


class LatestQuotes(dict[str, Quote]):
    """Fresh quotes by symbol; `stale` says of each symbol that is absent why."""

    def __init__(self, fresh: Mapping[str, Quote], stale: dict[str, StaleQuote]) -> None:
        super().__init__(fresh)
        self.stale: Final = stale


class _Known:
    """What both hashes of Redis say, and what time it is by its clock, never too early."""

    def __init__(
        self, server_ns: int, began_ns: int, found: dict[str, tuple[Quote | None, Quote | None]]
    ) -> None:
        self._ahead_ns: Final = server_ns - began_ns
        self._found: Final = found

    def restamped(self, asked: Mapping[str, Quote]) -> dict[str, Quote]:
        """Quotes that were received by this machine's clock, as received by the server's."""
        ahead_us = -((time.time_ns() - time.monotonic_ns() - self._ahead_ns) // 1_000)
        return {name: _later_by(quote, ahead_us) for name, quote in asked.items()}

    def judge(self, symbol: str, max_age_s: float, asked: Asked) -> Judgement:
        """The verdict at this moment."""
        cached, shared = self._found.get(symbol, (None, None))
        return decide(time.monotonic_ns() + self._ahead_ns, max_age_s, cached, shared, asked)


class Latest:
    """Answers for the newest quotes of one service."""

    def __init__(
        self,
        reach: Callable[[], Awaitable[Bus]],
        rest: Callable[[], AlpacaRest],
        remedy: Callable[[], str | None],
    ) -> None:
        self._reach: Final = reach
        self._rest: Final = rest
        self._remedy: Final = remedy
        self._flights: Final[Flights[dict[str, Asked]]] = Flights()
        self._seldom: Final = Seldom(LOG_EVERY_S)
        self._redis_from_s = 0.0
        # While Redis is away: what REST said, so that who asks often does not spend the account's calls, by a
        # clock that is not set.
        self._kept: Final[dict[str, Quote]] = {}
        self._unix_ns: Final = time.time_ns() - time.monotonic_ns()

    async def get(self, names: list[Symbol], max_age_s: float) -> LatestQuotes:
        """Fresh quotes of these symbols. Raises `BusUnavailable` when Redis is away and REST cannot stand in."""
        check_seconds("max_age_s", max_age_s, for_ever=True)
        remedy = self._remedy()
        bus, known = await self._look(names, remedy is None)
        judged = {name: known.judge(name, max_age_s, NOT_ASKED) for name in names}
        asked: dict[str, Asked] = {}
        lacking = [name for name in names if judged[name].verdict is Verdict.ASK]
        if lacking:
            asked = await self._ask(bus, known, lacking, remedy)
        fresh: dict[str, Quote] = {}
        late: dict[str, Judgement] = {}
        for name in names:
            # Anew for all: while REST was asked, what was fresh has become older.
            judgement = known.judge(
                name, max_age_s, asked.get(name, RestError("it grew too old while others were asked for"))
            )
            if judgement.verdict is Verdict.FRESH and judgement.quote is not None:
                fresh[name] = judgement.quote
            else:
                late[name] = judgement
        trust = await _trust(bus, list(late))
        stale = {
            name: StaleQuote(
                judgement.quote,
                math.inf if judgement.age_s is None else judgement.age_s,
                max_age_s,
                symbol=name,
                why="; ".join(filter(None, (trust.get(name), judgement.why))),
            )
            for name, judgement in late.items()
        }
        return LatestQuotes(fresh, stale)

    async def _look(self, names: list[Symbol], may_ask_rest: bool) -> tuple[Bus | None, _Known]:
        """What Redis says; where it is away and REST can stand in, what REST said to us meanwhile."""
        now_s = asyncio.get_running_loop().time
        if not may_ask_rest:
            bus = await self._reach()
            return bus, await _known(bus, names)
        if now_s() >= self._redis_from_s:
            try:
                async with asyncio.timeout(REDIS_PATIENCE_S):
                    bus = await self._reach()
                    known = await _known(bus, names)
            except (BusUnavailable, TimeoutError) as error:
                self._redis_from_s = now_s() + REDIS_PAUSE_S
                self._say("the bus does not answer, so that REST alone is asked for quotes: %s", error)
            else:
                self._kept.clear()
                return bus, known
        here_ns = time.monotonic_ns()
        return None, _Known(
            here_ns + self._unix_ns, here_ns, {name: (None, self._kept.get(name)) for name in names}
        )

    async def _ask(
        self, bus: Bus | None, known: _Known, names: list[Symbol], remedy: str | None
    ) -> dict[str, Asked]:
        if remedy is not None:
            return dict.fromkeys(names, RestError(f"without credentials REST cannot be asked: {remedy}"))
        try:
            found = await self._flights.join(tuple(names), lambda: self._bring(bus, known, names))
        except RestError as error:
            return dict.fromkeys(names, error)
        return {name: found.get(name) for name in names}

    async def _bring(self, bus: Bus | None, known: _Known, names: list[Symbol]) -> dict[str, Asked]:
        answers = await self._rest().latest_answers(*names)
        found = {name: answer for name, answer in answers.items() if isinstance(answer, Quote)}
        # By the server's clock, like the ages of the others.
        here = known.restamped(found)
        brought: dict[str, Asked] = {**answers, **here}
        if bus is None:
            for name, quote in here.items():
                self._kept[name] = newer(self._kept.get(name), quote) or quote
            return brought
        try:
            shared = await share(*parts_of(bus), found.values())
        except BusError as error:
            self._say("quotes that REST brought are not shared with other strategies: %s", error)
            return brought
        return {**brought, **shared.quotes}

    def _say(self, text: str, error: Exception) -> None:
        if self._seldom.lets_pass(text, asyncio.get_running_loop().time()) is not None:
            _log.warning(text, str(error) or f"no answer within {REDIS_PATIENCE_S:g} s")


async def _trust(bus: Bus | None, names: list[str]) -> dict[str, str]:
    """What the daemon says of symbols without a fresh quote: nobody is to look for keys of REST in vain."""
    if bus is None or not names:
        return {}
    try:
        async with asyncio.timeout(REDIS_PATIENCE_S):
            found = await bus.quality(*names)
    except (BusError, TimeoutError):
        return {}
    return {
        name: f"on the bus it is {quality.level}: {quality.reason}"
        for name, quality in found.items()
        if quality.reason
    }


async def _known(bus: Bus, names: list[Symbol]) -> _Known:
    began_ns = time.monotonic_ns()
    link, keys = parts_of(bus)
    told, (heartbeat,), cached, shared = await link.ask(
        ("TIME",),
        ("HMGET", keys.status, "heartbeat"),
        ("HMGET", keys.latest, *names),
        ("HMGET", keys.rest, *names),
    )
    server_ns = server_time_ns(told)
    # What REST brought was stamped by the server's clock, so only the daemon's quotes are corrected.
    ahead_us = max(0, (time_ns_of((heartbeat or b"").decode(errors="replace")) or 0) - server_ns) // 1_000
    found: dict[str, tuple[Quote | None, Quote | None]] = {}
    for name, first, second in zip(names, cached, shared, strict=True):
        streamed = readable_quote(name, first)
        corrected = None if streamed is None else _later_by(streamed, -ahead_us)
        found[name] = corrected, readable_quote(name, second)
    return _Known(server_ns, began_ns, found)


def _later_by(quote: Quote, us: int) -> Quote:
    """The same, as received so much later."""
    if not us:
        return quote
    return msgspec.structs.replace(quote, receive_delay_us=(quote.receive_delay_us or 0) + us)

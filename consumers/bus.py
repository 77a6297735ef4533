"""The way in: one bus per Redis server and namespace, from which everything else is asked.

Decides which connection a question takes: short ones share one, each iteration has its own, because a blocking read
would make the others wait. Must never know how a position is kept or what makes a gap.
"""

import os
import secrets
import time
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from consumers.arguments import check_max_age_s, check_seconds
from consumers.command import Command
from consumers.errors import BadStart, BusError, ContractTooNew, StaleQuote
from consumers.groups.share import Share
from consumers.groups.worker import GroupStream, check_group
from consumers.identity import default_name, parse_name
from consumers.leases.interest import Interest
from consumers.leases.keeper import LeaseKeeper
from consumers.leases.lease import Lease
from consumers.link import Target
from consumers.reading.cached import readable_quote
from consumers.reading.freshness import received_ns, server_time_ns
from consumers.reading.history import History, PastQuotes
from consumers.reading.newest import NewestStream
from consumers.reading.quotes import QuoteStream
from consumers.reading.source import Source
from consumers.reading.start import Start, parse_symbols, parse_time_ns
from consumers.reading.state_watch import StateWatch, Watched
from consumers.reading.stream import Stream
from consumers.reconnect import Reconnect, as_reconnect
from consumers.rest.budget import CALLS_PER_MINUTE, Budget
from consumers.rest.sharing import check_shareable, share
from consumers.shared_link import SharedLink
from consumers.tasks import all_of
from wire import (
    CONTRACT_VERSION,
    QUIET_AFTER_S,
    STATUS_FIELDS,
    Gap,
    Keyspace,
    Quality,
    QualityJudge,
    Quote,
)
from wire.quote import newer

URL_VARIABLE: Final = "QUOTEBUS_REDIS_URL"
DEFAULT_URL: Final = "redis://127.0.0.1:6379/0"


def connect(
    url: str | None = None,
    *,
    namespace: str = "quotes",
    reconnect: Reconnect | None = None,
    timeout_s: float | None = None,
    name: str | None = None,
) -> "Bus":
    """The bus on this Redis, to be opened with `async with`.

    Without a `url` it is that of the environment variable `QUOTEBUS_REDIS_URL`, or else
    `redis://127.0.0.1:6379/0`. `timeout_s` bounds each connection attempt and each reply, by default as the URL
    says (`socket_timeout`, `socket_connect_timeout`), else 5 s; `reconnect` says how iterations come back after a
    lost connection. `name` says to operators who asks (CLIENT LIST has it): 1 to 100 printable ASCII characters
    without spaces or @; by default made of program, host, process id and a random part. Raises `BadUrl`,
    `BadNamespace` and `ValueError` here; on entering `BusUnavailable`, or `ContractTooNew`: the daemon is later.
    """
    if url is None:
        url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if name is None:
        consumer_id = name = default_name()
    else:
        # Two programs may choose one name, and neither may end the other's leases.
        consumer_id = f"{parse_name(name)}#{secrets.token_hex(3)}"
    if timeout_s is not None:
        check_seconds("timeout_s", timeout_s)
    return Bus(
        Target(url, timeout_s=timeout_s, name=name),
        Keyspace(namespace),
        as_reconnect(reconnect),
        name,
        consumer_id,
    )


class Bus:
    """The quotes of one namespace on one Redis server; made by `connect`.

    Belongs to the event loop that opened it. Any number of tasks may use it at once.
    """

    def __init__(
        self,
        target: Target,
        keys: Keyspace,
        reconnect: Reconnect,
        name: str,
        consumer_id: str,
    ) -> None:
        self.name: Final = name
        """Who asks, as CLIENT LIST has it after the library's own name."""
        self._target: Final = target
        self._keys: Final = keys
        self._reconnect: Final = reconnect
        self._shared: Final = SharedLink(target)
        self._consumer_id: Final = consumer_id
        self._is_entered = False
        self._leases = LeaseKeeper(self._shared, keys, consumer_id)
        self._watch = StateWatch(self._shared, keys)
        self._streams: Final[weakref.WeakSet[Stream[Any]]] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise BusError(
                "this bus is open already, and its first `async with` closes it: call connect() again"
            )
        self._is_entered = True
        if self._leases.is_closed:
            self._leases = LeaseKeeper(self._shared, self._keys, self._consumer_id)
        self._shared.open()
        try:
            await self._check_contract()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _check_contract(self) -> None:
        ((contract,),) = await self._shared.ask_aloud(("HMGET", self._keys.status, "contract"))
        if contract is not None and contract.isdigit() and int(contract) > CONTRACT_VERSION:
            raise ContractTooNew(int(contract))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every iteration, give every lease back and close every connection. May be called again."""
        self._is_entered = False
        async with AsyncExitStack() as whatever_fails:
            whatever_fails.push_async_callback(self._shared.close)
            whatever_fails.push_async_callback(self._leases.aclose)
            whatever_fails.push_async_callback(self._watch.aclose)
            # At once, because each may wait for a server that is away.
            await all_of(*(stream.aclose() for stream in list(self._streams)))

    async def latest(self, symbol: str, *, max_age_s: float | None = None) -> Quote | None:
        """The newest known quote of a symbol, or None: the newer, by venue time, of stream cache and REST cache.

        With `max_age_s` one that was received longer ago, by the server's clock, raises `StaleQuote`. Raises
        `BadSymbol`, `ValueError`, `BusUnavailable`.
        """
        ages = await self._newest_known((symbol,), max_age_s)
        quote, age_s = ages.get(symbol, (None, 0.0))
        if quote is not None and max_age_s is not None and age_s > max_age_s:
            raise StaleQuote(quote, age_s, max_age_s)
        return quote

    async def latest_many(self, *symbols: str, max_age_s: float | None = None) -> dict[str, Quote]:
        """The newest known quotes in one round trip.

        A symbol without one is absent, and so is one whose quote was received more than `max_age_s` ago. Raises as
        `latest` does, but for `StaleQuote`.
        """
        ages = await self._newest_known(symbols, max_age_s)
        return {
            symbol: quote
            for symbol, (quote, age_s) in ages.items()
            if max_age_s is None or age_s <= max_age_s
        }

    async def _newest_known(
        self, symbols: tuple[str, ...], max_age_s: float | None
    ) -> dict[str, tuple[Quote, float]]:
        names = parse_symbols(symbols)
        check_max_age_s(max_age_s)
        commands: list[Command] = [("HMGET", self._keys.latest, *names), ("HMGET", self._keys.rest, *names)]
        if max_age_s is not None:
            commands.append(("TIME",))
        # The answer may have been long on its way: if that decides, one more is asked for before a quote is
        # refused.
        for _ in range(2):
            began_ns = time.monotonic_ns()
            streamed, asked, *times = await self._shared.ask(*commands)
            underway_ns = time.monotonic_ns() - began_ns
            now_ns = server_time_ns(times[0]) + underway_ns if times else 0
            newest: dict[str, tuple[Quote, float]] = {}
            for symbol, *values in zip(names, streamed, asked, strict=True):
                quote = newer(*(readable_quote(symbol, value) for value in values))
                if quote is not None:
                    newest[symbol] = quote, (now_ns - received_ns(quote)) / 1e9
            if max_age_s is None or not any(
                0 < age_s - max_age_s <= underway_ns / 1e9 for _, age_s in newest.values()
            ):
                break
        return newest

    async def quality(self, *symbols: str, quiet_after_s: float = QUIET_AFTER_S) -> dict[str, Quality]:
        """How far each symbol's cached quote can be trusted now, in one round trip; see `Level`.

        Needs no daemon: when it is gone, that is the answer. A symbol is quiet when its newest quote was received
        more than `quiet_after_s` ago. Raises `BadSymbol`, `BusUnavailable`, `ValueError` where that is odd.
        """
        check_seconds("quiet_after_s", quiet_after_s)
        names = parse_symbols(symbols)
        told, status, states, cached = await self._shared.ask(
            ("TIME",),
            ("HMGET", self._keys.status, *STATUS_FIELDS),
            ("HMGET", self._keys.subscriptions, *names),
            ("HMGET", self._keys.latest, *names),
        )
        now_ns = server_time_ns(told)
        fields = dict(zip(STATUS_FIELDS, status, strict=True))
        judge = QualityJudge(now_ns, fields, quiet_after_s=quiet_after_s)
        found: dict[str, Quality] = {}
        for symbol, state, value in zip(names, states, cached, strict=True):
            quote = readable_quote(symbol, value)
            found[symbol] = judge.judge(symbol, state, None if quote is None else received_ns(quote))
        return found

    def quotes(
        self,
        *symbols: str,
        start: Start | Mapping[str, Start] = "now",
        max_age_s: float | None = None,
        lease: bool = True,
    ) -> QuoteStream:
        """Follow symbols for as long as the loop runs; see `Start` for where to begin.

        A mapping gives each symbol its own start, as `QuoteStream.positions` does; a symbol it lacks begins
        now. A `Gap` stands where quotes are missing: `trimmed` and `stream_recreated` are found by this reader,
        other reasons are the daemon's. While Redis is away the iteration waits and goes on where it stood.

        With `max_age_s` a quote that was received longer ago when its turn comes, by the server's clock, is not
        handed over; in its place, before the next item of its symbol, stands a `Gap` with the reason `too_old`
        and their number.

        While a loop runs, the bus keeps a lease on each symbol, so that the daemon subscribes it; it ends with the
        loop, or within 15 s when the program crashes. A user who may not write reads all the same, and the log says
        so once. Without `lease` only symbols that somebody else wants have new quotes.

        Raises `BadSymbol`, `BadStart` and `ValueError` at once, `BusUnavailable` from the iteration, `BusClosed`.
        """
        self._shared.check_open()
        held = self._attendance(lease)
        stream = QuoteStream(self._source(held), symbols, start, attendance=held, max_age_s=max_age_s)
        self._streams.add(stream)
        return stream

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
        self._shared.check_open()
        held = self._attendance(lease)
        stream = NewestStream(self._source(held), symbols, start, attendance=held, max_age_s=max_age_s)
        self._streams.add(stream)
        return stream

    def interest(self, *symbols: str) -> Interest:
        """Symbols that shall be subscribed while `async with` runs, without reading them.

        A loop over `quotes` takes its leases by itself; this is for who only asks for `latest`, or reads in another
        program. Raises `BadSymbol`, `BusClosed`.
        """
        self._shared.check_open()
        return Interest(self._leases, parse_symbols, symbols)

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

        Each delivery is to be acknowledged: `await stream.ack(delivery)`. What its worker does not acknowledge is
        delivered again, so each entry is handled at least once, and exactly once without faults. `auto_ack`
        acknowledges a delivery when the loop comes back for the next one; it is not the default because a strategy
        that passes work on would lose it without a sign, while a forgotten `ack` soon shows.

        A worker begins with what it has pending under its name, then gets what is new. `consumer` is that name, by
        default one that no other has; a fixed one, such as `worker-3`, lets a restarted worker have its entries
        at once.
        What lies pending for `claim_after_s` is claimed by any worker of the group, this one included: take more
        than the longest time that your code needs for one delivery, or until it acknowledges. Entries are claimed
        after at most twice that time. `start` says where the group begins in a stream where there is no such group
        yet; `prefetch` is how many entries are taken at once, at least one of each symbol. With `leave` (default:
        without `consumer`) `aclose` removes the name from the group or, if something is pending under it, lets
        others claim that at their next round, and a worker that begins at once.

        A `Gap` stands where quotes are missing: `trimmed` (pending or not, `missing` as far as it is known) and
        `stream_recreated` are found by this worker and have no id. A daemon's marker goes to one worker, as any
        entry does. If the group is destroyed it is made anew where this worker, or Redis' record of the group,
        knows that all had been acknowledged. A stream that is not there is waited for.

        Needs Redis 6.2, and the rights of the user `strategy` in deploy/acl. Raises
        `BadSymbol`, `BadStart` and `ValueError` at once, `BusUnavailable` from the iteration, `BusClosed`.
        """
        self._shared.check_open()
        name = f"{self._consumer_id}-{secrets.token_hex(3)}" if consumer is None else consumer
        check_group(group, name, claim_after_s, prefetch)
        held = self._attendance(lease)
        share = Share(
            self._target,
            self._keys,
            self._reconnect,
            group,
            name,
            claim_after_s=claim_after_s,
            prefetch=prefetch,
            on_return=held.reconnected,
        )
        stream = GroupStream(
            share,
            self._shared,
            symbols,
            start,
            claim_after_s=claim_after_s,
            auto_ack=auto_ack,
            leave=consumer is None if leave is None else leave,
            attendance=held,
        )
        self._streams.add(stream)
        return stream

    async def history(
        self,
        symbol: str,
        start: datetime | int,
        end: datetime | int | None = None,
        *,
        rest: PastQuotes | None = None,
    ) -> AsyncGenerator[Quote | Gap, None]:
        """What the stream holds from `start` up to, not including, `end` (None: up to its last entry now).

        With `rest` (an `AlpacaRest`) what lies before the stream's first entry comes from there, and so does what
        is trimmed while this reads, up to now where there is no stream: oldest first, each quote once. It is asked
        at most once for each 1 000 entries of the stream. Without it, entries trimmed meanwhile are a `Gap`. What
        a marker says is missing stays missing. Times are venue times, as aware datetimes or nanoseconds since the
        epoch. Unreadable entries are logged and skipped.

        Raises `BadSymbol`, `BadStart`, `BusUnavailable` and `RestError` from the iteration.
        """
        (name,) = parse_symbols((symbol,))
        start_ns = parse_time_ns(start, "start")
        end_ns = None if end is None else parse_time_ns(end, "end")
        if end_ns is not None and end_ns < start_ns:
            raise BadStart(f"end={end} lies before start={start}: swap them")
        if end_ns == start_ns:
            return
        past = History(self._shared.ask, name, self._keys.stream(name), start_ns, end_ns, rest)
        async with aclosing(past.items()) as items:
            async for item in items:
                yield item

    def budget(self, key_id: str, calls_per_minute: int = CALLS_PER_MINUTE) -> Budget:
        """The count of REST calls that all strategies of this Alpaca key share; for `AlpacaRest(…, budget=…)`."""
        return Budget(self._shared, self._keys, key_id, calls_per_minute)

    async def share(self, *quotes: Quote) -> None:
        """Let everybody's `latest` have what `AlpacaRest.latest_quotes` brought, where newer; no other quotes."""
        check_shareable(quotes)
        await share(self._shared, self._keys, quotes)

    def _attendance(self, lease: bool) -> Watched:
        return Watched(self._watch, Lease(self._leases) if lease else None)

    def _source(self, held: Watched) -> Source:
        return Source(self._target, self._keys, self._reconnect, self._shared, on_return=held.reconnected)

    def __repr__(self) -> str:
        state = "open" if self._shared.is_open else "closed"
        return f"<Bus {state} {self._target.address} namespace={self._keys.namespace}>"


def parts_of(bus: Bus) -> tuple[SharedLink, Keyspace]:
    """What the rooms above ask through, and the names of the keys; not for strategies."""
    return bus._shared, bus._keys

"""Writes streams, cache and states as the daemon does, on a server in memory and on a real one alike.

Decides each entry's id and what stands beside it, after the contract alone. Must never know who reads. It is for
tests and replays: it keeps nothing through an outage, and must be the only writer of its namespace.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from redis.exceptions import RedisError

from consumers.arguments import is_count, is_number
from consumers.command import Command, Reply
from consumers.errors import BusError, BusUnavailable
from consumers.link import Link, Target
from consumers.reading.gaps import read_facts
from consumers.reconnect import reason, tells_of_key
from consumers.testing.builders import a_quote
from consumers.testing.times import NS_PER_S, Clock, Time
from wire import (
    CONTRACT_VERSION,
    GAP_FIELD,
    QUOTE_FIELD,
    ZERO_ID,
    EntryId,
    Gap,
    Keyspace,
    Quote,
    QuoteRow,
    encode_gap,
    encode_latest,
    encode_quote,
    parse_symbol,
    place,
)
from wire.quality import DAEMON_STATES, SYMBOL_STATES

MAXLEN: Final = 50_000
"""Entries that a stream keeps, approximately: the daemon's own default."""
CHUNK: Final = 500
"""Entries per transaction."""
SILENT_MAX_S: Final = 365 * 86_400
_STARTED_BEFORE_S: Final = 3600
"""A feed that came up after a quote was received would leave that quote's quality in doubt."""


class Publisher:
    """Publishes quotes and gaps in place of a daemon; use it with `async with`, or call `aclose`.

    `url` is that of a server in memory or of a real Redis. `maxlen` bounds each stream, approximately; None is no
    bound. `clock` dates the quotes of `quote`. Everything raises `BusUnavailable` when the server cannot be used,
    and `BusError` when it refuses an entry.

    With each publication it says that the daemon is live and the symbol subscribed, so that `Bus.quality` answers
    live for `HEARTBEAT_LIMIT_S` after it; `daemon` and `subscribe` say otherwise.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "quotes",
        maxlen: int | None = MAXLEN,
        timeout_s: float | None = None,
    ) -> None:
        if maxlen is not None and not is_count(maxlen, 1):
            raise ValueError(f"maxlen={maxlen!r}: take 1 or more, or None for no bound")
        self.maxlen: Final = maxlen
        self.keys: Final = Keyspace(namespace)
        self.clock: Final = Clock()
        self._target: Final = Target(url, timeout_s=timeout_s, name="publisher")
        self._lock: Final = asyncio.Lock()
        self._link: Link | None = None
        self._last: dict[str, EntryId] = {}
        self._live: set[str] = set()
        self._state = "live"
        self._silent_since_ns: int | None = None
        self._connected_since_ns: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; it opens again when it is used."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def quote(self, symbol: str = "AAPL", *, at: Time | None = None, **fields: Any) -> Quote:
        """Publish one quote with the fields of `a_quote`, at the time of `clock` if that was set; return it."""
        if at is None and self.clock.is_set:
            at = self.clock.time_ns(time.time_ns())
        (stored,) = await self.publish(a_quote(symbol, at=at, **fields))
        assert isinstance(stored, Quote)
        return stored

    async def publish(self, *items: Quote | Gap) -> list[Quote | Gap]:
        """Append these in their order, and return them with the ids that they got.

        Ids that they bring along are ignored. A quote without a receipt is received now.
        """
        stored: list[Quote | Gap] = []
        async with self._lock:
            for start in range(0, len(items), CHUNK):
                stored += await self._append(items[start : start + CHUNK])
        return stored

    async def subscribe(self, *symbols: str, state: str = "live", reason: str | None = None) -> None:
        """Say what became of these symbols: `live`, `requested`, `waiting`, `refused`, `leaving`, `not_stored`."""
        _check_state(state, SYMBOL_STATES)
        if not isinstance(reason, str | None):
            raise TypeError(f"reason={reason!r}: take a text, or None for none")
        now_ns = time.time_ns()
        names = [parse_symbol(symbol) for symbol in symbols]
        commands = [self._state_of(name, state, reason, now_ns) for name in names]
        async with self._lock:
            await self._ask(*commands, self._beat(now_ns))
        self._live.update(names)

    async def unsubscribe(self, *symbols: str) -> None:
        """Nobody wants these symbols any more; what they have quoted stays."""
        names = [parse_symbol(symbol) for symbol in symbols]
        async with self._lock:
            await self._ask(("HDEL", self.keys.subscriptions, *names))
        self._live.difference_update(names)

    async def daemon(self, state: str = "live", *, silent_for_s: float = 0.0) -> None:
        """Say how the daemon is, now and with all that is published later.

        `state` is one that the daemon writes: `live`, `connecting`, `redis_away`, `stopped`, …; `ValueError` for
        others. With `silent_for_s` its last heartbeat lies so many seconds back, and does not move until this is
        called again: every symbol is then stale beyond `HEARTBEAT_LIMIT_S`.
        """
        _check_state(state, DAEMON_STATES)
        if not is_number(silent_for_s, 0, SILENT_MAX_S):
            raise ValueError(f"silent_for_s={silent_for_s!r}: take 0 to {SILENT_MAX_S:.0f} seconds")
        now_ns = time.time_ns()
        self._state = state
        self._silent_since_ns = now_ns - round(silent_for_s * NS_PER_S) if silent_for_s else None
        await self.beat()

    async def beat(self) -> None:
        """Say again how the daemon is, as it does every second."""
        async with self._lock:
            await self._ask(self._beat(time.time_ns()))

    async def trim(self, symbol: str, *, keep: int = 0) -> int:
        """Delete all but the newest `keep` entries; returns how many went."""
        async with self._lock:
            (count,) = await self._ask(("XTRIM", self.keys.stream(parse_symbol(symbol)), "MAXLEN", keep))
        return int(count)

    async def remove_stream(self, symbol: str, *, cache: bool = False) -> None:
        """Delete the stream, with `cache` the cached quote too; the next entry begins it anew, at its own time."""
        name = parse_symbol(symbol)
        commands: list[Command] = [("DEL", self.keys.stream(name))]
        if cache:
            commands.append(("HDEL", self.keys.latest, name))
        async with self._lock:
            await self._ask(*commands)
        self._last[name] = ZERO_ID

    async def _append(self, items: Sequence[Quote | Gap]) -> list[Quote | Gap]:
        now_ns = time.time_ns()
        symbols = dict.fromkeys(parse_symbol(item.symbol) for item in items)
        await self._learn([symbol for symbol in symbols if symbol not in self._last])
        bound: tuple[str | int, ...] = () if self.maxlen is None else ("MAXLEN", "~", self.maxlen)
        commands: list[Command] = [("MULTI",)]
        stored: list[Quote | Gap] = []
        newest: dict[str, Command] = {}
        for item in items:
            symbol = item.symbol
            time_ns = item.from_ns if isinstance(item, Gap) else item.time_ns
            entry_id, _ = place(time_ns, self._last[symbol], now_ns)
            self._last[symbol] = entry_id
            text = str(entry_id)
            if isinstance(item, Gap):
                field = GAP_FIELD
                value = encode_gap(item.from_ns, item.to_ns, item.reason, item.epoch, missing=item.missing)
                stored.append(msgspec.structs.replace(item, id=text))
            else:
                delay_us = item.receive_delay_us
                if delay_us is None:
                    delay_us = (now_ns - item.time_ns) // 1000
                field, row = QUOTE_FIELD, _row(item, delay_us)
                value = encode_quote(row)
                newest[symbol] = ("HSET", self.keys.latest, symbol, encode_latest(symbol, text, row))
                stored.append(msgspec.structs.replace(item, id=text, receive_delay_us=delay_us))
            commands.append(("XADD", self.keys.stream(symbol), *bound, text, field, value))
        unsaid = [symbol for symbol in symbols if symbol not in self._live]
        commands += [*newest.values(), *(self._state_of(name, "live", None, now_ns) for name in unsaid)]
        await self._ask(*commands, self._beat(now_ns), ("EXEC",))
        self._live.update(unsaid)
        return stored

    async def _learn(self, symbols: Sequence[str]) -> None:
        """Where streams end that somebody else may have begun."""
        if not symbols:
            return
        replies = await self._ask(*(("XINFO", "STREAM", self.keys.stream(name)) for name in symbols))
        for symbol, reply in zip(symbols, replies, strict=True):
            facts = read_facts(reply)
            self._last[symbol] = ZERO_ID if facts is None else facts.last

    async def _ask(self, *commands: Command) -> list[Reply]:
        try:
            if self._link is None or not self._link.is_open:
                self._link = Link(self._target)
                await self._link.open()
            replies = await self._link.ask(*commands)
        except (RedisError, OSError) as error:
            # Nobody knows how much of it was stored.
            self._last.clear()
            raise BusUnavailable(self._target.address, reason(error)) from None
        results = replies[-1] if isinstance(replies[-1], list) and commands[-1] == ("EXEC",) else replies
        for command, result in zip(
            commands[1:] if results is not replies else commands, results, strict=False
        ):
            if isinstance(result, Exception) and not (command[0] == "XINFO" and tells_of_key(result)):
                self._last.clear()
                raise BusError(
                    f"{command[0]!s} {command[1]!r} was refused ({result}): does another program write here?"
                )
        return replies

    def _beat(self, now_ns: int) -> Command:
        if self._connected_since_ns is None:
            self._connected_since_ns = now_ns - _STARTED_BEFORE_S * NS_PER_S
        beat_ns = now_ns if self._silent_since_ns is None else self._silent_since_ns
        fields: dict[str, str | int] = {
            "contract": CONTRACT_VERSION,
            "instance": "consumers.testing",
            "state": self._state,
            "feed": "test",
            "heartbeat": _iso(beat_ns),
            "connected_since": _iso(self._connected_since_ns),
        }
        return ("HSET", self.keys.status, *(part for pair in fields.items() for part in pair))

    def _state_of(self, symbol: str, state: str, reason: str | None, now_ns: int) -> Command:
        value = json.dumps({"state": state, "reason": reason, "since": _iso(now_ns)})
        return ("HSET", self.keys.subscriptions, symbol, value)

    def __repr__(self) -> str:
        return f"<Publisher {self._target.address} namespace={self.keys.namespace}>"


def _row(quote: Quote, delay_us: int) -> QuoteRow:
    return (
        quote.bid_price or 0.0,
        quote.bid_size,
        quote.bid_exchange,
        quote.ask_price or 0.0,
        quote.ask_size,
        quote.ask_exchange,
        None if quote.conditions is None else list(quote.conditions),
        quote.tape,
        quote.time_ns,
        delay_us,
    )


def _iso(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, NS_PER_S)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ns // 1_000_000:03d}Z"


def _check_state(state: object, known: frozenset[str]) -> None:
    if not isinstance(state, str) or state not in known:
        raise ValueError(f"state={str(state)[:40]!r}: take one of {', '.join(sorted(known))}")

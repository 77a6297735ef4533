"""Quotes to send and streams to compare them with.

Decides what "stored exactly once, in order, every field equal" means. Must never know how they travelled.
"""

import json
from typing import Any

from redis.asyncio import Redis

from simulator import AlpacaSimulator, SimQuote
from wire import Gap, Keyspace, Quote, decode_gap, decode_latest, decode_quote

KEYS = Keyspace()
BASE_NS = 1_763_000_004_123_825_050


def numbered(
    symbol: str, first: int, count: int, base_ns: int = BASE_NS, step_ns: int = 1_000_003
) -> list[SimQuote]:
    """Quotes whose bid size is a running number, so that loss, doubling and disorder are visible."""
    return [
        SimQuote(symbol, base_ns + n * step_ns, 100.25, n, 100.27, 200, "V", "N", ("R",), "C")
        for n in range(first, first + count)
    ]


async def stored(redis: Redis, symbol: str) -> list[Quote | Gap]:
    """Everything in a symbol's stream, decoded."""
    entries: list[tuple[str, dict[str, Any]]] = await redis.xrange(  # type: ignore[assignment]
        KEYS.stream(symbol)
    )
    return [
        decode_gap(symbol, entry_id, fields["gap"])
        if "gap" in fields
        else decode_quote(symbol, entry_id, fields["q"])
        for entry_id, fields in entries
    ]


async def numbers(redis: Redis, symbol: str) -> list[int]:
    """The running numbers in a symbol's stream, gap markers left out."""
    return [int(item.bid_size or 0) for item in await stored(redis, symbol) if isinstance(item, Quote)]


async def gaps(redis: Redis, symbol: str) -> list[Gap]:
    """The gap markers in a symbol's stream."""
    return [item for item in await stored(redis, symbol) if isinstance(item, Gap)]


def same(sent: SimQuote, found: Quote | Gap) -> bool:
    """Whether the stored quote equals the sent one in every field."""
    return isinstance(found, Quote) and (
        found.symbol,
        found.time_ns,
        found.bid_price or 0.0,
        found.bid_size,
        found.ask_price or 0.0,
        found.ask_size,
        found.bid_exchange,
        found.ask_exchange,
        found.conditions,
        found.tape,
    ) == (
        sent.symbol,
        sent.t_ns,
        sent.bid_price,
        sent.bid_size,
        sent.ask_price,
        sent.ask_size,
        sent.bid_exchange,
        sent.ask_exchange,
        tuple(sent.conditions),
        sent.tape,
    )


async def state_is(redis: Redis, symbol: str, state: str) -> bool:
    """Whether `quotes:subscriptions` shows the symbol in this state."""
    value = await redis.hget(KEYS.subscriptions, symbol)
    return value is not None and json.loads(value)["state"] == state


async def subscribed(redis: Redis, vendor: AlpacaSimulator, *symbols: str) -> None:
    """Add these symbols, and wait until the vendor's set is theirs alone."""
    await redis.sadd(KEYS.symbols, *symbols)
    await vendor.wait_for(lambda: vendor.symbols == set(symbols), 15)


async def event_exists(redis: Redis, kind: str, **details: str) -> bool:
    """Whether the audit trail has an event of this kind with these fields."""
    entries: list[tuple[str, dict[str, str]]] = await redis.xrange(KEYS.events)  # type: ignore[assignment]
    return any(fields["kind"] == kind and details.items() <= fields.items() for _, fields in entries)


async def cache_is_newest(redis: Redis, symbol: str) -> bool:
    """Whether the hash holds the newest quote of the stream, under its id."""
    value = await redis.hget(KEYS.latest, symbol)
    quotes = [item for item in await stored(redis, symbol) if isinstance(item, Quote)]
    return value is not None and decode_latest(symbol, value) == quotes[-1]


def ledger_is_even(status: dict[str, Any]) -> bool:
    """Whether every quote is in exactly one place."""
    places = ("stored", "already_stored", "rejected", "dropped", "queued", "unanswered", "spooled")
    return bool(status["received"] + status["recovered"] == sum(status[place] for place in places))

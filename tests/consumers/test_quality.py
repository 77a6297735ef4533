"""`bus.quality`: how far the cached quote can be trusted, also when no daemon is there to ask."""

import json
import math
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import BadSymbol, Bus, Level
from tests.consumers.conftest import KEYS, T0_NS, Writer
from wire import encode_latest

pytestmark = pytest.mark.both_servers


async def _daemon_says(redis: Redis, **changed: str) -> None:
    seconds, microseconds = await redis.time()
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{microseconds // 1000:03d}Z"
    fields = {"heartbeat": now, "state": "live", "connected_since": "2020-01-01T00:00:00.000Z", **changed}
    await redis.hset(KEYS.status, mapping=fields)  # type: ignore[arg-type]


async def _subscribed(redis: Redis, symbol: str, state: str = "live", reason: str | None = None) -> None:
    value = json.dumps({"state": state, "reason": reason, "since": "2026-11-22T15:46:12.548Z"})
    await redis.hset(KEYS.subscriptions, symbol, value)


async def _quoted_now(redis: Redis, symbol: str) -> None:
    """A quote of a year ago at the venue, received this moment: a tape, or a delayed feed."""
    delay_us = (time.time_ns() - T0_NS) // 1000
    row = (1.5, 1, "V", 1.6, 1, "N", None, "C", T0_NS, delay_us)
    await redis.hset(KEYS.latest, symbol, encode_latest(symbol, "1-1", row))


async def test_each_symbol_has_its_own_verdict(bus: Bus, redis: Redis) -> None:
    """Live, quiet, waiting and unknown side by side, in the order asked."""
    await _daemon_says(redis)
    for symbol in ("AAPL", "MSFT"):
        await _subscribed(redis, symbol)
    await _subscribed(redis, "IBM", "waiting", "the limit of 30 symbols is reached")
    await _quoted_now(redis, "AAPL")
    found = await bus.quality("MSFT", "AAPL", "IBM", "TSLA")
    assert [(q.symbol, q.level.value, q.reason) for q in found.values()] == [
        ("MSFT", "quiet", "no quote yet"),
        ("AAPL", "live", None),
        ("IBM", "not_subscribed", "the limit of 30 symbols is reached"),
        ("TSLA", "not_subscribed", "not desired, or not looked at yet"),
    ]
    age_s = found["AAPL"].quote_age_s
    assert age_s is not None
    assert age_s < 60


@pytest.mark.real_server("fakeredis has no INFO, which counts the commands")
async def test_many_symbols_cost_one_round_trip(bus: Bus, redis: Redis) -> None:
    """Four commands, however many symbols."""
    before = (await redis.info("stats"))["total_commands_processed"]
    assert len(await bus.quality(*(f"S{n}" for n in range(1000)))) == 1000
    # INFO counts itself.
    assert (await redis.info("stats"))["total_commands_processed"] - before == 5


async def test_nothing_at_all_is_stale(bus: Bus) -> None:
    """A Redis on which no daemon ever wrote."""
    found = (await bus.quality("AAPL"))["AAPL"]
    assert (found.level, found.reason, found.since) == (Level.STALE, "no daemon has written here", None)


async def test_an_unreadable_cache_value_is_no_quote(bus: Bus, writer: Writer) -> None:
    """Somebody's rubbish does not count as news."""
    await _daemon_says(writer.redis)
    await _subscribed(writer.redis, "AAPL")
    await writer.redis.hset(KEYS.latest, "AAPL", "broken")
    assert (await bus.quality("AAPL"))["AAPL"].level is Level.QUIET


async def test_a_name_that_is_no_symbol_is_refused(bus: Bus) -> None:
    """As with every other question."""
    with pytest.raises(BadSymbol, match="lower case"):
        await bus.quality("aapl")


@pytest.mark.parametrize("odd", ["60", 0, -1, math.inf, math.nan, True, None])
async def test_a_time_that_is_none_is_refused_at_once(bus: Bus, odd: Any) -> None:
    """A text of digits would be repeated a thousand million times."""
    with pytest.raises(ValueError, match=r"quiet_after_s=.*: take a positive number of seconds"):
        await bus.quality("AAPL", quiet_after_s=odd)

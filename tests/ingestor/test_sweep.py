"""The retention sweep: one suite for a real server and for the fake, which must agree on it."""

from collections.abc import AsyncIterator

import fakeredis
import pytest
from redis.asyncio import Redis

from ingestor.journal import Journal
from ingestor.publisher.retention import Sweeper
from ingestor.publisher.stamper import Stamper
from simulator.redis_server import RedisServer
from wire import Keyspace, encode_latest, encode_quote, entry_id_at

KEYS = Keyspace()
T0_NS = 1_763_000_000_000_000_000
HOUR_NS = 3_600 * 10**9


@pytest.fixture(params=["real", "fake"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """An empty database."""
    if request.param == "fake":
        async with fakeredis.FakeAsyncRedis() as fake:
            yield fake
        return
    with RedisServer() as server:
        async with Redis.from_url(server.url) as real:
            yield real


async def write(client: Redis, symbol: str, *hours: int) -> None:
    """Quotes at these hours, and the cache."""
    for hour in hours:
        time_ns = T0_NS + hour * HOUR_NS
        row = (1.5, hour, None, 1.6, 1, None, None, None, time_ns, 0)
        entry_id = str(entry_id_at(time_ns))
        await client.xadd(KEYS.stream(symbol), {"q": encode_quote(row)}, entry_id)
        await client.hset(KEYS.latest, symbol, encode_latest(symbol, entry_id, row))


def sweeper(client: Redis, *wanted: str, max_age_s: float = 0, forget_after_s: float = 100) -> Sweeper:
    """One for which these symbols are wanted."""
    return Sweeper(
        client,
        KEYS,
        Stamper(),
        Journal(),
        lambda: frozenset(wanted),
        max_age_s=max_age_s,
        forget_after_s=forget_after_s,
    )


async def test_age_counts_back_from_the_newest_entry_of_each_stream(client: Redis) -> None:
    """An old tape that arrives today is not trimmed away; what is a day older than its end is."""
    await write(client, "AAPL", *range(30))
    await write(client, "MSFT", 0, 1)
    # Whole nodes go at a time, so the entries must fill more than one.
    for n in range(300):
        await client.xadd(KEYS.stream("NVDA"), {"q": "[]"}, str(entry_id_at(T0_NS + n * HOUR_NS)))
    await client.hset(KEYS.latest, "NVDA", "{}")
    sweep = sweeper(client, "AAPL", "MSFT", "NVDA", max_age_s=86_400)
    await sweep.sweep()
    assert await client.xlen(KEYS.stream("MSFT")) == 2
    left = await client.xlen(KEYS.stream("NVDA"))
    assert 25 <= left < 300
    assert sweep.counts.trimmed >= 300 - left
    assert sweep.counts.sweeps == 1


async def test_a_stream_that_nobody_wants_expires_and_wanting_it_again_keeps_it(client: Redis) -> None:
    """The expiry is the server's, so it runs on without a daemon; a wanted stream has none."""
    await write(client, "AAPL", 0)
    await write(client, "MSFT", 0)
    await sweeper(client, "AAPL").sweep()
    assert await client.ttl(KEYS.stream("AAPL")) == -1
    assert 0 < await client.ttl(KEYS.stream("MSFT")) <= 100
    await sweeper(client, "AAPL", "MSFT").sweep()
    assert await client.ttl(KEYS.stream("MSFT")) == -1


async def test_the_cache_lets_go_of_a_stream_that_is_gone(client: Redis) -> None:
    """Only of those that nobody wants: the others' next quote brings the stream back."""
    await write(client, "AAPL", 0)
    await write(client, "MSFT", 0)
    await client.delete(KEYS.stream("AAPL"), KEYS.stream("MSFT"))
    sweep = sweeper(client, "AAPL")
    await sweep.sweep()
    assert await client.hkeys(KEYS.latest) == [b"AAPL"]
    assert sweep.counts.forgotten == 1


async def test_a_key_of_another_type_stops_no_sweep(client: Redis) -> None:
    """It is left as it is, and its neighbours are served."""
    await client.set(KEYS.stream("AAPL"), "oops")
    await client.hset(KEYS.latest, "AAPL", "{}")
    await write(client, "MSFT", 0)
    await sweeper(client, "AAPL").sweep()
    assert await client.get(KEYS.stream("AAPL")) == b"oops"
    assert await client.ttl(KEYS.stream("MSFT")) > 0

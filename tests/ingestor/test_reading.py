"""What the daemon reads from Redis: the desired set with its leases, and where each stream ends."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from ingestor.journal import Journal
from ingestor.publisher.stamper import Stamper
from ingestor.redis_link import RedisAddress
from ingestor.subscriptions.reconciler import Reconciler
from ingestor.subscriptions.tails import Tail, read_tails
from ingestor.subscriptions.watch import ChangeWatch
from simulator.redis_server import RedisServer
from tests.ingestor.vendor import T0_NS
from tests.ingestor.writer import KEYS, Writer
from wire import ZERO_ID, EntryId


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[AsyncRedis]:
    """The control plane's client."""
    async with AsyncRedis.from_url(server.url) as made:
        yield made


@pytest.fixture
async def reconciler(server: RedisServer, client: AsyncRedis) -> Reconciler:
    """One that looks when told to."""
    journal = Journal()
    watch = ChangeWatch(RedisAddress(server.url), KEYS, journal)
    return Reconciler(client, KEYS, watch, Stamper(), lambda *_: None, journal, limit=None, grace_s=60.0)


async def test_the_tail_of_a_stream_is_its_last_id_and_quote(redis: Redis, client: AsyncRedis) -> None:
    """And the key is kept from expiring."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A", "A"))
    redis.expire(KEYS.stream("A"), 100)
    tails = await read_tails(client, KEYS, ["A", "B"])
    assert tails == {"A": Tail(writer.ids("A")[-1], T0_NS + 1_000_003), "B": Tail(ZERO_ID, None)}
    assert redis.ttl(KEYS.stream("A")) == -1


async def test_the_last_id_is_known_even_when_all_entries_are_gone(redis: Redis, client: AsyncRedis) -> None:
    """The stream remembers it, and refuses smaller ones."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    last = writer.ids("A")[-1]
    redis.xtrim(KEYS.stream("A"), maxlen=0, approximate=False)
    assert await read_tails(client, KEYS, ["A"]) == {"A": Tail(last, None)}


@pytest.mark.parametrize("field", ["gap", "q", "x"])
async def test_a_tail_that_is_no_quote_has_no_time(redis: Redis, client: AsyncRedis, field: str) -> None:
    """A marker, somebody's rubbish, or the largest id there is."""
    last = EntryId(2**64 - 1, 2**64 - 1)
    redis.xadd(KEYS.stream("A"), {field: "{"}, str(last))
    assert await read_tails(client, KEYS, ["A"]) == {"A": Tail(last, None)}


async def test_a_key_of_another_type_has_no_tail(redis: Redis, client: AsyncRedis) -> None:
    """And takes no neighbour along."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    redis.set(KEYS.stream("B"), "x")
    tails = await read_tails(client, KEYS, ["B", "A"])
    assert tails["B"] == Tail(ZERO_ID, None)
    assert tails["A"].last == writer.ids("A")[-1]


async def test_more_streams_than_fit_in_one_pipeline_are_read(redis: Redis, client: AsyncRedis) -> None:
    """Each under its own name."""
    symbols = [f"S{i}" for i in range(1201)]
    writer = Writer(redis, *symbols)
    writer.append(writer.batch(*symbols))
    tails = await read_tails(client, KEYS, symbols)
    assert {s: tail.time_ns for s, tail in tails.items()} == {
        s: T0_NS + i * 1_000_003 for i, s in enumerate(symbols)
    }


async def test_the_desired_set_is_read_with_its_leases(redis: Redis, reconciler: Reconciler) -> None:
    """Junk beside it, bytes that are no text included; a lease that has run out counts no more."""
    now_ms = time.time_ns() // 1_000_000
    redis.sadd(KEYS.symbols, "MSFT", b"\xff", "aapl", "A" * 5000)
    redis.zadd(KEYS.interest, {"ZM@x": now_ms + 60_000, "OLD@x": now_ms - 60_000, "MSFT@y": now_ms + 60_000})
    await reconciler.look()
    desired = reconciler.book.desired
    assert desired.symbols == ("MSFT", "ZM")
    assert desired.junk_total == 3
    assert desired.held is None


async def test_a_renewed_lease_is_no_change(
    redis: Redis, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strategies renew all the time, in any order; thousands of names are not sorted anew for that."""
    redis.hset(KEYS.writer, "began", 1)
    now_ms = time.time_ns() // 1_000_000
    redis.zadd(KEYS.interest, {"ZM@x": now_ms + 60_000, "MSFT@y": now_ms + 70_000})
    await reconciler.look()
    redis.zadd(KEYS.interest, {"ZM@x": now_ms + 80_000})

    def fail(*_: object) -> None:
        raise AssertionError("it was sorted anew")

    with monkeypatch.context() as patch:
        patch.setattr(reconciler._desired_set, "observe", fail)
        await reconciler.look()
    redis.zrem(KEYS.interest, "ZM@x")
    await reconciler.look()
    assert reconciler.book.desired.symbols == ("MSFT",)


async def test_leases_that_go_together_with_the_daemons_mark_are_kept(
    redis: Redis, reconciler: Reconciler
) -> None:
    """A database that was emptied is no strategy's wish; one that has ended is believed at once."""
    redis.hset(KEYS.writer, "began", 1)
    lasting_ms = time.time_ns() // 1_000_000 + 60_000
    redis.zadd(KEYS.interest, {"ZM@x": lasting_ms, "MSFT@y": lasting_ms})
    await reconciler.look()
    redis.flushall()
    redis.zadd(KEYS.interest, {"AAPL@z": lasting_ms})
    await reconciler.look()
    assert set(reconciler.book.desired.symbols) == {"AAPL", "MSFT", "ZM"}
    redis.hset(KEYS.writer, "began", 1)
    await reconciler.look()
    assert reconciler.book.desired.symbols == ("AAPL",)


async def test_a_key_of_another_type_keeps_the_last_good_set(redis: Redis, reconciler: Reconciler) -> None:
    """Until it is a set again."""
    redis.sadd(KEYS.symbols, "A")
    await reconciler.look()
    redis.delete(KEYS.symbols)
    redis.set(KEYS.symbols, "x")
    redis.set(KEYS.interest, "x")
    await reconciler.look()
    assert reconciler.book.desired.symbols == ("A",)
    assert reconciler.book.desired.held is not None
    redis.delete(KEYS.symbols)
    redis.sadd(KEYS.symbols, "B")
    await reconciler.look()
    assert reconciler.book.desired.symbols == ("B",)


@pytest.mark.parametrize("symbols", [("A",), ("A", "B")])
async def test_an_emptied_database_unsubscribes_nothing(
    redis: Redis, reconciler: Reconciler, symbols: tuple[str, ...]
) -> None:
    """Neither at the next look, nor when the daemon has written its own key again."""
    Writer(redis)
    redis.sadd(KEYS.symbols, *symbols)
    await reconciler.look()
    redis.flushall()
    await reconciler.look()
    Writer(redis)
    await reconciler.look()
    assert reconciler.book.desired.symbols == symbols
    assert reconciler.book.desired.held is not None


@pytest.mark.fault("C06")
async def test_a_read_that_fails_changes_nothing(
    redis: Redis, server: RedisServer, reconciler: Reconciler
) -> None:
    """It is an error, and never an empty set."""
    redis.sadd(KEYS.symbols, "A", "B")
    await reconciler.look()
    writer = Writer(redis, claim=False)
    writer.raw("ACL", "SETUSER", "default", "resetkeys", f"~{KEYS.writer}")
    try:
        with pytest.raises(RedisError):
            await reconciler.look()
    finally:
        writer.raw("ACL", "SETUSER", "default", "allkeys")
    assert reconciler.book.desired.symbols == ("A", "B")


async def test_the_tails_of_new_symbols_are_known_before_they_are_asked_for(
    redis: Redis, reconciler: Reconciler
) -> None:
    """So that no quote comes before its stream's last id; what lies between runs is marked as a hole."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    redis.sadd(KEYS.symbols, "A", "B")
    await reconciler.look()
    stamper = reconciler._stamper
    assert stamper.symbols == {"A", "B"}
    assert stamper._lanes["A"].gap_from_ns == T0_NS
    assert stamper._lanes["B"].gap_from_ns is None


async def test_a_stop_at_the_very_moment_of_a_change_is_still_a_stop(reconciler: Reconciler) -> None:
    """The wait for a change must not swallow a cancellation that arrives together with it."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(50):
            reconciler.first_look.clear()
            task = group.create_task(reconciler.run())
            await reconciler.first_look.wait()
            await asyncio.sleep(0)
            reconciler._watch.changed.set()
            await asyncio.sleep(0)
            task.cancel()

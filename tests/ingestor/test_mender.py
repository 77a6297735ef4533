"""The cache, repaired from the streams on a real server: never set back, and by nobody but the writer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ResponseError

from ingestor.journal import Journal
from ingestor.publisher import mender as module
from ingestor.publisher.mender import CacheMender
from simulator.redis_server import RedisServer
from tests.ingestor.waiting import until
from tests.ingestor.writer import KEYS, Writer


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[AsyncRedis]:
    """The client that the daemon's control plane has."""
    async with AsyncRedis.from_url(server.url) as opened:
        yield opened


def mender_of(client: AsyncRedis, writer: Writer) -> CacheMender:
    """The mender of this writer."""
    return CacheMender(client, KEYS, writer.stamper, lambda: (writer.epoch, writer.token), Journal())


def cache(redis: Redis) -> Any:
    """All fields."""
    return redis.hgetall(KEYS.latest)


@pytest.mark.fault("K47", "P05")
async def test_what_is_missing_or_behind_is_set_from_the_stream(redis: Redis, client: AsyncRedis) -> None:
    """To the byte what the append call would have written; what is right is left alone."""
    writer = Writer(redis, "A", "B", "C", "NEVER")
    writer.append(writer.batch("A", "B", "C"))
    old: Any = redis.hget(KEYS.latest, "B")
    writer.append(writer.batch("A", "B", "C"))
    right = cache(redis)
    redis.hdel(KEYS.latest, "A")
    redis.hset(KEYS.latest, "B", old)
    mender = mender_of(client, writer)
    assert await mender.look() == 2
    assert cache(redis) == right
    assert await mender.look() == 0
    assert mender.mended == 2


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"[]", b"{}", b'{"id":"x","S":"A"}', b'{"id":5}', b"\xff\xfe", b"VALID BUT FOR ITS ID"],
)
async def test_a_field_that_cannot_be_read_is_set(redis: Redis, client: AsyncRedis, value: bytes) -> None:
    """Whoever wrote it."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    right = cache(redis)
    if value.startswith(b"VALID"):
        entry_id = str(writer.ids("A")[0]).encode()
        value = right[b"A"].replace(entry_id, b"nonsense")
    redis.hset(KEYS.latest, "A", value)
    assert await mender_of(client, writer).look() == 1
    assert cache(redis) == right


async def test_a_newer_value_stays(redis: Redis, client: AsyncRedis) -> None:
    """It was written between our look and our repair, or the stream was cut back: the mender is no judge."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A", "A"))
    right = cache(redis)
    redis.xdel(KEYS.stream("A"), str(writer.ids("A")[-1]))
    assert await mender_of(client, writer).look() == 0
    assert cache(redis) == right


@pytest.mark.parametrize(
    ("offered", "is_set"),
    [
        ("1763000004123-825050001", True),
        ("1763000004124-0", True),
        ("1763000004123-825050000", False),
        ("1763000004123-825049999", False),
        ("1763000004122-999999999", False),
        ("999-999999999", False),
        ("17630000041230-0", True),
    ],
)
def test_the_script_itself_compares(redis: Redis, offered: str, is_set: bool) -> None:
    """What we read may be old when we write: only the server can tell, by number and not by letter."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    before = cache(redis)
    reply = writer.raw(
        *("EVAL", module._MEND, 2, KEYS.writer, KEYS.latest),
        *(writer.epoch, writer.token, "A", offered, "new"),
    )
    assert reply == is_set
    assert cache(redis) == ({b"A": b"new"} if is_set else before)


@pytest.mark.fault("P16")
async def test_who_has_been_overtaken_mends_nothing(redis: Redis, client: AsyncRedis) -> None:
    """Another epoch, or another token under the same epoch."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    Writer(redis, "A")
    redis.delete(KEYS.latest)
    assert await mender_of(client, writer).look() == 0
    redis.hset(KEYS.writer, mapping={"epoch": writer.epoch, "token": "another"})
    assert await mender_of(client, writer).look() == 0
    assert not redis.exists(KEYS.latest)


async def test_behind_a_gap_marker_stands_the_newest_quote(redis: Redis, client: AsyncRedis) -> None:
    """A marker has no place in the cache, and a stream of nothing else has no field."""
    writer = Writer(redis, "A", "B")
    writer.append(writer.batch("A"))
    right = cache(redis)
    redis.xadd(KEYS.stream("A"), {"gap": '{"from":1,"to":2,"reason":"x","epoch":1}'})
    redis.xadd(KEYS.stream("B"), {"gap": '{"from":1,"to":2,"reason":"x","epoch":1}'})
    redis.delete(KEYS.latest)
    assert await mender_of(client, writer).look() == 1
    assert cache(redis) == right


async def test_an_entry_that_is_no_quote_is_not_copied(redis: Redis, client: AsyncRedis) -> None:
    """Somebody else's; the other symbols are mended."""
    writer = Writer(redis, "A", "B", "C")
    writer.append(writer.batch("A", "B"))
    redis.xadd(KEYS.stream("A"), {"q": "[1,2,3]"})
    redis.set(KEYS.stream("C"), "x")
    redis.delete(KEYS.latest)
    assert await mender_of(client, writer).look() == 1
    assert list(cache(redis)) == [b"B"]


async def test_many_symbols_are_mended_in_pieces(
    redis: Redis, client: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once."""
    monkeypatch.setattr(module, "CHUNK", 7)
    symbols = [f"S{n}" for n in range(30)]
    writer = Writer(redis, *symbols)
    writer.append(writer.batch(*symbols))
    right = cache(redis)
    redis.delete(KEYS.latest)
    assert await mender_of(client, writer).look() == 30
    assert cache(redis) == right


@pytest.mark.fault("K27")
async def test_a_cache_of_another_type_is_mended_when_it_is_gone(
    redis: Redis, client: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps looking by itself, without a new quote, and survives every refusal meanwhile."""
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    writer = Writer(redis, "A")
    redis.set(KEYS.latest, "x")
    writer.append(writer.batch("A"))
    mender = mender_of(client, writer)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await mender.look()
    passes: list[int] = []
    look = mender.look

    async def counted() -> int:
        passes.append(1)
        return await look()

    monkeypatch.setattr(mender, "look", counted)
    suspect = asyncio.Event()
    suspect.set()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(mender.run(suspect))
        async with asyncio.timeout(30):
            await until(lambda: len(passes) > 2)
            assert (running.done(), mender.mended) == (False, 0)
            redis.delete(KEYS.latest)
            await until(lambda: bool(redis.hexists(KEYS.latest, "A")))
        running.cancel()
    assert str(writer.ids("A")[0]).encode() in cache(redis)[b"A"]


async def test_it_looks_when_told(redis: Redis, client: AsyncRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only once a minute."""
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    suspect = asyncio.Event()
    mender = mender_of(client, writer)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(mender.run(suspect))
        async with asyncio.timeout(30):
            for round_ in range(1, 4):
                redis.delete(KEYS.latest)
                suspect.set()
                await until(lambda round_=round_: mender.mended >= round_)  # type: ignore[misc]
        running.cancel()

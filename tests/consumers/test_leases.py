"""Leases on a real server: taken, kept, given back, and what happens when they cannot be."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import Bus, BusClosed, Gap, GroupStream, Quote, connect
from consumers.leases.book import BEAT_S, TTL_S
from simulator.redis_server import RedisServer, free_port
from tests.consumers.conftest import FAST, KEYS, Writer, blocked, numbers, take, until

OTHER = "AAPL@somebody-else"


async def leases_of(redis: Redis) -> dict[str, float]:
    """Every member with the seconds it has left by the server's clock."""
    seconds, microseconds = await redis.time()
    rows: Any = await redis.zrange(KEYS.interest, 0, -1, withscores=True)
    return {
        member.decode(): score / 1000 - seconds - microseconds / 1e6
        for member, score in rows
        if member.decode() != OTHER
    }


async def wanted(redis: Redis, *symbols: str, timeout_s: float = 30.0) -> None:
    """Wait until exactly these symbols have a lease."""

    async def is_so() -> bool:
        return sorted(member.partition("@")[0] for member in await leases_of(redis)) == sorted(symbols)

    await until(is_so, timeout_s)


async def test_interest_is_on_the_server_while_the_block_runs(bus: Bus, redis: Redis) -> None:
    """Taken on entering, for fifteen seconds by the server's clock, under the name of the bus."""
    async with bus.interest("AAPL", "MSFT") as interest:
        found = await leases_of(redis)
        assert sorted(found) == [f"AAPL@{bus.name}", f"MSFT@{bus.name}"]
        assert all(TTL_S - 5 < left <= TTL_S for left in found.values())
        assert interest.trouble is None
        assert interest.symbols == {"AAPL", "MSFT"}
    await wanted(redis)


async def test_interest_changes_while_it_runs_and_may_be_entered_again(bus: Bus, redis: Redis) -> None:
    """What was added or removed outside the block counts the next time."""
    interest = bus.interest("AAPL")
    interest.add("TSLA")
    async with interest:
        await wanted(redis, "AAPL", "TSLA")
        interest.add("MSFT", "AAPL")
        interest.remove("TSLA", "NVDA")
        await wanted(redis, "AAPL", "MSFT")
    await wanted(redis)
    interest.remove("MSFT")
    async with interest:
        await wanted(redis, "AAPL")


async def test_two_who_want_the_same_symbol_share_its_lease(bus: Bus, redis: Redis) -> None:
    """It ends with the second, and another consumer's is not touched."""
    await redis.zadd(KEYS.interest, {OTHER: 9e15})
    async with bus.interest("AAPL"):
        async with bus.interest("AAPL", "MSFT"):
            await wanted(redis, "AAPL", "MSFT")
        await wanted(redis, "AAPL")
    await wanted(redis)
    assert await redis.zscore(KEYS.interest, OTHER) == 9e15


async def test_an_exception_and_a_cancellation_give_the_leases_back(bus: Bus, redis: Redis) -> None:
    """However the block ends."""

    async def strategy() -> None:
        async with bus.interest("AAPL"):
            await asyncio.sleep(3600)

    with pytest.raises(ZeroDivisionError):
        async with bus.interest("MSFT"):
            raise ZeroDivisionError
    task = asyncio.create_task(strategy())  # noqa: TID251
    await wanted(redis, "AAPL")
    task.cancel()
    await asyncio.wait((task,))
    await wanted(redis)


async def test_closing_the_bus_gives_everything_back_even_from_another_task(
    server: RedisServer, redis: Redis
) -> None:
    """As in a notebook, where each cell is a task of its own; closing again does no harm."""
    bus = connect(server.url, reconnect=FAST)
    await asyncio.create_task(bus.__aenter__())  # noqa: TID251
    await asyncio.create_task(bus.interest("AAPL").__aenter__())  # noqa: TID251
    await wanted(redis, "AAPL")
    await asyncio.create_task(bus.aclose())  # noqa: TID251
    assert await leases_of(redis) == {}
    await bus.aclose()
    with pytest.raises(BusClosed):
        bus.interest("AAPL")


async def test_a_bus_that_only_asks_writes_nothing_and_has_no_task(bus: Bus, redis: Redis) -> None:
    """Leases cost who uses them."""
    await bus.latest("AAPL")
    assert len(asyncio.all_tasks()) == 1
    assert await leases_of(redis) == {}


async def test_the_same_name_twice_makes_two_consumers(server: RedisServer, redis: Redis) -> None:
    """So that leaving one does not end the other's leases; the name is what operators read."""
    async with connect(server.url, name="desk") as one, one.interest("AAPL"):
        async with connect(server.url, name="desk") as two, two.interest("AAPL"):
            members = await leases_of(redis)
            assert len(members) == 2
            assert all(member.startswith("AAPL@desk#") for member in members)
        await wanted(redis, "AAPL")


async def test_thousands_of_symbols_are_leased_at_once(bus: Bus, redis: Redis) -> None:
    """In commands that each hold the server up for a few hundred members only."""
    names = [f"S{n}" for n in range(5_000)]
    async with bus.interest(*names):
        assert await redis.zcard(KEYS.interest) == 5_000
        stats = await redis.info("commandstats")
        assert stats["cmdstat_zadd"]["calls"] >= 10
    await wanted(redis)


async def test_a_beat_renews_the_leases(bus: Bus, redis: Redis) -> None:
    """Before half of their time has passed."""
    async with bus.interest("AAPL"):
        (member,) = await leases_of(redis)
        first = await redis.zscore(KEYS.interest, member)

        async def renewed() -> bool:
            return (await redis.zscore(KEYS.interest, member) or 0) > (first or 0)

        await until(renewed, 3 * BEAT_S)


async def test_a_forgetful_server_gets_the_leases_back_with_the_next_beat(bus: Bus, redis: Redis) -> None:
    """FLUSHALL, without an end of any connection."""
    async with bus.interest("AAPL"):
        await redis.flushall()
        await wanted(redis, "AAPL", timeout_s=3 * BEAT_S)


async def test_what_a_crashed_consumer_left_is_swept_by_another(bus: Bus, redis: Redis) -> None:
    """A minute after it expired; what has just expired stays for the operator's eyes."""
    seconds, _ = await redis.time()
    await redis.zadd(KEYS.interest, {"OLD@dead": (seconds - 120) * 1000, "NEW@dead": (seconds - 20) * 1000})
    async with bus.interest("AAPL"):
        assert sorted(m.partition("@")[0] for m in await leases_of(redis)) == ["AAPL", "NEW"]


@pytest.fixture
async def restricted(redis: Redis) -> AsyncIterator[Redis]:
    """A client of a server whose user `reader` may read and not write."""
    rights = "+@read +@connection +multi +exec +time".split()
    await Writer(redis).raw("ACL", "SETUSER", "reader", "on", ">secret", "~*", *rights)
    yield redis
    await Writer(redis).raw("ACL", "DELUSER", "reader")


async def test_who_may_not_write_is_told_once_with_the_remedy(
    server: RedisServer, restricted: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Asking goes on over the same bus, and nothing is raised."""
    url = server.url.replace("redis://", "redis://reader:secret@")
    async with connect(url, reconnect=FAST) as bus, bus.interest("AAPL") as interest:
        assert "+zadd" in (interest.trouble or "")
        async with bus.interest("MSFT"):
            assert await bus.latest("AAPL") is None
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "lease=False" in warnings[0]


async def test_a_full_server_is_told_of_and_tried_again(
    redis: Redis, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """When it has room and somebody reaches it anew, the leases are there."""
    await redis.config_set("maxmemory", "1")
    try:
        async with bus.interest("AAPL") as interest:
            assert "memory is full" in (interest.trouble or "")
            await redis.config_set("maxmemory", "0")
            bus._leases.server_is_back()
            await wanted(redis, "AAPL")
            await until_no_trouble(interest)
    finally:
        await redis.config_set("maxmemory", "0")
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


async def until_no_trouble(interest: object) -> None:
    """Wait until the leases are written again."""

    async def is_so() -> bool:
        return getattr(interest, "trouble", "") is None

    await until(is_so)


async def test_a_replica_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A strategy that reads from a replica reads on."""
    with RedisServer() as replica:
        async with Redis.from_url(replica.url, protocol=2) as admin:
            await admin.replicaof("127.0.0.1", free_port())
            await admin.config_set("replica-serve-stale-data", "yes")
            async with connect(replica.url, reconnect=FAST) as bus, bus.interest("AAPL") as interest:
                assert "primary" in (interest.trouble or "")
                assert await bus.latest("AAPL") is None


async def test_a_server_that_is_away_does_not_hold_up_the_end() -> None:
    """The leases expire by themselves."""
    with RedisServer() as mortal:
        async with connect(mortal.url, reconnect=FAST) as bus, bus.interest("AAPL"):
            mortal.stop()
            began_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began_s < 10


async def test_a_restarted_server_has_the_leases_again() -> None:
    """Without a persistent file, and although nobody reads: with the next beat."""
    with RedisServer() as mortal:
        async with connect(mortal.url, reconnect=FAST) as bus, bus.interest("AAPL"):
            mortal.kill()
            mortal.start()
            async with Redis.from_url(mortal.url, protocol=2) as redis:
                assert await leases_of(redis) == {}
                await wanted(redis, "AAPL", timeout_s=6 * BEAT_S)


async def test_a_program_that_is_killed_leaves_leases_that_expire(server: RedisServer, redis: Redis) -> None:
    """Nobody renews them: fifteen seconds after the last beat they count no more."""
    program = (
        "import asyncio, sys\nfrom consumers import connect\n"
        "async def main():\n    async with connect(sys.argv[1]) as bus, bus.interest('AAPL'):\n"
        "        print('ready', flush=True)\n        await asyncio.sleep(3600)\nasyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, server.url, stdout=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            await process.stdout.readline()
        await wanted(redis, "AAPL")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        (left,) = (await leases_of(redis)).values()
        assert left <= TTL_S
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_loop_takes_leases_when_it_begins_and_gives_them_back_when_it_is_left(
    bus: Bus, redis: Redis, writer: Writer
) -> None:
    """By break, by an exception, by cancellation, by closing the stream; not before it began."""
    await writer.quotes("AAPL", 10)
    stream = bus.quotes("AAPL", "MSFT", start="earliest")
    assert await leases_of(redis) == {}
    async for _ in stream:
        await wanted(redis, "AAPL", "MSFT")
        break
    await wanted(redis)

    async def strategy() -> None:
        async for item in bus.quotes("AAPL", start="earliest"):
            await wanted(redis, "AAPL")
            raise ZeroDivisionError(item.symbol)

    with pytest.raises(ZeroDivisionError):
        await strategy()
    await wanted(redis)

    async def reader() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(reader())  # noqa: TID251
    await wanted(redis, "AAPL", "MSFT")
    task.cancel()
    await asyncio.wait((task,))
    await wanted(redis)
    task = asyncio.create_task(reader())  # noqa: TID251
    await wanted(redis, "AAPL", "MSFT")
    await stream.aclose()
    await wanted(redis)
    await task


async def test_a_loop_over_batches_has_leases_too(bus: Bus, redis: Redis, writer: Writer) -> None:
    """Whatever the way of reading."""
    await writer.quotes("AAPL", 10)
    stream = bus.quotes("AAPL", start="earliest")
    batches = stream.batches()
    await anext(batches)
    await wanted(redis, "AAPL")
    await batches.aclose()
    await wanted(redis)


async def test_who_wants_only_the_newest_has_leases_too(bus: Bus, redis: Redis, writer: Writer) -> None:
    """They follow its symbols, and go with it."""
    await writer.quotes("AAPL", 10)
    stream = bus.newest("AAPL", start="earliest")
    async for _ in stream:
        await wanted(redis, "AAPL")
        stream.add("MSFT", start="earliest")
        await wanted(redis, "AAPL", "MSFT")
        break
    await wanted(redis)


async def test_a_worker_of_a_group_has_leases_too(bus: Bus, redis: Redis, writer: Writer) -> None:
    """They follow its symbols, and go with its loop."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("workers", "AAPL", start="earliest")
    async for _ in stream:
        await wanted(redis, "AAPL")
        stream.add("MSFT", start="earliest")
        await wanted(redis, "AAPL", "MSFT")
        break
    await wanted(redis)
    await stream.aclose()


async def test_leases_follow_the_symbols_of_a_running_loop(bus: Bus, redis: Redis, writer: Writer) -> None:
    """And another loop's share in a symbol is left alone."""
    await writer.quotes("AAPL", 10)
    stream, other = bus.quotes("AAPL", start="earliest"), bus.quotes("AAPL", "NVDA", start="earliest")
    stream.add("TSLA")
    async for _ in other:
        await wanted(redis, "AAPL", "NVDA")
        async for _ in stream:
            await wanted(redis, "AAPL", "NVDA", "TSLA")
            stream.add("MSFT", start="earliest")
            stream.remove("TSLA", "AAPL")
            await wanted(redis, "AAPL", "MSFT", "NVDA")
            break
        await wanted(redis, "AAPL", "NVDA")
        break
    await wanted(redis)


async def test_no_quote_that_a_lease_brings_about_is_missed(bus: Bus, redis: Redis, writer: Writer) -> None:
    """The place of a new symbol is known before it is leased, so a daemon may be as quick as it likes."""

    async def bring(symbol: str) -> None:
        async with asyncio.timeout(10):
            while not any(member.startswith(f"{symbol}@") for member in await leases_of(redis)):
                pass
        await writer.quotes(symbol, 3)

    stream = bus.quotes("FIRST")
    async with asyncio.TaskGroup() as group:
        group.create_task(bring("FIRST"))
        items = aiter(stream)
        assert numbers(await take(items, 3)) == [0, 1, 2]
        reading = group.create_task(take(items, 3))
        await blocked(redis)
        group.create_task(bring("SECOND"))
        stream.add("SECOND")
        assert numbers(await reading) == [0, 1, 2]
    await stream.aclose()


@pytest.mark.parametrize("is_old", [False, True])
async def test_no_quote_that_a_workers_lease_brings_about_is_missed(
    bus: Bus, redis: Redis, writer: Writer, is_old: bool
) -> None:
    """The group has its place in a stream, be it there or not, before a worker leases the symbol."""
    symbols = ("FIRST", "SECOND")
    if is_old:
        for symbol in symbols:
            await writer.quotes(symbol, 2)
    begun = [len(writer.sent.get(symbol, ())) for symbol in symbols]

    async def bring(symbol: str) -> None:
        async with asyncio.timeout(30):
            while not any(member.startswith(f"{symbol}@") for member in await leases_of(redis)):
                pass
        await writer.quotes(symbol, 3)

    async def handle(stream: GroupStream) -> list[float | int | None]:
        found: list[Quote | Gap] = []
        async with asyncio.timeout(60):
            async for delivery in stream:
                found.append(delivery.item)
                await stream.ack(delivery)
                if len(found) == 3:
                    break
        return numbers(found)

    stream = bus.group("g", "FIRST")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bring("FIRST"))
        assert await handle(stream) == [begun[0] + n for n in range(3)]
        working = tasks.create_task(handle(stream))
        await wanted(redis, "FIRST")
        tasks.create_task(bring("SECOND"))
        stream.add("SECOND")
        assert await working == [begun[1] + n for n in range(3)]
    await stream.aclose()


async def test_without_lease_nothing_is_written(bus: Bus, redis: Redis, writer: Writer) -> None:
    """For who reads what others want anyway."""
    await writer.quotes("AAPL", 10)
    before = sorted(await redis.keys()), await redis.info("commandstats")
    async for _ in bus.quotes("AAPL", start="earliest", lease=False):
        assert "quotebus-leases" not in {task.get_name() for task in asyncio.all_tasks()}
        break
    keys, calls = sorted(await redis.keys()), await redis.info("commandstats")
    assert keys == before[0]
    assert KEYS.interest.encode() not in keys
    for command in ("cmdstat_zadd", "cmdstat_zrem", "cmdstat_zremrangebyscore"):
        assert calls.get(command) == before[1].get(command)


async def test_a_lease_lives_however_slow_the_strategy_is(bus: Bus, redis: Redis, writer: Writer) -> None:
    """One item may take longer than a lease lasts, and the lease is renewed all the while."""
    await writer.quotes("AAPL", 2)
    async for _ in bus.quotes("AAPL", start="earliest"):
        await wanted(redis, "AAPL")
        for _ in range(17):
            await asyncio.sleep(1.0)
            (left,) = (await leases_of(redis)).values()
            assert left > 0
        break


async def test_who_may_not_write_reads_on(
    server: RedisServer, restricted: Redis, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything arrives; the log says once what is missing."""
    await writer.quotes("AAPL", 5)
    url = server.url.replace("redis://", "redis://reader:secret@")
    async with connect(url, reconnect=FAST) as bus:
        for _ in range(2):
            assert numbers(await take(aiter(bus.quotes("AAPL", start="earliest")), 5)) == [0, 1, 2, 3, 4]
            await until_told(caplog)
    assert len(caplog.records) == 1


async def until_told(caplog: pytest.LogCaptureFixture) -> None:
    """Wait for the first line of the log."""

    async def is_so() -> bool:
        return bool(caplog.records)

    await until(is_so)


async def test_a_reader_that_finds_redis_again_gives_it_the_leases_at_once() -> None:
    """Before the next beat is due."""
    with RedisServer() as mortal:
        async with connect(mortal.url, reconnect=FAST) as bus:
            task = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 1))  # noqa: TID251
            async with Redis.from_url(mortal.url, protocol=2) as redis:
                await wanted(redis, "AAPL")
            mortal.kill()
            mortal.start()
            async with Redis.from_url(mortal.url, protocol=2) as redis:
                await wanted(redis, "AAPL", timeout_s=BEAT_S / 2)
            task.cancel()
            await asyncio.wait((task,))

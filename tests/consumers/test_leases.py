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

from consumers import Bus, BusClosed, connect
from consumers.leases.book import BEAT_S, TTL_S
from simulator.redis_server import RedisServer, free_port
from tests.consumers.conftest import FAST, KEYS, Writer, until

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


async def wanted(redis: Redis, *symbols: str, timeout_s: float = 10.0) -> None:
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
    await redis.execute_command(
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">secret",
        "~*",
        "+@read",
        "+@connection",
        "+multi",
        "+exec",
        "+time",
    )
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

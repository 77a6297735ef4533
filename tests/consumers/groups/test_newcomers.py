"""Where a group stands is decided by whoever knows, and never by a worker that has just come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from consumers import Bus, Delivery, Gap, GroupStream, connect
from consumers.groups.record import KEPT_S, Debt, decode_record, encode_record
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, T0_NS, Writer, blocked, until
from tests.consumers.groups.test_heal import gaps
from tests.consumers.groups.test_work import deliver, has_group, numbers
from wire import encode_gap

STREAM = KEYS.stream("AAPL")
STEP_NS = 1_000_003


class Crew:
    """Workers that acknowledge all they get, and what they got together."""

    def __init__(self) -> None:
        self.found: list[Delivery] = []

    @asynccontextmanager
    async def at_work(self, *streams: GroupStream) -> AsyncIterator[None]:
        """These work as long as this runs."""
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._work(stream)) for stream in streams]
            yield
            for task in running:
                task.cancel()

    async def _work(self, stream: GroupStream) -> None:
        async for delivery in stream:
            self.found.append(delivery)
            await stream.ack(delivery)

    async def has_all(self, wanted: range) -> bool:
        """Whether each of these was handled, or stands in a gap that somebody was told."""
        handled = set(numbers(self.found))
        told = [(gap.from_ns, gap.to_ns) for gap in gaps(self.found)]
        times = {number: T0_NS + number * STEP_NS for number in wanted}
        return all(
            number in handled or any(since <= time_ns <= to for since, to in told)
            for number, time_ns in times.items()
        )


async def empty(redis: Redis, how: str) -> None:
    """Take the stream away, and with FLUSHALL everything that anybody ever knew."""
    await (redis.delete(STREAM) if how == "DEL" else redis.flushall())


async def _is_noted(redis: Redis, writer: Writer) -> bool:
    """Whether the record says that all that was written has been handled."""
    _, record = decode_record(await redis.zrange(KEYS.group("g", "AAPL"), 0, 0))
    return record is not None and record.floor == writer.ids["AAPL"][-1]


async def generation(redis: Redis) -> str | None:
    """The generation of the group that its record names."""
    _, record = decode_record(await redis.zrange(KEYS.group("g", "AAPL"), 0, 0))
    return None if record is None else record.generation


@pytest.mark.fault("Q21")
@pytest.mark.parametrize("how", ["DEL", "FLUSHALL"])
@pytest.mark.parametrize("incumbent", ["waits", "is busy"])
async def test_a_newcomer_does_not_decide_where_a_group_stands(
    bus: Bus, writer: Writer, redis: Redis, how: str, incumbent: str
) -> None:
    """One worker has handled ten entries; fifty are written to a new stream, and then another worker comes."""
    await writer.quotes("AAPL", 10)
    old = bus.group("g", "AAPL", start="earliest", consumer="a")
    await deliver(old, 10)
    crew = Crew()
    async with crew.at_work(old) if incumbent == "waits" else crew.at_work():
        if incumbent == "waits":
            await blocked(redis)
        await empty(redis, how)
        await asyncio.sleep(0.1)
        await writer.quotes("AAPL", 50)
        new = bus.group("g", "AAPL", consumer="b")
        async with crew.at_work(new):
            await until(lambda: _is_joined(new))
            async with crew.at_work(*(() if incumbent == "waits" else (old,))):
                await until(lambda: crew.has_all(range(10, 60)), 10)
    assert set(numbers(crew.found)) == set(range(10, 60))


@pytest.mark.fault("Q21")
async def test_a_group_outlives_all_its_workers_and_its_stream(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """Nobody is left who knows where it stood, but Redis does."""
    await writer.quotes("AAPL", 10)
    async with bus.group("g", "AAPL", start="earliest") as old:
        await deliver(old, 10)
    await redis.delete(STREAM)
    await writer.quotes("AAPL", 50)
    found = await deliver(bus.group("g", "AAPL"), 51, timeout_s=10)
    assert [gap.reason for gap in gaps(found)] == ["stream_recreated"]
    assert numbers(found) == list(range(10, 60))


@pytest.mark.fault("Q21")
async def test_a_group_destroyed_while_nobody_works_goes_on_where_it_stood(bus: Bus, writer: Writer) -> None:
    """And not at the newcomer's own now."""
    await writer.quotes("AAPL", 10)
    async with bus.group("g", "AAPL", start="earliest") as old:
        await deliver(old, 10)
    await writer.raw("XGROUP", "DESTROY", STREAM, "g")
    await writer.quotes("AAPL", 50)
    found = await deliver(bus.group("g", "AAPL"), 50, timeout_s=10)
    assert set(numbers(found)) == set(range(10, 60))
    assert gaps(found) == []


async def test_a_group_that_somebody_made_anew_further_on_is_told_from_its_own(
    bus: Bus, writer: Writer
) -> None:
    """Destroyed and made at the end by another hand: what lies between comes all the same."""
    await writer.quotes("AAPL", 10)
    async with bus.group("g", "AAPL", start="earliest") as old:
        await deliver(old, 10)
    await writer.quotes("AAPL", 50)
    await writer.raw("XGROUP", "DESTROY", STREAM, "g")
    await writer.raw("XGROUP", "CREATE", STREAM, "g", "$")
    await writer.quotes("AAPL", 5)
    found = await deliver(bus.group("g", "AAPL"), 55, timeout_s=10)
    assert sorted(numbers(found), key=str) == sorted(range(10, 65), key=str)
    assert len(numbers(found)) == 55


@pytest.mark.fault("Q21")
@pytest.mark.parametrize("keeps", [True, False])
async def test_redis_and_all_workers_restart_together(keeps: bool) -> None:
    """With its file the group goes on; without, all that is left is the writer's marker, and it becomes a gap."""
    options = ("--appendfsync", "always")
    with RedisServer(appendonly=keeps, options=options if keeps else ()) as mortal:
        async with Redis.from_url(mortal.url, protocol=2) as redis:
            writer = Writer(redis)
            await writer.quotes("AAPL", 10)
            async with connect(mortal.url, reconnect=FAST) as bus:
                await deliver(bus.group("g", "AAPL", start="earliest", consumer="a"), 10)
            mortal.kill()
            await asyncio.to_thread(mortal.start)
            # As the daemon does: it marks what it cannot send again, in front or behind the first entry.
            await writer.quotes("AAPL")
            await writer.gap("AAPL", "redis_lost")
            await writer.quotes("AAPL", 49)
            crew = Crew()
            async with connect(mortal.url, reconnect=FAST) as bus:
                new = bus.group("g", "AAPL", consumer="b")
                async with crew.at_work(new):
                    await until(lambda: crew.has_all(range(10, 60)), 10)


@pytest.mark.fault("Q22")
async def test_a_stream_that_was_away_and_is_back_is_told(bus: Bus, writer: Writer, redis: Redis) -> None:
    """What was handed out of the stream that stood in its place is no reason to think that all of it was."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest", consumer="a", prefetch=5)
    crew = Crew()
    async with crew.at_work(stream):
        await until(lambda: _handled(crew, 10))
        await blocked(redis)
        await redis.rename(STREAM, "aside")
        await writer.quotes("AAPL", 20)
        await redis.rename("aside", STREAM)
        await writer.quotes("AAPL", 5)
        await until(lambda: crew.has_all(range(35)), 5)


async def test_a_hole_before_what_an_emptied_server_was_sent_again_is_told(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """The daemon's marker stands before the group's place, and would be passed over with the hole."""
    await writer.quotes("AAPL", 10)
    old = bus.group("g", "AAPL", start="earliest", claim_after_s=0.3)
    crew = Crew()
    async with crew.at_work(old):
        await until(lambda: _is_noted(redis, writer))
        await redis.flushall()
        # Ten more were stored before that, and are too old to be sent again.
        writer.sent["AAPL"] += range(10, 20)
        lost = encode_gap(T0_NS, T0_NS + 20 * STEP_NS, "redis_lost", 1)
        await writer.raw("XADD", STREAM, "1-0", "gap", lost)
        await writer.quotes("AAPL", 5)
        await until(lambda: crew.has_all(range(10, 25)), 10)


async def test_what_a_server_lost_that_was_emptied_twice_is_told(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """The daemon's marker stands at the same id each time, and the stream looks like the one before."""
    await writer.quotes("AAPL", 10)
    crew = Crew()
    async with crew.at_work(bus.group("g", "AAPL", start="earliest", claim_after_s=0.3)):
        await until(lambda: crew.has_all(range(10)))
        for number in (10, 20):
            await until(lambda: _is_noted(redis, writer))
            await redis.flushall()
            # Five more were stored before that, and are too old to be sent again.
            writer.sent["AAPL"] += range(number, number + 5)
            lost = encode_gap(T0_NS, T0_NS + (number + 4) * STEP_NS, "redis_lost", 1)
            await writer.raw("XADD", STREAM, "1-0", "gap", lost)
            await until(lambda: has_group(redis, "AAPL"), 10)
            await writer.quotes("AAPL", 5)
            await until(lambda: crew.has_all(range(number + 10)), 10)  # noqa: B023


async def test_a_gap_that_a_killed_worker_had_found_is_told_by_another(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """It stands in the record until somebody's strategy has it, and then no more."""
    await writer.quotes("AAPL", 10)
    async with bus.group("g", "AAPL", start="earliest") as first:
        await deliver(first, 10)
    key = KEYS.group("g", "AAPL")
    raw, record = decode_record(await redis.zrange(key, 0, 0))
    assert record is not None
    owing = record.owing(Debt("killed", writer.ids["AAPL"][2], writer.ids["AAPL"][5], "trimmed", 2))
    await redis.zrem(key, raw)
    await redis.zadd(key, {encode_record(owing): 0})
    async with bus.group("g", "AAPL", claim_after_s=0.3) as second:
        (found,) = await deliver(second, 1, timeout_s=10)
    assert isinstance(found.item, Gap)
    assert (found.item.reason, found.item.missing) == ("trimmed", 2)
    _, record = decode_record(await redis.zrange(key, 0, 0))
    assert record is not None
    assert record.debts == ()


async def test_the_record_expires_when_nobody_writes_it(bus: Bus, writer: Writer, redis: Redis) -> None:
    """A group of yesterday's experiment is not kept for ever."""
    await writer.quotes("AAPL", 1)
    async with bus.group("g", "AAPL", start="earliest") as stream:
        await deliver(stream, 1)
    assert 0 < await redis.ttl(KEYS.group("g", "AAPL")) <= KEPT_S
    assert await redis.zcard(KEYS.group("g", "AAPL")) == 1


async def _is_joined(stream: GroupStream) -> bool:
    return all(track.joined for track in stream._share.membership.tracks.values())


async def _handled(crew: Crew, count: int) -> bool:
    return len(crew.found) >= count

"""What was acknowledged comes a second time only where nobody could have known of it."""

import asyncio
import signal
import sys

from redis.asyncio import Redis

from consumers import Bus
from simulator.redis_server import RedisServer
from tests.consumers.conftest import Writer, blocked, until
from tests.consumers.groups.test_newcomers import STREAM, Crew, generation
from tests.consumers.groups.test_work import deliver, numbers

WORKER = """
import asyncio, sys
from consumers import connect

async def main():
    async with connect(sys.argv[1]) as bus:
        stream = bus.group("g", "AAPL", consumer="a", claim_after_s=1.0, start="earliest")
        async for delivery in stream:
            print(delivery.id, flush=True)
            await stream.ack(delivery)

asyncio.run(main())
"""


async def test_what_was_acknowledged_in_a_stream_that_is_back_stays_so(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """Its group is back with it, and knows; another stream stood in its place, and an heir of the group."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=0.3)
    crew = Crew()
    async with crew.at_work(stream):
        await until(lambda: _has(crew, 10))
        first = await generation(redis)
        await redis.rename(STREAM, "aside")
        await writer.quotes("AAPL", 5)
        await until(lambda: _has(crew, 15))
        second = await generation(redis)
        await redis.rename("aside", STREAM)
        await writer.quotes("AAPL", 2)
        await until(lambda: _has(crew, 17), 10)
        # Whatever is owed stands in the record that names the third one, and is paid before what comes then.
        await until(lambda: _is_another(redis, first, second), 10)
        await writer.quotes("AAPL", 1)
        await until(lambda: _has_come(crew, 17), 10)
    assert numbers(crew.found) == list(range(18))


async def test_what_a_worker_has_not_handled_comes_when_the_stream_is_back(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """It is pending in the group that is back, however far the heir in the other stream had come."""
    await writer.quotes("AAPL", 10)
    await deliver(bus.group("g", "AAPL", start="earliest", consumer="gone", prefetch=5), 3)
    stream = bus.group("g", "AAPL", claim_after_s=0.3)
    crew = Crew()
    await redis.rename(STREAM, "aside")
    await writer.quotes("AAPL", 5)
    async with crew.at_work(stream):
        await until(lambda: _has(crew, 5))
        await redis.rename("aside", STREAM)
        await until(lambda: _has(crew, 12), 10)
    assert sorted(numbers(crew.found)) == list(range(3, 15))  # type: ignore[type-var]


async def test_the_end_of_the_stream_that_stood_in_the_place_is_told(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """It went before anybody had looked, and until an entry comes nobody can say up to when."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=0.3)
    crew = Crew()
    async with crew.at_work(stream):
        await until(lambda: _has(crew, 10))
        first = await generation(redis)
        await redis.rename(STREAM, "aside")
        await writer.quotes("AAPL", 5)
        await until(lambda: _has(crew, 15))
        second = await generation(redis)
        async with redis.pipeline(transaction=True) as together:
            together.xadd(STREAM, {"quote": b"gone"}, "*")
            together.rename("aside", STREAM)
            await together.execute()
        writer.sent["AAPL"] += range(15, 20)
        await until(lambda: _is_another(redis, first, second), 10)
        await writer.quotes("AAPL", 2)
        await until(lambda: _has(crew, 17), 10)
        await until(lambda: crew.has_all(range(22)), 10)
    assert numbers(crew.found) == [*range(15), 20, 21]


async def test_what_came_to_a_stopped_process_and_was_handled_elsewhere_is_not_handed_out(
    server: RedisServer, bus: Bus, writer: Writer, redis: Redis
) -> None:
    """Stopped while it waits for entries: it reads the answer when another has claimed and acknowledged them."""
    await writer.quotes("AAPL", 1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, server.url), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        await blocked(redis)
        process.send_signal(signal.SIGSTOP)
        await writer.quotes("AAPL", 10)
        await deliver(bus.group("g", "AAPL", consumer="b", claim_after_s=1.0), 10)
        process.send_signal(signal.SIGCONT)
        await writer.quotes("AAPL", 1)
        async with asyncio.timeout(10):
            line = await process.stdout.readline()
    finally:
        process.kill()
        await process.wait()
    assert line.decode().strip() == writer.ids["AAPL"][-1]


async def _has(crew: Crew, count: int) -> bool:
    return len(numbers(crew.found)) >= count


async def _has_come(crew: Crew, number: int) -> bool:
    return number in numbers(crew.found)


async def _is_another(redis: Redis, *earlier: str | None) -> bool:
    return await generation(redis) not in {None, *earlier}

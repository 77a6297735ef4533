"""What was acknowledged comes a second time only where nobody could have known of it."""

from redis.asyncio import Redis

from consumers import Bus
from tests.consumers.conftest import Writer, until
from tests.consumers.groups.test_newcomers import STREAM, Crew, generation
from tests.consumers.groups.test_work import deliver, numbers


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


async def _has(crew: Crew, count: int) -> bool:
    return len(numbers(crew.found)) >= count


async def _has_come(crew: Crew, number: int) -> bool:
    return number in numbers(crew.found)


async def _is_another(redis: Redis, *earlier: str | None) -> bool:
    return await generation(redis) not in {None, *earlier}

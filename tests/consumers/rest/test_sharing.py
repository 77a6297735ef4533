"""What REST told one strategy is there for all, and never replaces what is newer."""

import logging
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from consumers import Bus, BusUnavailable
from consumers.bus import parts_of
from consumers.link import Target
from consumers.rest import AlpacaRest, share
from consumers.rest.sharing import _SCRIPT, Shared
from consumers.shared_link import SharedLink
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.consumers.conftest import KEYS, T0_NS, Writer
from tests.consumers.rest.conftest import sim_quote
from wire import Quote, decode_latest


def quote(time_ns: int, received_ns: int | None, *, symbol: str = "AAPL", size: int = 1) -> Quote:
    """As REST brings it."""
    delay_us = None if received_ns is None else (received_ns - time_ns) // 1_000
    return Quote(symbol, None, 1.5, size, "V", None, 0, None, ("R",), "C", time_ns, delay_us)


async def stored(redis: Redis, symbol: str = "AAPL") -> Quote | None:
    """What stands on Redis."""
    value = await redis.hget(KEYS.rest, symbol)
    return None if value is None else decode_latest(symbol, value)


async def test_a_strategy_shares_by_the_bus_alone(bus: Bus, redis: Redis, writer: Writer) -> None:
    """What REST brought is everybody's newest; what a stream brought is refused before anything is written."""
    now_ns = time.time_ns()
    await bus.share(quote(now_ns, now_ns))
    assert (await bus.latest("AAPL")) == await stored(redis)
    await writer.quotes("MSFT")
    streamed = await bus.latest("MSFT")
    assert streamed is not None
    with pytest.raises(ValueError, match="only quotes of AlpacaRest"):
        await bus.share(quote(now_ns, now_ns, symbol="TSLA"), streamed)
    assert await redis.hkeys(KEYS.rest) == [b"AAPL"]


async def test_a_quote_is_shared_as_rest_said_it(bus: Bus, redis: Redis) -> None:
    """Every field but the receipt, which is by the server's clock and never later than it was."""
    now_ns = time.time_ns()
    sent = quote(now_ns - 3_000_000_123, now_ns - 1_000_000_000)
    shared = await share(parts_of(bus)[0], KEYS, [sent])
    assert (shared.stored, shared.refused) == (1, 0)
    there = await stored(redis)
    assert there == shared.quotes["AAPL"] == await bus.latest("AAPL")
    assert there is not None
    assert msgspec.structs.replace(there, receive_delay_us=sent.receive_delay_us) == sent
    seconds, us = await redis.time()
    assert there.received_ns is not None
    age_s = seconds + us / 1e6 - there.received_ns / 1e9
    assert 1.0 <= age_s < 30


async def test_an_older_quote_changes_nothing(bus: Bus, redis: Redis) -> None:
    """By venue time first, to the nanosecond; among equals by the later confirmation."""
    now_ns = time.time_ns()
    time_ns = now_ns - 5_000_000_000
    for later_ns, received_s, is_stored in (
        (0, 3, True),
        (-1, 0, False),
        (0, 4, False),
        (0, 2, True),
        (1, 4, True),
        (0, 0, False),
    ):
        sent = quote(time_ns + later_ns, time.time_ns() - received_s * 10**9)
        assert (await share(parts_of(bus)[0], KEYS, [sent])).stored == is_stored, (later_ns, received_s)
    there = await stored(redis)
    assert there is not None
    assert there.time_ns == time_ns + 1


async def test_the_newest_wins_in_any_order(server: RedisServer, redis: Redis) -> None:
    """Whatever the order and the times, what stands at the end is the newest by venue time."""
    with BlockingRedis.from_url(server.url, protocol=2) as client:
        base = time.time_ns() // 10**9 * 10**9 - 100 * 10**9

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(st.integers(0, 4_000_000_000), min_size=1, max_size=8))
        def shared_in_order(times_ns: list[int]) -> None:
            client.delete(KEYS.rest)
            for time_ns in times_ns:
                prefix = b'{"S":"AAPL","t":%d,"r":' % (base + time_ns)
                client.eval(_SCRIPT, 1, KEYS.rest, 10, "AAPL", base + time_ns, 5, prefix)
            value = client.hget(KEYS.rest, "AAPL")
            assert isinstance(value, bytes)
            assert decode_latest("AAPL", value).time_ns == base + max(times_ns)

        shared_in_order()


@pytest.mark.fault("Q27")
async def test_a_date_in_the_future_replaces_none_that_is_believed(
    bus: Bus, redis: Redis, writer: Writer
) -> None:
    """Neither here nor above the stream; where there is nothing else it stands until there is."""
    hour_ns = 3600 * 10**9
    for ahead_ns, received_s, is_stored, stands_ns in (
        (hour_ns, 3, True, hour_ns),
        (2 * hour_ns, 4, False, hour_ns),
        (9_000_000_000, 2, True, 9_000_000_000),
        (-hour_ns, 9, True, -hour_ns),
        (hour_ns, 0, False, -hour_ns),
        (4_000_000_000, 0, True, 4_000_000_000),
        (-hour_ns, 0, False, 4_000_000_000),
    ):
        now_ns = time.time_ns()
        sent = quote(now_ns + ahead_ns, now_ns - received_s * 10**9)
        case = (ahead_ns, received_s)
        assert (await share(parts_of(bus)[0], KEYS, [sent])).stored == is_stored, case
        there = await stored(redis)
        assert there is not None
        assert abs(there.time_ns - now_ns - stands_ns) < 60 * 10**9, case
    now_ns = time.time_ns()
    await share(parts_of(bus)[0], KEYS, [quote(now_ns + hour_ns, now_ns, symbol="MSFT")])
    lonely = await bus.latest("MSFT")
    assert lonely is not None
    assert lonely.time_ns == now_ns + hour_ns
    await writer.quotes("MSFT", at=now_ns)
    found = await bus.latest("MSFT")
    assert found is not None
    assert (found.time_ns, found.id is not None) == (now_ns, True)
    assert (await bus.latest_many("MSFT", max_age_s=60))["MSFT"] == found


@pytest.mark.parametrize("there", ["", "junk", '{"t":99999999999999999999,"r":1}', '{"S":"AAPL","t":5}'])
async def test_what_is_no_quote_of_today_is_replaced(bus: Bus, redis: Redis, there: str) -> None:
    """Junk, and a time in the distant future, which would stand there for ever."""
    await redis.hset(KEYS.rest, "AAPL", there)
    assert (await share(parts_of(bus)[0], KEYS, [quote(T0_NS, time.time_ns())])).stored == 1
    found = await stored(redis)
    assert found is not None
    assert found.time_ns == T0_NS


async def test_the_hash_is_bounded(bus: Bus, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """A symbol too many is not stored, counted, and told; those that are there go on."""
    quotes = [quote(T0_NS, time.time_ns(), symbol=f"S{number}") for number in range(1_003)]
    with caplog.at_level(logging.WARNING):
        shared = await share(parts_of(bus)[0], KEYS, quotes, max_fields=1_000)
    assert (shared.stored, shared.refused, len(shared.quotes)) == (1_000, 3, 1_003)
    assert "3 quotes are not shared" in caplog.text
    again = [quote(T0_NS + 1, time.time_ns(), symbol="S0"), quote(T0_NS, time.time_ns(), symbol="S1002")]
    shared = await share(parts_of(bus)[0], KEYS, again, max_fields=1_000)
    assert (shared.stored, shared.refused) == (1, 1)


async def test_the_cache_keeps_its_id_and_gets_the_confirmation(
    bus: Bus, redis: Redis, writer: Writer
) -> None:
    """When REST says what the stream said, `latest` answers with the entry's id and the later receipt."""
    await writer.quotes("AAPL")
    streamed = await bus.latest("AAPL")
    assert streamed is not None
    assert streamed.id is not None
    same = msgspec.structs.replace(
        streamed, id=None, receive_delay_us=(time.time_ns() - streamed.time_ns) // 1_000
    )
    shared = await share(parts_of(bus)[0], KEYS, [same])
    found = await bus.latest("AAPL")
    assert found is not None
    assert found.id == streamed.id
    assert found.received_ns == shared.quotes["AAPL"].received_ns
    assert found.received_ns is not None
    assert streamed.received_ns is not None
    assert found.received_ns > streamed.received_ns


async def test_from_the_service_to_every_strategy(sim: AlpacaSimulator, rest: AlpacaRest, bus: Bus) -> None:
    """One asks, another finds it, to the nanosecond."""
    sim.send([sim_quote("AAPL", 7)])
    shared = await share(parts_of(bus)[0], KEYS, (await rest.latest_quotes("AAPL")).values())
    found = await bus.latest("AAPL")
    assert found == shared.quotes["AAPL"]
    assert found is not None
    assert (found.bid_size, found.time_ns) == (7, (await rest.latest_quotes("AAPL"))["AAPL"].time_ns)


async def test_what_was_never_confirmed_is_not_shared(bus: Bus, redis: Redis) -> None:
    """A quote of the past has no receipt, and is nobody's newest."""
    assert await share(parts_of(bus)[0], KEYS, [quote(T0_NS, None)]) == Shared({}, 0, 0)
    assert await redis.keys("*") == []


async def test_without_redis_the_caller_is_told() -> None:
    """With the error of every other question to Redis."""
    link = SharedLink(Target("redis://127.0.0.1:9/0", timeout_s=1))
    link.open()
    with pytest.raises(BusUnavailable):
        await share(link, KEYS, [quote(T0_NS, time.time_ns())])
    await link.close()

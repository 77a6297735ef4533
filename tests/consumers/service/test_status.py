"""What a service says of itself, and the leases that its streams take."""

import asyncio
import json
import time
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from consumers import Gap, MarketDataService, Quote
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, Writer, blocked, until
from tests.consumers.service.conftest import read, sizes, so, spawn


async def leased(redis: Redis) -> set[str]:
    """The symbols that have a lease."""
    members: list[bytes] = await Writer(redis).raw("ZRANGE", KEYS.interest, 0, -1)
    return {member.decode().split("@")[0] for member in members}


async def wants(redis: Redis, *symbols: str) -> None:
    """Wait until exactly these symbols are leased."""

    async def is_so() -> bool:
        return await leased(redis) == set(symbols)

    await until(is_so)


async def test_get_stream_status_has_the_keys_that_were_asked_for(
    service: MarketDataService, writer: Writer
) -> None:
    """From before the first stream until after the last."""
    assert service.get_stream_status() == {
        "connected": False,
        "wanted_symbols": [],
        "subscribed_symbols": [],
        "unserved": {},
        "active_callbacks": 0,
        "reconnect_attempts": 0,
        "quotes": 0,
        "gaps": 0,
        "malformed": 0,
        "callback_errors": 0,
        "lag_ms": None,
        "streams": [],
    }
    found: list[Quote] = []
    gaps: list[Gap] = []
    first = service.stream_quotes(["MSFT", "AAPL"], found.append, on_gap=gaps.append)
    second = service.stream_quotes("TSLA")
    service.add_callback("AAPL", repr)
    assert not service.get_stream_status()["connected"]
    tasks = [spawn(first.run()), spawn(second.run())]
    await blocked(writer.redis, 2)
    status = service.get_stream_status()
    assert status["connected"] is True
    assert status["wanted_symbols"] == ["AAPL", "MSFT", "TSLA"]
    assert status["subscribed_symbols"] == []
    beat = datetime.fromtimestamp(time.time_ns() / 1e9, UTC).isoformat()
    await writer.redis.hset(KEYS.status, mapping={"state": "live", "heartbeat": beat})
    states = {"AAPL": "live", "MSFT": "waiting", "TSLA": "live"}
    for symbol, state in states.items():
        value = json.dumps({"state": state, "reason": "waits behind the limit", "since": beat})
        await writer.redis.hset(KEYS.subscriptions, symbol, value)
    await so(lambda: service.get_stream_status()["subscribed_symbols"] == ["AAPL", "TSLA"])
    unserved = service.get_stream_status()["unserved"]
    assert unserved["MSFT"] == {"state": "waiting", "reason": "waits behind the limit"}
    assert json.loads(json.dumps(service.get_stream_status())) == service.get_stream_status()
    streams = service.get_stream_status()["streams"]
    assert [len(stream["subscribed_symbols"]) for stream in streams] == [1, 1]
    assert status["active_callbacks"] == 3
    await writer.quotes("AAPL", 2)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 2)
    await so(lambda: len(found) == 4)
    status = service.get_stream_status()
    assert (status["quotes"], status["gaps"], status["malformed"], status["callback_errors"]) == (4, 1, 0, 0)
    assert status["lag_ms"] is not None
    assert sorted(stream["quotes"] for stream in status["streams"]) == [0, 4]
    await service.disconnect_stream()
    for task in tasks:
        await task
    status = service.get_stream_status()
    assert (status["connected"], status["subscribed_symbols"], status["active_callbacks"]) == (False, [], 0)
    # Counts are the service's, and outlive the streams.
    assert (status["quotes"], status["gaps"], status["streams"]) == (4, 1, [])


async def test_get_stream_status_asks_nothing(server: RedisServer, redis: Redis) -> None:
    """It works without a server, and without an event loop."""
    service = MarketDataService(redis_url="redis://127.0.0.1:1/0")
    assert (await asyncio.to_thread(service.get_stream_status))["connected"] is False


async def test_fetch_stream_status_adds_what_the_daemon_says(
    service: MarketDataService, writer: Writer
) -> None:
    """Its state, how far each symbol can be trusted, and how far each stream is behind."""
    nothing = await service.fetch_stream_status()
    assert (nothing["daemon"], nothing["quality"], nothing["lag"]) == ({}, {}, {})
    await writer.redis.hset(KEYS.status, mapping={"state": "streaming", "feed": "iex"})
    await writer.quotes("AAPL", 5)
    stream = service.stream_quotes("AAPL", start="earliest")
    assert (await anext(stream)).bid_size == 0
    status = await service.fetch_stream_status()
    assert status["daemon"] == {"state": "streaming", "feed": "iex"}
    assert status["quality"]["AAPL"].level == "stale"
    assert status["lag"]["AAPL"].entries == 4
    assert status["quotes"] == 1
    await stream.aclose()


async def test_a_stream_makes_its_symbols_desired_while_it_runs(
    service: MarketDataService, redis: Redis
) -> None:
    """Its lease comes and goes with the loop, and with each symbol."""
    stream = service.stream_quotes(["AAPL", "MSFT"])
    await wants(redis)
    task = spawn(stream.run())
    await wants(redis, "AAPL", "MSFT")
    stream.add_symbols("TSLA")
    stream.remove_symbols("AAPL")
    await wants(redis, "MSFT", "TSLA")
    other = spawn(service.stream_quotes("MSFT").run())
    await blocked(redis, 2)
    await stream.aclose()
    await task
    await wants(redis, "MSFT")
    await service.disconnect_stream()
    await other
    await wants(redis)


async def test_cleanup_withdraws_the_lease(service: MarketDataService, writer: Writer) -> None:
    """After a break, an exception, a cancellation."""
    await writer.quotes("AAPL", 5)
    await read(service.stream_quotes("AAPL", start="earliest"), 1)
    await wants(writer.redis)

    async def fails() -> None:
        async for quote in service.stream_quotes("AAPL", start="earliest"):
            await wants(writer.redis, "AAPL")
            raise ZeroDivisionError(quote.symbol)

    with pytest.raises(ZeroDivisionError):
        await fails()
    await wants(writer.redis)
    task = spawn(service.stream_quotes("AAPL").run())
    await wants(writer.redis, "AAPL")
    task.cancel()
    await asyncio.wait([task])
    await wants(writer.redis)


async def test_a_stream_leaves_out_what_is_too_old_and_says_so(server: RedisServer, writer: Writer) -> None:
    """With `max_age_s`, as a gap."""
    gaps: list[Gap] = []
    await writer.quotes("AAPL", 3)
    async with MarketDataService(redis_url=server.url, reconnect=FAST) as service:
        stream = service.stream_quotes("AAPL", on_gap=gaps.append, start="earliest", max_age_s=1e9)
        assert sizes(await read(stream, 3)) == [0, 1, 2]
        task = spawn(service.stream_quotes("AAPL", on_gap=gaps.append, start="earliest", max_age_s=5).run())
        await so(lambda: bool(gaps))
        assert gaps[0].reason == "too_old"
        assert service.get_stream_status()["quotes"] == 3
        await service.disconnect_stream()
        await task


@pytest.mark.fault("Q29")
async def test_fetch_stream_status_of_two_hundred_streams_is_few_questions(
    service: MarketDataService, writer: Writer
) -> None:
    """However many streams there are, and however many of their entries have to be counted one by one."""
    symbols = [f"S{number}" for number in range(100)]
    for symbol in symbols:
        await writer.quotes(symbol, 30)
        # What stands before it is no longer known by its running number.
        await writer.raw("XDEL", KEYS.stream(symbol), writer.ids[symbol][20])
    streams = [service.stream_quotes(symbols[n % 100], start="earliest") for n in range(200)]
    for number, stream in enumerate(streams):
        await anext(stream)
        if number < 100:
            await anext(stream)
    before = await asked(writer.redis)
    status = await service.fetch_stream_status()
    assert await asked(writer.redis) - before <= 20
    assert len(status["streams"]) == 200
    assert {lag.entries for lag in status["lag"].values()} == {28}
    assert sorted(status["lag"]) == sorted(status["quality"]) == sorted(symbols)
    for stream in streams:
        await stream.aclose()


async def asked(redis: Redis) -> int:
    """How often a connection of the library has written something to the server since it began."""
    return int((await redis.info("stats"))["total_reads_processed"])

"""Coming back after Redis was away: how often, how long, and what survives."""

import asyncio
import logging
import re
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from consumers import BusUnavailable, MarketDataService, Quote, Reconnect
from consumers.service.market_data import RECONNECT
from simulator.redis_server import RedisServer, free_port
from tests.consumers.conftest import FAST, Writer, blocked
from tests.consumers.service.conftest import read, sizes, so, spawn

SHORT = Reconnect(first_delay_s=0.02, factor=2, max_delay_s=0.32, jitter=0, attempts=5)


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    """A server that a test may kill; what it acknowledged survives."""
    with RedisServer(appendonly=True, options=("--appendfsync", "always")) as running:
        yield running


def test_reconnect_waits_2_4_8_16_32_s_by_default_and_gives_up_after_5_attempts() -> None:
    """Without jitter: the delays are these, whatever the chance."""
    for chance in (0.0, 0.5, 0.999):
        assert [RECONNECT.delay_s(attempt, chance) for attempt in range(1, 6)] == [2, 4, 8, 16, 32]
    assert [RECONNECT.gives_up(failures) for failures in range(1, 8)] == [False] * 5 + [True] * 2


async def test_reconnect_survives_a_killed_server_with_subscriptions_and_callbacks(
    mortal: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Symbols, callbacks and positions are as they were: no quote is missed and none comes twice."""
    caplog.set_level(logging.INFO)
    called: list[Quote] = []
    caplog.set_level("INFO")
    policy = Reconnect(first_delay_s=0.05, max_delay_s=0.2, jitter=0, attempts=100)
    async with (
        MarketDataService(redis_url=mortal.url, reconnect=policy) as service,
        Redis.from_url(mortal.url, protocol=2) as redis,
    ):
        writer = Writer(redis)
        stream = service.stream_quotes(["AAPL"])
        stream.add_symbols("MSFT")
        stream.add_callback("MSFT", called.append)
        task = spawn(read(stream, 400, 60))
        await blocked(redis)
        assert service.get_stream_status()["connected"]
        for _ in range(2):
            await writer.quotes("AAPL", 50)
            await writer.quotes("MSFT", 50)
            mortal.kill()
            await so(lambda: service.get_stream_status()["reconnect_attempts"] >= 2)
            status = service.get_stream_status()
            assert not status["connected"]
            assert status["wanted_symbols"] == ["AAPL", "MSFT"]
            assert status["active_callbacks"] == 1
            await asyncio.to_thread(mortal.start)
            await writer.quotes("AAPL", 50)
            await writer.quotes("MSFT", 50)
            await so(lambda: service.get_stream_status()["reconnect_attempts"] == 0)
        quotes = await task
    assert sizes(quotes, "AAPL") == sizes(quotes, "MSFT") == sizes(called) == list(range(200))
    assert "attempt 1 of 100 in 0.05 s" in caplog.text
    assert "attempt 2 of 100 in 0.10 s" in caplog.text
    assert "is back after" in caplog.text


async def test_reconnect_raises_after_the_last_of_its_attempts_and_logs_each(
    mortal: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Loops as well as callbacks alone; another stream may be begun where this one ended."""
    caplog.set_level("INFO")
    async with (
        MarketDataService(redis_url=mortal.url, reconnect=SHORT) as service,
        Redis.from_url(mortal.url, protocol=2) as redis,
    ):
        writer = Writer(redis)
        await writer.quotes("AAPL", 5)
        stream = service.stream_quotes("AAPL", start="earliest")
        loop = spawn(read(stream, 100, 60))
        run = spawn(service.stream_quotes("AAPL", repr).run())
        await blocked(redis, 2)
        mortal.kill()
        for task in (loop, run):
            with pytest.raises(BusUnavailable, match="is the server running") as caught:
                await task
            # One failure that began it, and five attempts.
            assert caught.value.attempts == 6
        lines = re.findall(r"attempt (\d) of 5 in ([\d.]+) s", caplog.text)
        expected = [("1", "0.02"), ("2", "0.04"), ("3", "0.08"), ("4", "0.16"), ("5", "0.32")]
        assert sorted(lines) == sorted(expected * 2)
        await asyncio.to_thread(mortal.start)
        await writer.quotes("AAPL", 5)
        assert sizes(await read(service.stream_quotes("AAPL", start=stream.positions), 5)) == [5, 6, 7, 8, 9]


async def test_reconnect_counts_for_a_server_that_is_not_there_yet(caplog: pytest.LogCaptureFixture) -> None:
    """A strategy may be started before Redis is, and is told when it does not come."""
    caplog.set_level("INFO")
    url = f"redis://127.0.0.1:{free_port()}/0"
    async with MarketDataService(redis_url=url, reconnect=SHORT) as service:
        with pytest.raises(BusUnavailable) as caught:
            await service.stream_quotes("AAPL", repr).run()
        assert caught.value.attempts == 6
        lines = re.findall(r"attempt (\d) of 5 in ([\d.]+) s", caplog.text)
        assert lines == [("1", "0.02"), ("2", "0.04"), ("3", "0.08"), ("4", "0.16"), ("5", "0.32")]
        assert [record.levelname for record in caplog.records].count("WARNING") == 1
        # One question asks twice, which is not what counts here.
        assert "after 2 attempts" not in caplog.text


async def test_a_stream_begun_before_the_server_finds_it(mortal: RedisServer) -> None:
    """Once it is there, everything is as if it always had been."""
    mortal.kill()
    found: list[Quote] = []
    async with MarketDataService(redis_url=mortal.url, reconnect=FAST) as service:
        stream = service.stream_quotes("AAPL", found.append, start="earliest")
        task = spawn(stream.run())
        await so(lambda: service.get_stream_status()["reconnect_attempts"] >= 2)
        await asyncio.to_thread(mortal.start)
        async with Redis.from_url(mortal.url, protocol=2) as redis:
            await Writer(redis).quotes("AAPL", 2)
        await so(lambda: len(found) == 2)
        assert service.get_stream_status()["reconnect_attempts"] == 0
        await stream.aclose()
        await task


async def test_disconnect_stream_does_not_wait_for_a_reconnect(mortal: RedisServer) -> None:
    """Neither before the first connection nor between two."""
    patient = Reconnect(first_delay_s=60, max_delay_s=60, jitter=0)
    mortal.kill()
    async with MarketDataService(redis_url=mortal.url, reconnect=patient) as service:
        task = spawn(service.stream_quotes("AAPL").run())
        await so(lambda: service.get_stream_status()["reconnect_attempts"] == 1)
        async with asyncio.timeout(5):
            await service.disconnect_stream()
            await task


async def test_credentials_that_redis_refuses_end_the_stream_at_once(mortal: RedisServer) -> None:
    """Trying again would not help, and the password is not in the message."""
    async with Redis.from_url(mortal.url, protocol=2) as redis:
        await redis.execute_command("ACL", "SETUSER", "mine", "on", ">right", "~*", "+@all")  # type: ignore[no-untyped-call]
    url = mortal.url.replace("//", "//mine:wr0ng@")
    async with MarketDataService(redis_url=url) as service:
        assert "wr0ng" not in repr(service)
        async with asyncio.timeout(1.5):
            with pytest.raises(BusUnavailable, match="refused the credentials") as caught:
                await service.stream_quotes("AAPL").run()
    assert not caught.value.is_passing
    assert "wr0ng" not in str(caught.value)

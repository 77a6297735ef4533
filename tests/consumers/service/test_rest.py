"""Questions of a service: the newest quote from cache or REST, history, market hours, and who needs credentials."""

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumers import BadSymbol, BusUnavailable, MarketDataService, StaleQuote, connect
from consumers.rest import RestError, RestLimited, RestRefused, RestUnavailable, Retry
from consumers.rest.budget import CALLS_PER_MINUTE
from simulator import AccountRules, AlpacaSimulator, SimQuote, SimulatorSettings
from simulator.redis_server import RedisServer, free_port
from simulator.rest.faults import HangRest, RefuseRest
from tests.consumers.conftest import FAST, KEYS, Writer
from tests.consumers.service.conftest import so, spawn
from wire import decode_latest, encode_latest, entry_id_at

QUICK = Retry(attempts=2, first_delay_s=0.01, max_delay_s=0.02, deadline_s=20.0)
MONDAY = datetime(2025, 3, 3, 15, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the tests holds."""
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "ALPACA_API_KEY", "ALPACA_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.replace("API_KEY", "API_KEY_ID"), raising=False)


@pytest.fixture
async def alpaca() -> AsyncIterator[AlpacaSimulator]:
    """A double of Alpaca that answers REST."""
    async with AlpacaSimulator() as sim:
        yield sim


def asking(url: str, alpaca: AlpacaSimulator, **options: Any) -> MarketDataService:
    """A service with credentials whose REST calls go to the double."""
    options = {"rest_url": alpaca.rest_url, "retry": QUICK, "reconnect": FAST, "timeout_s": 10.0, **options}
    return MarketDataService("key", "s3cret", redis_url=url, **options)


async def cache(
    redis: Redis, key: str, symbol: str, *, age_s: float, venue_age_s: float | None = None
) -> None:
    """Put a quote into one of the hashes that was received so long ago by the server's clock."""
    seconds, microseconds = await redis.time()
    now_us = seconds * 1_000_000 + microseconds
    venue_us = now_us - int((age_s if venue_age_s is None else venue_age_s) * 1e6)
    delay_us = now_us - int(age_s * 1e6) - venue_us
    row = (1.0, 1, "V", 2.0, 1, "V", ["R"], "C", venue_us * 1_000, delay_us)
    entry_id = str(entry_id_at(venue_us * 1_000)) if key == KEYS.latest else None
    await redis.hset(key, symbol, encode_latest(symbol, entry_id, row))


async def stored(redis: Redis, key: str, symbol: str) -> bytes | str:
    """What stands in one of the hashes."""
    value = await redis.hget(key, symbol)
    assert value is not None
    return value


async def server_ns(redis: Redis) -> int:
    """The server's time."""
    seconds, microseconds = await redis.time()
    return int(seconds * 1_000_000 + microseconds) * 1_000


# --- the newest quote -------------------------------------------------------------------------------------------


async def test_get_latest_quote_is_the_caches_while_that_is_fresh(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """No REST call is spent on it."""
    await cache(redis, KEYS.latest, "AAPL", age_s=1.0)
    async with asking(server.url, alpaca) as service:
        quote = await service.get_latest_quote("AAPL")
        assert (quote.symbol, quote.mid_price) == ("AAPL", 1.5)
        assert list(alpaca.rest_calls) == []


async def test_get_latest_quote_is_rests_when_the_cache_is_too_old_and_is_shared(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """Another strategy, without credentials, has it from Redis then."""
    await cache(redis, KEYS.latest, "AAPL", age_s=60)
    alpaca.send([SimQuote("AAPL", time.time_ns() - 500_000_000, 187.0, 3, 187.5, 4)])
    async with asking(server.url, alpaca) as service, MarketDataService(redis_url=server.url) as poor:
        with pytest.raises(StaleQuote):
            await poor.get_latest_quote("AAPL")
        quote = await service.get_latest_quote("AAPL")
        assert (quote.bid_price, quote.id) == (187.0, None)
        assert (await poor.get_latest_quote("AAPL")).bid_price == 187.0
        assert (await service.get_latest_quote("AAPL")).bid_price == 187.0
        assert len(alpaca.rest_calls) == 1
    assert decode_latest("AAPL", await stored(redis, KEYS.rest, "AAPL")).bid_price == 187.0
    # The daemon's own cache keeps its one writer.
    assert decode_latest("AAPL", await stored(redis, KEYS.latest, "AAPL")).bid_price == 1.0


async def test_a_rest_quote_that_is_dated_in_the_future_stands_above_no_other(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """Not for who asked, who is told why, nor for anybody else when the stream brings the next one."""
    await cache(redis, KEYS.latest, "AAPL", age_s=60)
    alpaca.send([SimQuote("AAPL", time.time_ns() + 3600 * 10**9, 187.0, 3, 187.5, 4)])
    async with asking(server.url, alpaca) as service, connect(server.url) as bus:
        with pytest.raises(StaleQuote, match=r"dated 3\d\d\d\.\d s ahead") as caught:
            await service.get_latest_quote("AAPL")
        assert caught.value.quote is not None
        assert caught.value.quote.bid_price == 1.0
        await cache(redis, KEYS.latest, "AAPL", age_s=0)
        assert (await service.get_latest_quote("AAPL")).bid_price == 1.0
        found = await bus.latest("AAPL", max_age_s=60)
        assert found is not None
        assert found.bid_price == 1.0


async def test_get_latest_quotes_asks_rest_once_for_all_that_lack(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """What is fresh is not asked for."""
    await cache(redis, KEYS.latest, "AAPL", age_s=1)
    await cache(redis, KEYS.rest, "MSFT", age_s=1)
    await cache(redis, KEYS.latest, "TSLA", age_s=100)
    async with asking(server.url, alpaca) as service:
        found = await service.get_latest_quotes(["AAPL", "MSFT", "TSLA", "NVDA"])
        assert sorted(found) == ["AAPL", "MSFT", "NVDA", "TSLA"]
        assert found.stale == {}
        assert len(alpaca.rest_calls) == 1
        with pytest.raises(BadSymbol):
            await service.get_latest_quotes("nope")
        with pytest.raises(ValueError, match="max_age_s=-1"):
            await service.get_latest_quote("AAPL", -1)


async def test_get_latest_quote_without_credentials_names_the_remedy(
    service: MarketDataService, redis: Redis
) -> None:
    """It has the old quote all the same, and how old that is."""
    await cache(redis, KEYS.latest, "AAPL", age_s=60)
    with pytest.raises(StaleQuote, match="pass api_key and api_secret") as caught:
        await service.get_latest_quote("AAPL")
    assert caught.value.quote is not None
    assert 60 <= caught.value.age_s < 70
    assert (await service.get_latest_quote("AAPL", max_age_s=600)).symbol == "AAPL"
    with pytest.raises(StaleQuote, match="there is no quote of MSFT") as caught:
        await service.get_latest_quote("MSFT")
    assert caught.value.quote is None
    found = await service.get_latest_quotes(["AAPL", "MSFT"])
    assert (dict(found), sorted(found.stale)) == ({}, ["AAPL", "MSFT"])


async def test_a_quote_that_cannot_be_had_says_what_the_daemon_says_of_the_symbol(
    service: MarketDataService, redis: Redis
) -> None:
    """Before the remedy: with keys for REST alone the stream would go on being silent."""
    beat = datetime.fromtimestamp(await server_ns(redis) / 1e9, UTC).isoformat()
    await redis.hset(KEYS.status, mapping={"state": "live", "heartbeat": beat, "connected_since": beat})
    state = {"state": "waiting", "reason": "waits behind the limit of 30 symbols", "since": None}
    await redis.hset(KEYS.subscriptions, "AMD", json.dumps(state))
    with pytest.raises(StaleQuote) as caught:
        await service.get_latest_quote("AMD")
    first, second = (
        "on the bus it is not_subscribed: waits behind the limit of 30 symbols",
        "without credentials",
    )
    assert caught.value.why.startswith(f"{first}; {second}")


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "500"), (429, "rate limit"), (403, "check key and secret")]
)
async def test_get_latest_quote_says_why_rest_could_not_help(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator, status: int, reason: str
) -> None:
    """The cached quote is not passed off as a fresh one."""
    await cache(redis, KEYS.latest, "AAPL", age_s=60)
    alpaca.arm(RefuseRest(status, reset_s=60) if status == 429 else RefuseRest(status))
    async with asking(server.url, alpaca) as service:
        with pytest.raises(StaleQuote, match=reason) as caught:
            await service.get_latest_quote("AAPL")
        assert caught.value.quote is not None
        assert "s3cret" not in str(caught.value)


async def test_a_quote_of_rest_that_cannot_be_read_is_told_from_none(
    server: RedisServer, redis: Redis
) -> None:
    """Whoever reads that REST has no quote looks for the fault in the wrong place."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"quotes": {"AAPL": {"t": "yesterday", "bp": 1}}}'
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as host:
        port = host.sockets[0].getsockname()[1]
        options: dict[str, Any] = {"retry": QUICK, "reconnect": FAST, "timeout_s": 10.0}
        options["rest_url"] = f"http://127.0.0.1:{port}"
        async with MarketDataService("key", "s3cret", redis_url=server.url, **options) as service:
            found = await service.get_latest_quotes(["AAPL", "MSFT"])
    assert "REST has no quote of this symbol" in str(found.stale["MSFT"])
    assert "yesterday" in str(found.stale["AAPL"])
    assert "has no quote" not in str(found.stale["AAPL"])


async def test_get_latest_quote_is_asked_for_once_by_a_hundred_at_once(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """They all get the one answer."""
    async with asking(server.url, alpaca) as service:
        quotes = await asyncio.gather(*(service.get_latest_quote("AAPL") for _ in range(100)))
        assert len(set(map(repr, quotes))) == 1
        assert len(alpaca.rest_calls) == 1


async def test_get_latest_quote_survives_a_cancelled_neighbour(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """Who waits for the answer of another does not fail with him."""
    async with asking(server.url, alpaca) as service:
        tasks = [spawn(service.get_latest_quote("AAPL")) for _ in range(10)]
        await asyncio.sleep(0)
        for turn in range(20):
            await asyncio.sleep(0)
            if turn == 15:
                tasks[0].cancel()
        await asyncio.wait(tasks)
        assert all(task.result().symbol == "AAPL" for task in tasks[1:])


async def test_get_latest_quote_has_rest_when_redis_is_away(alpaca: AlpacaSimulator) -> None:
    """Without credentials there is nothing left to ask."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    async with asking(url, alpaca) as service:
        assert (await service.get_latest_quote("AAPL")).symbol == "AAPL"
    async with MarketDataService(redis_url=url) as poor:
        with pytest.raises(BusUnavailable, match="is the server running"):
            await poor.get_latest_quote("AAPL")


async def test_get_latest_quote_spends_one_call_while_fresh_when_redis_hangs(
    alpaca: AlpacaSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is not waited for as long as where nobody else can be asked, and what REST said is kept meanwhile."""
    monkeypatch.setattr("consumers.service.latest.REDIS_PATIENCE_S", 0.5)
    with RedisServer() as mortal:
        async with asking(mortal.url, alpaca, timeout_s=30) as service:
            await service.get_latest_quote("MSFT")
            mortal.pause()
            try:
                async with asyncio.timeout(20):
                    for _ in range(20):
                        assert (await service.get_latest_quote("AAPL", 60)).symbol == "AAPL"
                assert len(alpaca.rest_calls) == 2
                await service.get_latest_quotes("AAPL", 0.001)
                assert len(alpaca.rest_calls) == 3
            finally:
                mortal.resume()
            async with asyncio.timeout(20):
                while service._latest._kept:
                    await service.get_latest_quote("AAPL", 60)
                    await asyncio.sleep(0.05)


async def test_get_latest_quote_is_not_shared_by_a_user_who_may_not_write(
    server: RedisServer,
    redis: Redis,
    writer: Writer,
    alpaca: AlpacaSimulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The strategy has its quote all the same, and the log says so once."""
    rules = ("~quotes:*", "+@read", "+@connection", "+multi", "+exec", "+time")
    await writer.raw("ACL", "SETUSER", "reader", "on", ">pw", "resetkeys", "-@all", *rules)
    async with asking(server.url.replace("//", "//reader:pw@"), alpaca) as service:
        for symbol in ("AAPL", "MSFT"):
            assert (await service.get_latest_quote(symbol)).symbol == symbol
    assert caplog.text.count("not shared with other strategies") == 1


@pytest.mark.parametrize("ahead_s", [1.5, 4.0, 60.0])
async def test_get_latest_quote_sees_through_a_daemon_whose_clock_is_ahead(
    ahead_s: float, server: RedisServer, redis: Redis
) -> None:
    """Its quotes look younger than they are, by what its heartbeat is in the future."""
    beat_ns = await server_ns(redis) + int(ahead_s * 1e9)
    beat = datetime.fromtimestamp(beat_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S.999Z")
    await redis.hset(KEYS.status, "heartbeat", beat)
    await cache(redis, KEYS.latest, "OLD", age_s=7 - ahead_s, venue_age_s=8)
    await cache(redis, KEYS.latest, "NEW", age_s=1 - ahead_s, venue_age_s=2)
    async with MarketDataService(redis_url=server.url) as service:
        found = await service.get_latest_quotes(["OLD", "NEW"])
    assert found.keys() == {"NEW"}
    assert 6 < found.stale["OLD"].age_s < 30
    received_ns = found["NEW"].received_ns
    assert received_ns is not None
    assert received_ns <= await server_ns(redis)


@pytest.mark.parametrize("ahead_s", [-10, 10])
async def test_get_latest_quote_works_on_a_machine_whose_clock_is_wrong(
    ahead_s: int,
    server: RedisServer,
    writer: Writer,
    alpaca: AlpacaSimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also for a user who may not share what REST says, whom the server does not tell its time then."""
    rules = ("~quotes:*", "+@read", "+@connection", "+multi", "+exec", "+time")
    await writer.raw("ACL", "SETUSER", "reader", "on", ">pw", "resetkeys", "-@all", *rules)
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + ahead_s * 10**9)
    for url in (server.url, server.url.replace("//", "//reader:pw@")):
        async with asking(url, alpaca) as service:
            quote = await service.get_latest_quote("AAPL" if url == server.url else "MSFT")
        assert quote.received_ns is not None
        assert 0 <= right() - quote.received_ns < 5 * 10**9


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    streamed=st.none() | st.floats(-2, 8),
    shared=st.none() | st.floats(-2, 8),
    venue=st.floats(0, 20),
    known=st.floats(0, 20),
    max_age_s=st.floats(0.05, 6),
    has_rest=st.booleans(),
)
def test_freshness_is_never_worse_than_max_age(
    server: RedisServer,
    streamed: float | None,
    shared: float | None,
    venue: float,
    known: float,
    max_age_s: float,
    has_rest: bool,
) -> None:
    """Whatever stands in either cache and whatever REST says: a quote is handed out fresh, or not at all."""

    async def example() -> None:
        async with Redis.from_url(server.url, protocol=2) as redis, AlpacaSimulator() as alpaca:
            await redis.flushall()
            for key, age_s in ((KEYS.latest, streamed), (KEYS.rest, shared)):
                if age_s is not None:
                    await cache(redis, key, "AAPL", age_s=age_s, venue_age_s=max(age_s, 0) + venue)
            alpaca.send([SimQuote("AAPL", time.time_ns() - int(known * 1e9), 5.0, 1, 6.0, 1)])
            service = asking(server.url, alpaca) if has_rest else MarketDataService(redis_url=server.url)
            async with service:
                began_ns = await server_ns(redis)
                found = await service.get_latest_quotes("AAPL", max_age_s)
                ended_ns = await server_ns(redis)
            if "AAPL" in found.stale:
                # It says so, and it is true: nothing fresh enough was to be had here.
                error = found.stale["AAPL"]
                assert error.quote is None or error.age_s > max_age_s or error.age_s < 0 or has_rest
                return
            quote = found["AAPL"]
            assert quote.received_ns is not None
            assert began_ns - quote.received_ns <= max_age_s * 1e9
            # What lies between the answer and this measurement is ours, not the service's.
            assert ended_ns - quote.received_ns <= max_age_s * 1e9 + (ended_ns - began_ns)

    with asyncio.Runner() as runner:
        runner.run(example())


# --- history and market hours -----------------------------------------------------------------------------------


async def test_historical_bars_of_one_and_of_several(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """A list for one, a list for each of several; never blocking the loop."""
    async with asking(server.url, alpaca) as service:
        end = MONDAY + timedelta(hours=2)
        bars = await service.get_historical_bars("AAPL", "1Min", start=MONDAY, end=end)
        assert len(bars) == 120
        assert bars[0].time_ns == int(MONDAY.timestamp()) * 10**9
        several = await service.get_historical_bars(["AAPL", "MSFT"], "1Hour", start=MONDAY, end=end)
        assert {name: len(found) for name, found in several.items()} == {"AAPL": 2, "MSFT": 2}
        limited = await service.get_historical_bars("AAPL", start=MONDAY, end=end, limit=7)
        assert limited == bars[:7]


async def test_historical_quotes_of_one_and_of_several(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """In order of time, within the range."""
    async with asking(server.url, alpaca) as service:
        end = MONDAY + timedelta(minutes=5)
        quotes = await service.get_historical_quotes("AAPL", MONDAY, end)
        times = [quote.time_ns for quote in quotes]
        assert times == sorted(times)
        assert len(times) == 60
        several = await service.get_historical_quotes(("AAPL", "MSFT"), MONDAY, end, 3)
        assert several["AAPL"] == quotes[:3]
        assert len(several["MSFT"]) == 3


async def test_market_status_and_hours(server: RedisServer, redis: Redis, alpaca: AlpacaSimulator) -> None:
    """Asking again within the minute costs no call."""
    async with asking(server.url, alpaca) as service:
        clock = await service.get_market_status()
        assert clock.is_open is True
        assert clock.next_close_ns > clock.time_ns
        for _ in range(10):
            assert await service.is_market_open() is True
        assert len(alpaca.rest_calls) == 1


async def test_rest_is_retried_and_then_given_up(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator
) -> None:
    """One failure is nothing to the caller; a service that stays away is, within the time allowed."""
    async with asking(server.url, alpaca) as service:
        alpaca.arm(RefuseRest(503), times=1)
        assert (await service.get_market_status()).is_open
        assert len(alpaca.rest_calls) == 2
        alpaca.arm(RefuseRest(503))
        async with asyncio.timeout(10):
            with pytest.raises(RestUnavailable, match="after 2 attempts"):
                await service.get_historical_quotes("AAPL", MONDAY, MONDAY + timedelta(minutes=1))


async def test_rest_that_hangs_is_given_up_in_time(server: RedisServer, redis: Redis) -> None:
    """The loop is free meanwhile, and the cached quote is there for who wants it."""
    await cache(redis, KEYS.latest, "AAPL", age_s=60)
    async with AlpacaSimulator() as alpaca, asking(server.url, alpaca, timeout_s=0.4) as service:
        alpaca.arm(HangRest(3))
        question = spawn(service.get_latest_quote("AAPL"))
        turns = 0
        async with asyncio.timeout(10):
            while not question.done():
                turns += 1
                await asyncio.sleep(0.01)
        assert turns > 10
        with pytest.raises(StaleQuote, match="after 2 attempts") as caught:
            await question
        assert caught.value.quote is not None
    # The double's own answers hang on for a moment.
    await so(lambda: len(asyncio.all_tasks()) == 1)


async def test_rest_stays_under_the_rate_limit_that_services_share(server: RedisServer, redis: Redis) -> None:
    """Two services of one account spend one allowance; whoever finds it empty is told when to come again."""
    assert CALLS_PER_MINUTE == 200
    assert inspect.signature(MarketDataService).parameters["calls_per_minute"].default == CALLS_PER_MINUTE
    rules = AccountRules(calls_per_minute=1_000)
    async with AlpacaSimulator(SimulatorSettings(account=rules)) as alpaca:
        options: dict[str, Any] = {"retry": Retry(attempts=1, deadline_s=10), "calls_per_minute": 40}
        async with asking(server.url, alpaca, **options) as one, asking(server.url, alpaca, **options) as two:
            for _ in range(20):
                await one.get_market_status()
                await two.get_market_status()
            for service in (one, two):
                with pytest.raises(RestLimited, match="by all its strategies together"):
                    await service.get_market_status()
            assert len(alpaca.rest_calls) == 40


# --- credentials --------------------------------------------------------------------------------------------------


async def test_credentials_are_needed_only_where_rest_is(service: MarketDataService, writer: Writer) -> None:
    """The error says which, and how to give them."""
    await writer.quotes("AAPL", 1)
    async for quote in service.stream_quotes("AAPL", start="earliest"):
        assert quote.symbol == "AAPL"
        break
    for question in (
        service.get_market_status(),
        service.is_market_open(),
        service.get_historical_bars("AAPL", start=MONDAY),
        service.get_historical_quotes("AAPL", MONDAY),
    ):
        with pytest.raises(RestError, match="APCA_API_KEY_ID"):
            await question
    with pytest.raises(ValueError, match="api_secret is missing"):
        MarketDataService("key")
    with pytest.raises(ValueError, match="api_key is missing"):
        MarketDataService(None, "secret")


async def test_credentials_come_from_the_environment_too(
    server: RedisServer, redis: Redis, alpaca: AlpacaSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read when they are first needed."""
    service = MarketDataService(redis_url=server.url)
    monkeypatch.setenv("APCA_API_KEY_ID", "key")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "secret")
    monkeypatch.setenv("QUOTEBUS_REST_URL", alpaca.rest_url)
    async with service:
        assert await service.is_market_open()


@pytest.mark.parametrize(
    "wrong", [{"api_key": "k3y\n"}, {"api_secret": " s3cret"}, {"rest_url": "127.0.0.1:1"}]
)
def test_credentials_that_can_be_none_are_told_where_they_are_passed(wrong: dict[str, str]) -> None:
    """Not hours later, with the first question to REST; and they are not shown."""
    with pytest.raises(ValueError, match=r"copy it again|a REST URL is") as caught:
        MarketDataService(**{"api_key": "key", "api_secret": "secret", **wrong})  # type: ignore[arg-type]
    assert "k3y" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_credentials_of_the_environment_that_can_be_none_are_an_error_of_rest(
    service: MarketDataService, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strategy that is ready for REST to fail is ready for this too, and still has the cached quote."""
    monkeypatch.setenv("APCA_API_KEY_ID", "k3y\n")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "s3cret")
    await writer.quotes("AAPL", 1)
    with pytest.raises(StaleQuote, match="key_id is empty or has characters that no key has") as caught:
        await service.get_latest_quote("AAPL")
    assert caught.value.quote is not None
    assert "k3y" not in str(caught.value)
    with pytest.raises(RestError, match="cannot be asked: key_id"):
        await service.get_market_status()


async def test_credentials_that_are_refused_are_told_and_not_shown(
    server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the error, nor in a repr, nor in the log."""
    caplog.set_level("DEBUG")
    rules = AccountRules(key="other", secret="keys")
    async with (
        AlpacaSimulator(SimulatorSettings(account=rules)) as alpaca,
        asking(server.url, alpaca) as service,
    ):
        with pytest.raises(RestRefused, match="check key and secret") as caught:
            await service.get_market_status()
        told = [str(caught.value), repr(caught.value), repr(service), repr(vars(service)), caplog.text]
        assert not any("s3cret" in text for text in told)


@pytest.mark.parametrize(
    ("paper", "host"), [(True, "paper-api.alpaca.markets"), (False, "api.alpaca.markets")]
)
async def test_paper_mode_picks_the_paper_host(
    server: RedisServer, redis: Redis, monkeypatch: pytest.MonkeyPatch, paper: bool, host: str
) -> None:
    """For the market's clock; nothing is sent in this test."""
    from requests import Session

    asked: list[str] = []

    def refuse(session: Session, request: Any, **options: Any) -> Any:
        asked.append(request.url)
        raise ConnectionError("no network in this test")

    monkeypatch.setattr(Session, "send", refuse)
    async with MarketDataService("key", "secret", paper, server.url, retry=Retry(attempts=1)) as service:
        with pytest.raises(RestError):
            await service.get_market_status()
    assert [url.split("/")[2] for url in asked] == [host]


async def test_clients_are_lazy(server: RedisServer, redis: Redis) -> None:
    """Neither alpaca-py nor a connection before the first question that needs it."""
    program = (
        "import sys, asyncio; from consumers import MarketDataService\n"
        "async def main():\n"
        f"    async with MarketDataService('key', 'secret', redis_url={server.url!r}) as service:\n"
        "        async with asyncio.timeout(5):\n"
        "            await service.get_latest_quote('AAPL', 1e9)\n"
        "asyncio.run(main()); print('alpaca' in sys.modules)"
    )
    await cache(redis, KEYS.latest, "AAPL", age_s=1)
    process = await asyncio.create_subprocess_exec(
        __import__("sys").executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "False"


def test_the_result_of_several_is_a_plain_dict_to_others() -> None:
    """It can be copied and encoded like one."""
    from consumers.service.latest import LatestQuotes

    found = LatestQuotes({}, {})
    assert msgspec.json.encode(dict(found)) == b"{}"

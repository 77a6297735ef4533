"""Symbols against Alpaca's list of assets: told within seconds, asked once, and never in the way."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from consumers import connect
from simulator import AccountRules, AlpacaSimulator, HangRest, RefuseRest, SimulatorSettings, SlowRest
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, event_exists, numbered, numbers, state_is
from wire import account_of

ACCOUNT = KEYS.assets(account_of("PKTESTKEY1234"))
UNKNOWN = "not an active asset at Alpaca"


@pytest.fixture
async def market() -> AsyncIterator[AlpacaSimulator]:
    """A vendor whose market has three symbols; one of them may not be traded, and another is gone."""
    rules = AccountRules(
        ghost_s=0.0, inactive_symbols=frozenset({"TWTR"}), untradable_symbols=frozenset({"HALT"})
    )
    async with AlpacaSimulator(SimulatorSettings(account=rules, symbols=("AAPL", "BRK.B", "HALT"))) as vendor:
        yield vendor


def daemon_of(server: RedisServer, vendor: AlpacaSimulator, **settings: str) -> DaemonProcess:
    """A daemon that asks this vendor for assets, unless the settings say otherwise."""
    return DaemonProcess(server.url, vendor.url("iex"), **{"trading_url": vendor.rest_url, **settings})


async def reason_of(redis: Redis, symbol: str) -> str | None:
    """What `quotes:subscriptions` says of it."""
    value = await redis.hget(KEYS.subscriptions, symbol)
    reason = json.loads(value)["reason"] if value else None
    return None if reason is None else str(reason)


async def says(redis: Redis, symbol: str, text: str) -> bool:
    """Whether the symbol's reason has this text."""
    return text in (await reason_of(redis, symbol) or "")


async def goes_on(redis: Redis, vendor: AlpacaSimulator, daemon: DaemonProcess, *symbols: str) -> None:
    """Everything is subscribed and stored, and nothing is claimed of any symbol."""
    await vendor.wait_for(lambda: vendor.symbols == set(symbols), 20)
    vendor.send(numbered("AAPL", 1, 3))
    await until(lambda: _has(redis, "AAPL", [1, 2, 3]))
    for symbol in symbols:
        await until(lambda symbol=symbol: state_is(redis, symbol, "live"))  # type: ignore[misc]
        assert await reason_of(redis, symbol) is None
    assert "Traceback" not in daemon.log


async def _has(redis: Redis, symbol: str, wanted: list[int]) -> bool:
    return await numbers(redis, symbol) == wanted


@pytest.mark.fault("S51")
async def test_a_symbol_that_is_no_active_asset_is_told_with_the_nearest_names(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator
) -> None:
    """Within seconds, in the state, the events and `quality`; it stays subscribed, and good ones have no remark."""
    await redis.sadd(KEYS.symbols, "AAPL", "ZZZZNOTASYM", "APPL", "TWTR", "HALT")
    async with daemon_of(shared_server, market) as daemon:
        await until(lambda: says(redis, "ZZZZNOTASYM", UNKNOWN), 30)
        await until(lambda: says(redis, "APPL", f"{UNKNOWN}; did you mean AAPL?"))
        await until(lambda: says(redis, "TWTR", f"{UNKNOWN}: inactive"))
        await until(lambda: says(redis, "HALT", "not tradable at Alpaca"))
        await market.wait_for(lambda: market.symbols == {"AAPL", "ZZZZNOTASYM", "APPL", "TWTR", "HALT"}, 30)
        await until(lambda: state_is(redis, "ZZZZNOTASYM", "live"))
        assert await reason_of(redis, "AAPL") is None
        await until(lambda: event_exists(redis, "symbol_remark", subject="APPL"))
        async with connect(shared_server.url) as bus:
            found = (await bus.quality("ZZZZNOTASYM"))["ZZZZNOTASYM"]
            assert found.reason == f"no quote yet; {UNKNOWN}"

        await redis.sadd(KEYS.symbols, "BRK.C")
        await until(lambda: says(redis, "BRK.C", f"{UNKNOWN}; did you mean BRK.B?"), 5)
        assert (await daemon.told("assets_listed"))["count"] == 4
        fields: dict[str, str] = await redis.hgetall(ACCOUNT)  # type: ignore[assignment]
        assert fields.pop("asked").isdigit()
        assert {symbol: value.rpartition(" ")[0] for symbol, value in fields.items()} == {
            "AAPL": "active tradable",
            "BRK.B": "active tradable",
            "HALT": "active not_tradable",
            "TWTR": "inactive not_tradable",
        }
        assert 86_000 < await redis.ttl(ACCOUNT) <= 86_400
        assert [call.path for call in market.rest_calls] == ["/v2/assets"]
        assert market.rest_calls[0].query == {"asset_class": "us_equity"}


async def test_a_second_daemon_and_a_restart_ask_nothing_within_the_day(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator
) -> None:
    """They read what the first was told; when the list has expired it is asked for again."""
    await redis.sadd(KEYS.symbols, "AAPL", "ZZZZNOTASYM")
    async with daemon_of(shared_server, market) as daemon:
        await until(lambda: says(redis, "ZZZZNOTASYM", UNKNOWN), 30)
        daemon.signal(15)  # type: ignore[arg-type]
        assert await daemon.ended() == 0
        await redis.delete(KEYS.subscriptions)
        daemon.start()
        await until(lambda: says(redis, "ZZZZNOTASYM", UNKNOWN), 30)
        assert len(market.rest_calls) == 1
        daemon.signal(15)  # type: ignore[arg-type]
        assert await daemon.ended() == 0
        await redis.delete(KEYS.subscriptions, ACCOUNT)
        daemon.start()
        await until(lambda: says(redis, "ZZZZNOTASYM", UNKNOWN), 30)
        assert len(market.rest_calls) == 2


async def test_daemons_that_start_at_once_ask_once(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator
) -> None:
    """Two namespaces of one account would be two accounts here; two standing in turn for one are not."""
    await redis.sadd(KEYS.symbols, "AAPL", "ZZZZNOTASYM")
    market.arm(HangRest(1.0), times=1)
    async with daemon_of(shared_server, market) as first, daemon_of(shared_server, market) as second:
        await until(lambda: says(redis, "ZZZZNOTASYM", UNKNOWN), 30)
        assert len(market.rest_calls) == 1
        # Of two that come up in the same moment one may fence the other.
        processes = [daemon.process for daemon in (first, second)]
        assert None in [process.poll() for process in processes if process is not None]


@pytest.mark.fault("S52")
@pytest.mark.parametrize(
    "fault",
    [RefuseRest(401), RefuseRest(403), RefuseRest(429), RefuseRest(500), RefuseRest(502)],
    ids=lambda fault: str(fault.status),
)
async def test_a_refusal_holds_nothing_up_and_claims_nothing(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator, fault: RefuseRest
) -> None:
    """It is told once, and not asked again before its time: not even by the next daemon."""
    await redis.sadd(KEYS.symbols, "AAPL", "ZZZZNOTASYM")
    market.arm(fault, times=None)
    async with daemon_of(shared_server, market) as daemon:
        await until(lambda: event_exists(redis, "assets_unavailable"), 30)
        await goes_on(redis, market, daemon, "AAPL", "ZZZZNOTASYM")
        told = await daemon.told("assets_unavailable")
        assert f"answers with status {fault.status}" in told["reason"]
        assert "very-secret-value-5678" not in daemon.log
        await until(lambda: _failed_for(redis, told["reason"]))
        assert 0 < await redis.ttl(ACCOUNT) <= (3600 if fault.status in (401, 403) else 60)
        daemon.signal(9)  # type: ignore[arg-type]
        await daemon.ended()
        daemon.start()
        await daemon.until_live()
        await until(lambda: state_is(redis, "ZZZZNOTASYM", "live"))
        assert len(market.rest_calls) == 1
        await redis.delete(ACCOUNT)
        market.heal()
        await until(lambda: says(redis, "ZZZZNOTASYM", UNKNOWN), 30)


async def _failed_for(redis: Redis, reason: str) -> bool:
    return await redis.hget(ACCOUNT, "failed") == reason


@pytest.mark.fault("S52")
@pytest.mark.parametrize("fault", [HangRest(60.0), SlowRest(60.0)], ids=["hangs", "drips"])
async def test_a_rest_that_hangs_keeps_no_daemon_from_its_work_nor_from_its_end(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator, fault: HangRest | SlowRest
) -> None:
    """Live, stored, and gone within seconds of SIGTERM, with the question still open."""
    await redis.sadd(KEYS.symbols, "AAPL", "ZZZZNOTASYM")
    market.arm(fault, times=None)
    async with daemon_of(shared_server, market) as daemon:
        await market.wait_for(lambda: len(market.rest_calls) == 1, 30)
        await goes_on(redis, market, daemon, "AAPL", "ZZZZNOTASYM")
        began_s = time.monotonic()
        daemon.signal(15)  # type: ignore[arg-type]
        assert await daemon.ended() == 0
        assert time.monotonic() - began_s < 8.0


async def _garbage(port_ready: "asyncio.Future[int]", body: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port_ready.set_result(server.sockets[0].getsockname()[1])
        await server.serve_forever()


@pytest.mark.fault("S52")
@pytest.mark.parametrize(
    "body",
    [b"<html>nothing here</html>", b"{}", b"[]", b"[1, 2]", b'[{"symbol": 5}]', b"\xff\xfe", b"", b"null"],
    ids=["html", "object", "empty list", "numbers", "no symbol", "no text", "nothing", "null"],
)
async def test_an_answer_that_is_no_list_claims_nothing(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator, body: bytes
) -> None:
    """It is told as such."""
    await redis.sadd(KEYS.symbols, "AAPL", "ZZZZNOTASYM")
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        server = group.create_task(_garbage(port, body))
        url = f"http://127.0.0.1:{await port}"
        async with daemon_of(shared_server, market, trading_url=url) as daemon:
            await until(lambda: event_exists(redis, "assets_unavailable"), 30)
            await goes_on(redis, market, daemon, "AAPL", "ZZZZNOTASYM")
        server.cancel()


@pytest.mark.parametrize(
    "settings",
    [{"trading_url": "off"}, {"trading_url": ""}, {"trading_url": "http://127.0.0.1:1"}],
    ids=["off", "a feed of one's own alone", "nobody there"],
)
async def test_without_rest_nothing_is_claimed(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator, settings: dict[str, str]
) -> None:
    """Nobody to ask, or nobody who answers."""
    await redis.sadd(KEYS.symbols, "AAPL", "ZZZZNOTASYM")
    async with daemon_of(shared_server, market, **settings) as daemon:
        if settings["trading_url"].startswith("http"):
            await until(lambda: event_exists(redis, "assets_unavailable"), 30)
            assert "the connection failed" in (await daemon.told("assets_unavailable"))["reason"]
        await goes_on(redis, market, daemon, "AAPL", "ZZZZNOTASYM")
        assert "assets_listed" not in daemon.kinds()

"""Bad days of the vendor: refusals, silences, lost connections, nonsense."""

import json

import pytest
from redis.asyncio import Redis

from simulator import AccountRules, AlpacaSimulator, NoAck, RefuseUpgrade, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import BASE_NS, KEYS, gaps, numbered, numbers, state_is, stored


async def test_a_dropped_connection_comes_back_and_the_hole_is_marked_before_the_next_quote(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """After a drop the symbols are subscribed again, and each affected stream has one gap marker."""
    await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    vendor.drop(ghost=False)
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL", "MSFT"}, 10)
    vendor.send(numbered("AAPL", 6, 5))
    await daemon.until(lambda status: status["stored"] == 10)
    found = await stored(redis, "AAPL")
    (gap,) = await gaps(redis, "AAPL")
    assert found[5] == gap
    assert (gap.from_ns, gap.to_ns) == (BASE_NS + 5 * 1_000_003, BASE_NS + 6 * 1_000_003)
    assert gap.reason == "feed_disconnected"
    assert await numbers(redis, "AAPL") == list(range(1, 11))
    assert await gaps(redis, "MSFT") == []


@pytest.mark.fault("S13")
async def test_a_limit_of_thirty_is_filled_in_a_fixed_order_and_the_rest_waits(
    shared_server: RedisServer, redis: Redis
) -> None:
    """45 desired, 30 allowed: the first thirty by name are live, fifteen wait, and requests come to rest."""
    desired = [f"SYM{n:02d}" for n in range(45)]
    rules = AccountRules(symbol_limit=30)
    async with (
        AlpacaSimulator(SimulatorSettings(account=rules)) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
    ):
        await redis.sadd(KEYS.symbols, *desired)
        await daemon.until(lambda s: s["symbols"].get("waiting") == 15 and s["live"] == 30, 15)
        assert vendor.symbols == set(desired[:30])
        asked = sum(action.kind == "subscribe" for action in vendor.actions)
        await redis.srem(KEYS.symbols, desired[0])
        await vendor.wait_for(lambda: vendor.symbols == set(desired[1:31]))
        assert asked < 12
        await until(lambda: state_is(redis, desired[44], "waiting"))


@pytest.mark.fault("S13")
async def test_a_configured_limit_is_never_overstepped(shared_server: RedisServer, redis: Redis) -> None:
    """With QUOTEBUS_SYMBOL_LIMIT the vendor never has to refuse."""
    desired = [f"SYM{n:02d}" for n in range(45)]
    async with (
        AlpacaSimulator(SimulatorSettings(account=AccountRules(symbol_limit=30))) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex"), symbol_limit="30") as daemon,
    ):
        await redis.sadd(KEYS.symbols, *desired)
        await daemon.until(lambda status: status["live"] == 30)
        _, metrics = await daemon.page("/metrics")
    assert 'quotebus_source_errors_total{code="405"} 0.0' in metrics


async def test_one_symbol_that_the_vendor_refuses_does_not_take_499_with_it(
    shared_server: RedisServer, redis: Redis
) -> None:
    """A refused batch is divided until the culprit stands alone, refused with its reason."""
    names = [f"SYM{n:03d}" for n in range(500)]
    rules = AccountRules(refused_symbols=frozenset({"SYM321"}))
    async with (
        AlpacaSimulator(SimulatorSettings(account=rules)) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
    ):
        await redis.sadd(KEYS.symbols, *names)
        await daemon.until(lambda status: status["live"] == 499, 15)
        assert vendor.symbols == set(names) - {"SYM321"}
        await until(lambda: state_is(redis, "SYM321", "refused"))
        assert "400" in json.loads(await redis.hget(KEYS.subscriptions, "SYM321") or "")["reason"]


async def test_wrong_keys_make_the_daemon_unready_and_patient(
    shared_server: RedisServer, redis: Redis
) -> None:
    """402 is shown with its meaning, is not hammered, and costs the process neither its life nor its secret."""
    rules = AccountRules(key="another", secret="key")
    async with (
        AlpacaSimulator(SimulatorSettings(account=rules)) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
    ):
        await daemon.until(lambda status: status["reconnect_attempt"] == 1)
        code, text = await daemon.page("/readyz")
        assert (code, "feed: not connected" in text) == (503, True)
        assert (await daemon.page("/livez"))[0] == 200
        await daemon.told("disconnected")
        (told,) = [event for event in daemon.events if event["event"] == "disconnected"]
        assert (told["code"], told["reason"]) == (402, "the API key or its secret is wrong")
        assert sum(action.kind == "auth" for action in vendor.actions) == 1
        assert "very-secret-value-5678" not in daemon.log


@pytest.mark.fault("S11")
async def test_a_taken_slot_is_waited_for(shared_server: RedisServer, redis: Redis) -> None:
    """406 means that somebody holds the account's connection: never two sockets of ours, and a slow retry."""
    async with AlpacaSimulator(SimulatorSettings()) as vendor:
        vendor.refuse(406, times=1)
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await daemon.until(lambda status: status["reconnect_attempt"] == 1)
            _, metrics = await daemon.page("/metrics")
            assert 'quotebus_source_errors_total{code="406"} 1.0' in metrics
            await daemon.until_live(12)
            assert len(vendor.connections) == 1


@pytest.mark.fault("S42")
async def test_too_many_handshakes_are_answered_with_patience(
    shared_server: RedisServer, redis: Redis
) -> None:
    """HTTP 429 with Retry-After keeps the daemon away for at least that long."""
    async with AlpacaSimulator(SimulatorSettings()) as vendor:
        vendor.arm(RefuseUpgrade(429, (("Retry-After", "2"),)), times=1)
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await daemon.until(lambda status: status["reconnect_attempt"] == 1)
            await daemon.until_live(10)
        refused, opened = [a for a in vendor.actions if a.kind in ("upgrade", "connect")][:2]
        assert opened.at_s - refused.at_s >= 2.0


@pytest.mark.fault("S17")
async def test_garbage_is_counted_and_its_neighbours_are_stored(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A frame of nonsense costs nothing but itself."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    vendor.send(numbered("AAPL", 1, 3))
    vendor.send_raw(b"\xc1\xff\x00 nonsense")
    vendor.send_raw(b"\x90")
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 6)
    assert await numbers(redis, "AAPL") == [1, 2, 3, 4, 5, 6]
    _, metrics = await daemon.page("/metrics")
    assert "quotebus_source_unreadable_messages_total 1.0" in metrics
    assert len(vendor.closed) == 0


async def test_a_half_open_connection_is_found_within_ten_seconds(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A peer that neither sends nor answers is given up, and the next connection works."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    vendor.half_open()
    vendor.heal()
    await daemon.until(lambda status: status["reconnects"] == 1, 14)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})


@pytest.mark.fault("S33")
async def test_a_request_that_is_never_acknowledged_is_sent_again_and_then_the_session_is_renewed(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Two requests without an answer cost the connection; the set arrives on the next one."""
    vendor.arm(NoAck(), times=2)
    await redis.sadd(KEYS.symbols, "AAPL")
    await until(lambda: state_is(redis, "AAPL", "requested"))
    await vendor.wait_for(lambda: len(vendor.closed) == 1, 12)
    assert sum(action.kind == "subscribe" for action in vendor.actions) == 2
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 10)
    await until(lambda: state_is(redis, "AAPL", "live"))
    assert vendor.closed[0].clean


async def test_an_internal_error_of_the_vendor_costs_one_reconnection(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Codes 500 and 407 are counted by number, and the feed comes back."""
    await redis.sadd(KEYS.symbols, "AAPL")
    for number, code in enumerate((500, 407), start=1):
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 10)
        vendor.send(numbered("AAPL", number, 1))
        await daemon.until(lambda status, n=number: status["stored"] == n)  # type: ignore[misc]
        vendor.error(code)
        await vendor.wait_for(lambda n=number: len(vendor.closed) == n, 10)  # type: ignore[misc]
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 10)
    _, metrics = await daemon.page("/metrics")
    assert 'quotebus_source_errors_total{code="500"} 1.0' in metrics
    assert 'quotebus_source_errors_total{code="407"} 1.0' in metrics

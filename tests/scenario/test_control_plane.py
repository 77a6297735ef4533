"""What people do to the desired set, and to the settings: much at once, again and again, or wrongly."""

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.account import lags_over
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Fault, Proxy, named
from tests.scenario.streams import KEYS, event_exists, numbered, numbers, state_is, subscribed


def requests(vendor: AlpacaSimulator) -> list[tuple[str, int]]:
    """Every change that was asked of the vendor: kind and number of symbols."""
    return [
        (action.kind, len(action.quotes))
        for action in vendor.actions
        if action.kind in ("subscribe", "unsubscribe")
    ]


@pytest.mark.fault("C04")
async def test_a_hundred_thousand_symbols_are_read_and_cut_at_the_limit(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The first thousand are live in chunks, each of the others waits with the reason, and the loop never stood."""
    async with DaemonProcess(shared_server.url, vendor.url("iex"), symbol_limit="1000") as daemon:
        await daemon.until_live()
        names = [f"S{n:05d}" for n in range(100_000)]
        await redis.sadd(KEYS.symbols, *names)
        await daemon.until(lambda status: status["desired"] == 100_000, 30)
        await daemon.until(lambda status: status["live"] == 1000, 30)
        status = await daemon.until(lambda status: status["symbols"].get("waiting") == 99_000, 30)
        assert status["symbol_limit"] == 1000
        await until(lambda: _count_is(redis, KEYS.subscriptions, 100_000), 60)
        waiting = json.loads(await redis.hget(KEYS.subscriptions, "S99999") or "{}")
        assert waiting["reason"] == "waits behind the limit of 1000 symbols"
        assert requests(vendor) == [("subscribe", 500), ("subscribe", 500)]
        assert vendor.symbols == set(names[:1000])
        assert await lags_over(daemon, 0.25) <= 1
        assert await lags_over(daemon, 1.0) == 0


@pytest.mark.fault("C07")
async def test_a_symbol_that_flaps_ten_times_a_second_costs_few_requests_and_ends_right(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Sixty changes in six seconds become a dozen requests, and soon after the last one all is as desired."""
    await subscribed(redis, vendor, "AAPL")
    before = len(requests(vendor))
    for n in range(61):
        change = redis.srem if n % 2 else redis.sadd
        await change(KEYS.symbols, "MSFT")
        await asyncio.sleep(0.1)  # the rhythm of the fault, not a wait
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"}, 6)
    asked = len(requests(vendor)) - before
    assert asked <= 16
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)


@pytest.mark.fault("C08")
async def test_a_symbol_that_comes_and_goes_between_two_looks_was_never_there(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Neither a request nor an entry in the audit trail; the next change is the next request."""
    await subscribed(redis, vendor, "AAPL")
    for _ in range(20):
        pipe = redis.pipeline(transaction=True)
        pipe.sadd(KEYS.symbols, "MSFT")
        pipe.srem(KEYS.symbols, "MSFT")
        await pipe.execute()
    await subscribed(redis, vendor, "AAPL", "NVDA")
    assert not any("MSFT" in action.quotes for action in vendor.actions)
    assert "MSFT" not in daemon.log


@pytest.mark.fault("C09")
async def test_a_thousand_changes_in_one_transaction_are_one_difference(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Five hundred removed and a thousand added, one command each: three requests, removals first."""
    old = [f"OLD{n}" for n in range(500)]
    new = [f"NEW{n}" for n in range(1000)]
    await subscribed(redis, vendor, "KEPT", *old)
    before = len(requests(vendor))
    pipe = redis.pipeline(transaction=True)
    for symbol in old:
        pipe.srem(KEYS.symbols, symbol)
    for symbol in new:
        pipe.sadd(KEYS.symbols, symbol)
    await pipe.execute()
    await vendor.wait_for(lambda: vendor.symbols == {"KEPT", *new}, 15)
    assert requests(vendor)[before:] == [("unsubscribe", 500), ("subscribe", 500), ("subscribe", 500)]


@pytest.mark.fault("C12")
@pytest.mark.parametrize("how", ["RENAME", "SUNIONSTORE", "RESTORE", "COPY"])
async def test_a_set_that_is_replaced_whole_is_seen_at_once(
    shared_server: RedisServer, daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, how: str
) -> None:
    """Whichever command puts another set in its place, without a moment in which nothing is subscribed."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    await until(lambda: _is_tracking(daemon))
    await redis.sadd("elsewhere", "MSFT", "NVDA")
    began_s = time.monotonic()
    if how == "RESTORE":
        async with Redis.from_url(shared_server.url, protocol=2) as raw:
            await raw.restore(KEYS.symbols, 0, await raw.dump("elsewhere") or b"", replace=True)
    elif how == "COPY":
        await redis.copy("elsewhere", KEYS.symbols, replace=True)
    elif how == "RENAME":
        await redis.rename("elsewhere", KEYS.symbols)
    else:
        await redis.sunionstore(KEYS.symbols, ["elsewhere"])
    await vendor.wait_for(lambda: vendor.symbols == {"MSFT", "NVDA"}, 3)
    # Sooner than the periodic look would have come, three times generous.
    assert time.monotonic() - began_s < 3
    assert not any("MSFT" in action.quotes for action in vendor.actions if action.kind == "unsubscribe")


@pytest.mark.fault("C13")
async def test_operators_and_strategies_are_united_and_other_namespaces_are_nobodys(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """What the set and the leases ask for is subscribed together; a set under another prefix counts for nothing."""
    lease_until_ms = time.time_ns() // 1_000_000 + 60_000
    await redis.sadd("other:symbols", "TSLA")
    await redis.sadd(f"{KEYS.symbols}:new", "IBM")
    await redis.zadd(KEYS.interest, {"MSFT@one": lease_until_ms, "AAPL@two": lease_until_ms})
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    await redis.srem(KEYS.symbols, "AAPL")
    await redis.zrem(KEYS.interest, "MSFT@one")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    assert not any({"TSLA", "IBM"} & set(action.quotes) for action in vendor.actions)


@pytest.mark.fault("C14")
async def test_a_control_connection_that_gets_no_answer_does_not_hold_up_the_quotes(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """While set and states cannot be reached, quotes are stored as ever; afterwards the set is caught up with."""
    async with (
        Proxy(shared_server.port) as proxy,
        DaemonProcess(proxy.url, vendor.url("iex")) as daemon,
    ):
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        proxy.bend(Fault(black_hole=True), named("quotebus-control"))
        await redis.sadd(KEYS.symbols, "MSFT")
        for n in range(30):
            vendor.send(numbered("AAPL", 1 + 100 * n, 100))
            await daemon.until(lambda status, n=n: status["stored"] == 100 * (n + 1), 5)  # type: ignore[misc]
            await asyncio.sleep(0.1)  # the fault lasts longer than the control connection's patience
        assert vendor.symbols == {"AAPL"}
        assert (await daemon.status())["state"] == "live"
        proxy.straighten()
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"}, 10)
    assert await numbers(redis, "AAPL") == list(range(1, 3001))


@pytest.mark.fault("C16")
async def test_a_huge_set_in_a_reconnect_loop_is_asked_for_once_per_session(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Between sessions nothing is asked; each session asks for three thousand symbols in six requests."""
    await redis.sadd(KEYS.symbols, *(f"S{n:04d}" for n in range(3000)))
    # A request that is cut off unanswered would be asked again in halves.
    await daemon.until(lambda status: status["live"] == 3000, 15)
    vendor.refuse_upgrade(503, times=3)
    vendor.drop(ghost=False)
    await vendor.wait_for(lambda: not vendor.symbols)
    await vendor.wait_for(lambda: len(vendor.symbols) == 3000, 30)
    vendor.send(numbered("S0000", 1, 1))
    await daemon.until(lambda status: status["stored"] == 1 and status["live"] == 3000)
    sessions = {action.connection for action in vendor.actions if action.kind == "auth"}
    assert len(sessions) == 2
    for session in sessions:
        asked = [a for a in vendor.actions if a.kind == "subscribe" and a.connection == session]
        assert [len(action.quotes) for action in asked] == [500] * 6


@pytest.mark.fault("C17")
async def test_quotes_that_wait_for_redis_are_stored_although_their_symbol_was_removed(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """What was received before the vendor confirmed the removal is in the stream; what it sends later is not."""
    async with (
        Proxy(shared_server.port) as proxy,
        DaemonProcess(proxy.url, vendor.url("iex")) as daemon,
    ):
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL", "MSFT")
        await daemon.until(lambda status: status["live"] == 2)
        proxy.bend(Fault(black_hole=True), named("quotebus-publisher"))
        vendor.send(numbered("AAPL", 1, 5000), frame_size=50)
        await daemon.until(lambda status: status["received"] == 5000)
        await redis.srem(KEYS.symbols, "AAPL")
        await vendor.wait_for(lambda: vendor.symbols == {"MSFT"})
        await until(lambda: _is_absent(redis, "AAPL"))
        vendor.send(numbered("AAPL", 5001, 10))
        proxy.straighten()
        await daemon.until(lambda status: status["stored"] + status["already_stored"] == 5000, 15)
        vendor.send(numbered("MSFT", 1, 1))
        await daemon.until(lambda status: status["stored"] + status["already_stored"] == 5001)
    assert await numbers(redis, "AAPL") == list(range(1, 5001))


@pytest.mark.fault("C18")
async def test_sighup_reads_the_settings_and_a_bad_file_changes_nothing(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """A good file's log level applies at once and the rest is named; a bad one is told with all its problems."""
    file = tmp_path / "quotebus.toml"
    await asyncio.to_thread(file.write_text, 'log_level = "info"\n')
    async with DaemonProcess(shared_server.url, vendor.url("iex"), config=str(file)) as daemon:
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        await daemon.told("subscribed")

        await asyncio.to_thread(file.write_text, 'log_level = "loud"\ngrace_s = -1\nno_such = 1\n')
        daemon.signal(signal.SIGHUP)
        await until(lambda: event_exists(redis, "settings_refused"))
        await daemon.told("settings_refused")
        (refused,) = (event for event in daemon.events if event["event"] == "settings_refused")
        assert refused["level"] == "error"
        assert all(name in refused["problems"] for name in ("log_level", "grace_s", "no_such"))

        await asyncio.to_thread(file.write_text, 'log_level = "error"\ngrace_s = 5\nsymbol_limit = 3\n')
        daemon.signal(signal.SIGHUP)
        await until(
            lambda: event_exists(
                redis, "settings_reloaded", applied="log_level", needs_restart="symbol_limit grace_s"
            )
        )
        length = len(daemon.log)
        await subscribed(redis, vendor, "AAPL", "MSFT", "NVDA", "TSLA")
        await until(lambda: state_is(redis, "TSLA", "live"))
        assert daemon.log[length:] == ""

        await asyncio.to_thread(file.write_text, "")
        daemon.signal(signal.SIGHUP)
        await until(lambda: event_exists(redis, "settings_reloaded", applied="log_level", needs_restart=""))
        await redis.srem(KEYS.symbols, "TSLA")
        await vendor.wait_for(lambda: "TSLA" not in vendor.symbols)
        await daemon.told("unsubscribed")
        assert (await daemon.page("/livez"))[0] == 200


async def _count_is(redis: Redis, key: str, count: int) -> bool:
    return bool(await redis.hlen(key) == count)


async def _is_absent(redis: Redis, symbol: str) -> bool:
    return not await redis.hexists(KEYS.subscriptions, symbol)


async def _is_tracking(daemon: DaemonProcess) -> bool:
    return bool((await daemon.status())["tracking"])

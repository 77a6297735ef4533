"""Sockets that live and feeds that do not: silence, lag, missing acknowledgements, dead peers, wrong clocks."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from ingestor.feed.hours import MarketHours
from simulator import AlpacaSimulator, IgnoreUnsubscribe, NoAck, SimQuote, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, event_exists, gaps, numbered, numbers, state_is, stored, subscribed
from wire import EntryId

Status = dict[str, Any]


@pytest.fixture
async def market() -> AsyncIterator[AlpacaSimulator]:
    """A vendor with quotes of its own, dated now."""
    async with AlpacaSimulator(SimulatorSettings(rate=50)) as simulator:
        yield simulator


async def flowing(
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    predicate: Callable[[Status], bool],
    age_s: float = 0.0,
    timeout_s: float = 60.0,
) -> Status:
    """Send a quote of AAPL again and again, that old when it is sent, until the status is as wanted."""
    deadline_s = time.monotonic() + timeout_s
    number = 0
    while time.monotonic() < deadline_s:
        number += 1
        sent_ns = time.time_ns() - int(age_s * 1e9)
        vendor.send([SimQuote("AAPL", sent_ns, 100.25, number, 100.27, 200)])
        status = await daemon.status()
        if predicate(status):
            return status
        await asyncio.sleep(0.1)
    raise AssertionError(f"not so within {timeout_s} s: {status}\n{daemon.log[-3000:]}")


async def metric(daemon: DaemonProcess, series: str) -> float:
    """The value of one series."""
    _, text = await daemon.page("/metrics")
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{series} "))


@pytest.mark.fault("S05")
async def test_a_mute_socket_in_an_open_market_is_found_and_replaced(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator
) -> None:
    """Finding, not ready, new session, and its end with the next quote; the hole is marked as any other."""
    async with DaemonProcess(shared_server.url, market.url("iex"), mute_after_s="2") as daemon:
        await subscribed(redis, market, "AAPL")
        await daemon.until(lambda status: status["stored"] > 50, 30)
        market.mute()
        await daemon.until(lambda status: status["watchdog"] == "mute", 30)
        await market.wait_for(lambda: len(market.closed) == 1 and market.symbols == {"AAPL"}, 30)
        assert market.closed[0].clean
        code, text = await daemon.page("/readyz?verbose")
        assert code == 503
        assert "[-] watchdog: mute: no quote of 1 live symbols for " in text
        assert await metric(daemon, "quotebus_source_silence_seconds") > 2
        market.mute(False)
        before = (await daemon.status())["stored"]
        status = await daemon.until(lambda status: not status["watchdog"] and status["stored"] > before, 30)
        assert status["market"] == "open"
        code, _ = await daemon.page("/readyz")
        assert code == 200
        reconnects = await metric(daemon, 'quotebus_watchdog_reconnects_total{kind="mute"}')
        assert reconnects >= 1
        assert await metric(daemon, 'quotebus_source_disconnects_total{reason="mute"}') == reconnects
        assert await metric(daemon, 'quotebus_watchdog_findings_total{kind="mute"}') == 1
        assert await metric(daemon, 'quotebus_watchdog{kind="mute"}') == 0
        await until(lambda: event_exists(redis, "watchdog_over", finding="mute"), 30)
    assert {gap.reason for gap in await gaps(redis, "AAPL")} == {"feed_disconnected"}
    assert await event_exists(redis, "watchdog", finding="mute")
    assert await event_exists(redis, "disconnected", finding="mute")


@pytest.mark.fault("S05", "S45")
async def test_a_closed_market_may_be_mute(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Ten thresholds of silence outside the feed's hours: no finding, no new session, ready throughout."""
    now_s = time.time_ns() / 1e9
    hours = {feed: MarketHours(feed) for feed in ("iex", "boats")}
    # One of the two is closed at any time, and one of them for a while yet.
    closed = next(
        f for f, h in hours.items() if not h.at(now_s).is_open and h.changes_at_s(now_s) > now_s + 120
    )
    settings = {"market_hours": closed, "mute_after_s": "0.5"}
    async with DaemonProcess(shared_server.url, vendor.url("iex"), **settings) as daemon:
        await subscribed(redis, vendor, "AAPL")
        beats = 'quotebus_event_loop_lag_seconds_bucket{le="+Inf"}'
        begun = await metric(daemon, beats)

        async def ten_more() -> bool:
            return await metric(daemon, beats) >= begun + 12

        await until(ten_more, 60)
        status = await daemon.status()
        assert (status["market"], status["watchdog"], status["reconnects"]) == ("closed", "", 0)
        assert await metric(daemon, "quotebus_market_open") == 0
        code, _ = await daemon.page("/readyz")
        assert code == 200
        assert len(vendor.closed) == 0
        assert "watchdog" not in daemon.kinds()


async def test_a_vendor_that_lags_gets_one_new_session(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Quotes 12 s old for 15 s: finding, not ready, one reconnection; fresh ones end it."""
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
        await subscribed(redis, vendor, "AAPL")
        await flowing(vendor, daemon, lambda status: status["watchdog"] == "vendor_lag", age_s=12)
        lag_s = await metric(daemon, "quotebus_source_lag_seconds")
        assert 11 < lag_s < 20
        code, text = await daemon.page("/readyz")
        assert code == 503
        assert "vendor_lag: quotes come " in text
        await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 20)
        await flowing(vendor, daemon, lambda status: not status["watchdog"])
        assert await metric(daemon, 'quotebus_watchdog_reconnects_total{kind="vendor_lag"}') == 1
        assert await metric(daemon, 'quotebus_source_disconnects_total{reason="vendor_lag"}') == 1
        await until(lambda: event_exists(redis, "watchdog_over", finding="vendor_lag"), 30)


@pytest.mark.fault("C15")
async def test_a_symbol_without_quotes_stays_live_and_says_so(
    shared_server: RedisServer, redis: Redis, market: AlpacaSimulator
) -> None:
    """Its reason tells for how long, it is not asked for again, and its first quote takes the reason away."""
    async with DaemonProcess(shared_server.url, market.url("iex"), quiet_after_s="3") as daemon:
        await subscribed(redis, market, "AAPL")
        market.rate = 0.0
        await subscribed(redis, market, "AAPL", "DEAD")
        asked = len(market.actions)

        async def reason_is(reason: str | None) -> bool:
            value = json.loads(await redis.hget(KEYS.subscriptions, "DEAD") or "{}")
            return bool(value.get("state") == "live" and value["reason"] == reason)

        async def is_told() -> bool:
            market.send([SimQuote("AAPL", time.time_ns(), 100.25, 1, 100.27, 200)])
            return await reason_is("no quote for 3 s")

        await until(is_told, 30)
        assert (await daemon.status())["watchdog"] == "symbols_silent"
        assert await metric(daemon, "quotebus_symbols_quiet") == 1
        code, _ = await daemon.page("/readyz")
        assert code == 200

        async def is_over() -> bool:
            for symbol in ("AAPL", "DEAD"):
                market.send([SimQuote(symbol, time.time_ns(), 100.25, 1, 100.27, 200)])
            return await reason_is(None)

        await until(is_over, 30)
        assert len(market.actions) == asked


@pytest.mark.fault("S33")
@pytest.mark.timeout(240)
async def test_a_vendor_that_never_acknowledges_is_told_across_sessions(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Each session is renewed after two requests without an answer; half a minute of that is a finding."""
    vendor.arm(NoAck())
    await redis.sadd(KEYS.symbols, "AAPL")
    await until(lambda: state_is(redis, "AAPL", "requested"))
    status = await daemon.until(lambda status: status["watchdog"] == "acknowledgement_drift", 180)
    assert status["live"] == 0
    await daemon.told("no_acknowledgement", count=4)
    assert await state_is(redis, "AAPL", "requested")
    vendor.heal()
    await daemon.until(lambda status: not status["watchdog"] and status["live"] == 1, 60)
    await until(lambda: event_exists(redis, "watchdog", finding="acknowledgement_drift"), 30)


@pytest.mark.fault("S36")
async def test_removals_that_are_ignored_cost_one_session(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Three acknowledgements that still hold the symbol: a new session, which never asks for it."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    vendor.arm(IgnoreUnsubscribe(), times=3)
    await redis.srem(KEYS.symbols, "MSFT")
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 30)
    asked = [action.quotes for action in vendor.actions if action.kind == "unsubscribe"]
    assert asked == [("MSFT",)] * 3
    status = await daemon.until(lambda status: status["live"] == 1, 30)
    # It was settled long before it could pass for drift.
    assert (status["watchdog"], status["reconnects"]) == ("", 1)


@pytest.mark.fault("S03")
async def test_a_half_open_connection_has_its_own_name(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Found by ping within eight seconds of the last frame, and told apart from a connection that was cut."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    vendor.half_open()
    vendor.heal()
    begun_s = time.monotonic()
    await until(lambda: event_exists(redis, "disconnected", finding="half_open"), 24)
    # Eight seconds, and what a busy machine adds.
    assert time.monotonic() - begun_s < 8 + 4
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 20)
    assert await metric(daemon, 'quotebus_source_disconnects_total{reason="half_open"}') == 1
    assert await metric(daemon, 'quotebus_source_disconnects_total{reason="lost"}') == 0


@contextmanager
def simulate(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`quotebus simulate` as a process of its own, and its URL."""
    main = "from ingestor.entry import main; main()"
    command = [sys.executable, "-c", main, "simulate", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("ws://127.0.0.1:")
            yield process, url
        finally:
            # A stopped process does not hear SIGTERM.
            process.kill()


@pytest.mark.fault("S04")
async def test_a_frozen_vendor_is_found_like_a_dead_one(shared_server: RedisServer, redis: Redis) -> None:
    """SIGSTOP: the kernel still acknowledges, nobody answers. The marker covers the time until it goes on."""
    with simulate("--rate", "50", "--ghost-s", "0.5") as (process, url):
        async with DaemonProcess(shared_server.url, url) as daemon:
            await redis.sadd(KEYS.symbols, "AAPL")
            await daemon.until(lambda status: status["stored"] > 10, 30)
            process.send_signal(signal.SIGSTOP)
            stopped_ns, begun_s = time.time_ns(), time.monotonic()
            await until(lambda: event_exists(redis, "disconnected", finding="half_open"), 24)
            assert time.monotonic() - begun_s < 8 + 4
            resumed_ns = time.time_ns()
            process.send_signal(signal.SIGCONT)
            before = (await daemon.status())["stored"]
            await daemon.until(lambda status: status["stored"] > before, 60)
            assert await metric(daemon, 'quotebus_source_disconnects_total{reason="half_open"}') == 1
    (gap,) = await gaps(redis, "AAPL")
    assert gap.reason == "feed_disconnected"
    assert gap.from_ns < stopped_ns + 10**9
    assert gap.to_ns > resumed_ns - 10**9


def bent(daemon: DaemonProcess, seconds: int) -> DaemonProcess:
    """The same, under a clock that is off by so much; its monotonic clock is as it was."""
    spec = find_spec("libfaketime")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return daemon.with_environment(
        LD_PRELOAD=os.fspath(library), FAKETIME=f"{seconds:+d}s", FAKETIME_DONT_FAKE_MONOTONIC="1"
    )


@pytest.mark.fault("S32")
@pytest.mark.parametrize(
    ("off_s", "kind"), [(-600, "clock_skew"), (600, "vendor_lag")], ids=["behind", "ahead"]
)
async def test_a_clock_that_is_ten_minutes_off_is_seen_and_harms_no_order(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, off_s: int, kind: str
) -> None:
    """The lag shows by how much; ids grow in the order of arrival, and every quote is stored."""
    async with bent(DaemonProcess(shared_server.url, vendor.url("iex")), off_s) as daemon:
        await subscribed(redis, vendor, "AAPL")
        await flowing(vendor, daemon, lambda status: kind in str(status["watchdog"]).split())
        assert abs(await metric(daemon, "quotebus_source_lag_seconds") - off_s) < 30
        status = await daemon.until(lambda status: status["stored"] == status["received"], 20)
        assert await metric(daemon, f'quotebus_watchdog{{kind="{kind}"}}') == 1
        found = await numbers(redis, "AAPL")
        assert found == sorted(set(found))
        assert len(found) == status["stored"]
        ids = [EntryId.parse(item.id) for item in await stored(redis, "AAPL") if item.id is not None]
        assert ids == sorted(set(ids))
        if kind == "clock_skew":
            # A reconnection would not set the clock.
            assert status["reconnects"] == 0

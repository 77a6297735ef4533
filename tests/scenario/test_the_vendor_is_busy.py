"""The opening bell and the hours after it: more quotes than usual, and none of them lost."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.account import is_well, metric
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, ledger_is_even, numbered, numbers, subscribed

USUAL_PER_S = 2_000
STORED_S = "quotebus_receive_to_stored_seconds"
SYMBOLS = ("AAPL", "MSFT", "NVDA", "TSLA", "GOOG")


@pytest.mark.fault("S12")
async def test_three_times_the_usual_rate_does_not_make_us_slow(
    shared_server: RedisServer, redis: Redis
) -> None:
    """The vendor cuts whoever falls 20 000 quotes behind: six seconds at 6 000 a second, and nobody is cut."""
    rules = AccountRules(connection_limit=1)
    settings = SimulatorSettings(account=rules, symbols=SYMBOLS, rate=3 * USUAL_PER_S, max_backlog=20_000)
    async with (
        AlpacaSimulator(settings) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
    ):
        await redis.sadd(KEYS.symbols, *SYMBOLS)
        status = await daemon.until(lambda status: status["stored"] > 6 * 3 * USUAL_PER_S, 60)
        assert ledger_is_even(status)
        assert len(vendor.closed) == 0
        _, metrics = await daemon.page("/metrics")
        assert metric(metrics, "quotebus_source_errors_total", code="407") == 0
        assert status["dropped"] == 0
        await is_well(daemon)


@pytest.mark.fault("S43")
async def test_the_opening_bell_is_stored_whole_and_soon_forgotten(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """50 000 quotes within a second: each is stored once, and afterwards quotes are stored as fast as ever."""
    await subscribed(redis, vendor, *SYMBOLS)
    for first in range(1, 10_001, 1000):
        for symbol in SYMBOLS:
            vendor.send(numbered(symbol, first, 1000), frame_size=100)
        await asyncio.sleep(0.1)  # the pace of the bell, not a wait
    await daemon.until(lambda status: status["stored"] == 50_000, 30)
    for symbol in SYMBOLS:
        assert await numbers(redis, symbol) == list(range(1, 10_001))
    _, before = await daemon.page("/metrics")
    calm = 0
    until_s = time.monotonic() + 2.0
    while time.monotonic() < until_s:
        vendor.send(numbered("AAPL", 10_001 + calm, 10))
        calm += 10
        await daemon.until(lambda status, n=calm: status["stored"] == 50_000 + n)  # type: ignore[misc]
    _, after = await daemon.page("/metrics")

    batches = metric(after, f"{STORED_S}_count") - metric(before, f"{STORED_S}_count")
    prompt = metric(after, f"{STORED_S}_bucket", le="0.05") - metric(before, f"{STORED_S}_bucket", le="0.05")
    assert batches >= 10
    # Other programs of the machine may take a turn now and then.
    assert prompt >= batches * 0.95
    assert len(vendor.closed) == 0
    await is_well(daemon)

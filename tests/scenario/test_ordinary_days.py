"""Ordinary days: symbols come and go, quotes flow, the daemon is stopped in the evening."""

import asyncio
import signal
import time
from pathlib import Path
from statistics import median

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator, SimQuote, SimulatorSettings, write_tape
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import BASE_NS, KEYS, gaps, numbered, numbers, same, state_is, stored
from wire import EntryId, decode_latest


async def test_a_symbol_added_with_sadd_is_subscribed_and_its_quotes_are_stored_and_cached(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """SADD is all it takes: the stream has every quote with every field, the cache the newest with its id."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    sent = numbered("AAPL", 1, 50)
    vendor.send(sent)
    await until(lambda: _length_is(redis, "AAPL", 50))
    found = await stored(redis, "AAPL")
    assert all(same(s, f) for s, f in zip(sent, found, strict=True))
    newest = decode_latest("AAPL", await redis.hget(KEYS.latest, "AAPL") or "")
    assert newest == found[-1]
    await until(lambda: state_is(redis, "AAPL", "live"))


async def test_a_symbol_removed_with_srem_is_unsubscribed_and_leaves_the_states(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """SREM takes the symbol off the vendor's set; its stream stays for its readers."""
    await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    vendor.send(numbered("MSFT", 1, 3))
    await until(lambda: _length_is(redis, "MSFT", 3))
    await redis.srem(KEYS.symbols, "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    await until(lambda: _is_absent(redis, "MSFT"))
    assert await redis.xlen(KEYS.stream("MSFT")) == 3


async def test_a_lease_makes_a_symbol_desired_until_it_expires(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A strategy's lease subscribes a symbol that no operator asked for, and ends by itself."""
    await redis.zadd(KEYS.interest, {"NVDA@strategy-1": (time.time_ns() + 2_000_000_000) // 1_000_000})
    await vendor.wait_for(lambda: vendor.symbols == {"NVDA"})
    await vendor.wait_for(lambda: vendor.symbols == frozenset(), timeout_s=6)


async def test_changes_reach_the_vendor_within_a_quarter_of_a_second(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The median from SADD to the vendor's set is under 250 ms, and no change takes two seconds."""
    waits_s = []
    for n in range(20):
        began_s = time.monotonic()
        await redis.sadd(KEYS.symbols, f"SYM{n}")
        await vendor.wait_for(lambda n=n: f"SYM{n}" in vendor.symbols)  # type: ignore[misc]
        waits_s.append(time.monotonic() - began_s)
    assert median(waits_s) < 0.25
    assert max(waits_s) < 2.0


@pytest.mark.fault("S28", "S29")
async def test_a_tape_with_ties_repeats_and_late_rows_arrives_row_for_row(
    shared_server: RedisServer, redis: Redis, tmp_path: Path
) -> None:
    """At full speed, every row of the tape is an entry: in order, every field equal, ties kept apart."""
    rows = _awkward_tape(6000)
    write_tape(tmp_path / "ZZTOP-2025-11-13.csv.gz", rows)
    settings = SimulatorSettings(tape=tmp_path / "ZZTOP-2025-11-13.csv.gz", tape_speed=None)
    async with (
        AlpacaSimulator(settings) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
    ):
        await redis.sadd(KEYS.symbols, "ZZTOP")
        await daemon.until(lambda status: status["stored"] >= len(rows), 20)
        found = await stored(redis, "ZZTOP")
    assert all(same(s, f) for s, f in zip(rows, found, strict=True))
    ids = [EntryId.parse(f.id or "") for f in found]
    assert ids == sorted(set(ids))


@pytest.mark.fault("P01")
async def test_sigterm_under_load_stores_everything_received_and_says_goodbye_to_the_vendor(
    shared_server: RedisServer, redis: Redis
) -> None:
    """Exit code 0, a proper close, and every quote that was received is in its stream."""
    async with AlpacaSimulator(SimulatorSettings(rate=20_000, symbol_count=50)) as vendor:
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await daemon.until_live()
            await redis.sadd(KEYS.symbols, *(f"SYM{n}" for n in range(10)), "AAPL", "MSFT")
            await daemon.until(lambda status: status["stored"] > 5000)
            daemon.signal(signal.SIGTERM)
            assert await daemon.ended() == 0
            kinds = daemon.kinds()
        await vendor.wait_for(lambda: len(vendor.closed) == 1)
        assert vendor.closed[0].clean
    assert kinds[-2:] == ["stopping", "stopped"]
    status = await redis.hgetall(KEYS.status)
    lengths = [await redis.xlen(key) for key in await redis.keys(f"{KEYS.stream_prefix}*")]
    assert status["state"] == "stopped"
    assert int(status["received"]) == int(status["stored"]) == sum(lengths)


async def test_a_second_daemon_run_goes_on_where_the_first_ended_and_marks_the_hole(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Ids go on strictly increasing after a restart, and the time without a daemon is a gap marker."""
    await redis.sadd(KEYS.symbols, "AAPL")
    for run in range(2):
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 15)
            vendor.send(numbered("AAPL", 1 + run * 10, 10))
            await daemon.until(lambda status: status["stored"] == 10)
            daemon.signal(signal.SIGTERM)
            assert await daemon.ended() == 0
    found = await stored(redis, "AAPL")
    assert [type(item).__name__ for item in found] == ["Quote"] * 10 + ["Gap"] + ["Quote"] * 10
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["daemon_stopped"]
    assert await numbers(redis, "AAPL") == list(range(1, 21))


async def test_ten_thousand_symbols_are_subscribed_in_chunks_of_five_hundred(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A set of ten thousand is confirmed within seconds, in twenty requests."""
    await redis.sadd(KEYS.symbols, *(f"S{n:05d}" for n in range(10_000)))
    await vendor.wait_for(lambda: len(vendor.symbols) == 10_000, 30)
    sizes = [len(action.quotes) for action in vendor.actions if action.kind == "subscribe"]
    assert max(sizes) <= 500
    assert sum(sizes) == 10_000
    status = await daemon.until(lambda status: status["live"] == 10_000)
    assert status["symbols"]["live"] == 10_000


async def test_the_pages_tell_liveness_readiness_and_metrics(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """/livez and /readyz answer 200 on a good day, and /metrics counts what was stored."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    vendor.send(numbered("AAPL", 1, 7))
    await daemon.until(lambda status: status["stored"] == 7)
    assert await daemon.page("/livez") == (200, "ok\n")
    assert (await daemon.page("/readyz"))[0] == 200
    code, metrics = await daemon.page("/metrics")
    assert code == 200
    assert "\nquotebus_quotes_stored_total 7.0\n" in metrics
    assert 'quotebus_subscriptions{state="live"} 1.0' in metrics
    assert "AAPL" not in metrics


async def test_no_secret_is_in_the_log_the_pages_or_on_redis(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Neither key nor secret appears anywhere that people look, nor in the process list."""
    await redis.sadd(KEYS.symbols, "AAPL")
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
    daemon.may_be_warm = False
    async with daemon:
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
        pages = [(await daemon.page(path))[1] for path in ("/status", "/metrics", "/readyz?verbose")]
        events = str(await redis.xrange(KEYS.events)) + str(await redis.hgetall(KEYS.status))
        assert daemon.process is not None
        arguments = await asyncio.to_thread(Path(f"/proc/{daemon.process.pid}/cmdline").read_text)
        for text in (daemon.log, *pages, events, arguments):
            assert "very-secret-value-5678" not in text
            assert "PKTESTKEY1234" not in text


async def test_a_burst_is_stored_whole_and_the_queue_empties(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Twenty thousand quotes at once are no reason to lose one."""
    await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    for symbol in ("AAPL", "MSFT"):
        vendor.send(numbered(symbol, 1, 10_000), frame_size=100)
    await daemon.until(lambda status: status["stored"] == 20_000, 20)
    for symbol in ("AAPL", "MSFT"):
        assert await numbers(redis, symbol) == list(range(1, 10_001))


async def _length_is(redis: Redis, symbol: str, length: int) -> bool:
    return bool(await redis.xlen(KEYS.stream(symbol)) == length)


async def _is_absent(redis: Redis, symbol: str) -> bool:
    await asyncio.sleep(0)
    return not await redis.hexists(KEYS.subscriptions, symbol)


def _awkward_tape(count: int) -> list[SimQuote]:
    rows: list[SimQuote] = []
    time_ns = BASE_NS
    for n in range(count):
        if n % 7 == 3:
            time_ns -= 250_000  # late
        elif n % 5 != 2:
            time_ns += 1_700_113  # otherwise a tie
        repeat = n % 11 == 5 and rows
        rows.append(
            rows[-1] if repeat else SimQuote("ZZTOP", time_ns, 223.18 + n % 90 / 100, n % 700, 224.5, 100)
        )
    return rows

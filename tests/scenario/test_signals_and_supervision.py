"""What the host does to the daemon's process: signals, a supervisor, a defect within, a log that nobody reads."""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer, free_port
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.notices import Notices
from tests.scenario.streams import KEYS, numbered, numbers, stored, subscribed
from wire import Gap, Quote

CRASHED = {1}
INSISTED = {1, 3, 4}


async def lag_s(daemon: DaemonProcess) -> float:
    """All lateness of the event loop so far."""
    found = re.search(r"quotebus_event_loop_lag_seconds_sum (\S+)", (await daemon.page("/metrics"))[1])
    assert found is not None
    return float(found[1])


async def metric(daemon: DaemonProcess, name: str) -> float:
    """One metric without labels."""
    found = re.search(rf"^{name} (\S+)$", (await daemon.page("/metrics"))[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.fault("P03")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once_what_the_first_one_asked_for(
    own_server: RedisServer,
    own_redis: Redis,
    own_daemon: DaemonProcess,
    vendor: AlpacaSimulator,
    second: signal.Signals,
) -> None:
    """While it waits for a frozen Redis to take the rest, an operator who insists need not wait; exit is not 0."""
    await subscribed(own_redis, vendor, "AAPL")
    own_server.pause()
    try:
        vendor.send(numbered("AAPL", 1, 100))
        await own_daemon.until(lambda status: status["received"] == 100)
        own_daemon.signal(signal.SIGTERM)
        await own_daemon.told("stopping")
        await asyncio.sleep(0.5)  # the drain goes on
        assert own_daemon.process is not None
        assert own_daemon.process.poll() is None
        began_s = time.monotonic()
        own_daemon.signal(second)
        assert await own_daemon.ended() in INSISTED
        assert time.monotonic() - began_s < 3
    finally:
        own_server.resume()


@pytest.mark.fault("P06")
@pytest.mark.parametrize("patient", [True, False])
async def test_a_frozen_daemon_goes_on_with_every_hole_marked(
    shared_server: RedisServer, redis: Redis, patient: bool
) -> None:
    """Stopped for six seconds by SIGSTOP, whether or not the vendor keeps the connection: no quote twice, none
    missing without a marker, and live again soon."""
    rules = AccountRules(connection_limit=1, ghost_s=0.2)
    pings_s = 20.0 if patient else 0.5
    settings = SimulatorSettings(account=rules, ping_interval_s=pings_s, ping_timeout_s=pings_s)
    async with (
        AlpacaSimulator(settings) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
    ):
        await subscribed(redis, vendor, "AAPL")
        sent = 0
        for step in range(80):
            vendor.send(numbered("AAPL", 1 + sent, 10))
            sent += 10
            if step == 20:
                daemon.signal(signal.SIGSTOP)
            await asyncio.sleep(0.1)  # traffic
        daemon.signal(signal.SIGCONT)
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 20)
        await daemon.until(lambda status: status["live"] == 1, 20)
        vendor.send(numbered("AAPL", 1 + sent, 10))
        await until(lambda: _last_is(redis, sent + 10), 15)
        found = await stored(redis, "AAPL")
    kept = [int(item.bid_size or 0) for item in found if isinstance(item, Quote)]
    assert kept == sorted(set(kept))
    if patient:
        assert kept == list(range(1, sent + 11))
    for before, after in pairwise(found):
        if isinstance(before, Quote) and isinstance(after, Quote):
            assert after.bid_size == (before.bid_size or 0) + 1


@pytest.mark.fault("P08")
async def test_a_loop_that_stood_still_shows_in_its_metric_and_does_not_feed_the_watchdog(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """Two seconds without a turn: the lag is measured, and the supervisor, fed before and after, hears nothing."""
    async with Notices(tmp_path) as systemd:
        daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
        daemon.environment |= {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "1000000"}
        async with daemon:
            await daemon.until_live()
            await until(lambda: systemd.has("WATCHDOG=1"))
            before_s = await lag_s(daemon)
            daemon.signal(signal.SIGSTOP)
            await asyncio.sleep(0.2)  # what was under way has arrived
            heard = len(systemd.lines("WATCHDOG=1"))
            await asyncio.sleep(2.0)  # the fault
            assert len(systemd.lines("WATCHDOG=1")) == heard
            daemon.signal(signal.SIGCONT)
            await until(lambda: _more(systemd, heard + 1))
            assert await lag_s(daemon) - before_s > 1.5


async def test_systemd_is_told_when_redis_has_answered_and_when_it_ends(
    vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """Started before Redis it is alive and not ready; then it is ready, once; then it is stopping."""
    port = free_port()
    async with Notices(tmp_path) as systemd:
        daemon = DaemonProcess(f"redis://127.0.0.1:{port}/0", vendor.url("iex"))
        daemon.environment |= {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "400000"}
        async with daemon:
            await until(lambda: systemd.has("STATUS=starting"), 15)
            await until(lambda: systemd.has("WATCHDOG=1"))
            assert systemd.lines("READY") == []
            with RedisServer(port) as server:
                await until(lambda: systemd.has("READY=1"), 15)
                await daemon.until_live()
                async with Redis.from_url(server.url, protocol=2) as redis:
                    await subscribed(redis, vendor, "AAPL")
                await until(lambda: systemd.has("STATUS=live: 1 of 1 symbols live"), 15)
                daemon.signal(signal.SIGTERM)
                assert await daemon.ended() == 0
            await until(lambda: systemd.has("STOPPING=1"))
            assert systemd.lines("READY") == ["READY=1"]
            assert systemd.lines("STOPPING") == ["STOPPING=1"]


FAILPOINT = """
import asyncio, pathlib, sys
import {module} as module
async def fail(*_):
    while not pathlib.Path({trigger!r}).exists():
        await asyncio.sleep(0.01)
    {deed}
module.{name} = fail
sys.argv = ["quotebus", "run"]
from ingestor.entry import main
main()
"""
DEFECT = 'raise RuntimeError("failpoint")'
CANCELLED = "raise asyncio.CancelledError"
RETURNED = "return"
CALLBACK = "asyncio.get_running_loop().call_soon(lambda: 1 / 0); await asyncio.sleep(60)"
CANCELLED_CALLBACK = """waiting = asyncio.get_running_loop().create_future()
    waiting.add_done_callback(lambda waiting: waiting.result())
    waiting.cancel()
    await asyncio.sleep(60)"""


@pytest.mark.fault("P09")
@pytest.mark.parametrize(
    ("module", "name", "deed"),
    [
        ("ingestor.publisher.publisher", "Publisher.run", DEFECT),
        ("ingestor.feed.connection", "FeedConnection.run", DEFECT),
        ("ingestor.subscriptions.reconciler", "Reconciler.look", DEFECT),
        ("ingestor.subscriptions.watch", "ChangeWatch.run", DEFECT),
        ("ingestor.publisher.retention", "Sweeper.run", DEFECT),
        ("ingestor.watching.reporter", "Reporter.run", DEFECT),
        ("ingestor.supervisor", "Supervisor.run", DEFECT),
        ("ingestor.turn", "Turn.wait", DEFECT),
        ("ingestor.watching.reporter", "Reporter.run", CALLBACK),
        ("ingestor.feed.connection", "FeedConnection.run", CANCELLED),
        ("ingestor.supervisor", "Supervisor.run", CANCELLED),
        ("ingestor.turn", "Turn.wait", CANCELLED),
        ("ingestor.subscriptions.reconciler", "Reconciler.run", RETURNED),
        ("ingestor.publisher.spooling", "Spooling._keep_looking", RETURNED),
        ("ingestor.watching.reporter", "Reporter.run", CANCELLED_CALLBACK),
    ],
)
async def test_a_defect_in_any_part_ends_the_process_and_leaves_no_zombie(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    tmp_path: Path,
    module: str,
    name: str,
    deed: str,
) -> None:
    """Whichever part fails, is cancelled, or returns, the process says why and exits with 1 within seconds; /livez
    answers no more."""
    trigger = tmp_path / "now"
    program = FAILPOINT.format(module=module, name=name, deed=deed, trigger=str(trigger))
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"), drain_s="0.5")
    daemon.arguments = [sys.executable, "-c", program]
    async with daemon:
        assert await daemon.page("/livez") == (200, "ok\n")
        trigger.touch()
        assert await daemon.ended(10) in CRASHED
        (crash,) = (event for event in daemon.events if event["event"] == "crashed")
        assert re.search("failpoint|ZeroDivisionError|PartEnded|CancelledError", crash["exception"])
        with pytest.raises(AssertionError, match="does not answer"):
            await daemon.page("/livez")


@pytest.mark.fault("P25")
async def test_a_log_that_nobody_reads_holds_up_neither_quotes_nor_pages(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """With a full pipe for standard output and error, symbols come, quotes are stored, and it ends in time."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    http = f"127.0.0.1:{free_port()}"
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"), http=http)
    daemon.launch = {"stdout": writing, "stderr": writing}
    try:
        async with daemon:
            os.close(writing)
            await until(lambda: _answers(daemon), 15)
            await daemon.until_live()
            for n in range(60):
                # Each change is two lines: far more than the pipe holds.
                await redis.sadd(KEYS.symbols, f"SYMBOL{n}")
                await vendor.wait_for(lambda n=n: f"SYMBOL{n}" in vendor.symbols)  # type: ignore[misc]
            before_s = await lag_s(daemon)
            vendor.send(numbered("SYMBOL0", 1, 2000), frame_size=20)
            await daemon.until(lambda status: status["stored"] == 2000)
            assert await lag_s(daemon) - before_s < 1.0
            daemon.signal(signal.SIGTERM)
            assert await daemon.ended() == 0
    finally:
        os.close(reading)
    assert await numbers(redis, "SYMBOL0") == list(range(1, 2001))


@pytest.mark.fault("P25")
async def test_a_log_whose_reader_is_gone_is_counted_and_survived(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A broken pipe for standard output and error: every line is counted as dropped, and quotes are stored."""
    reading, writing = os.pipe()
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"), http=f"127.0.0.1:{free_port()}")
    daemon.launch = {"stdout": writing, "stderr": writing}
    async with daemon:
        os.close(writing)
        os.close(reading)
        await until(lambda: _answers(daemon), 15)
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 50))
        await daemon.until(lambda status: status["stored"] == 50)
        await until(lambda: _has_dropped_lines(daemon, 3))


@pytest.mark.fault("P25")
async def test_a_process_without_standard_error_logs_into_nobodys_conversation(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Descriptors 0 to 2 closed at the start: no socket takes their place under the log, and quotes are stored."""
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"), http=f"127.0.0.1:{free_port()}")
    daemon.arguments = ["sh", "-c", f'exec "{sys.executable}" -m ingestor 0<&- 1>&- 2>&-']
    async with daemon:
        await until(lambda: _answers(daemon), 15)
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 50))
        await daemon.until(lambda status: status["stored"] == 50)
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended() == 0
    assert await numbers(redis, "AAPL") == list(range(1, 51))


async def _answers(daemon: DaemonProcess) -> bool:
    with contextlib.suppress(AssertionError):
        return (await daemon.page("/livez"))[0] == 200
    return False


async def _has_dropped_lines(daemon: DaemonProcess, at_least: int) -> bool:
    return await metric(daemon, "quotebus_log_lines_dropped_total") >= at_least


async def _last_is(redis: Redis, number: int) -> bool:
    found = await stored(redis, "AAPL")
    return bool(found) and not isinstance(found[-1], Gap) and found[-1].bid_size == number


async def _more(systemd: Notices, count: int) -> bool:
    await asyncio.sleep(0)
    return len(systemd.lines("WATCHDOG=1")) > count

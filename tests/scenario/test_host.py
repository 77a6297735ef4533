"""The machine under the daemon: its clock, its descriptors, its processor, its users, and who knocks."""

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import libfaketime
import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer, free_port
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, numbers, stored, subscribed
from wire import EntryId

BENT_CLOCK = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"))
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.asynccontextmanager
async def on_a_bent_clock(
    server: RedisServer, vendor: AlpacaSimulator, clock: Path
) -> AsyncIterator[DaemonProcess]:
    """A daemon whose wall clock follows this file; its monotonic one is the machine's."""
    await asyncio.to_thread(clock.write_text, "+0")
    daemon = DaemonProcess(server.url, vendor.url("iex"))
    daemon.environment |= {
        "LD_PRELOAD": str(BENT_CLOCK),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with daemon:
        await daemon.until_live()
        yield daemon


@pytest.mark.fault("P20", "P21")
@pytest.mark.parametrize(
    "steps", [["+3600", "-3600", "+0"], ["+0 x1.5", "+0 x0.5"], ["-1", "+0", "+1", "+0"]]
)
async def test_a_clock_that_is_set_anew_costs_nothing(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path, steps: list[str]
) -> None:
    """An hour ahead and back, slewed, or a leap second: ids go on, no lease or connection ends, the heart beats."""
    async with on_a_bent_clock(shared_server, vendor, tmp_path / "clock") as daemon:
        await redis.sadd(KEYS.symbols, "AAPL")
        lease_until_ms = time.time_ns() // 1_000_000 + 600_000
        await redis.zadd(KEYS.interest, {"MSFT@strategy": lease_until_ms})
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
        sent = 0
        for step in steps:
            await asyncio.to_thread((tmp_path / "clock").write_text, step)
            before = await redis.hget(KEYS.status, "heartbeat")
            for _ in range(15):
                base_ns = time.time_ns() - (sent + 10) * 1000
                vendor.send(numbered("AAPL", 1 + sent, 10, base_ns=base_ns, step_ns=1000))
                sent += 10
                await asyncio.sleep(0.1)  # traffic, and time for looks at the set
            await daemon.until(lambda status, sent=sent: status["stored"] == sent)  # type: ignore[misc]
            await until(lambda before=before: _beats(redis, before))  # type: ignore[misc]
            assert vendor.symbols == {"AAPL", "MSFT"}
        found = await stored(redis, "AAPL")
        assert (await daemon.status())["state"] == "live"
        assert len(vendor.closed) == 0
    assert await numbers(redis, "AAPL") == list(range(1, sent + 1))
    ids = [EntryId.parse(item.id or "") for item in found]
    assert ids == sorted(set(ids))


@pytest.mark.fault("P22")
async def test_sixty_four_descriptors_are_enough_and_none_left_is_no_busy_loop(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """With a hundred visitors at the door the daemon stores quotes and does not spin."""
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
    daemon.launch = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))}
    async with daemon, contextlib.AsyncExitStack() as stack:
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        port = (await daemon.status())["http"].rpartition(":")[2]
        for _ in range(100):
            with contextlib.suppress(OSError):
                visitor = stack.enter_context(socket.socket())
                visitor.settimeout(2)
                visitor.connect(("127.0.0.1", int(port)))
        assert daemon.process is not None
        before_s = cpu_s(daemon.process.pid)
        for n in range(20):
            vendor.send(numbered("AAPL", 1 + 10 * n, 10))
            await asyncio.sleep(0.1)  # traffic
        assert cpu_s(daemon.process.pid) - before_s < 1.0
        await until(lambda: _length_is(redis, "AAPL", 200))
        # And it can still open connections of its own.
        vendor.drop(ghost=False)
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 15)


@pytest.mark.fault("P22")
async def test_too_few_descriptors_to_work_with_are_one_sentence_and_no_start(
    shared_server: RedisServer, vendor: AlpacaSimulator
) -> None:
    """Told before anything is opened: how many there are, how many it takes, and where to raise the limit."""
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
    daemon.launch = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))}
    async with daemon:
        assert await daemon.ended() == 2
        assert "may have 32 files and sockets open, and needs 64: raise ulimit -n" in daemon.log
        assert "Traceback" not in daemon.log


@pytest.mark.fault("P23")
async def test_a_fifth_of_a_processor_is_enough_for_what_is_documented(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Running 40 ms of every 200, it stores five hundred quotes a second without loss, and the lag metric tells."""
    await subscribed(redis, vendor, "AAPL")
    ended = asyncio.Event()

    async def starve() -> None:
        while not ended.is_set():
            daemon.signal(signal.SIGSTOP)
            await asyncio.sleep(0.16)
            daemon.signal(signal.SIGCONT)
            await asyncio.sleep(0.04)

    async with asyncio.TaskGroup() as group:
        group.create_task(starve())
        for n in range(40):
            vendor.send(numbered("AAPL", 1 + 50 * n, 50))
            await asyncio.sleep(0.1)  # traffic
        await until(lambda: _length_is(redis, "AAPL", 2000), 30)
        ended.set()
    text = (await daemon.page("/metrics"))[1]
    lag = dict(re.findall(r'quotebus_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text))
    assert float(lag["+Inf"]) - float(lag["0.025"]) >= 5
    assert await numbers(redis, "AAPL") == list(range(1, 2001))
    assert len(vendor.closed) == 0


@pytest.mark.fault("P24")
async def test_a_bare_environment_is_enough(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """No HOME, no terminal, no standard input, user 65534, and a folder it cannot write to."""
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
    kept = ("QUOTEBUS_", "APCA_")
    daemon.environment = {k: v for k, v in daemon.environment.items() if k.startswith(kept)}
    daemon.environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    # A user namespace of its own makes a nobody of anyone, where the kernel allows it.
    nobody = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
    allowed = (await asyncio.to_thread(subprocess.run, [*nobody, "true"], check=False)).returncode == 0
    daemon.arguments = [*(nobody if allowed else []), *daemon.arguments]
    daemon.launch = {"stdin": subprocess.DEVNULL, "cwd": "/proc", "start_new_session": True}
    async with daemon:
        await daemon.until_live()
        if allowed:
            assert daemon.process is not None
            status = await asyncio.to_thread(Path(f"/proc/{daemon.process.pid}/uid_map").read_text)
            assert status.split()[0] == "65534"
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 5))
        await daemon.until(lambda status: status["stored"] == 5)
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended() == 0


@pytest.mark.fault("P27")
async def test_a_scrape_every_moment_with_ten_thousand_symbols_costs_little(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Fifty milliseconds a scrape and twenty of standstill are the measure, three times generous here."""
    await redis.sadd(KEYS.symbols, *(f"S{n:05d}" for n in range(10_000)))
    await daemon.until(lambda status: status["live"] == 10_000, 40)
    await until(lambda: _states_are(redis, 10_000), 20)
    before = await _lags(daemon)
    took_s = []
    for _ in range(20):
        began_s = time.monotonic()
        code, _ = await daemon.page("/metrics")
        took_s.append(time.monotonic() - began_s)
        assert code == 200
    after = await _lags(daemon)
    assert statistics.median(took_s) < 0.15
    assert after["+Inf"] - after["0.1"] == before["+Inf"] - before["0.1"]


@pytest.mark.fault("P28")
async def test_visitors_who_never_finish_hold_up_neither_quotes_nor_other_visitors_for_long(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Of six hundred slow requests 192 find a place, for three seconds; quotes are stored, and pages answer."""
    port = free_port()
    async with (
        DaemonProcess(shared_server.url, vendor.url("iex"), http=f"127.0.0.1:{port}") as daemon,
        contextlib.AsyncExitStack() as stack,
    ):
        await until(lambda: _answers(daemon), 15)
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(600)]
        for _, writer in slow:
            stack.callback(writer.close)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert daemon.process is not None
        descriptors = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))  # noqa: PTH208
        for n in range(50):
            vendor.send(numbered("AAPL", 1 + 100 * n, 100))
            for _, writer in slow:
                writer.write(b"x")
            if n % 10 == 0:
                assert await _answers(daemon)
            await until(lambda n=n: _length_is(redis, "AAPL", 100 * (n + 1)), 5)  # type: ignore[misc]
        assert descriptors < 256 + 40
        await until(lambda: _answers(daemon), 30)
        lags = await _lags(daemon)
        assert lags["+Inf"] == lags["0.25"]
    assert await numbers(redis, "AAPL") == list(range(1, 5001))


@pytest.mark.fault("P30")
async def test_the_standard_event_loop_will_do_as_well(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Nothing depends on uvloop but speed: quotes, a lost feed and a stop are the same without it."""
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
    program = (
        "import asyncio, sys, uvloop; uvloop.new_event_loop = asyncio.new_event_loop; "
        "sys.argv = ['quotebus', 'run']; from ingestor.entry import main; main()"
    )
    daemon.arguments = [sys.executable, "-c", program]
    async with daemon:
        await daemon.until_live()
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 5000), frame_size=50)
        await daemon.until(lambda status: status["stored"] == 5000)
        vendor.drop(ghost=False)
        await vendor.wait_for(lambda: not vendor.symbols)
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 15)
        vendor.send(numbered("AAPL", 5001, 10))
        await daemon.until(lambda status: status["stored"] == 5010)
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended() == 0
    assert await numbers(redis, "AAPL") == list(range(1, 5011))


async def _lags(daemon: DaemonProcess) -> dict[str, float]:
    text = (await daemon.page("/metrics"))[1]
    found = re.findall(r'quotebus_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    return {bound: float(count) for bound, count in found}


async def _beats(redis: Redis, before: str | None) -> bool:
    return await redis.hget(KEYS.status, "heartbeat") != before


async def _length_is(redis: Redis, symbol: str, length: int) -> bool:
    return bool(await redis.xlen(KEYS.stream(symbol)) == length)


async def _states_are(redis: Redis, count: int) -> bool:
    return bool(await redis.hlen(KEYS.subscriptions) == count)


async def _answers(daemon: DaemonProcess) -> bool:
    with contextlib.suppress(AssertionError):
        return (await daemon.page("/readyz"))[0] in (200, 503)
    return False

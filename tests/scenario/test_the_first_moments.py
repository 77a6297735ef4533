"""A signal at any moment after the start ends a command, in bounded time and with the right exit code.

The first process of a container is treated by the kernel as if every signal without a handler were ignored. Most
tests here start a command with SIGTERM and SIGINT ignored, which is the same for it; one has a real PID 1.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS
from tests.second_tries import NotInTime
from tests.warm_starts import Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which signals have a handler")

QUOTEBUS = [str(Path(sys.executable).with_name("quotebus"))]
AS_PID_1 = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]


def as_pid_1() -> None:
    """Called in a child: what has no handler is thrown away."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def has_handler(pid: int, number: signal.Signals) -> bool:
    """Whether this process has given the signal a meaning of its own."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def text(path: str) -> str:
    """What the kernel tells there."""
    return Path(path).read_text()


async def listening(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    """Wait for the first moment at which a signal is heard."""
    deadline_s = time.monotonic() + 30
    while not has_handler(process.pid, number):
        assert process.poll() is None
        if time.monotonic() > deadline_s:
            raise NotInTime(f"no handler of {number.name} within 30 s")
        await asyncio.sleep(0.001)


async def ended(process: "subprocess.Popen[bytes]", timeout_s: float = 30.0) -> int:
    """The exit code."""
    try:
        return await asyncio.to_thread(process.wait, timeout_s)
    except subprocess.TimeoutExpired:
        raise NotInTime(f"still running after {timeout_s} s") from None


@contextlib.asynccontextmanager
async def command(*words: str, **options: object) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A command that runs as the first process of a container would; killed in the end if it is still there."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("QUOTEBUS_", "APCA_", "ALPACA_"))}
    process = subprocess.Popen(  # noqa: ASYNC220
        [*QUOTEBUS, *words],
        env={**own, **{name: str(value) for name, value in options.items()}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=as_pid_1,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def test_a_signal_is_heard_before_anything_large_is_loaded() -> None:
    """Of all that a command loads, nothing that takes long comes before the handler."""
    async with command("run") as process:
        await listening(process)
        os.kill(process.pid, signal.SIGSTOP)
        loaded = text(f"/proc/{process.pid}/maps")
        os.kill(process.pid, signal.SIGCONT)
    for large in ("hiredis", "uvloop", "pydantic", "orjson", "msgspec", "_ssl", "_asyncio"):
        assert large not in loaded


@pytest.mark.fault("P31")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_daemon_ends_whenever_it_is_told(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, number: signal.Signals
) -> None:
    """From the first millisecond until it is at work: exit code 0, and the vendor's only place is free."""
    await redis.sadd(KEYS.symbols, "AAPL")
    for delay_s in (0.0, 0.05, 0.15, 0.3, 0.6, 0.9, 1.2, 2.0):
        daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
        daemon.launch["preexec_fn"] = as_pid_1
        async with daemon:
            assert daemon.process is not None
            await listening(daemon.process, number)
            await asyncio.sleep(delay_s)  # which of its first steps it has come to
            daemon.signal(number)
            assert await daemon.ended(30) == 0, daemon.log
            await until(lambda: _nobody_is_connected(vendor))


async def _nobody_is_connected(vendor: AlpacaSimulator) -> bool:
    return not vendor.symbols


@pytest.mark.fault("P31")
async def test_a_daemon_that_is_asked_for_new_settings_before_it_listens_lives_on_and_looks(
    shared_server: RedisServer, vendor: AlpacaSimulator
) -> None:
    """SIGHUP ends nothing, at no moment; the request is kept until it can be met."""
    for delay_s in (0.0, 0.1, 0.4):
        daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
        daemon.may_be_warm = False
        async with daemon:
            assert daemon.process is not None
            await listening(daemon.process, signal.SIGHUP)
            await asyncio.sleep(delay_s)  # which of its first steps it has come to
            daemon.signal(signal.SIGHUP)
            await daemon.until_live()
            await daemon.told("settings_reloaded")
            daemon.signal(signal.SIGTERM)
            assert await daemon.ended() == 0


@pytest.mark.fault("P31")
@pytest.mark.parametrize(
    ("words", "delays_s"),
    [
        (["simulate", "--port", "0"], (0.0, 0.1, 0.4, 1.5)),
        (["tail", "AAPL"], (0.0, 0.1, 0.4, 1.5)),
        (["demo", "--redis-port", "0"], (0.0, 0.2, 0.6, 1.5, 3.0)),
    ],
    ids=["simulate", "tail", "demo"],
)
async def test_a_command_that_lasts_ends_whenever_it_is_told(
    shared_server: RedisServer, words: list[str], delays_s: tuple[float, ...]
) -> None:
    """SIGTERM and SIGINT in turn, exit code 0; the parts of the demo are gone with it."""
    for turn, delay_s in enumerate(delays_s):
        number = (signal.SIGTERM, signal.SIGINT)[turn % 2]
        async with command(*words, QUOTEBUS_REDIS_URL=shared_server.url) as process:
            await listening(process, number)
            await asyncio.sleep(delay_s)  # which of its first steps it has come to
            process.send_signal(number)
            assert await ended(process) == 0


async def test_a_small_command_that_is_broken_off_says_so_by_its_exit_code() -> None:
    """It has not done what it was asked for: 128 and the number of the signal, and no traceback."""
    for number in (signal.SIGTERM, signal.SIGINT):
        async with command("symbols", "add", "AAPL") as process:
            await listening(process, number)
            process.send_signal(number)
            assert await ended(process) == 128 + number


def _can_be_pid_1() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*AS_PID_1, "true"], capture_output=True, check=False).returncode == 0
    return False


@pytest.mark.fault("P31")
@pytest.mark.skipif(not _can_be_pid_1(), reason="this user may make no namespace of processes")
@pytest.mark.parametrize("delay_s", [0.0, 0.4])
async def test_the_first_process_of_a_container_ends_when_it_is_told(
    shared_server: RedisServer, vendor: AlpacaSimulator, delay_s: float
) -> None:
    """A real one, for which the kernel throws away what has no handler."""
    daemon = DaemonProcess(shared_server.url, vendor.url("iex"))
    daemon.arguments = [*AS_PID_1, *daemon.arguments]
    async with daemon:
        assert daemon.process is not None
        first: list[int] = []
        while not (first and has_handler(first[0], signal.SIGTERM)):
            children = text(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
            first = [int(pid) for pid in children.split()]
            await asyncio.sleep(0.001)
        await asyncio.sleep(delay_s)  # which of its first steps it has come to
        os.kill(first[0], signal.SIGTERM)
        assert await daemon.ended(30) == 0, daemon.log

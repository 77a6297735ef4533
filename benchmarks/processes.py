"""The processes that are measured: how they are started, given orders, and how much CPU they took.

Decides environment, folders and the end of each process. Must never know what is being compared. Every process is
a child of this one and ends with the context that started it, or with this process, however that ends.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from redis import Redis

from benchmarks.recording import SENTINEL, Activity
from simulator.redis_server import die_with_parent, free_port
from wire import Keyspace

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
MEASURE_TIMEOUT_S: Final = 120.0


class BenchmarkFailed(Exception):
    """A process did not do what it was started for; the message has its last words."""


def cpu_s(pid: int) -> float:
    """CPU seconds that a live process has used, all threads; NaN where the system does not tell."""
    total_ns = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total_ns += int((task / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return float("nan")
    return total_ns / 1e9


@dataclass(frozen=True)
class Sent:
    """A recording's way out: monotonic seconds, and what sending took of a CPU."""

    begin_s: float
    end_s: float
    cpu_s: float


class SourceProcess:
    """`benchmarks.source` as a child."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.url: Final = f"ws://127.0.0.1:{self._hear()['port']}/v2/sip"
        self.pid: Final = process.pid

    def load(self, count: int, per_frame: int) -> None:
        """Encode the next recording."""
        self._order({"load": count, "per_frame": per_frame})
        self._hear()

    def go(self, quotes_per_s: float | None = None) -> None:
        """Send it, once the client is ready, as fast as it is taken or at a pace; `sent` waits for the end."""
        self._order({"go": quotes_per_s})

    def sent(self) -> Sent:
        """The account of the last `go`."""
        return Sent(**self._hear())

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkFailed("the source has died")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def source(symbols: int, activity: Activity = "equal") -> Iterator[SourceProcess]:
    """A source of so many symbols."""
    # fmt: off
    command = [
        sys.executable, "-m", "benchmarks.source", "--symbols", str(symbols), "--activity", activity,
    ]
    # fmt: on
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield SourceProcess(process)
    finally:
        _end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Program:
    """A child whose output goes to a file, with an environment free of this shell's settings."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("QUOTEBUS_", "APCA_", "ALPACA_"))}
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**own, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.pid: Final = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """Raise `BenchmarkFailed` with its last words if it has ended with an error."""
        if self._process.poll():
            raise BenchmarkFailed(
                f"process ended with {self._process.returncode}:\n{self.output[-2000:] or '(silent)'}"
            )


@contextlib.contextmanager
def program(*arguments: str, **environment: str) -> Iterator[Program]:
    """A Python program of ours as a child."""
    with (
        tempfile.TemporaryDirectory(prefix="quotebus-bench-") as folder,
        Program(arguments, environment, Path(folder) / "log") as child,
    ):
        yield child


@contextlib.contextmanager
def daemon(redis_url: str, feed_url: str, **settings: str) -> Iterator[tuple[Program, str]]:
    """The daemon, and the address of its pages."""
    http = f"127.0.0.1:{free_port()}"
    environment = {
        "QUOTEBUS_REDIS_URL": redis_url,
        "QUOTEBUS_FEED_URL": feed_url,
        "QUOTEBUS_HTTP": http,
        "QUOTEBUS_LOG_FORMAT": "json",
        "APCA_API_KEY_ID": "benchmark-key",
        "APCA_API_SECRET_KEY": "benchmark-secret",
    }
    with (
        tempfile.TemporaryDirectory(prefix="quotebus-spool-") as spool,
        program("-m", "ingestor", QUOTEBUS_SPOOL_DIR=spool, **environment, **settings) as child,
    ):
        yield child, f"http://{http}"


class SentinelWatch:
    """Tells when a recording has arrived whole: its last quote stands in the sentinel's stream.

    Blocks in the server until then, so that waiting costs neither side anything.
    """

    def __init__(self, client: Any, keys: Keyspace) -> None:
        self._client = client
        self._stream = keys.stream(SENTINEL)
        self._last = "0-0"

    def wait(self, *children: Program, timeout_s: float = MEASURE_TIMEOUT_S) -> float:
        """The monotonic second of the arrival; call it before the recording can have arrived, or after."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            found = self._client.xread({self._stream: self._last}, block=1000)
            if found:
                at_s = time.monotonic()
                self._last = found[0][1][-1][0].decode()
                return at_s
            for child in children:
                child.check()
        words = "\n".join(child.output[-1500:] for child in children)
        raise BenchmarkFailed(f"the last quote did not arrive within {timeout_s:g} s\n{words}")


def control(redis_url: str) -> Any:
    """A plain client for setting up and looking."""
    client: Any = Redis.from_url(redis_url, protocol=2, socket_timeout=None)
    return client


def until(what: str, holds: Any, *children: Program, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until it holds; `BenchmarkFailed` when a child dies first or it takes too long."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        for child in children:
            child.check()
        if time.monotonic() > deadline_s:
            raise BenchmarkFailed(f"{what} did not come about within {timeout_s:g} s")
        time.sleep(0.01)


def _end(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

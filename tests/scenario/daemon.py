"""The daemon as an operator runs it: a process with an environment, signals and HTTP pages.

Decides how a test starts, watches and ends it. Must never reach into it: everything is seen from outside.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from tests.second_tries import NotInTime
from tests.warm_starts import Process, warm_starts

START_TIMEOUT_S = 60.0


class DaemonProcess:
    """`quotebus run` in a process of its own; an async context manager that ends it."""

    def __init__(self, redis_url: str, feed_url: str, **settings: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="quotebus-daemon-")
        self._log = Path(self._folder.name) / "daemon.log"
        self.spool = Path(self._folder.name) / "spool"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("QUOTEBUS_", "APCA_", "ALPACA_"))},
            "APCA_API_KEY_ID": "PKTESTKEY1234",
            "APCA_API_SECRET_KEY": "very-secret-value-5678",
            "QUOTEBUS_REDIS_URL": redis_url,
            "QUOTEBUS_FEED_URL": feed_url,
            "QUOTEBUS_HTTP": "127.0.0.1:0",
            "QUOTEBUS_SPOOL_DIR": str(self.spool),
            **{f"QUOTEBUS_{name.upper()}": value for name, value in settings.items()},
        }
        self.arguments: list[str] = [sys.executable, "-m", "ingestor"]
        self.launch: dict[str, Any] = {}
        """Whatever else `subprocess.Popen` is to be given."""
        self.may_be_warm = True
        """Whether its libraries may have been loaded before; see `tests.warm_starts`."""
        self._plain: Final = list(self.arguments)
        self._starts = 0
        self.process: Process | None = None

    def with_environment(self, **variables: str) -> Self:
        """The same, with these variables as well from its next start on."""
        self.environment |= variables
        return self

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it, whatever it is doing."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()

    def start(self) -> None:
        """Start the process; it is not waited for."""
        self._starts += 1
        warm = warm_starts() if self.may_be_warm else None
        is_plain = self.arguments == self._plain and not self.launch
        with self._log.open("ab") as log:
            if warm is not None and is_plain and warm.serves(self.environment):
                self.process = warm.start("ingestor", self.environment, self._folder.name, log)
                return
            self.process = subprocess.Popen(
                self.arguments,
                **{
                    "env": self.environment,
                    "stdout": log,
                    "stderr": log,
                    "cwd": self._folder.name,
                    **self.launch,
                },
            )

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log lines, parsed; one that is still being written is left out."""
        whole, _, _ = self.log.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def kinds(self) -> list[str]:
        """The kinds of its log lines, in order."""
        return [str(event["event"]) for event in self.events]

    async def status(self) -> dict[str, Any]:
        """The /status page."""
        _, text = await self.page("/status")
        return dict(json.loads(text))

    async def page(self, path: str) -> tuple[int, str]:
        """Status code and text of one page."""
        port = await self._http_port()
        try:
            return await asyncio.to_thread(_fetch, f"http://127.0.0.1:{port}{path}")
        except OSError as error:
            raise AssertionError(
                f"the daemon ({self._ending}) does not answer ({error}):\n{self.log[-3000:]}"
            ) from None

    async def until(
        self, predicate: Callable[[dict[str, Any]], bool], timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Wait until the status satisfies the predicate; what a process needs to begin comes on top."""
        await self._http_port()
        deadline_s = time.monotonic() + timeout_s
        while True:
            is_late = time.monotonic() > deadline_s
            status = await self.status()
            if predicate(status):
                return status
            if is_late:
                raise NotInTime(f"not so within {timeout_s} s: {status}\n{self.log[-3000:]}")
            await asyncio.sleep(0.02)

    async def told(self, kind: str, *, count: int = 1, timeout_s: float = 10.0) -> dict[str, Any]:
        """Wait until the log, which lags behind, has so many lines of this kind; the last of them."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            is_late = time.monotonic() > deadline_s
            found = [event for event in self.events if event["event"] == kind]
            if len(found) >= count:
                return found[-1]
            if is_late:
                raise NotInTime(
                    f"{len(found)} instead of {count} {kind!r} in the log within {timeout_s} s:\n{self.log[-3000:]}"
                )
            await asyncio.sleep(0.02)

    async def until_live(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Wait until it is connected to Redis and to the vendor."""
        return await self.until(lambda status: status["state"] == "live", timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, timeout_s: float = 15.0) -> int:
        """Wait for its end; the exit code."""
        assert self.process is not None
        try:
            return await asyncio.to_thread(self.process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            raise NotInTime(f"still running after {timeout_s} s:\n{self.log[-3000:]}") from None

    @property
    def _ending(self) -> str:
        code = None if self.process is None else self.process.poll()
        return "running" if code is None else f"ended with {code}"

    async def _http_port(self) -> int:
        chosen = int(self.environment["QUOTEBUS_HTTP"].rpartition(":")[2])
        if chosen:
            return chosen
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            ports = [event["http"] for event in self.events if event["event"] == "started"]
            if len(ports) == self._starts:
                return int(ports[-1])
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log[-3000:]}")
            await asyncio.sleep(0.02)
        raise NotInTime(f"the daemon did not start:\n{self.log[-3000:]}")


def _fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()

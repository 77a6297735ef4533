"""An example as a process, beside a real server, the double of the vendor and a real daemon."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

# The entry point offers it too, as soon as this checkout has been installed anew.
from quotebus_pytest import quote_bus
from simulator.redis_server import RedisServer
from tests.scenario.conftest import daemon, redis, shared_server, until, vendor

__all__ = [
    "Example",
    "StartExample",
    "daemon",
    "quote_bus",
    "redis",
    "shared_server",
    "start",
    "until",
    "vendor",
]

EXAMPLES = Path(__file__).parents[2] / "examples"


class Example:
    """A running example, whose output is collected while it runs."""

    def __init__(self, command: list[str], url: str, folder: Path) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("QUOTEBUS_", "APCA_", "ALPACA_"))}
        self.process = subprocess.Popen(
            command,
            env={**own, "QUOTEBUS_REDIS_URL": url},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._collecting = threading.Thread(target=self._collect, daemon=True)
        self._collecting.start()

    @property
    def out(self) -> str:
        """All that it has printed."""
        return "\n".join(self.lines)

    async def until_prints(self, pattern: str, timeout_s: float = 30.0) -> None:
        """Wait until its output matches, or fail with what it printed instead."""

        async def matches() -> bool:
            return re.search(pattern, self.out, re.MULTILINE) is not None

        try:
            await until(matches, timeout_s)
        except AssertionError:
            self.process.kill()
            _, errors = self.process.communicate()
            raise AssertionError(f"no {pattern!r} in\n{self.out}\n{errors}") from None

    async def ends(self, code: int = 0, timeout_s: float = 30.0) -> str:
        """Wait until it has ended by itself with this code, and return what it wrote to standard error."""
        await asyncio.to_thread(self.process.wait, timeout_s)
        self._collecting.join(5)
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        assert self.process.returncode == code, f"{self.out}\n{errors}"
        return errors

    async def interrupt(self) -> None:
        """Press Ctrl-C; it has to end without a traceback."""
        self.process.send_signal(signal.SIGINT)
        assert "Traceback" not in await self.ends()

    def close(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self._collecting.join(5)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


class StartExample(Protocol):
    """Starts an example by the name of its file."""

    def __call__(self, name: str, *arguments: str, interpreter: str = sys.executable) -> Example: ...


@pytest.fixture
def start(shared_server: RedisServer, tmp_path: Path) -> Iterator[StartExample]:
    """Starts examples, in an empty folder, and ends them with the test."""
    running: list[Callable[[], None]] = []

    def begin(name: str, *arguments: str, interpreter: str = sys.executable) -> Example:
        warnings = ["-W", "ignore::DeprecationWarning"] if interpreter == sys.executable else []
        example = Example(
            [interpreter, *warnings, str(EXAMPLES / name), *arguments], shared_server.url, tmp_path
        )
        running.append(example.close)
        return example

    yield begin
    for close in running:
        close()

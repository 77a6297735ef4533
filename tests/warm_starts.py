"""Daemons that start with their libraries loaded: forks of a process that loaded nothing else (`tests.forking`).

Decides which starts may be one: those that ask for nothing of the interpreter, the loader or the kernel. Loading
the libraries takes a second of a core, and hundreds of tests would each pay it. The product's own modules are
loaded by each fork, as by any process. Must never know what the daemon does; where there is no fork, or none was
begun, whoever starts a daemon starts it anew.

Sent for each: one message with module, folder and environment, and two descriptors, its output and a pipe. Through
the pipe come its process id and, at its end, its exit code.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import pytest

from tests.forking import INT

FORKING: Final = Path(__file__).with_name("forking.py")
CAN_FORK: Final = sys.platform == "linux" and hasattr(os, "pidfd_open")
_OF_THE_INTERPRETER: Final = (
    "LD_",
    "LC_",
    "LANG",
    "PYTHON",
    "MALLOC_",
    "GLIBC_",
    "OPENSSL_",
    "SSL_",
    "TZ",
    "FAKE",
)
"""Variables that a process heeds while it begins, or while it loads its libraries."""


class Forked:
    """One of them: what `subprocess.Popen` is for a process that one has started oneself."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], answers: int) -> None:
        self.args: Final = arguments
        self.returncode: int | None = None
        self._answers: Final = answers
        self._lock: Final = threading.Lock()
        pid = self._next(None)
        assert pid is not None
        self.pid: Final = pid

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; below 0 is the signal that ended it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, waited for. Raises `subprocess.TimeoutExpired`."""
        with self._lock:
            if self.returncode is None:
                code = self._next(timeout)
                if code is None:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                self.returncode = code
                os.close(self._answers)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """To this process; nothing when it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """By SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """By SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _next(self, timeout_s: float | None) -> int | None:
        ready, _, _ = select.select([self._answers], [], [], timeout_s)
        if not ready:
            return None
        answer = os.read(self._answers, INT.size)
        if not answer:
            raise RuntimeError(f"the process that daemons are forked from has ended: {self.args}")
        return int(INT.unpack(answer)[0])


Process = subprocess.Popen[bytes] | Forked


class WarmStarts:
    """The process that is forked, for as long as the tests run."""

    def __init__(self) -> None:
        self._environment: Final = dict(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process: Final = subprocess.Popen(
                [sys.executable, "-P", str(FORKING), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
            )

    def start(self, module: str, environment: Mapping[str, str], folder: str, output: IO[bytes]) -> Forked:
        """`python -m MODULE` with this environment, in this folder; what it prints goes to `output`."""
        order = {"module": module, "environment": dict(environment), "folder": folder}
        ours, theirs = os.pipe()
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], [output.fileno(), theirs])
        finally:
            os.close(theirs)
        return Forked([sys.executable, "-m", module], ours)

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Whether a process with this environment loads its libraries as this one did."""
        names = {*environment, *self._environment}
        return all(
            environment.get(name) == self._environment.get(name)
            for name in names
            if name.startswith(_OF_THE_INTERPRETER)
        )

    def close(self) -> None:
        """End the process; whatever was forked from it must have ended."""
        self._control.close()
        if self._process.wait() != 0:
            raise RuntimeError("the process that daemons are forked from did not end well; it says why above")


_running: WarmStarts | None = None


def warm_starts() -> WarmStarts | None:
    """The ones of this process, if it has begun them."""
    return _running


@pytest.fixture(scope="session", autouse=CAN_FORK)
def _warm_starts() -> Iterator[None]:
    """Begun before the first test of a process, for its libraries load while that runs."""
    global _running
    _running = WarmStarts()
    yield
    _running.close()
    _running = None

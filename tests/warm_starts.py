"""Daemons and commands that start with their modules loaded: forks of one process (`tests.forking`).

Decides which starts may be one: those that ask for nothing of the interpreter, the loader or the kernel. Loading
takes a second of a core, and hundreds of tests would each pay it. Must never know what it is that starts; where
there is no fork, or none was begun, whoever starts a daemon or a command starts it anew.

Sent for each: one message with module or script, its words, folder and environment, and three descriptors: output,
errors and a pipe. Through the pipe come its process id and, at its end, its exit code.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

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
        order = {"module": module, "script": "", "words": []}
        return self._forked([sys.executable, "-m", module], order, environment, folder, output, output)

    def run(
        self, command: list[str], environment: Mapping[str, str], folder: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """A script of Python's with its words, to its end. Raises `subprocess.TimeoutExpired`, when it is ended."""
        script, *words = command
        order = {"module": "", "script": script, "words": words}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = self._forked(command, order, environment, folder, output, errors)
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            for file in (output, errors):
                file.seek(0)
            return subprocess.CompletedProcess(command, code, output.read().decode(), errors.read().decode())

    def _forked(
        self,
        arguments: list[str],
        order: dict[str, Any],
        environment: Mapping[str, str],
        folder: str,
        output: IO[bytes],
        errors: IO[bytes],
    ) -> Forked:
        message = json.dumps({**order, "environment": dict(environment), "folder": folder}).encode()
        ours, theirs = os.pipe()
        try:
            socket.send_fds(self._control, [message], [output.fileno(), errors.fileno(), theirs])
        finally:
            os.close(theirs)
        return Forked(arguments, ours)

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

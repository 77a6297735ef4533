"""No process outlives the tests, or the program, that started it: done, failed, interrupted or killed.

Each process of the test run, and each program here that starts others, has a guard beside it (`tests/guard.py`),
which notices that it is gone, also by SIGKILL, and kills whatever has its mark. When all is torn down, a process
with the mark is a defect of a test, and the run fails. Where there is no /proc, whoever starts a process ends it,
and nobody checks it.
"""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.guard import PROC, kill_marked

VARIABLE: Final = "PYTEST_PROCESS_MARKS"
_CAN_GUARD: Final = (PROC / "self/environ").exists()
_GUARD: Final = Path(__file__).with_name("guard.py")
_ENDS_WITH_US: Final = "multiprocessing.resource_tracker"
"""Python's own, which waits for our end."""


class Guard:
    """The guard of this process; whatever it starts from now on has the mark."""

    def __init__(self) -> None:
        self.mark: Final = secrets.token_hex(8)
        # In a session of its own, which Ctrl-C does not reach; and before the mark is set, so that it has none.
        self._process: Final = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), self.mark],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._marks_before: Final = os.environ.get(VARIABLE, "")
        os.environ[VARIABLE] = f"{self._marks_before}{self.mark} "

    def leave(self) -> None:
        """It is not needed any more."""
        os.environ[VARIABLE] = self._marks_before
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """For a program that starts others, and may be killed; each of them must inherit its environment."""
    guard = Guard() if _CAN_GUARD else None
    try:
        yield
    finally:
        if guard is not None:
            guard.leave()


class Guarded:
    """The plugin in one process of a test run: the one that was called, and each worker of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._is_worker: Final = hasattr(config, "workerinput")
        self._has_workers: Final = not self._is_worker and bool(config.getoption("numprocesses", None))
        self._guard: Final = Guard()
        self._plain_start: Final = subprocess.Popen.__init__
        subprocess.Popen.__init__ = self._marking_start()  # type: ignore[method-assign]
        self._left: list[str] = []

    def _marking_start(self) -> Any:
        start = self._plain_start

        def start_with_mark(process: "subprocess.Popen[Any]", *arguments: Any, **options: Any) -> None:
            # A test that chooses the whole environment of a process does not choose this.
            if options.get("env") is not None:
                options["env"] = {**options["env"], VARIABLE: os.environ[VARIABLE]}
            start(process, *arguments, **options)

        return start_with_mark

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Everything has been torn down by now: what is still there is a defect of a test."""
        if not self._has_workers:
            self._left += [
                command for command in kill_marked(self._guard.mark).values() if _ENDS_WITH_US not in command
            ]
        if self._is_worker:
            session.config.workeroutput["left"] = self._left  # type: ignore[attr-defined]
        elif self._left and not session.exitstatus:
            session.exitstatus = 1

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended, and tells what it found."""
        self._left += getattr(node, "workeroutput", {}).get("left", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what was left behind."""
        for command in self._left:
            terminalreporter.write_line(f"left behind by a test, and killed: {command}", red=True)

    def pytest_unconfigure(self) -> None:
        """The guard is not needed any more."""
        subprocess.Popen.__init__ = self._plain_start  # type: ignore[method-assign]
        self._guard.leave()


def pytest_configure(config: pytest.Config) -> None:
    """Guard this process, where that can be done."""
    if _CAN_GUARD:
        config.pluginmanager.register(Guarded(config), "guarded-processes")

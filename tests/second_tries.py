"""Second tries: which test may be run again, how many in one run, and where each is written down.

Decides that a test is tried twice only when it says so itself, `@pytest.mark.second_try("why the machine, and not
the product, may be late")`, and only when a state that it waited for did not come in time. A wrong value fails at
once: a defect of order or of count that shows now and then must not end green. More than `MOST` in a run make it
red, and a test without processes of its own is never tried again.
"""

import contextlib
from pathlib import Path
from typing import Final

import pytest

MOST: Final = 3
"""Second tries in one run; with more of them it is not the machine."""
REPORT: Final = "second-tries.txt"
LIVE: Final = ("commands", "consumers", "deploy", "examples", "histories", "preload", "scenario", "soak")
"""Folders of tests whose processes, servers and clocks are real."""
_TESTS: Final = Path(__file__).parent
_ANYTHING_BUT_LATE: Final = r"^(?!(NotInTime|TimeoutError|TimeoutExpired)\b)"


class NotInTime(AssertionError):
    """A state that a test waited for did not come; the message says which, and how long."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known; whoever starts the run also counts."""
    config.addinivalue_line(
        "markers",
        "second_try(reason): a wait may be late for a reason of the machine's; then, once again",
    )
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SecondTries(config.rootpath / REPORT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Translate the marks; `UsageError` for one without a reason, or where none may stand."""
    for item in items:
        if item.get_closest_marker("flaky"):
            raise pytest.UsageError(f"{item.nodeid}: mark it second_try(reason), not flaky")
        if (mark := item.get_closest_marker("second_try")) is None:
            continue
        if not (len(mark.args) == 1 and str(mark.args[0]).strip()):
            raise pytest.UsageError(f"{item.nodeid}: second_try needs its reason, in words")
        if mark not in item.own_markers:
            raise pytest.UsageError(
                f"{item.nodeid}: second_try belongs to a single test, not to a module or class"
            )
        if item.path.is_relative_to(_TESTS) and not _is_live(item.path):
            raise pytest.UsageError(
                f"{item.nodeid}: nothing here depends on the machine; it is not tried twice"
            )
        item.add_marker(pytest.mark.flaky(reruns=1, rerun_except=[_ANYTHING_BUT_LATE]))


def _is_live(path: Path) -> bool:
    return path.is_relative_to(_TESTS) and path.relative_to(_TESTS).parts[0] in LIVE


class SecondTries:
    """Counts the second tries of a run, prints them, and writes them down with the reason of the first failure."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._first: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for each phase of each test, also for those that ran in another process."""
        if str(report.outcome) == "rerun":
            self._first.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the file, and make the run red when there were too many."""
        told = [f"{report.nodeid}\n{report.longreprtext}\n" for report in self._first]
        # Where the checkout cannot be written to, what is printed must do.
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            if told:
                self._path.write_text("\n".join(told))
        if len(self._first) > MOST and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print them."""
        for report in self._first:
            terminalreporter.section(f"tried twice: {report.nodeid}")
            terminalreporter.write_line(report.longreprtext)
        if len(self._first) > MOST:
            terminalreporter.section(
                f"{len(self._first)} second tries, {MOST} are allowed: the run has failed", red=True
            )

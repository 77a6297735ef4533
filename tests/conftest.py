"""What holds for every test: one that lives on this machine's real processes and clocks is run a second time.

Decides which tests those are. A kill, a freeze or a cut is real here, and so are the other processes of the
machine: one failure in some thousand is theirs. A defect fails twice. What was run again stands in the summary of
the run with the reason, and is to be looked at: the second run hides nothing.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.preload.build import NoCompiler, build

TESTS: Final = Path(__file__).parent
LIVE: Final = ("commands", "consumers", "examples", "scenario", "soak")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).parts[0] in LIVE:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why a test was run again."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"run again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@pytest.fixture(scope="session")
def fault_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls of a process fail; see `tests.preload`. Without a compiler the test fails."""
    try:
        return build(tmp_path_factory.mktemp("preload"))
    except NoCompiler as error:
        pytest.fail(str(error))

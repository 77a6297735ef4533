"""A test that hangs fails, and the run goes on."""

from pathlib import Path

import pytest

from tests.suite.inner import inner_run

HANGS = """
import signal, time
import pytest

@pytest.fixture
def hangs():
    yield
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(600)

def test_that_fails_and_hangs(hangs):
    assert False

def test_another():
    pass
"""


def test_a_test_that_hangs_in_tearing_down_fails_and_others_go_on(tmp_path: Path) -> None:
    """No signal reaches it: its worker says where it hangs, and ends."""
    with inner_run(tmp_path, HANGS, "-n", "1", "-o", "hang_limit_s=1") as run:
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "1 passed" in said, said
    assert "crashed while running 'test_inner.py::test_that_fails_and_hangs'" in said, said
    assert "Timeout (0:00:01)!" in said, said


@pytest.mark.parametrize("phase", ["in hangs", "in test_that_fails_and_hangs"])
def test_a_run_without_workers_ends(tmp_path: Path, phase: str) -> None:
    """It says in which function."""
    tests = HANGS if phase == "in hangs" else HANGS.replace("assert False", "time.sleep(600)")
    with inner_run(tmp_path, tests, "-n", "0", "-o", "hang_limit_s=1") as run:
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert phase in said, said

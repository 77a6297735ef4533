"""Second tries: by mark, with a reason, for waits alone, few in a run, and written down."""

from pathlib import Path

import pytest

from tests.suite.inner import inner_run

HEAD = """
import pytest
from tests.second_tries import NotInTime

def fail_once(name, error):
    marker = FOLDER / name
    if not marker.exists():
        marker.touch()
        raise error
"""


def outcome(folder: Path, tests: str, *options: str) -> tuple[int, str]:
    """Exit code and output of a run of these tests."""
    with inner_run(folder, HEAD + tests, *options) as run:
        said, _ = run.communicate(timeout=60)
    return run.returncode, said


def late(count: int, error: str = "NotInTime('the server took its time')") -> str:
    """So many tests that fail the first time."""
    return "".join(
        f"""
@pytest.mark.second_try("a slow machine")
def test_late_{n}():
    fail_once("{n}", {error})
"""
        for n in range(count)
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_marked_test_whose_wait_ran_out_is_tried_again_and_written_down(
    tmp_path: Path, workers: str
) -> None:
    """The reason of the first failure is printed and stands in the file."""
    code, said = outcome(tmp_path, late(3), "-n", workers)
    assert code == 0, said
    assert "3 rerun" in said
    assert said.count("tried twice: ") == 3
    written = (tmp_path / "second-tries.txt").read_text()
    for n in range(3):
        assert f"test_inner.py::test_late_{n}" in written
    assert written.count("the server took its time") >= 3


def test_a_file_of_an_earlier_run_does_not_stay(tmp_path: Path) -> None:
    """Without second tries there is no file."""
    (tmp_path / "second-tries.txt").write_text("old")
    assert outcome(tmp_path, "def test_well(): pass\n")[0] == 0
    assert not (tmp_path / "second-tries.txt").exists()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_more_than_three_second_tries_fail_the_run(tmp_path: Path, workers: str) -> None:
    """Though each of them ended well."""
    code, said = outcome(tmp_path, late(4), "-n", workers)
    assert code == 1
    assert "4 passed" in said
    assert "4 second tries, 3 are allowed: the run has failed" in said


def test_a_test_that_is_not_marked_is_not_tried_again(tmp_path: Path) -> None:
    """Wherever it stands."""
    code, said = outcome(tmp_path, "def test_late(): fail_once('x', NotInTime('late'))\n")
    assert code == 1
    assert "rerun" not in said


@pytest.mark.parametrize(
    "error", ["AssertionError('2 came before 1')", "ValueError('NotInTime')", "KeyError('x')"]
)
def test_a_wrong_value_is_not_tried_again(tmp_path: Path, error: str) -> None:
    """A defect of order that shows in one run of two ends red, in a marked test, too."""
    code, said = outcome(tmp_path, late(1, error))
    assert code == 1
    assert "rerun" not in said


def test_a_wrong_value_found_while_a_wait_ran_out_is_not_tried_again(tmp_path: Path) -> None:
    """What counts is what the test said last."""
    tests = """
@pytest.mark.second_try("a slow machine")
def test_wrong():
    try:
        raise TimeoutError
    except TimeoutError:
        fail_once("x", AssertionError("3 of 5 are missing"))
"""
    code, said = outcome(tmp_path, tests)
    assert code == 1
    assert "rerun" not in said


def test_the_second_try_is_the_last(tmp_path: Path) -> None:
    """What is late twice is red."""
    tests = """
@pytest.mark.second_try("a slow machine")
def test_always_late():
    raise NotInTime("never")
"""
    code, said = outcome(tmp_path, tests)
    assert code == 1
    assert "1 failed, 1 rerun" in said


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ("@pytest.mark.second_try\ndef test_x(): pass\n", "second_try needs its reason"),
        ("@pytest.mark.second_try('  ')\ndef test_x(): pass\n", "second_try needs its reason"),
        ("@pytest.mark.flaky(reruns=5)\ndef test_x(): pass\n", "mark it second_try"),
        ("pytestmark = pytest.mark.second_try('slow')\ndef test_x(): pass\n", "belongs to a single test"),
    ],
)
def test_a_mark_that_says_nothing_or_too_much_is_refused(tmp_path: Path, tests: str, said: str) -> None:
    """Before a single test has run."""
    code, printed = outcome(tmp_path, tests)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert said in printed

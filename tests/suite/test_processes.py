"""No process outlives the run that started it, however it ends."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guard import PROC
from tests.second_tries import NotInTime
from tests.suite.inner import inner_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc to look at")

STARTS_THREE = """
import os, subprocess, time

def test_that_starts_three():
    plain = subprocess.Popen(["sleep", "600"])
    of_its_own = subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"]}, start_new_session=True)
    # A shell that leaves at once: its child is nobody's, and in a session of its own.
    orphan = subprocess.run(["sh", "-c", "setsid sleep 600 >&- 2>&- & echo $!"], capture_output=True, text=True)
    pids = [os.getpid(), plain.pid, of_its_own.pid, int(orphan.stdout)]
    (FOLDER / "pids.new").write_text(" ".join(map(str, pids)))
    (FOLDER / "pids.new").rename(FOLDER / "pids")
    time.sleep(600)
"""


def wait_for(is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for a state."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline_s:
            raise NotInTime(f"not so within {timeout_s} s")
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether it is there, and no zombie of a container without an init."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def pids_of(folder: Path) -> list[int]:
    """The process of the test, and those that it started."""
    wait_for((folder / "pids").exists)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def guards_of(pid: int) -> list[int]:
    """The guards of a process."""
    found = []
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"tests/guard.py") for word in words) and str(pid).encode() in words:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM], [signal.SIGKILL]],
    ids=["interrupted", "interrupted twice", "terminated", "killed"],
)
def test_no_process_outlives_the_run(tmp_path: Path, workers: str, signals: list[signal.Signals]) -> None:
    """Its own, one with an environment of its own, an orphan in another session; the workers and guards, too."""
    with inner_run(tmp_path, STARTS_THREE, "-n", workers) as run:
        started = pids_of(tmp_path)
        everything = {*started, *guards_of(run.pid), *guards_of(started[0])}
        assert len(everything) == (5 if workers == "0" else 6)
        for number in signals:
            # The terminal's Ctrl-C is for the whole group.
            (os.killpg if number is signal.SIGINT else os.kill)(run.pid, number)
            if number is not signals[-1]:
                time.sleep(0.05)
        assert run.wait(60) != 0
        wait_for(lambda: not any(map(is_alive, everything)))


def test_a_redis_server_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    """It has a session of its own, and would write its title over the mark."""
    starts = """
import os, time
from simulator.redis_server import RedisServer

def test_that_starts_a_server():
    with RedisServer() as server:
        (FOLDER / "pids.new").write_text(f"{os.getpid()} {server.pid}")
        (FOLDER / "pids.new").rename(FOLDER / "pids")
        time.sleep(600)
"""
    with inner_run(tmp_path, starts, "-n", "0") as run:
        _, server = pids_of(tmp_path)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait(60) != 0
        wait_for(lambda: not is_alive(server))


def test_what_a_killed_worker_had_started_ends_while_the_run_goes_on(tmp_path: Path) -> None:
    """A crash of one of the workers, as the kernel's lack of memory brings it."""
    others = "\n\ndef test_another():\n    pass\n"
    with inner_run(tmp_path, STARTS_THREE + others, "-n", "2", "--max-worker-restart=0") as run:
        worker, *started = pids_of(tmp_path)
        os.kill(worker, signal.SIGKILL)
        said, _ = run.communicate(timeout=60)
        assert "1 failed" in said, said
        wait_for(lambda: not any(map(is_alive, started)))


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_process_that_a_test_left_behind_fails_the_run(tmp_path: Path, workers: str) -> None:
    """It is named and killed, though every test has passed."""
    leaves = "import subprocess\n\ndef test_leaves_one():\n    subprocess.Popen(['sleep', '598'])\n"
    with inner_run(tmp_path, leaves, "-W", "ignore", "-n", workers) as run:
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "1 passed" in said
    assert "left behind by a test, and killed: sleep 598" in said


def test_a_run_that_leaves_nothing_is_green(tmp_path: Path) -> None:
    """Also when its tests had processes."""
    tidy = "import subprocess\n\ndef test_tidy():\n    subprocess.run(['true'], check=True)\n"
    with inner_run(tmp_path, tidy, "-n", "0") as run:
        assert run.wait(60) == 0


def test_a_test_that_leaves_a_file_open_fails(tmp_path: Path) -> None:
    """With 1 024 of them a run would come to its end long before its last test."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import _what_a_test_opens_it_closes\n")
    opens = "import os\n\ndef test_opens():\n    os.open('/dev/null', os.O_RDONLY)\n"
    with inner_run(tmp_path, opens, "-n", "0") as run:
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "left open by this test: /dev/null" in said

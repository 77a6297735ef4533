"""No process outlives a program of ours that starts others: a soak, a figure, a benchmark, random histories."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guard import kill_marked, marked
from tests.suite.inner import ROOT
from tests.suite.test_processes import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc to look at")

PROGRAMS = {
    "tests.soak": (),
    "tests.soak.figures": ("memory",),
    "tests.soak.disk_figures": (),
    "tests.churn": (),
    "tests.day": (),
    "tests.losses": (),
    "tests.twins": (),
    "tests.histories": (),
    "benchmarks": ("--only", "strategies"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_killed_program_had_started_ends(program: str, tmp_path: Path) -> None:
    """Also servers and workers that are held at that moment, which would hear no polite signal."""
    mark = secrets.token_hex(8)
    environment = {**os.environ, "MARK": mark, "TMPDIR": str(tmp_path)}

    def started() -> dict[int, str]:
        return {pid: command for pid, command in marked(mark).items() if pid != run.pid}

    def has_a_server() -> bool:
        assert run.poll() is None
        return any("--port" in command and "--appendonly" in command for command in started().values())

    with subprocess.Popen(
        [sys.executable, "-m", program, *PROGRAMS[program]],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        try:
            wait_for(has_a_server)
            run.send_signal(signal.SIGKILL)
            run.wait()
            wait_for(lambda: not started(), 20)
            assert str(tmp_path) not in Path("/proc/mounts").read_text()
        finally:
            kill_marked(mark)

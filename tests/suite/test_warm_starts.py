"""What is forked begins as what is started: in the same surroundings, and nothing of it has acted yet."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.warm_starts import CAN_FORK, Forked, WarmStarts

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="forks are told from others by pidfd_open(2)")
PROBE = """
import json, os, signal, sys, threading
print(json.dumps({
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "arguments": sys.argv,
    "path": sys.path[0],
    "begun": [name for name in ("ingestor.__main__", "ingestor.entry") if name in sys.modules],
    "handlers": [str(signal.getsignal(n)).partition(" at ")[0] for n in (1, 2, 13, 15)],
    "blocked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "open": [n for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{n}")],
    "group": os.getpgrp(),
    "threads": threading.active_count(),
}))
"""


@pytest.fixture
def starts() -> Iterator[WarmStarts]:
    """A process of this test's own to be forked."""
    own = WarmStarts()
    yield own
    own.close()


def started(starts: WarmStarts, tmp_path: Path, text: str, **variables: str) -> Forked:
    """A fork that runs this module; it prints into `printed`."""
    (tmp_path / "probe.py").write_text(text)
    with (tmp_path / "printed").open("wb") as output:
        return starts.start("probe", {**os.environ, **variables}, str(tmp_path), output)


def test_it_finds_what_a_process_of_its_own_would_find(starts: WarmStarts, tmp_path: Path) -> None:
    """Environment, folder, arguments, signals, descriptors; and what acts when it is loaded still to be loaded."""
    assert started(starts, tmp_path, PROBE, ANSWER="42").wait(30) == 0
    forked: dict[str, Any] = json.loads((tmp_path / "printed").read_text())
    printed = subprocess.run(
        [sys.executable, "-m", "probe"],
        check=True,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "ANSWER": "42"},
        timeout=30,
    ).stdout
    assert forked == json.loads(printed)
    assert forked["begun"] == []
    assert forked["environment"]["ANSWER"] == "42"


def test_a_script_is_run_as_from_a_command_line(starts: WarmStarts, tmp_path: Path) -> None:
    """Its words, where it finds modules, what it prints and where; ended when it takes long."""
    script = tmp_path / "script"
    script.write_text("import sys; print(sys.argv, sys.path[0]); print('no', file=sys.stderr); sys.exit(4)")
    done = starts.run([str(script), "a", "--b"], os.environ, "/", 30)
    alone = subprocess.run(
        [sys.executable, script, "a", "--b"], check=False, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert done.returncode == 4
    script.write_text("import time; time.sleep(60)")
    with pytest.raises(subprocess.TimeoutExpired):
        starts.run([str(script)], os.environ, "/", 0.1)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("", 0),
    ],
)
def test_its_end_is_told_as_that_of_any_process(
    starts: WarmStarts, tmp_path: Path, text: str, code: int
) -> None:
    """An exit code, or the signal; as often as it is asked for."""
    process = started(starts, tmp_path, text)
    assert process.wait(30) == code
    assert (process.poll(), process.returncode) == (code, code)
    process.kill()


def test_while_it_runs_it_can_be_waited_for_and_told_to_end(starts: WarmStarts, tmp_path: Path) -> None:
    """Each by itself, though others run beside it."""
    first, second = (started(starts, tmp_path, "import time; time.sleep(60)") for _ in range(2))
    assert first.poll() is second.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.01)
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == -signal.SIGTERM
    assert first.poll() is None
    first.kill()
    assert first.wait(30) == -signal.SIGKILL


def test_what_the_interpreter_or_the_loader_heeds_asks_for_a_start_of_its_own(starts: WarmStarts) -> None:
    """A preloaded library cannot be preloaded into a fork."""
    here = dict(os.environ)
    assert starts.serves({**here, "QUOTEBUS_QUIET_AFTER_S": "1"})
    for name in ("LD_PRELOAD", "PYTHONWARNINGS", "TZ", "MALLOC_ARENA_MAX", "LC_ALL"):
        assert not starts.serves({**here, name: "something else"})

"""Kills what a process of the test run leaves behind: `guard.py PID MARK`, started by that process.

Decides how a process is known to be ours: by a mark in its environment, which its children inherit. Imports nothing
but the standard library, so that it is there in some milliseconds.
"""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
LOOK_S: Final = 0.2
KILLING_S: Final = 5.0


def marked(mark: str) -> dict[int, str]:
    """Every process that has this mark, and its command line; the caller itself is none of them."""
    wanted = mark.encode()
    found = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(folder.name)
            if pid == os.getpid() or wanted not in (folder / "environ").read_bytes():
                continue
            command = (folder / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
            # One that has ended and waits for its parent has neither.
            if command:
                found[pid] = command.decode(errors="replace")
    return found


def kill_marked(mark: str) -> dict[int, str]:
    """Kill every process with this mark, and those that they start meanwhile; what was killed."""
    killed: dict[int, str] = {}
    deadline_s = time.monotonic() + KILLING_S
    while (left := marked(mark)) and time.monotonic() < deadline_s:
        killed |= left
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return killed


def guard(pid: int, mark: str) -> None:
    """Wait for the end of our parent, this process, and kill what it leaves behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ended = os.pidfd_open(pid)
        while os.getppid() == pid and not select.select([ended], [], [], 10.0)[0]:
            pass
    while os.getppid() == pid:
        time.sleep(LOOK_S)
    kill_marked(mark)


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2])

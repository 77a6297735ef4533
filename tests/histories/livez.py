"""Asks the daemon's /livez every 50 ms, from a process of its own, and tells which answers were slow.

Decides how much of an answer's time the daemon is to blame for: what the machine's other processes took from it, or
from a control loop that runs beside the question, is left out. Must never know which fault is under way.

Run as a program it reads lines `PORT PID` (a daemon began) and ends with its input; then it prints one JSON array
of `[asked_at_s, blamed_s]`, monotonic times, for the slowest answers.
"""

import asyncio
import heapq
import json
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final, Self

EVERY_S: Final = 0.05
PATIENCE_S: Final = 60.0
KEPT: Final = 50
REQUEST: Final = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
Answer = tuple[float, float]


class Control:
    """A loop that sleeps and does nothing else: how late it wakes is what the machine takes from everybody."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=10_000)
        threading.Thread(target=self._run, daemon=True).start()

    def late_s(self, since_s: float) -> float:
        """How much it was late altogether since then."""
        return sum(late_s for at_s, late_s in list(self._late) if at_s >= since_s)

    def _run(self) -> None:
        while True:
            due_s = time.monotonic() + EVERY_S / 5
            time.sleep(EVERY_S / 5)
            if (late_s := time.monotonic() - due_s) > 0.002:
                self._late.append((due_s, late_s))


def ask(port: int) -> float | None:
    """How long the answer took; None when nobody answers, which is no slowness."""
    began_s = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
            sock.sendall(REQUEST)
            if not sock.recv(100):
                return None
    except TimeoutError:
        return time.monotonic() - began_s
    except OSError:
        return None
    return time.monotonic() - began_s


def starved_s(pid: int) -> float:
    """How long the process's main thread could have run and was not let; 0 when it is gone."""
    try:
        # The second field: https://docs.kernel.org/scheduler/sched-stats.html
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def main() -> int:
    """Until the input ends."""
    control, slowest = Control(), list[Answer]()
    target: list[tuple[int, int]] = []
    ended = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            port, pid = map(int, line.split())
            target[:] = [(port, pid)]
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    while not ended.wait(EVERY_S):
        if not target:
            continue
        port, pid = target[0]
        before_s, began_s = starved_s(pid), time.monotonic()
        took_s = ask(port)
        if took_s is None:
            continue
        excused_s = max(starved_s(pid) - before_s, control.late_s(began_s), 0.0)
        entry = (max(0.0, took_s - excused_s), began_s)
        (heapq.heappush if len(slowest) < KEPT else heapq.heappushpop)(slowest, (entry[0], entry[1]))
    sys.stdout.write(json.dumps([[began_s, blamed_s] for blamed_s, began_s in slowest]))
    return 0


class Probe:
    """The program, started; an async context manager that ends it. `answers` are there afterwards."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: ASYNC220 - as quick as a fork
            [sys.executable, "-m", "tests.histories.livez"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def watch(self, port: int, pid: int) -> None:
        """This is the daemon from now on."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d %d\n" % (port, pid))
        self._process.stdin.flush()

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        try:
            out = await asyncio.to_thread(self._end)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        self.answers = [(float(at_s), float(blamed_s)) for at_s, blamed_s in json.loads(out or b"[]")]

    def _end(self) -> bytes:
        assert self._process is not None
        out, _ = self._process.communicate(timeout=PATIENCE_S + 10)
        return out

    def slowest_s(self, excused: list[tuple[float, float]]) -> float:
        """The slowest answer that does not touch any of these stretches of time."""
        return max(
            (
                blamed_s
                for at_s, blamed_s in self.answers
                if not any(begin_s <= at_s + blamed_s and at_s <= end_s for begin_s, end_s in excused)
            ),
            default=0.0,
        )


if __name__ == "__main__":
    sys.exit(main())

"""The worker processes of one run.

Decides their names and seeds. Must never know what they handle.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

WORKER: Final = Path(__file__).with_name("worker.py")
ROOT: Final = Path(__file__).parents[2]
NAMES: Final = ("ann", "bob", "cid", "-", "-")
END_S: Final = 8.0
"""For leaving, without the time for which the machine had no processor for the worker."""


class Crew:
    """Workers that can be started, killed, frozen and asked to leave."""

    def __init__(
        self, url: str, folder: Path, symbols: list[str], chance: random.Random, library: Path | None
    ) -> None:
        self._url = url
        self._folder = folder
        self._symbols = symbols
        self._chance = chance
        self._library = library or ROOT
        self._count = 0
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.failures: list[str] = []

    def start(self, name: str | None = None) -> None:
        """One more; without a name it gets one that no running worker has, or none at all."""
        taken = {other for other, _ in self.running}
        free = [other for other in NAMES if other == "-" or other not in taken]
        name = name or self._chance.choice(free)
        self._count += 1
        log = self._folder / f"worker-{self._count}"
        with log.with_suffix(".err").open("wb") as errors:
            process = subprocess.Popen(
                [
                    *(sys.executable, str(WORKER), self._url, str(log.with_suffix(".notes")), name),
                    *(str(self._chance.randrange(2**32)), *self._symbols),
                ],
                env={**os.environ, "PYTHONPATH": str(self._library), "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=errors,
                stderr=errors,
            )
        self.running.append((name, process))

    def kill(self, which: int) -> str | None:
        """End one at once; its name."""
        return self._end(which, signal.SIGKILL)

    def dismiss(self, which: int) -> str | None:
        """Ask one to leave, and wait for it; its name."""
        return self._end(which, signal.SIGTERM)

    def _end(self, which: int, how: signal.Signals) -> str | None:
        if not self.running:
            return None
        name, process = self.running.pop(which % len(self.running))
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        began_s, kept_s = time.monotonic(), _kept_waiting_s(process.pid)
        while time.monotonic() - began_s < END_S + _kept_waiting_s(process.pid) - kept_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
                return name
        self.failures.append(f"worker {name} did not leave within {END_S:.0f} s")
        process.kill()
        process.wait()
        return name

    def freeze(self, which: int) -> list[subprocess.Popen[bytes]]:
        """Stop one where it stands, or all with -1; those that are to be thawed."""
        some = [self.running[which % len(self.running)]] if which >= 0 and self.running else self.running
        found = [process for _, process in some]
        for process in found:
            process.send_signal(signal.SIGSTOP)
        return found

    def thaw(self, processes: list[subprocess.Popen[bytes]]) -> None:
        """Let them go on."""
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)

    def end_all(self) -> None:
        """Nothing is left running; who had ended by itself is a failure."""
        for name, process in self.running:
            if process.poll() is not None:
                self.failures.append(
                    f"worker {name} ended by itself with {process.returncode}: {self._errors()}"
                )
        while self.running:
            self.kill(0)

    def notes(self) -> list[dict[str, Any]]:
        """All that all of them wrote down; a line that was cut short is none."""
        found = []
        for path in sorted(self._folder.glob("*.notes")):
            for line in path.read_text().splitlines():
                try:
                    found.append({**json.loads(line), "worker": path.stem})
                except ValueError:
                    continue
        return found

    def _errors(self) -> str:
        return " | ".join(
            path.read_text()[-600:] for path in sorted(self._folder.glob("*.err")) if path.stat().st_size
        )


def _kept_waiting_s(pid: int) -> float:
    """For how long this process was ready to run and had no processor, where the kernel counts that."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0

"""Takes log lines away from whoever logs, so that a reader of the log who does not read stops nobody.

Decides how many lines wait, and which are given up: the newest, counted. Must never know what a line says. A pipe
whose reader is slow blocks the one who writes to it; here that is a thread with nothing else to do. The event loop
only ever puts a line into memory.
"""

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from typing import Final

MAX_WAITING_BYTES: Final = 262_144
"""About a thousand lines: nothing is logged per quote, so this is hours of ordinary days."""
WRITE_BYTES: Final = 4096
"""So many go into a pipe in one piece (pipe(7), PIPE_BUF), whoever else writes there."""
RETRY_S: Final = 1.0


class LogLines:
    """A text stream with `write` and `flush`, as `logging.StreamHandler` wants it; `dropped` counts lines."""

    def __init__(self, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_waiting_bytes: Final = max_waiting_bytes
        self._changed: Final = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._fd = -1
        self.dropped = 0

    def open(self, fd: int | None = None) -> None:
        """Begin to write to this descriptor; None is standard error, or nowhere when the process has none."""
        self._fd = standard_error() if fd is None else fd
        self._is_closing = False
        # A daemon thread: one that is stuck in a full pipe must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="log lines", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take one line, or count it as dropped; never waits for a reader."""
        line = text.encode("utf-8", "backslashreplace")
        with self._changed:
            # A line longer than the bound passes when nothing else waits: a traceback must not be lost for it.
            if self._waiting_bytes and self._waiting_bytes + len(line) > self._max_waiting_bytes:
                self.dropped += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Nothing: whoever logs must not wait. `close` does."""

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most so long, and end; lines that nobody took by then are counted."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            while self._waiting_bytes and (left_s := deadline_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            self.dropped += len(self._lines)
            self._lines.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._is_closing:
                    self._changed.wait()
                if not self._lines:
                    return
                some = self._take()
            written = self._put(b"".join(some))
            with self._changed:
                if not written:
                    self.dropped += len(some)
                self._waiting_bytes -= sum(map(len, some))
                self._changed.notify_all()

    def _take(self) -> list[bytes]:
        some = [self._lines.popleft()]
        size = len(some[0])
        while self._lines and size + len(self._lines[0]) <= WRITE_BYTES:
            size += len(self._lines[0])
            some.append(self._lines.popleft())
        return some

    def _put(self, data: bytes) -> bool:
        """Write all of it, however long that takes; False when there is nobody to write to."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Somebody else made the shared descriptor non-blocking.
                select.select([], [self._fd], [], RETRY_S)
            except OSError:
                return False
        return True


def standard_error() -> int:
    """The descriptor of standard error, made sure to be one: a process that was started without has its next
    socket there, and would write its log into a conversation with somebody else."""
    if sys.stderr is None:
        fd = os.open(os.devnull, os.O_WRONLY)
        while fd < 2:
            fd = os.open(os.devnull, os.O_WRONLY)
        return fd
    with contextlib.suppress(OSError, ValueError):
        return sys.stderr.fileno()
    return 2


log_lines: Final = LogLines()
"""The process's own: a log is one, whoever writes to it."""

"""What is worth telling an operator: into the log, and into the audit trail `quotes:events`.

Decides how often the same thing is told. Must never know how a line is printed, nor wait for Redis: notes queue up
to a bound, and the ones that go are counted. Nothing per quote comes here.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

MAX_QUEUED: Final = 10_000
REPEAT_AFTER_S: Final = 60.0
MAX_SUBJECTS: Final = 10_000


@dataclass(slots=True)
class Note:
    """One entry of the audit trail."""

    kind: str
    at_ns: int
    details: dict[str, Any] = field(default_factory=dict)


class Journal:
    """Takes notes from anywhere in the daemon; whoever writes the audit trail takes them from `queue`."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("quotebus")
        self._told_s: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}
        self.queue: deque[Note] = deque()
        self.dropped = 0

    def note(self, kind: str, level: str = "info", **details: Any) -> None:
        """Tell it now."""
        getattr(self._log, level)(kind, **details)
        if len(self.queue) >= MAX_QUEUED:
            self.queue.popleft()
            self.dropped += 1
        self.queue.append(Note(kind, time.time_ns(), details))

    def note_rarely(self, kind: str, subject: str, level: str = "warning", **details: Any) -> None:
        """Tell it at most once a minute for each subject, and how often it was held back."""
        key, now_s = (kind, subject), time.monotonic()
        if now_s - self._told_s.get(key, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return
        if len(self._told_s) >= MAX_SUBJECTS:
            self._told_s.clear()
            self._suppressed.clear()
        self._told_s[key] = now_s
        held_back = self._suppressed.pop(key, 0)
        if held_back:
            details["held_back"] = held_back
        self.note(kind, level, subject=subject, **details)

"""How the disk fares: which operations fail, whether one hangs, and when the way leads around it.

Decides that each kind of operation has failures and pauses of its own: a disk that takes nothing may still give,
and one that cannot be written has to be read and cleared, or it will never be written again. An operation without
an answer is a failure too, and nothing else can be tried meanwhile. Must never know files, nor the clock: `now_s`
is an argument.

The rule of going around. What is on disk and was not read back came before everything in memory, so as long as
there is any, nothing passes it. With nothing unread, quotes go around a disk that hangs as soon as that is known.
With something unread they wait, since the disk may come back. But once Redis would take them, and the disk has
given nothing for `GIVE_UP_AFTER_S`, what is unread counts as lost, and is marked in each stream it belongs to.
Either way all that lies on disk is void from then on: memory has it, or it was counted. When the disk answers
again, its files are deleted before anything else, so that nothing comes back late, twice or out of order.
"""

from dataclasses import dataclass
from typing import Final

RETRY_AFTER_S: Final = 1.0
HUNG_AFTER_S: Final = 3.0
GIVE_UP_AFTER_S: Final = 10.0


@dataclass(slots=True)
class _Failure:
    problem: str
    since_s: float
    retry_at_s: float


class DiskHealth:
    """Failures by operation, in the order in which they began. `hangs` is whether an operation is overdue."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}
        self.hangs = False

    @property
    def problem(self) -> str | None:
        """What is wrong, first what has failed for the longest; None while all is well."""
        if self.hangs:
            return f"the disk has not answered for more than {HUNG_AFTER_S:g} s"
        return next((failure.problem for failure in self._failures.values()), None)

    def is_failing(self, operation: str) -> bool:
        """Whether the last try of this operation failed."""
        return operation in self._failures

    def may(self, operation: str, now_s: float) -> bool:
        """Whether it is time to try this operation, for the first time or again."""
        failure = self._failures.get(operation)
        return failure is None or now_s >= failure.retry_at_s

    def failed(self, operation: str, error: OSError, now_s: float) -> str:
        """The operation failed, and is let alone for a while; how to say it."""
        problem = f"{type(error).__name__}: {error}"
        failure = self._failures.setdefault(operation, _Failure(problem, now_s, 0.0))
        failure.problem, failure.retry_at_s = problem, now_s + RETRY_AFTER_S
        return problem

    def went_well(self, operation: str) -> bool:
        """The operation did what it should; whether with this nothing fails any more."""
        return self._failures.pop(operation, None) is not None and not self._failures

    def hurry(self, operation: str | None = None) -> None:
        """Something has changed: try this operation at once, or all of them."""
        for name, failure in self._failures.items():
            if operation in (None, name):
                failure.retry_at_s = 0.0

    def look(self, busy_s: float) -> bool:
        """An operation has been under way for so long, or none is (0); whether that is news."""
        hung, self.hangs = self.hangs, busy_s > HUNG_AFTER_S
        return hung != self.hangs

    def must_go_around(self, busy_s: float, now_s: float, *, has_unread: bool, redis_takes: bool) -> bool:
        """Whether nothing may wait for the disk any longer."""
        if self.hangs and not has_unread:
            return True
        reading = self._failures.get("read")
        stuck_s = busy_s
        if not self.hangs and reading is not None:
            stuck_s = now_s - reading.since_s
        return has_unread and redis_takes and stuck_s > GIVE_UP_AFTER_S

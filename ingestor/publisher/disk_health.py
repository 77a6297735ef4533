"""Which operations of the disk fail just now, and when each is tried again.

Decides that each kind of operation has failures and pauses of its own: a disk that takes nothing may still give,
and one that cannot be written has to be read and cleared, or it will never be written again. Must never know files,
nor the clock: `now_s` is an argument.
"""

from dataclasses import dataclass
from typing import Final

RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True)
class _Failure:
    problem: str
    retry_at_s: float


class DiskHealth:
    """Failures by operation, in the order in which they began."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    @property
    def problem(self) -> str | None:
        """What has failed for the longest, in the system's words; None while all is well."""
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
        failure = self._failures.setdefault(operation, _Failure(problem, 0.0))
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

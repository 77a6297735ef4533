"""What the loop's thread tells another one, and how that waits for it.

Decides that waiting holds no lock. A Ctrl-C may strike between any two lines of whoever waits, also between the
acquiring of a lock and the `try` behind it: the condition within a `Future`, an `Event` or a `Thread` is then held
for good, and the loop, which needs it to tell, stands still. A queue's `get` is one call without a Python frame.
"""

import queue
from typing import Any, Final, Generic, TypeVar, cast

R = TypeVar("R")


class Answer(Generic[R]):
    """A result or an error that will come once. Any thread may give it, and any number may wait.

    With `news` its coming is told there, to who waits for something else, too.
    """

    def __init__(self, news: "queue.SimpleQueue[None] | None" = None) -> None:
        # In one piece, because several threads look at it.
        self._given: tuple[Any, BaseException | None] | None = None
        self._news: Final = queue.SimpleQueue[None]() if news is None else news

    @property
    def is_given(self) -> bool:
        """Whether there is no need to wait."""
        return self._given is not None

    def give(self, result: R) -> None:
        """This is the result, unless there is one."""
        self._give(result, None)

    def fail(self, error: BaseException) -> None:
        """This is the error, unless there is a result."""
        self._give(None, error)

    def wait(self, seconds: float) -> bool:
        """Wait for at most so long; whether it is there."""
        if self._given is None:
            try:
                self._news.get(timeout=seconds)
            except queue.Empty:
                return self._given is not None
            # For whoever else waits.
            self._news.put(None)
        return self._given is not None

    def get(self) -> R:
        """What was given; raises the error."""
        assert self._given is not None
        result, error = self._given
        if error is None:
            return cast("R", result)
        try:
            raise error
        finally:
            # Else the error would hold this frame, and by it itself.
            del error, self

    def _give(self, result: Any, error: BaseException | None) -> None:
        if self._given is None:
            self._given = result, error
            self._news.put(None)

"""Which failures of handlers are told, and how.

Decides that the first of a kind is told with its traceback, and those like it by their number, once a minute and at
the end: a handler that always fails would bury everything else in the log. Must never know what a handler does.
"""

from typing import Final, NamedTuple

COUNT_EVERY_S: Final = 60.0
KINDS_MAX: Final = 100


class Kind(NamedTuple):
    """The handler's name, and that of the exception."""

    handler: str
    error: str


OTHERS: Final = Kind("other handlers", "other errors")
"""What stands for all kinds beyond the first hundred."""


class Failures:
    """What failed since when, by kind. Times are seconds of any clock that does not jump."""

    def __init__(self) -> None:
        self._untold: Final[dict[Kind, int]] = {}
        self._told_s: Final[dict[Kind, float]] = {}

    def note(self, kind: Kind, now_s: float) -> bool:
        """One more of this kind; whether it is to be told, with its traceback."""
        if kind not in self._told_s and len(self._told_s) >= KINDS_MAX:
            kind = OTHERS
        if kind in self._told_s:
            self._untold[kind] += 1
            return False
        self._told_s[kind], self._untold[kind] = now_s, 0
        return True

    def due(self, now_s: float, *, all_of_them: bool = False) -> dict[Kind, int]:
        """How many of each kind came since it was last told, where that is long enough ago, or of `all_of_them`.

        A kind of which none came for so long is forgotten, and its next is told as a first.
        """
        found: dict[Kind, int] = {}
        for kind, told_s in list(self._told_s.items()):
            if not all_of_them and now_s - told_s < COUNT_EVERY_S:
                continue
            if count := self._untold[kind]:
                found[kind] = count
                self._told_s[kind], self._untold[kind] = now_s, 0
            else:
                del self._told_s[kind], self._untold[kind]
        return found

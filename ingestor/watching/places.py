"""Who may stay when more visitors come to the HTTP pages than there are places.

Decides who has to leave. A visitor who has asked for a page keeps the place for as long as the answer takes; one
who has only connected leaves for the next. Some places are kept for this machine: its health check must always get
in, whatever comes from outside.
"""

from typing import Final, Generic, TypeVar

MOST: Final = 256
"""More than an event loop accepts in two turns (its backlog is 100): whoever sends a request along with the
connection is heard before so many others have come."""
FEWEST: Final = 16
KEPT_FOR_LOCAL: Final = 4
"""One place in so many."""


def places_within(descriptors: int) -> int:
    """How many visitors a process may have that may have so many files and sockets open, and needs some itself."""
    return max(FEWEST, min(MOST, (descriptors - 64) // 2))


V = TypeVar("V")


class Places(Generic[V]):
    """The visitors who are in, oldest first. `enter` and `leave` frame a visit; `has_asked` lies between."""

    def __init__(self, places: int) -> None:
        self._places: Final = places
        self._for_others: Final = places - places // KEPT_FOR_LOCAL
        self._is_local: Final[dict[V, bool]] = {}
        self._waiting: Final[dict[V, None]] = {}

    def __len__(self) -> int:
        return len(self._is_local)

    def enter(self, visitor: V, *, is_local: bool) -> V | None:
        """Let a visitor in; who has to leave for it, which is the visitor itself if nobody else can."""
        others = sum(not local for local in self._is_local.values())
        evicted: V | None = None
        if len(self) >= self._places or (not is_local and others >= self._for_others):
            evicted = self._who_leaves(is_local)
            if evicted is None:
                return visitor
            self.leave(evicted)
        self._is_local[visitor] = is_local
        self._waiting[visitor] = None
        return evicted

    def has_asked(self, visitor: V) -> None:
        """The visitor waits for an answer now, and nobody takes its place."""
        self._waiting.pop(visitor, None)

    def leave(self, visitor: V) -> None:
        """The place is free; also for one who has none."""
        self._is_local.pop(visitor, None)
        self._waiting.pop(visitor, None)

    def _who_leaves(self, is_local: bool) -> V | None:
        outsiders = (visitor for visitor in self._waiting if not self._is_local[visitor])
        return next(outsiders, next(iter(self._waiting), None) if is_local else None)

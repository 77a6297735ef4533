"""Who is told of which symbol, and who has been told already.

Decides the callbacks of a quote and their order. Must never call one: what a callback does, and how it fails, is
the shell's affair.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, TypeAlias

from wire import EntryId, Quote, Symbol

Callback: TypeAlias = Callable[[Quote], Any]
"""Called with one quote. What it returns is awaited if it can be, and thrown away."""


def checked(callback: object) -> Callable[[Any], Any]:
    """The callback itself; `TypeError` when it cannot be called."""
    if callable(callback):
        return callback
    raise TypeError(
        f"the callback is a {type(callback).__name__}: pass a function or a coroutine function of one argument"
    )


class CallbackBook:
    """Callbacks by symbol, in the order in which they were added."""

    __slots__ = ("_by_symbol", "_count")

    def __init__(self) -> None:
        # Tuples, replaced and never changed: a callback that adds or removes one does not disturb the round
        # of calls that it is part of.
        self._by_symbol: dict[str, tuple[Callback, ...]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, symbol: Symbol, callback: Callback) -> None:
        """Tell this callback of the symbol's quotes; one that is there already stays where it stands."""
        present = self._by_symbol.get(symbol, ())
        if callback not in present:
            self._by_symbol[symbol] = (*present, checked(callback))
            self._count += 1

    def remove(self, symbol: Symbol, callback: Callback | None = None) -> int:
        """Tell this callback no more, or None of them where it is None; how many that were."""
        present = self._by_symbol.get(symbol, ())
        left = () if callback is None else tuple(other for other in present if other != callback)
        if left:
            self._by_symbol[symbol] = left
        else:
            self._by_symbol.pop(symbol, None)
        self._count -= len(present) - len(left)
        return len(present) - len(left)

    def clear(self) -> None:
        """Forget all of them."""
        self._by_symbol.clear()
        self._count = 0

    def of(self, symbol: str) -> tuple[Callback, ...]:
        """The callbacks of a symbol, the oldest first."""
        return self._by_symbol.get(symbol, ())


RANGES_MAX: Final = 256
"""Stretches of one stream that are remembered apart; beyond that the earliest is forgotten, and may pass again."""


class _Ranges:
    """Ids of one stream that have passed, as stretches without a hole: first and last id of each, in order."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: Final[list[EntryId]] = []
        self._lasts: Final[list[EntryId]] = []

    def has(self, entry_id: EntryId) -> bool:
        """Whether this id lies within one of them."""
        at = bisect_right(self._firsts, entry_id) - 1
        return at >= 0 and entry_id <= self._lasts[at]

    def add(self, first: EntryId, last: EntryId) -> None:
        """Everything from `first` to `last` has passed."""
        firsts, lasts = self._firsts, self._lasts
        low = bisect_left(lasts, first)
        high = bisect_right(firsts, last)
        if low < high:
            first, last = min(first, firsts[low]), max(last, lasts[high - 1])
        firsts[low:high], lasts[low:high] = [first], [last]
        if len(firsts) > RANGES_MAX:
            del firsts[0], lasts[0]


class _Place:
    """Where one reader stands."""

    __slots__ = ("at", "following", "passed")

    def __init__(self, following: Hashable, passed: _Ranges) -> None:
        self.following: Final = following
        self.passed = passed
        """What has passed of the stream that it reads, which one begun anew may have replaced."""
        self.at: EntryId | None = None
        """The last entry that it brought, where there is no other from there to its next one."""


class OnceEach:
    """Lets each entry of one stream pass once, whichever of several readers brings it first.

    Each reader brings entries in their order, and is known by any name that is its own. Readers may be at different
    places: one that catches up brings what nobody has brought before, though later entries have passed already.

    `following` is any name of the time since the reader began to follow the stream, which is another one when it
    stops and begins again. Within one of them nothing lies between two entries unless it is said to be `skipped`;
    between two of them anything may, and it is not needed to notice when one ends.
    """

    __slots__ = ("_newest", "_places")

    def __init__(self) -> None:
        self._newest = _Ranges()
        self._places: Final[dict[Hashable, _Place]] = {}
        """By reader."""

    def lets_pass(self, reader: Hashable, following: Hashable, entry_id: EntryId) -> bool:
        """Whether nobody has brought this entry before."""
        place, newest = self._place(reader, following), self._newest
        passed = place.passed
        # Who has not noticed a new stream may read from it all the same.
        is_new = not passed.has(entry_id) and (passed is newest or not newest.has(entry_id))
        passed.add(entry_id if place.at is None else min(place.at, entry_id), entry_id)
        if passed is not newest:
            newest.add(entry_id, entry_id)
        place.at = entry_id
        return is_new

    def skipped(self, reader: Hashable) -> None:
        """Between this reader's last entry and its next one there may be some that it does not bring."""
        place = self._places.get(reader)
        if place is not None:
            place.at = None

    def begin_anew(
        self, reader: Hashable, following: Hashable, others: Iterable[tuple[Hashable, Hashable]] = ()
    ) -> None:
        """This reader's stream is another one now: its ids may be smaller, or those of other quotes.

        `others` are the readers that follow it as well, with their followings: they have yet to notice it.
        """
        for other in others:
            self._place(*other)
        place = self._place(reader, following)
        if place.passed is self._newest:
            self._newest = _Ranges()
        place.passed, place.at = self._newest, None

    def forget(self, reader: Hashable) -> None:
        """It brings nothing any more."""
        self._places.pop(reader, None)

    def _place(self, reader: Hashable, following: Hashable) -> _Place:
        place = self._places.get(reader)
        if place is None or place.following != following:
            place = self._places[reader] = _Place(following, self._newest)
        return place


class Seldom:
    """Lets one message of a kind through in a while, and counts the others. `every_s` is in seconds."""

    __slots__ = ("_every_s", "_held_back", "_last_s")

    KINDS_MAX: Final = 1_000

    def __init__(self, every_s: float) -> None:
        self._every_s: Final = every_s
        self._last_s: Final[dict[Hashable, float]] = {}
        self._held_back: Final[dict[Hashable, int]] = {}

    def lets_pass(self, kind: Hashable, now_s: float) -> int | None:
        """How many of this kind were held back since the last one that passed; None to hold this one back too."""
        last_s = self._last_s.get(kind)
        if last_s is not None and now_s - last_s < self._every_s:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return None
        if last_s is None and len(self._last_s) >= self.KINDS_MAX:
            self._last_s.clear()
            self._held_back.clear()
        self._last_s[kind] = now_s
        return self._held_back.pop(kind, 0)

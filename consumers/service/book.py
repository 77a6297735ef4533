"""Who is told of which symbol, and who has been told already.

Decides the callbacks of a quote and their order. Must never call one: what a callback does, and how it fails, is
the shell's affair.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable
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


class OnceEach:
    """Lets each entry of one stream pass once, whichever of several readers brings it first.

    Each reader brings entries in their order, and is known by any name that is its own. Readers may be at different
    places: one that catches up brings what nobody has brought before, though later entries have passed already.
    """

    __slots__ = ("_at", "_newest", "_passed")

    def __init__(self) -> None:
        self._newest = _Ranges()
        self._passed: Final[dict[Hashable, _Ranges]] = {}
        """By reader: what has passed of the stream that it reads, which one begun anew may have replaced."""
        self._at: Final[dict[Hashable, EntryId]] = {}
        """The last entry of each reader; from there to its next one there is no other."""

    def lets_pass(self, reader: Hashable, entry_id: EntryId) -> bool:
        """Whether nobody has brought this entry before."""
        passed, newest = self._passed.setdefault(reader, self._newest), self._newest
        # Who has not noticed a new stream may read from it all the same.
        is_new = not passed.has(entry_id) and (passed is newest or not newest.has(entry_id))
        passed.add(min(self._at.get(reader, entry_id), entry_id), entry_id)
        if passed is not newest:
            newest.add(entry_id, entry_id)
        self._at[reader] = entry_id
        return is_new

    def skipped(self, reader: Hashable) -> None:
        """Between this reader's last entry and its next one there may be some that it does not bring."""
        self._at.pop(reader, None)

    def begin_anew(self, reader: Hashable) -> None:
        """This reader's stream is another one now: its ids may be smaller, or those of other quotes."""
        self._at.pop(reader, None)
        if self._passed.get(reader, self._newest) is self._newest:
            self._newest = _Ranges()
        self._passed[reader] = self._newest

    def forget(self, reader: Hashable) -> None:
        """It brings nothing any more."""
        self._at.pop(reader, None)
        self._passed.pop(reader, None)


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

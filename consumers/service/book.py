"""Who is told of which symbol, and who has been told already.

Decides the callbacks of a quote and their order. Must never call one: what a callback does, and how it fails, is
the shell's affair.
"""

from collections.abc import Callable, Hashable
from typing import Any, Final, TypeAlias

from wire import ZERO_ID, EntryId, Quote, Symbol

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


class OnceEach:
    """Lets each entry of a stream pass once, whichever of several readers brings it first."""

    __slots__ = ("_passed",)

    def __init__(self) -> None:
        self._passed: Final[dict[str, EntryId]] = {}

    def lets_pass(self, quote: Quote) -> bool:
        """Whether this entry is later than all that passed before it."""
        entry_id = EntryId.parse(quote.id) if quote.id is not None else ZERO_ID
        if entry_id <= self._passed.get(quote.symbol, ZERO_ID):
            return False
        self._passed[quote.symbol] = entry_id
        return True

    def begin_anew(self, symbol: str) -> None:
        """The symbol's stream is another one now, or nobody listens to it: its ids may be smaller."""
        self._passed.pop(symbol, None)

    def clear(self) -> None:
        """Forget all that has passed."""
        self._passed.clear()


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

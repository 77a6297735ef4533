"""The twin of a lease without reading.

Decides nothing: everything is asked of the one in the loop. Must never read a quote.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from consumers import bus as native
from consumers.leases import interest
from consumers.sync.portal import Portal

R = TypeVar("R")


class Interest:
    """Symbols that are desired while this is entered, so that the daemon subscribes them; made by `Bus.interest`.

    Entering waits until the leases are written, as long as the bus waits for a reply, and does not fail when they
    cannot be: `trouble` says why, and the log does once. Leaving gives them back; a crash lets them expire within
    15 s.
    """

    def __init__(self, owner: object, portal: Portal[native.Bus], source: interest.Interest) -> None:
        # A bus that nobody holds any more closes itself: not while this is entered.
        self._owner: Final = owner
        self._portal: Final = portal
        self._source: Final = source

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are wanted through this."""
        return self._on_loop(lambda: self._source.symbols)

    @property
    def trouble(self) -> str | None:
        """Why leases cannot be written at present, with the remedy; None while all is well."""
        return self._on_loop(lambda: self._source.trouble)

    def add(self, *symbols: str) -> None:
        """Want more symbols. Raises `BadSymbol`."""
        self._on_loop(lambda: self._source.add(*symbols))

    def remove(self, *symbols: str) -> None:
        """Want these no more; one that is not wanted is ignored. Raises `BadSymbol`."""
        self._on_loop(lambda: self._source.remove(*symbols))

    def __enter__(self) -> Self:
        self._portal.call(lambda _: self._source.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A bus that was closed meanwhile has given them back.
        if self._portal.is_open and not self._portal.is_elsewhere:
            self._portal.call(lambda _: self._source.__aexit__(kind, error, trace))

    def __repr__(self) -> str:
        return f"<sync.Interest, a twin of {self._source!r}>"

    def _on_loop(self, ask: Callable[[], R]) -> R:
        async def answer(_: native.Bus) -> R:
            return ask()

        return self._portal.call(answer)

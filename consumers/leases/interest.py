"""A lease without reading: symbols are wanted for as long as a block runs.

Decides nothing: the keeper does. Must never read a quote.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from consumers.leases.keeper import LeaseKeeper
from consumers.leases.lease import Lease
from wire import Symbol

ENTER_S: Final = 5.0


class Interest:
    """Symbols that are desired while this is entered, so that the daemon subscribes them; made by `Bus.interest`.

    Entering waits until the leases are written, 5 s at most, and does not fail when they cannot
    be: `trouble` says why, and the log does once. Leaving gives them back; a crash lets them expire within 15 s.
    """

    def __init__(
        self,
        keeper: LeaseKeeper,
        parse: Callable[[Sequence[object]], list[Symbol]],
        symbols: tuple[object, ...],
    ) -> None:
        self._keeper: Final = keeper
        self._lease: Final = Lease(keeper)
        self._parse: Final = parse
        self._symbols: frozenset[str] = frozenset(parse(symbols)) if symbols else frozenset()
        self._is_entered = False

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are wanted through this."""
        return self._symbols

    @property
    def trouble(self) -> str | None:
        """Why leases cannot be written at present, with the remedy; None while all is well."""
        return self._keeper.trouble

    def add(self, *symbols: str) -> None:
        """Want more symbols. Raises `BadSymbol`."""
        self._change(self._symbols.union(self._parse(symbols)))

    def remove(self, *symbols: str) -> None:
        """Want these no more; one that is not wanted is ignored. Raises `BadSymbol`."""
        self._change(self._symbols.difference(self._parse(symbols)))

    async def __aenter__(self) -> Self:
        self._is_entered = True
        self._lease.began(self._symbols)
        try:
            await self._keeper.tried(ENTER_S)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _change(self, symbols: frozenset[str]) -> None:
        self._symbols = symbols
        if self._is_entered:
            self._lease.began(symbols)

    def _leave(self) -> None:
        self._is_entered = False
        self._lease.ended()

    def __repr__(self) -> str:
        state = "wanted" if self._is_entered else "not wanted now"
        return f"<Interest {len(self._symbols)} symbols, {state}>"

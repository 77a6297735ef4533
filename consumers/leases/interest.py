"""A lease without reading: symbols are wanted for as long as a block runs.

Decides nothing: the keeper does. Must never read a quote.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from consumers.leases.keeper import LeaseKeeper
from wire import Symbol


class Interest:
    """Symbols that are desired while this is entered, so that the daemon subscribes them; made by `Bus.interest`.

    Entering waits until the leases are written, `timeout_s` of the bus at most, and does not fail when they cannot
    be: `trouble` says why, and the log does once. Leaving gives them back; a crash lets them expire within 15 s.
    """

    def __init__(
        self,
        keeper: LeaseKeeper,
        parse: Callable[[Sequence[object]], list[Symbol]],
        symbols: tuple[object, ...],
        timeout_s: float,
    ) -> None:
        self._keeper: Final = keeper
        self._parse: Final = parse
        self._timeout_s: Final = timeout_s
        self._symbols = frozenset(parse(symbols)) if symbols else frozenset()
        self._is_entered = False

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are wanted through this."""
        return frozenset(self._symbols)

    @property
    def trouble(self) -> str | None:
        """Why leases cannot be written at present, with the remedy; None while all is well."""
        return self._keeper.trouble

    def add(self, *symbols: str) -> None:
        """Want more symbols. Raises `BadSymbol`."""
        new = frozenset(self._parse(symbols)) - self._symbols
        self._symbols |= new
        if self._is_entered:
            self._keeper.hold(new)

    def remove(self, *symbols: str) -> None:
        """Want these no more; one that is not wanted is ignored. Raises `BadSymbol`."""
        gone = frozenset(self._parse(symbols)) & self._symbols
        self._symbols -= gone
        if self._is_entered:
            self._keeper.release(gone)

    async def __aenter__(self) -> Self:
        if not self._is_entered:
            self._is_entered = True
            self._keeper.hold(self._symbols)
        try:
            await self._keeper.tried(self._timeout_s)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._is_entered:
            self._is_entered = False
            self._keeper.release(self._symbols)

    def __repr__(self) -> str:
        state = "wanted" if self._is_entered else "not wanted now"
        return f"<Interest {len(self._symbols)} symbols, {state}>"

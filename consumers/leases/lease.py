"""What one reader, or one block, wants of the keeper: taken when it begins, given back when it ends.

Decides nothing: counts are the book's. No call waits or raises, so that each may stand where a loop is being left.
"""

from typing import Final

from consumers.leases.keeper import LeaseKeeper


class Lease:
    """The share that one holder has in the leases of a bus. It may begin again after it has ended."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._keeper: Final = keeper
        self._symbols: frozenset[str] = frozenset()

    def began(self, symbols: frozenset[str]) -> None:
        """From now on these are wanted, instead of any before."""
        self._keeper.hold(symbols - self._symbols)
        self._keeper.release(self._symbols - symbols)
        self._symbols = symbols

    def changed(self, added: frozenset[str], removed: frozenset[str]) -> None:
        """These are wanted as well, and those no more."""
        self.began((self._symbols | added) - removed)

    def reconnected(self) -> None:
        """The server was away; it may have forgotten."""
        self._keeper.server_is_back()

    def ended(self) -> None:
        """Nothing is wanted any more."""
        self.began(frozenset())

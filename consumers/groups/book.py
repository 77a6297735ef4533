"""Which entries a worker has in its hands, and which acknowledgements Redis has not confirmed.

Decides what is sent again. Must never send anything. XACK may be repeated without harm
(https://redis.io/docs/latest/commands/xack/), so what was sent and not answered is simply sent once more.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from wire import Keyspace

IDS_PER_COMMAND: Final = 1_000
HELD_MAX: Final = 100_000
"""Deliveries that may wait for an acknowledgement; beyond it the strategy has most likely forgotten to give any."""


class Sending(NamedTuple):
    """Commands, and the entries that are settled once all of them are answered."""

    commands: list[tuple[str, ...]]
    ids: list[tuple[str, str]]


class Book:
    """The entries of one worker."""

    def __init__(self, keys: Keyspace, group: str) -> None:
        self._keys = keys
        self._group = group
        # Dictionaries for their order.
        self._held: dict[tuple[str, str], None] = {}
        self._waiting: dict[tuple[str, str], None] = {}

    @property
    def held(self) -> int:
        """Entries handed to the strategy that it has not acknowledged."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Acknowledgements that Redis has not confirmed."""
        return len(self._waiting)

    def hand(self, symbol: str, entry_id: str) -> None:
        """The strategy has this entry from now on."""
        self._held[symbol, entry_id] = None

    def holds(self, symbol: str, entry_id: str) -> bool:
        """Whether the strategy has it, or has done with it and Redis does not know yet."""
        return (symbol, entry_id) in self._held or (symbol, entry_id) in self._waiting

    def done(self, symbol: str, entry_id: str) -> None:
        """It is to be acknowledged."""
        self._held.pop((symbol, entry_id), None)
        self._waiting[symbol, entry_id] = None

    def sending(self) -> Sending:
        """What is to be sent now; it stays waiting until `settle`."""
        ids = list(self._waiting)
        by_symbol: dict[str, list[str]] = {}
        for symbol, entry_id in ids:
            by_symbol.setdefault(symbol, []).append(entry_id)
        commands: list[tuple[str, ...]] = [
            ("XACK", self._keys.stream(symbol), self._group, *found[at : at + IDS_PER_COMMAND])
            for symbol, found in by_symbol.items()
            for at in range(0, len(found), IDS_PER_COMMAND)
        ]
        return Sending(commands, ids)

    def settle(self, ids: Iterable[tuple[str, str]]) -> None:
        """Redis has answered for these."""
        for key in ids:
            self._waiting.pop(key, None)

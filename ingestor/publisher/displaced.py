"""Entries whose place in the stream somebody else has taken.

Decides in which order they get new places: that of their first stamping. Must never know why, or when it is time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from wire import ZERO_ID, EntryId


@dataclass(slots=True)
class _Lot:
    received_ns: int
    payloads: list[str] = field(default_factory=list)
    last: EntryId = ZERO_ID


class Displaced:
    """By symbol: the payloads, oldest first, and the largest last id that the server named."""

    def __init__(self) -> None:
        self._lots: dict[str, _Lot] = {}

    def __bool__(self) -> bool:
        return bool(self._lots)

    @property
    def quotes(self) -> int:
        """How many of them are quotes, and not gap markers."""
        return sum(payload.startswith("[") for lot in self._lots.values() for payload in lot.payloads)

    def add(self, symbol: str, payload: str, last_id: bytes, received_ns: int) -> None:
        """One entry that was refused; `last_id` as the server gave it, empty where it would not say."""
        lot = self._lots.setdefault(symbol, _Lot(received_ns))
        lot.payloads.append(payload)
        if last_id:
            lot.last = max(lot.last, EntryId.parse(last_id))

    def take(self) -> Iterator[tuple[str, list[str], EntryId, int]]:
        """Each symbol's entries, once: symbol, payloads, last id, and when the oldest was received."""
        lots, self._lots = self._lots, {}
        for symbol, lot in lots.items():
            yield symbol, lot.payloads, lot.last, lot.received_ns

"""What an operation of the queue has found or done, as its user is told.

Decides nothing. Must never know files.
"""

from dataclasses import dataclass

from ingestor.spool.records import Damage


@dataclass(frozen=True, slots=True)
class Opened:
    """What an earlier run left: whole records, their quotes, bytes on disk, and what could not be read."""

    records: int
    quotes: int
    bytes: int
    damages: list[Damage]


@dataclass(frozen=True, slots=True)
class Shed:
    """Quotes that had to go, and why; all positions that are not there any more; those of them of which the digest
    at `digest` tells. What could not be read is neither told nor counted here: it is noted as damage."""

    reason: str
    quotes: int
    positions: range
    told: frozenset[int] = frozenset()
    digest: int | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """A file that the folder does not hold any more, or not whole: the positions of its records, which of them the
    caller has in hand, and whether there are others."""

    number: int
    positions: range
    in_hand: frozenset[int]
    has_unread: bool

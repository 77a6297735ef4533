"""Entry ids made of venue time: `<ms>-<n>`, where n = (ns within the ms) x 1000 + a count of ties.

Decides where in its stream an entry goes. Must never know the time of day or what the stream holds: both
are arguments. The rules (https://redis.io/docs/latest/commands/xadd/): each half is an unsigned 64-bit number, the
pair must grow strictly within a stream, and 0-0 is not an id.
"""

from enum import Enum
from typing import Final, NamedTuple, Self

NS_PER_MS: Final = 1_000_000
TIES_PER_NS: Final = 1_000
MAX_AHEAD_NS: Final = 5_000_000_000
"""How far ahead of the clock an id may lie. A stream never goes back behind its last id, so one quote dated
next year would otherwise push all later ones there."""

_U64_MAX: Final = 2**64 - 1


class EntryId(NamedTuple):
    """A stream entry id; compares as Redis compares."""

    ms: int
    n: int

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read `ms-n`, or `ms` alone for `ms-0`; `ValueError` for anything else."""
        if isinstance(text, bytes):
            text = text.decode("ascii", "replace")
        ms, dash, n = text.partition("-")
        if not (ms.isascii() and ms.isdigit() and (not dash or (n.isascii() and n.isdigit()))):
            raise ValueError(f"{text[:60]!r} is not an entry id: expected <ms>-<n>")
        entry_id = cls(int(ms), int(n) if dash else 0)
        if max(entry_id) > _U64_MAX:
            raise ValueError(f"{text[:60]!r} is not an entry id: a half exceeds 64 bits")
        return entry_id

    @property
    def time_ns(self) -> int:
        """The instant this id stands for, in nanoseconds since the epoch."""
        return self.ms * NS_PER_MS + min(self.n // TIES_PER_NS, NS_PER_MS - 1)

    def successor(self) -> "EntryId":
        """The next id of the stream; `OverflowError` when the stream is exhausted."""
        if self.n < _U64_MAX:
            return EntryId(self.ms, self.n + 1)
        if self.ms < _U64_MAX:
            return EntryId(self.ms + 1, 0)
        raise OverflowError("the stream holds the largest id there is")

    def __str__(self) -> str:
        return f"{self.ms}-{self.n}"


ZERO_ID: Final = EntryId(0, 0)
"""Stands before every entry: the last id of an empty stream, and where a reader of everything begins."""


class Placement(Enum):
    """How an entry came to its id."""

    IN_TIME = "in_time"
    AFTER_LAST = "after_last"
    """Not after the stream's last id, so it follows that id: a tie, or a venue time out of order."""
    CLAMPED = "clamped"
    """Dated too far ahead of the clock."""


def entry_id_at(time_ns: int) -> EntryId:
    """The first id of an instant, for XRANGE by market time as for assignment."""
    ms, ns = divmod(max(time_ns, 0), NS_PER_MS)
    return EntryId(ms, ns * TIES_PER_NS)


def place(time_ns: int, last: EntryId, now_ns: int) -> tuple[EntryId, Placement]:
    """The id for an entry of this venue time, in a stream whose last id is `last`.

    Always greater than `last`. All times are nanoseconds since the epoch. Raises `OverflowError` when the
    stream is exhausted.
    """
    ahead = time_ns > now_ns + MAX_AHEAD_NS
    if ahead:
        time_ns = now_ns + MAX_AHEAD_NS
    ms, ns = divmod(max(0, time_ns), NS_PER_MS)
    n = ns * TIES_PER_NS
    if ms > last.ms or (ms == last.ms and n > last.n):
        return EntryId(ms, n), Placement.CLAMPED if ahead else Placement.IN_TIME
    return last.successor(), Placement.CLAMPED if ahead else Placement.AFTER_LAST

"""What a worker knows of one stream of its group, and what comes out of a step.

Decides nothing: `membership` does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from consumers.groups.standing import Beginning, Standing, Tally
from consumers.reading.start import Place, Wish
from wire import EntryId, Gap

START: str = "0-0"
"""The place before all pending entries."""


@dataclass(slots=True, eq=False)
class Track:
    """One stream of the group."""

    symbol: str
    key: bytes
    origin: Wish | Place
    """Where the group begins if there is none."""
    joined: bool = False
    was_joined: bool = False
    barred: bool = False
    """The key holds no stream."""
    dropped: bool = False
    look_now: bool = True
    look_at: float = 0.0
    """When the next round comes here; for a stream without a group, when it is tried again."""
    standing: Standing | None = None
    tally: Tally | None = None
    seen: bytes | None = None
    """The last new entry that this worker was given."""
    told: EntryId | None = None
    """The last entry delivered when the gap behind it was told."""
    rewound_since: float | None = None
    beginning: Beginning | None = None
    """The group is to be made here."""
    recover_from: str | None = None
    """Own pending entries are to be fetched from here on."""
    claim_from: str | None = None
    """Entries that others left are to be claimed from here on."""
    wanted: dict[str, int] = field(default_factory=dict)
    """Pending entries to fetch, with how often they were delivered."""
    claimed: set[str] = field(default_factory=set)
    """Those among them that another worker had."""

    @property
    def is_settled(self) -> bool:
        """Whether whatever comes from now on is the group's: it is there, or its place is known."""
        return self.was_joined or isinstance(self.origin, Place)


class Run(NamedTuple):
    """Raw entries of one stream, in order, after a gap if there is one. An entry that `times` lacks is a first
    delivery. `settled` are pending entries that exist no more, to be acknowledged."""

    track: Track
    gap: Gap | None
    entries: list[Any]
    times: Mapping[str, int]
    claimed: Collection[str]
    settled: Collection[str] = ()

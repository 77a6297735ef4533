"""What a worker knows of one stream of its group, and what comes out of a step.

Decides nothing: `membership` does.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from consumers.groups.inherit import Birth
from consumers.groups.record import Debt, Record
from consumers.groups.standing import Tally
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
    came_at: float | None = None
    """When this worker, who knows nothing of the group, first found that there is none."""
    raw: bytes = b""
    """The group's record as it stands in Redis, as far as this worker knows."""
    memory: Record | None = None
    """What this worker knows of the group, as it was certain at its last round."""
    draft: Record | None = None
    """What the last round found, to be written down."""
    edits: list[Callable[[Record], Record]] = field(default_factory=list)
    """What else is to change in the record, whoever has written it meanwhile."""
    urgent: bool = False
    """Nothing is handed out before that is written: it is known to nobody else."""
    written_at: float = float("-inf")
    tags: int = 0
    """How many consumers are there only to name a generation."""
    mine: set[Debt] = field(default_factory=set)
    """What this worker is about to hand out, or has handed out."""
    others: dict[Debt, float] = field(default_factory=dict)
    """What others have undertaken, and since when it is known."""
    ranges: list[Debt] = field(default_factory=list)
    """Skipped entries that this worker is to fetch."""
    skipped: list[str] = field(default_factory=list)
    """Some of them, which become pending with the next step."""
    behind: str | None = None
    """The next one behind those."""
    tally: Tally | None = None
    seen: bytes | None = None
    """The last new entry that this worker was given."""
    told: tuple[EntryId, EntryId] | None = None
    """The last entry delivered when the gap behind it was told, and up to where that gap reached."""
    rewound_since: float | None = None
    birth: Birth | None = None
    """A generation of the group is to be made."""
    birth_step: int = 0
    mark: EntryId | None = None
    """The entry to look for, whose absence would tell that the stream is another."""
    proof: tuple[EntryId, bool] | None = None
    """An entry that was looked for, and whether it was there."""
    verified: str = ""
    """The generation that the group had when this worker last looked."""
    gone_from: EntryId | None = None
    """The last entry that was known when stream or group turned out to be gone."""
    nameless: tuple[str, frozenset[str]] | None = None
    """The record's generation and those of the group, where they do not fit."""
    nameless_since: float = 0.0
    recover_from: str | None = None
    """Own pending entries are to be fetched from here on."""
    claim_from: str | None = None
    """Entries that others left are to be claimed from here on."""
    wanted: dict[str, int] = field(default_factory=dict)
    """Pending entries to fetch, with how often they were delivered."""
    claimed: set[str] = field(default_factory=set)
    """Those among them that another worker had."""
    idle: set[str] = field(default_factory=set)
    """Those among them that are claimed because nobody has acknowledged them in time."""
    found: list[str] = field(default_factory=list)
    """Those among them that are still in the stream, as of the step before."""

    def leave(self) -> None:
        """The group that this worker shared in is gone."""
        self.joined = False
        if self.memory is not None and self.gone_from is None:
            seen = EntryId.parse(self.seen) if self.seen is not None else self.memory.standing.mark
            self.gone_from = max(seen, self.memory.standing.mark)

    def forget_pending(self) -> None:
        """Whatever was about to be fetched is to be found anew."""
        self.wanted = {}
        self.claimed, self.idle = set(), set()
        self.found, self.skipped = [], []
        self.mine.difference_update(self.ranges)
        self.ranges = []

    def change(self, edit: Callable[[Record], Record], *, urgent: bool = False) -> None:
        """Change the record with the next step."""
        self.edits.append(edit)
        self.urgent = self.urgent or urgent

    @property
    def is_settled(self) -> bool:
        """Whether whatever comes from now on is the group's: it is there, or its place is known."""
        return self.was_joined or isinstance(self.origin, Place)


class Run(NamedTuple):
    """Raw entries of one stream, in order, after a gap if there is one. An entry that `times` lacks is a first
    delivery. `settled` are pending entries that exist no more, to be acknowledged. `debt` is what the gap pays."""

    track: Track
    gap: Gap | None
    entries: list[Any]
    times: Mapping[str, int]
    claimed: Collection[str]
    settled: Collection[str] = ()
    debt: Debt | None = None

"""Where a reader stands in one stream, what it knows of it, and what one read brings.

Decides what number a position has. Must never know commands, nor what an answer proves (`gaps` does).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from consumers.command import Command
from consumers.reading.gaps import Anchor, StreamFacts
from wire import ZERO_ID, EntryId, Gap

BEGINNING: Final = str(ZERO_ID)


@dataclass(slots=True, eq=False)
class Track:
    """One followed stream. `after` is the id of the last entry handed out or skipped, as text."""

    symbol: str
    key: bytes
    after: str
    anchor: Anchor
    look_now: bool = True
    wary: bool = False
    """Hand nothing out of it without a look."""
    barred: bool = False
    """The key holds no stream."""
    dropped: bool = False
    looked_at: float = 0.0
    rewound_since: float | None = None
    facts: StreamFacts | None = None
    """The stream when it was last looked at."""
    facts_at: float = 0.0
    first: EntryId | None = None
    """Its first entry when it was last found whole."""
    read_to: str = ""
    """The id of the last entry that was read, handed out or not."""
    number: int | None = None
    """The running number of that entry (see `gaps.numbered`), where it is known."""
    asked_from: str = ""
    """The position from which was read to there."""
    number_before: int | None = None
    """Its running number."""
    sure_to: str = ""
    """Up to here the numbers were right when they were last compared with the stream."""
    is_doubtful: bool = False
    """Entries were deleted since, and not yet looked for up to the end of the stream."""
    is_untouched: bool = True
    """Not looked at since the connection is new, or since a pause."""
    proven_in: int = -1
    """The pause since which an entry at the position, or a look, has proven that nothing was gone."""
    is_forgotten: bool = False
    """The stream ended before the position after such a time: what was behind it may be lost as well."""
    at_end: bool = False
    """On this connection a look has found nothing behind the position, nor at it: no entry need stand there."""

    @property
    def number_here(self) -> int | None:
        """The running number of the position, known where all that was read has been handed out, or none of it."""
        if self.read_to == self.after:
            return self.number
        return self.number_before if self.asked_from == self.after else None

    @property
    def is_provable(self) -> bool:
        """Whether an entry must stand at the position, if nothing behind it is gone."""
        return self.anchor is not Anchor.CHOSEN and not self.is_taken_on_trust

    @property
    def is_taken_on_trust(self) -> bool:
        """Whether neither an entry at the position nor a number could prove that nothing behind it is gone."""
        return (self.anchor is Anchor.CHOSEN or self.at_end) and self.number_here is None

    def read_on(self, read_to: str, number: int | None) -> None:
        """So far was read from the position on; that entry has this number."""
        self.asked_from, self.number_before = self.after, self.number_here
        self.read_to, self.number = read_to, number

    def lose_end(self) -> None:
        """Note that the stream has lost its last entries, as a server leaves it that has forgotten some.

        Who waited at its end has had them all, and goes on with what comes next. Who was away, or behind, cannot
        know: unless the position comes back, what comes next stands behind a hole.
        """
        if self.is_untouched:
            self.is_forgotten = True
        self.at_end = not self.is_forgotten

    def move_to(self, after: str) -> None:
        """Read on from here."""
        self.after = after
        # At the beginning of a stream begun anew no entry has been seen.
        self.anchor = Anchor.CHOSEN if after == BEGINNING else Anchor.SEEN


class Read(NamedTuple):
    """What to ask next: the commands, and how to understand the replies.

    With `looked` not empty the commands are a transaction. Without any command there is nothing to read yet.
    """

    commands: tuple[Command, ...]
    tracks: tuple[Track, ...]
    by_key: Mapping[bytes, Track]
    looked: tuple[Track, ...]
    per_stream: int
    pauses: int
    """How many reads so far were not asked at once when the one before was answered."""


class Run(NamedTuple):
    """Raw entries of one stream, in order, after a gap if there is one."""

    track: Track
    gap: Gap | None
    entries: list[Any]
    after: str | None = None
    """Where the position is when the gap has been handed over."""

    def pass_gap(self) -> None:
        """Move the position behind the gap; whoever hands it over does so, that it is told once and not less."""
        if self.after is not None:
            self.track.move_to(self.after)

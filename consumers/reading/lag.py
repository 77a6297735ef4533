"""How far behind a reader is, in entries and in venue time.

Decides what follows from the stream's own bookkeeping and what must be counted entry by entry. Must never ask
the server itself. The server's bookkeeping for groups (`lag` of XINFO GROUPS) is null after deletions and knows
nothing of a reader without a group; the running number that a reader keeps does both.
"""

from typing import Final, NamedTuple

import msgspec

from consumers.reading.gaps import StreamFacts, Verdict, judge
from consumers.reading.track import Track
from wire import EntryId

COUNT_MAX: Final = 10_000
"""Entries that are counted one by one at most: each costs the server and the line some 100 bytes."""
PAGE: Final = 1_000

_MS: Final = 1e6


class Lag(msgspec.Struct, frozen=True):
    """What one symbol's stream held, when it was asked, behind the last item that was handed out.

    `entries` counts quotes and gap markers that are there and not yet handed out, not those that retention
    took; `is_exact` is False when there are at least so many. `ms` is the venue time, in milliseconds by entry
    ids, from the position (or from the first entry there is, where that is later) to the last entry; 0 without
    entries.
    """

    symbol: str
    entries: int
    is_exact: bool
    ms: float


class Span(NamedTuple):
    """Entries to be counted: those after `low`, up to and including `high`."""

    low: EntryId
    high: EntryId


def assess(track: Track, position: EntryId, facts: StreamFacts | None) -> tuple[Lag, Span | None]:
    """The lag of a reader who has handed out everything up to this position, and what must be added to it."""
    symbol = track.symbol
    nothing = Lag(symbol, 0, is_exact=True, ms=0.0)
    if facts is None or facts.length == 0:
        return nothing, None
    verdict = judge(position, track.anchor, facts)
    if verdict is Verdict.REWOUND and facts.first == track.first is not None:
        return nothing, None  # The same stream without its end, which was read.
    first = facts.first
    if first is not None and (verdict is Verdict.REWOUND or first > position):
        ms = (facts.last.time_ns - first.time_ns) / _MS
        return Lag(symbol, facts.length, is_exact=True, ms=max(ms, 0.0)), None
    if position >= facts.last:
        return nothing, None
    ms = max((facts.last.time_ns - position.time_ns) / _MS, 0.0)
    read_to = EntryId.parse(track.read_to) if track.read_to else position
    if (
        track.number is None
        or track.is_doubtful
        or not _is_unbroken(read_to, track.number, track.facts, facts)
    ):
        return Lag(symbol, 0, is_exact=True, ms=ms), Span(position, facts.last)
    behind = (facts.added or 0) - track.number
    return Lag(symbol, behind, is_exact=True, ms=ms), None if read_to <= position else Span(position, read_to)


def _is_unbroken(read_to: EntryId, number: int, before: StreamFacts | None, facts: StreamFacts) -> bool:
    """Whether everything that was ever appended behind what was read is still there."""
    if (
        facts.added is None
        or facts.deleted is None
        or facts.added < number
        or before is None
        or facts.deleted != before.deleted
    ):
        return False
    return facts.deleted <= read_to and facts.first is not None and facts.first <= read_to

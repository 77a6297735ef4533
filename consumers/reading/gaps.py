"""Whether a reader has missed something that its stream no longer holds.

Decides from a reader's position and what `XINFO STREAM` says. Must never know connections, or when it is asked.

Plain XREAD is silent about both losses: entries trimmed before they were read are just not there, and a stream
that was deleted and begun anew with smaller ids answers nothing, for ever. Facts from
https://redis.io/docs/latest/commands/xinfo-stream/; `entries-added` exists since Redis 7.0. `max-deleted-entry-id`
is no help here: XDEL raises it, trimming does not (tried on Redis 7.0 and Valkey 9.1).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from wire import ZERO_ID, EntryId, Gap

TRIMMED = "trimmed"
STREAM_RECREATED = "stream_recreated"

_NEVER = b"0-0"


class Anchor(Enum):
    """How a position is known, and so what its absence from the stream proves."""

    SEEN = "seen"
    """The stream itself gave it to this reader."""
    CLAIMED = "claimed"
    """The caller brought it, presumably saved from an earlier run."""
    CHOSEN = "chosen"
    """A time, or the very beginning: no entry need ever have stood there."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """A stream at one moment. `first` is None when it holds no entry; `added` is None before Redis 7.0.

    `deleted` is the largest id that XDEL ever took, None before Redis 7.0.
    """

    first: EntryId | None
    last: EntryId
    length: int
    added: int | None
    deleted: EntryId | None = None


class Verdict(Enum):
    """What became of the entries after a position."""

    INTACT = "intact"
    """All that ever followed it can still be read."""
    MISSING = "missing"
    """There is no such stream."""
    TRIMMED = "trimmed"
    """Entries were deleted, and those after the position may be among them."""
    REPLACED = "replaced"
    """Another stream of that name, whose ids are larger."""
    REWOUND = "rewound"
    """Another stream of that name, whose ids have not reached the position."""


def judge(position: EntryId, anchor: Anchor, facts: StreamFacts | None) -> Verdict:
    """What became of the entries after this position."""
    if facts is None:
        return Verdict.MISSING
    if anchor is not Anchor.CHOSEN and facts.last < position:
        return Verdict.REWOUND
    # Trimming takes the oldest first, so a first entry at or before the position covers all after it, and so does
    # one that follows the position with no id between them.
    if position == ZERO_ID or position >= facts.last or _reaches(facts.first, position):
        return Verdict.INTACT
    if facts.added is not None and facts.added == facts.length:
        # Nothing was ever deleted here, so an entry that we did read here before stood in another stream.
        return Verdict.REPLACED if anchor is Anchor.SEEN else Verdict.INTACT
    return Verdict.TRIMMED


def _reaches(first: EntryId | None, position: EntryId) -> bool:
    return first is not None and (first <= position or first == position.successor())


def hole(
    symbol: str, position: EntryId, facts: StreamFacts, verdict: Verdict, number: int | None = None
) -> Gap:
    """The gap that a reader reports for this verdict, from its position to the first entry there is now.

    After a rewind `to_ns` lies before `from_ns`. `number` is the running number of the position (see `numbered`);
    with it, trimming is told with the number of entries that are gone.
    """
    missing = None
    if verdict is Verdict.TRIMMED and number is not None and facts.added is not None:
        # All that is left stands behind the position, so what else ever followed it is gone.
        gone = facts.added - number - facts.length
        missing = gone if gone > 0 else None
    return Gap(
        symbol=symbol,
        id=None,
        from_ns=position.time_ns,
        to_ns=(facts.first or facts.last).time_ns,
        reason=TRIMMED if verdict is Verdict.TRIMMED else STREAM_RECREATED,
        missing=missing,
    )


def numbered(
    position: EntryId, number: int | None, facts: StreamFacts, found: int, *, is_all: bool
) -> int | None:
    """The running number of the last of `found` entries that were read after this position, at these facts.

    The running number of an entry counts every entry that its stream was ever given, up to itself; it is what
    `entries-added` was when the entry was the last. None where that cannot be known. `number` is that of the
    position as far as known; `is_all` says that what was found reaches to the end of the stream.
    """
    if facts.added is None:
        return None
    if is_all:
        return facts.added
    if facts.deleted is not None and facts.deleted > position:
        return None  # Entries are missing in between, and do not show in what was found.
    if facts.first is not None and facts.first > position:
        return facts.added - facts.length + found
    return None if number is None else number + found


def read_facts(reply: Any) -> StreamFacts | None:
    """The facts in a RESP2 reply of XINFO STREAM; None where it is an error, such as `no such key`."""
    if not isinstance(reply, list):
        return None
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    first = fields[b"first-entry"]
    added = fields.get(b"entries-added")
    deleted = fields.get(b"max-deleted-entry-id")
    return StreamFacts(
        first=EntryId.parse(first[0]) if first else None,
        last=EntryId.parse(fields[b"last-generated-id"]),
        length=int(fields[b"length"]),
        added=None if added is None else int(added),
        deleted=ZERO_ID if deleted == _NEVER else None if deleted is None else EntryId.parse(deleted),
    )

"""Whether a reader has missed something that its stream no longer holds.

Decides from a reader's position and what `XINFO STREAM` says. Must never know connections, or when it is asked.

Plain XREAD is silent about both losses: entries trimmed before they were read are just not there, and a stream
that was deleted and begun anew with smaller ids answers nothing, for ever. Facts from
https://redis.io/docs/latest/commands/xinfo-stream/; `entries-added` exists since Redis 7.0. `max-deleted-entry-id`
is no help here: XDEL raises it, trimming does not (tried on Redis 7.0 and Valkey 9.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from wire import ZERO_ID, EntryId, Gap

TRIMMED = "trimmed"
STREAM_RECREATED = "stream_recreated"
REDIS_LOST = "redis_lost"

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
    FORGOTTEN = "forgotten"
    """The server has lost the entry at the position, and perhaps others after it, and went on with later ones."""


_REASONS = {Verdict.TRIMMED: TRIMMED, Verdict.FORGOTTEN: REDIS_LOST}


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


@dataclass(frozen=True, slots=True)
class Sight:
    """What one transaction showed of a stream: its facts, and what stands at and behind a position.

    `stands` says whether an entry stands at the position, `nearest` is the first of the `found` entries behind it;
    `is_all` says that they reach to the end of the stream.
    """

    facts: StreamFacts
    stands: bool
    nearest: EntryId | None
    found: int
    is_all: bool


def weigh(
    position: EntryId,
    anchor: Anchor,
    sight: Sight,
    number: int | None,
    *,
    before: StreamFacts | None = None,
    at_end: bool = False,
    most: float = math.inf,
    doubted_from: EntryId | None = None,
) -> tuple[Verdict, int | None]:
    """What became of the entries after this position, and how many of them are gone, where that can be known.

    `number` is the running number of the position (see `numbered`), `before` the stream as it was when it was last
    looked at, `most` how many entries one stream can have been given since. `at_end` says that nothing need stand
    at the position, nor behind it: that was seen, and not enough time has passed for anything to come and go.
    `doubted_from` is where the numbers were last right, if XDEL has taken entries since.
    """
    facts = sight.facts
    verdict = judge(position, anchor, facts)
    if verdict is Verdict.TRIMMED and is_another(facts, before, most):
        return Verdict.REPLACED, None
    gone = _gone(position, number, sight)
    if verdict is Verdict.TRIMMED and (gone == 0 or (at_end and number is None)):
        verdict = Verdict.INTACT
    if verdict is not Verdict.INTACT:
        return verdict, gone if gone is not None and gone > 0 else None
    if not (sight.stands or at_end or anchor is Anchor.CHOSEN or position >= facts.last):
        # Its absence proves nothing where no id fits between, or where XDEL took it and the numbers are right.
        is_next = sight.nearest == position.successor()
        is_deleted = facts.deleted is not None and facts.deleted >= position
        is_trimmed = facts.first is not None and facts.first > position
        is_deleted = is_deleted and (facts.deleted == position or gone == 0)
        if not (is_next or is_deleted or (is_trimmed and gone == 0)):
            return _other(position, facts), None
    if gone is not None and gone > 0:
        return (_other(position, facts), None) if is_another(facts, before, most) else (Verdict.TRIMMED, gone)
    # Whatever the numbers say: what XDEL took behind the position stood there, and was not read.
    is_cut = anchor is not Anchor.CHOSEN and deleted_since(position, facts, before) is not None
    if gone is not None and gone < 0 and before is not None:
        if before.first != facts.first:
            return Verdict.REPLACED, None
        # The numbers are those of another stream, and cannot say whether it was read before it went.
        is_cut = is_cut or (doubted_from is not None and (facts.deleted or ZERO_ID) > doubted_from)
    return Verdict.TRIMMED if is_cut else Verdict.INTACT, None


def is_another(facts: StreamFacts, before: StreamFacts | None, most: float) -> bool:
    """Whether it lost lower entries than before, was given fewer, or more than one stream can have been given."""
    if before is None or facts.added is None or before.added is None:
        return False
    came = facts.added - before.added
    return not 0 <= came <= most or (facts.deleted or ZERO_ID) < (before.deleted or ZERO_ID)


def deleted_since(position: EntryId, facts: StreamFacts, before: StreamFacts | None) -> EntryId | None:
    """The last entry that XDEL took behind this position, unless that was known before; None before Redis 7.0."""
    known = None if before is None else before.deleted
    is_news = facts.deleted is not None and facts.deleted > position and facts.deleted != known
    return facts.deleted if is_news else None


def span(
    position: EntryId,
    sure_to: EntryId,
    sight: Sight,
    verdict: Verdict,
    found: Sequence[EntryId],
    *,
    before: StreamFacts | None,
    most: float,
    is_doubted: bool,
) -> tuple[EntryId, EntryId | None]:
    """From where to where the entries stood of which this is the verdict.

    `found` stand behind the position; up to `sure_to` the numbers were right at the last look. `is_doubted` says
    that entries between the two may have gone since.
    """
    facts = sight.facts
    is_cut = is_doubted or is_another(facts, before, most)
    # Only entries that went from the front stood behind the position for certain.
    is_front = not (is_cut or sight.stands) and verdict in _REASONS
    since = position if is_front else min(position, sure_to)
    deleted = deleted_since(position, facts, before)
    if deleted is not None:
        # What went with it may bear a later time, such as that of which a marker told.
        deleted = next((entry_id for entry_id in found if entry_id > deleted), facts.last)
    # Where entries still stand before the position, what is gone stood between or behind those that were read.
    is_behind = sight.stands or since < position
    ends = (sight.nearest, deleted, position if is_behind else None)
    return since, max((end for end in ends if end is not None), default=None)


def _other(position: EntryId, facts: StreamFacts) -> Verdict:
    """What a stream is called that should hold the position, and does not."""
    return Verdict.FORGOTTEN if facts.first is not None and facts.first <= position else Verdict.REPLACED


def _gone(position: EntryId, number: int | None, sight: Sight) -> int | None:
    """How many entries ever followed the position and are not there; None where that cannot be known.

    A negative number says that the stream counts from less: the server has forgotten some, or it is another stream.
    """
    facts = sight.facts
    if number is None or facts.added is None:
        return None
    if position == ZERO_ID or facts.first is None or facts.first > position:
        left = facts.length
    elif sight.is_all:
        left = sight.found
    else:
        return None
    return facts.added - number - left


def hole(
    symbol: str,
    position: EntryId,
    facts: StreamFacts,
    verdict: Verdict,
    missing: int | None = None,
    to: EntryId | None = None,
) -> Gap:
    """The gap that a reader reports for this verdict, from its position to the first entry there is, or to another.

    After a rewind `to_ns` lies before `from_ns`.
    """
    return Gap(
        symbol=symbol,
        id=None,
        from_ns=position.time_ns,
        to_ns=(to or facts.first or facts.last).time_ns,
        reason=_REASONS.get(verdict, STREAM_RECREATED),
        missing=missing if verdict is Verdict.TRIMMED else None,
    )


def numbered(position: EntryId, number: int | None, sight: Sight) -> int | None:
    """The running number of the last of the entries that were found after this position.

    The running number of an entry counts every entry that its stream was ever given, up to itself; it is what
    `entries-added` was when the entry was the last. None where that cannot be known. `number` is that of the
    position as far as known.
    """
    facts = sight.facts
    if facts.added is None or position > facts.last:
        return None  # What comes next may still stand before the position.
    if sight.is_all:
        return facts.added
    if number is not None and position != ZERO_ID and facts.first is not None and facts.first <= position:
        return number + sight.found
    if facts.deleted is not None and facts.deleted > position:
        return None  # Entries are missing in between, and do not show in what was found.
    if facts.first is not None and facts.first > position:
        return facts.added - facts.length + sight.found
    return None


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


def is_there(reply: Any) -> bool:
    """Whether the reply of XRANGE for one id holds an entry."""
    return isinstance(reply, list) and bool(reply)

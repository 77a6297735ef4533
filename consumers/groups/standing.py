"""Where a group stands in a stream, and where it is to be made anew when it is gone.

Decides from what Redis says now and what this worker saw on its last round. Must never know connections.

A group is made where everything before it was acknowledged for certain when this worker last looked: before the
oldest pending entry, or at the last entry delivered if nothing was pending. What was delivered since comes again;
nothing is skipped. Only a stream that is another one than before is read from its start, behind a gap.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from consumers.reading.gaps import Anchor, StreamFacts, Verdict, hole, judge
from consumers.reading.start import Place, before
from wire import ZERO_ID, EntryId, Gap


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group at one moment. `last` is the last entry delivered to any member; `read` is how many were, or None."""

    last: EntryId
    members: int
    read: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker remembers of its last round.

    All up to `floor` was delivered and acknowledged. `mark` is the entry next to it whose presence proves that
    the stream is still the same; `anchor` says whether it ever stood there.
    """

    floor: EntryId
    mark: EntryId
    anchor: Anchor
    first: EntryId | None
    is_absent: bool = False
    """The mark was looked for, and is not there."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A moment at which the number of undelivered entries was certain: `left`. The stream had had `added` entries
    by then, and the group `read`."""

    last: EntryId
    left: int
    added: int
    read: int | None


class Loss(NamedTuple):
    """What a group can be given no more: `trimmed` went from the front of the stream, and perhaps from within;
    `deleted` went only from within, by XDEL, which took `upto` last if that is news."""

    trimmed: Gap | None
    deleted: Gap | None
    upto: EntryId | None


class Missed(NamedTuple):
    """What a worker can fetch no more of entries that the group had skipped: all before `trimmed_to`, and some of
    those up to `deleted`, which XDEL took last."""

    gap: Gap
    trimmed_to: EntryId | None
    deleted: EntryId | None


class Beginning(NamedTuple):
    """Where a group is to be made, what Redis may count as read there, and the gap that goes before."""

    after: EntryId
    read: int | None = None
    gap: Gap | None = None


def read_group(reply: Any, name: bytes) -> GroupFacts | None:
    """The group of this name in a RESP2 reply of XINFO GROUPS; None where there is none, or no stream."""
    if not isinstance(reply, list):
        return None
    for raw in reply:
        fields = dict(zip(raw[::2], raw[1::2], strict=True))
        if fields[b"name"] == name:
            return GroupFacts(
                last=EntryId.parse(fields[b"last-delivered-id"]),
                members=int(fields[b"consumers"]),
                read=fields.get(b"entries-read"),
            )
    return None


def stand(group: GroupFacts, facts: StreamFacts, oldest_pending: EntryId | None) -> Standing:
    """What to remember of a round."""
    if oldest_pending is not None:
        return Standing(before(oldest_pending), oldest_pending, Anchor.SEEN, facts.first)
    last = group.last
    is_seen = last != ZERO_ID and (facts.last == last or (facts.first is not None and facts.first <= last))
    return Standing(last, last, Anchor.SEEN if is_seen else Anchor.CHOSEN, facts.first)


def having_seen(standing: Standing, seen: EntryId | None) -> Standing:
    """The same, with an entry as mark that this worker was given since, if it is a later one."""
    if seen is None or (seen <= standing.mark and standing.anchor is Anchor.SEEN):
        return standing
    return replace(standing, mark=seen, anchor=Anchor.SEEN)


def marked(standing: Standing, facts: StreamFacts) -> Standing:
    """The same, known by the last entry of the stream: the latest that can tell this stream from another."""
    if facts.last == ZERO_ID:
        return standing
    return replace(standing, mark=facts.last, anchor=Anchor.SEEN, first=facts.first)


def is_another(standing: Standing, facts: StreamFacts) -> bool:
    """Whether this is another stream than the one that was stood in.

    A server that was emptied and sent the youngest entries again may have a marker before the mark, and a hole
    there.
    """
    if standing.is_absent and facts.first is not None and facts.first <= standing.mark <= facts.last:
        return True
    verdict = judge(standing.mark, standing.anchor, facts)
    return verdict is Verdict.REPLACED or (verdict is Verdict.REWOUND and is_rewound(standing, facts))


def is_rewound(standing: Standing, facts: StreamFacts) -> bool:
    """Whether the stream ends before what was seen in it: another stream, or one that is being filled again."""
    if facts.first is not None and facts.first == standing.first:
        # The same stream without its last entries, as a server leaves it that restarts from a truncated file.
        return False
    return judge(standing.mark, standing.anchor, facts) is Verdict.REWOUND


def replaced(symbol: str, standing: Standing, facts: StreamFacts) -> Gap:
    """The gap where this is another stream: up to what is left of it, if XDEL took some of that, too."""
    upto = None
    if facts.first is not None and facts.deleted is not None and facts.deleted > standing.floor:
        upto = max(facts.first, facts.deleted)
    return hole(symbol, standing.floor, facts, judge(standing.mark, standing.anchor, facts), to=upto)


def begin(place: Place, facts: StreamFacts) -> Beginning:
    """Where a group that never was begins."""
    after = place.after if place.quote is None else before(place.after)
    read = None
    if facts.added is not None:
        # Only with this number can Redis tell a lag from the first entry on.
        read = facts.added if after >= facts.last else None
        if facts.first is None or after < facts.first:
            read = facts.added - facts.length
    return Beginning(after, read)


def begin_again(symbol: str, standing: Standing, facts: StreamFacts) -> Beginning:
    """Where a group that is gone begins again."""
    verdict = judge(standing.mark, standing.anchor, facts)
    if is_another(standing, facts):
        # Redis 6.2 counts no entries, and refuses to be told.
        read = None if facts.added is None else 0
        return Beginning(ZERO_ID, read, replaced(symbol, standing, facts))
    if verdict is Verdict.INTACT and facts.first is not None and standing.floor < facts.first:
        # All that the stream holds is yet to be handled. From its very start, so that no member takes what was
        # trimmed earlier, after it had been handled, for a loss.
        return Beginning(ZERO_ID)
    return Beginning(standing.floor)


def trimmed(symbol: str, group: GroupFacts, facts: StreamFacts, tally: Tally | None) -> Gap | None:
    """The gap between the last entry delivered and the first there is, if entries between them are gone.

    `missing` is told where it is certain: if nothing was delivered since the tally, or to no other member.
    """
    if judge(group.last, Anchor.CHOSEN, facts) is not Verdict.TRIMMED:
        return None
    gap = hole(symbol, group.last, facts, Verdict.TRIMMED)
    if tally is None or facts.added is None:
        return gap
    delivered = None
    if group.last == tally.last:
        delivered = 0
    elif group.members == 1 and group.read is not None and tally.read is not None:
        delivered = group.read - tally.read
    if delivered is None:
        return gap
    missing = tally.left + facts.added - tally.added - delivered - facts.length
    if missing == 0:
        # Retention took exactly what had been delivered.
        return None
    return _with_missing(gap, missing) if missing > 0 else gap


def deleted_behind(place: EntryId, facts: StreamFacts, known: EntryId | None) -> EntryId | None:
    """The last entry that XDEL took from behind this place, unless it lies within what is `known`.

    Redis keeps the largest id that XDEL ever took, and nothing else of what it took. Behind a group's place all
    is unread, so this is certain. Once the group has passed it, it may as well have been handled before it went,
    and nothing that Redis counts can tell: `entries-read` is put right by what is left.
    """
    if known is None or facts.deleted is None or facts.deleted <= max(known, place):
        return None
    return facts.deleted


def lost(
    symbol: str, group: GroupFacts, facts: StreamFacts, gap: Gap | None, upto: EntryId | None
) -> Loss | None:
    """What is to be told where `gap` was trimmed, and XDEL took unread entries, the last of them `upto`.

    How many is not told where entries are left in between: they may be taken later, and would not show.
    """
    if upto is None:
        return None if gap is None else Loss(gap, None, None)
    if gap is not None and (facts.first is None or facts.first > upto):
        return Loss(gap, None, upto)
    both = hole(symbol, group.last, facts, Verdict.TRIMMED, to=max(upto, facts.first or upto))
    return Loss(None, both, upto) if gap is None else Loss(both, None, upto)


def take_tally(group: GroupFacts, facts: StreamFacts) -> Tally | None:
    """The tally of this moment, if the number can be told."""
    if facts.added is None:
        return None
    if group.last >= facts.last or facts.first is None:
        left = 0
    elif group.last < facts.first:
        left = facts.length
    else:
        return None
    return Tally(group.last, left, facts.added, group.read)


def missed_between(
    symbol: str, after: str, upto: str, facts: StreamFacts, known: EntryId | None
) -> Missed | None:
    """What is gone of entries that were skipped there; XDEL is news where it took more than is `known`."""
    start, end = EntryId.parse(after), EntryId.parse(upto)
    first = end if facts.first is None else min(facts.first, end)
    trimmed_to = first if first > start.successor() else None
    is_news = known is not None and facts.deleted is not None and max(known, start) < facts.deleted <= end
    deleted = facts.deleted if is_news else None
    if trimmed_to is None and deleted is None:
        return None
    gap = Gap(
        symbol=symbol,
        id=None,
        from_ns=start.time_ns,
        to_ns=max(trimmed_to or start, deleted or start).time_ns,
        reason=Verdict.TRIMMED.value,
        missing=None,
    )
    return Missed(gap, trimmed_to, deleted)


def gone(symbol: str, ids: list[str]) -> Gap:
    """The gap for entries that were pending and are no longer in the stream."""
    entries = sorted(EntryId.parse(entry_id) for entry_id in ids)
    return Gap(
        symbol=symbol,
        id=None,
        from_ns=entries[0].time_ns,
        to_ns=entries[-1].time_ns,
        reason=Verdict.TRIMMED.value,
        missing=len(entries),
    )


def _with_missing(gap: Gap, missing: int) -> Gap:
    return Gap(
        symbol=gap.symbol, id=None, from_ns=gap.from_ns, to_ns=gap.to_ns, reason=gap.reason, missing=missing
    )

"""Who knows better where a group stands: Redis' record of it, a worker's memory, or the group itself.

Decides where a group that is gone begins again and what it then owes, and whether a group that is there is the one
that the record means. Must never ask Redis. A newcomer, who knows nothing, has no say where anybody knows; whoever
finds the group further on than its own knowledge reaches, as after a newcomer that was alone for a while, puts what
lies between on the group's account, so that it is handed out, or told, after all.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from consumers.groups.record import Debt, Record, first_record, id_at, owed_gaps
from consumers.groups.standing import (
    GroupFacts,
    Standing,
    begin,
    begin_again,
    deleted_behind,
    is_another,
    marked,
    replaced,
)
from consumers.reading.entry import decode_entry
from consumers.reading.gaps import STREAM_RECREATED, Anchor, StreamFacts, Verdict, hole, judge
from consumers.reading.start import Place, before
from wire import ZERO_ID, BadEntry, EntryId, Gap

LOSSES: Final = frozenset({"redis_lost", "stream_lost"})
"""What the daemon's marker says at the beginning of a stream in whose place another one stood."""


class Birth(NamedTuple):
    """A generation to be made: the record that begins it, then the group where there is none (`after`, and what
    Redis may count as `read` there), then the consumer that names it."""

    record: Record
    after: EntryId | None
    read: int | None = None


def together(
    symbol: str, record: Record | None, memory: Record | None, facts: StreamFacts, me: str
) -> Record | None:
    """What Redis and this worker know, the better of the two, or both where neither knows of the other."""
    if record is None or memory is None:
        return record if memory is None else memory
    if record.knows(memory.generation):
        # Also where the memory is of a later place: the record goes back when skipped entries are fetched.
        return record
    if memory.knows(record.generation):
        return memory
    # The group was begun by somebody who knew of none: what we knew of was skipped up to where it began.
    skipped = _skipped(symbol, memory, memory.standing, EntryId.parse(record.root), facts, me)
    return record.with_past(*memory.past, memory.generation).owing(*skipped)


def reborn(
    symbol: str,
    known: Record,
    standing: Standing,
    facts: StreamFacts,
    head: Sequence[Any],
    generation: str,
    me: str,
) -> Birth:
    """Where a group that is gone begins again. `head` are the first entries of the stream.

    A server that is emptied a second time may begin with the same id, the daemon's marker, and is then taken for
    the one before. What that marker speaks of and lies behind the place is told.
    """
    beginning = begin_again(symbol, standing, facts)
    heir = known.heir(generation)
    if beginning.gap is None:
        heir = heir.delivering(beginning.after)
    else:
        heir = heir.elsewhere()
        heir = heir.at(_chosen(beginning.after, facts)).knowing(facts.deleted)
        heir = heir.owing(*owed_gaps(me, [beginning.gap]))
    lost = _lost(symbol, head)
    if lost is not None and facts.first is not None and beginning.after >= facts.first:
        upto = EntryId.parse(id_at(lost.to_ns))
        if upto > standing.floor:
            heir = heir.owing(Debt(me, str(standing.floor), str(upto), STREAM_RECREATED))
    return Birth(heir, beginning.after, beginning.read)


def born(
    symbol: str, place: Place, facts: StreamFacts, head: Sequence[Any], generation: str, me: str
) -> Birth:
    """Where a group that nobody knows begins. `head` are the first entries of the stream.

    When a marker among them says that Redis lost what stood there before, it may have lost the group, too, and then
    nobody knows how far that had come: everything up to the place is told as missing.
    """
    beginning = begin(place, facts)
    record = first_record(generation, _chosen(beginning.after, facts), beginning.after).knowing(facts.deleted)
    record = _with_loss(record, symbol, facts, head, beginning.after, me)
    return Birth(record, beginning.after, beginning.read)


def adopted(
    symbol: str,
    group: GroupFacts,
    facts: StreamFacts,
    now: Standing,
    head: Sequence[Any],
    generation: str,
    me: str,
) -> Record:
    """What is to be written down of a group that is there and that nobody knows, before it is named.

    One of a version that kept no records; or one that somebody made after Redis had lost everything.
    """
    record = first_record(generation, now, group.last).knowing(facts.deleted)
    return _with_loss(record, symbol, facts, head, group.last, me)


def renamed(
    symbol: str,
    known: Record,
    standing: Standing,
    group: GroupFacts,
    facts: StreamFacts,
    now: Standing,
    tags: Collection[str],
    generation: str,
    me: str,
) -> Record:
    """What is to be written down of a group that is there and is not the one that is known, before it is named.

    `now` is where it stands by itself.
    """
    heir = known.heir(generation)
    if not known.knows_none(tags):
        # An earlier stream is back, and with it its group, which knows what was acknowledged there and what was
        # not. What stood in the later stream went with that.
        after, upto = min(standing.floor, group.last), max(standing.mark, facts.last)
        return heir.owing(Debt(me, str(after), str(upto), STREAM_RECREATED)).at(now).knowing(facts.deleted)
    if is_another(standing, facts):
        heir = heir.elsewhere()
    heir = heir.owing(*_skipped(symbol, known, standing, group.last, facts, me))
    if is_another(standing, facts):
        known_to = None if facts.deleted is None else min(facts.deleted, group.last)
        return heir.at(_chosen(ZERO_ID, facts)).knowing(known_to)
    deleted = deleted_behind(standing.floor, facts, known.deleted_to)
    # With what was skipped it is told what XDEL took of that.
    return heir if deleted is None or deleted > group.last else heir.knowing(deleted)


def _skipped(
    symbol: str, known: Record, standing: Standing, upto: EntryId, facts: StreamFacts, me: str
) -> list[Debt]:
    """What somebody who stands here has missed in a group that began, or was found, at `upto`."""
    after = standing.floor
    gap: Gap | None = None
    if is_another(standing, facts):
        gap, after = replaced(symbol, standing, facts), ZERO_ID
    elif upto > after:
        is_trimmed = judge(after, Anchor.CHOSEN, facts) is Verdict.TRIMMED
        deleted = deleted_behind(after, facts, known.deleted_to)
        ends = [facts.first or facts.last] if is_trimmed else []
        ends += [] if deleted is None else [min(deleted, upto)]
        gap = hole(symbol, after, facts, Verdict.TRIMMED, to=max(ends)) if ends else None
    debts = owed_gaps(me, [gap])
    if upto > after and facts.first is not None and facts.first <= upto:
        # From before the first there is: if that is another when they are looked for, some were trimmed.
        debts.append(Debt(me, str(max(after, before(facts.first))), str(upto)))
    return debts


def taken(record: Record, debt: Debt, me: str) -> Record:
    """With this debt undertaken by another worker."""
    return record.without(debt, msgspec.structs.replace(debt, by=me))


def handed(record: Record, debt: Debt, last: str | None) -> Record:
    """With the entries of this debt pending in the group up to `last`, or all of them.

    They lie before the floor, and would be forgotten with the group if that stayed where it is.
    """
    rest = None if last is None else msgspec.structs.replace(debt, after=last)
    floor = min(record.floor, debt.after, key=EntryId.parse)
    return msgspec.structs.replace(record.without(debt, rest), floor=floor)


def _chosen(after: EntryId, facts: StreamFacts) -> Standing:
    return marked(Standing(after, after, Anchor.CHOSEN, facts.first), facts)


def _with_loss(
    record: Record, symbol: str, facts: StreamFacts, head: Sequence[Any], place: EntryId, me: str
) -> Record:
    """The same, with all before the place as a gap if the stream begins with a marker of its loss."""
    lost = _lost(symbol, head)
    if lost is None or facts.first is None or place < facts.first:
        return record
    # The marker may reach beyond its own place, and is passed over, too.
    upto = max(min(place, facts.last), EntryId.parse(id_at(lost.to_ns)))
    return record.owing(Debt(me, str(ZERO_ID), str(upto), STREAM_RECREATED))


def _lost(symbol: str, head: Sequence[Any]) -> Gap | None:
    for raw_id, fields in head:
        try:
            item = decode_entry(symbol, raw_id.decode(), fields)
        except BadEntry:
            continue
        if isinstance(item, Gap) and item.reason in LOSSES:
            return item
    return None

"""What a group has handled, as it is kept in Redis where it outlives the group's workers, its streams and itself.

Decides how it is written down, and which of two who know a group differently knows better. Must never ask Redis.

A group in Redis says how far it has handed out entries, and nothing of where it came from: one that was destroyed
and made anew further on looks like one that has done its work. So each making of a group is a *generation* with a
random name. The record names it; in the group itself stands a consumer that is called after it and is never given
anything, so that a group which the record does not mean is known at sight. A generation that began where an earlier
one had handled everything is its heir, and lists it in `past`: whoever remembers one of those has nothing to add.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from consumers.groups.standing import Standing
from consumers.reading.gaps import STREAM_RECREATED, Anchor
from wire import ZERO_ID, EntryId, Gap

PAST_MAX: Final = 16
"""Generations that are listed. For who has slept through more, some entries come again."""
DEBTS_MAX: Final = 16
KEPT_S: Final = 30 * 86_400
"""A record that nobody has written for so long is forgotten by Redis."""
TAG: Final = "generation:"
"""What the consumer is called, before the generation."""


class Debt(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that some worker must still hand to its strategy: `by` has undertaken it.

    With a `reason` it is a gap, without one the entries after `after` up to and with `upto` that were skipped.
    """

    by: str
    after: str
    upto: str
    reason: str | None = None
    missing: int | None = None

    def gap(self, symbol: str) -> Gap:
        """What is to be told."""
        return Gap(
            symbol=symbol,
            id=None,
            from_ns=EntryId.parse(self.after).time_ns,
            to_ns=EntryId.parse(self.upto).time_ns,
            reason=self.reason or "",
            missing=self.missing,
        )


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One group in one stream. All up to `floor` was handled or told, but for the debts.

    `root` is where the oldest generation of `past` began. `mark` is an entry at or behind the floor; with `seen`
    it did stand in the stream, and `first` was the stream's first entry then. What XDEL took up to `deleted` was
    handled, or told, or went before there was a group; None where that is not known.
    """

    generation: str
    root: str
    floor: str
    mark: str
    seen: bool = False
    first: str | None = None
    past: tuple[str, ...] = ()
    debts: tuple[Debt, ...] = ()
    deleted: str | None = None

    @property
    def deleted_to(self) -> EntryId | None:
        """Up to where nothing that XDEL took is news."""
        return None if self.deleted is None else EntryId.parse(self.deleted)

    @property
    def standing(self) -> Standing:
        """The place, as `standing` reckons with it."""
        return Standing(
            EntryId.parse(self.floor),
            EntryId.parse(self.mark),
            Anchor.SEEN if self.seen else Anchor.CHOSEN,
            None if self.first is None else EntryId.parse(self.first),
        )

    def at(self, standing: Standing) -> "Record":
        """The same generation at this place."""
        return msgspec.structs.replace(
            self,
            floor=str(standing.floor),
            mark=str(standing.mark),
            seen=standing.anchor is Anchor.SEEN,
            first=None if standing.first is None else str(standing.first),
        )

    def raised(self, standing: Standing) -> "Record":
        """The same at this place, if it is a later one."""
        later = (standing.floor, standing.mark) > (EntryId.parse(self.floor), EntryId.parse(self.mark))
        return self.at(standing) if later else self

    def knowing(self, deleted: EntryId | None) -> "Record":
        """The same, to which nothing is news that XDEL took up to here."""
        return msgspec.structs.replace(self, deleted=None if deleted is None else str(deleted))

    def seeing(self, deleted: EntryId | None, last: EntryId) -> "Record":
        """The same, by a group that was given all up to `last`, in a stream of which XDEL took this last.

        Where XDEL took less than was known it is another stream, such as a copy that was put back. What it took of
        entries that are still owed is news to whoever looks for them.
        """
        known = self.deleted_to
        if known is not None and deleted is not None and deleted > known:
            owed = (debt for debt in self.debts if debt.reason is None)
            is_owed = any(EntryId.parse(debt.after) < deleted <= EntryId.parse(debt.upto) for debt in owed)
            if deleted > last or is_owed:
                return self
        return self.knowing(deleted)

    def knows(self, generation: str) -> bool:
        """Whether it is this generation or an heir of it."""
        return generation == self.generation or generation in self.past

    def knows_none(self, generations: Collection[str]) -> bool:
        """Whether it has to do with none of these."""
        return not any(self.knows(name) for name in generations)

    def owing(self, *debts: Debt) -> "Record":
        """With these debts; the two oldest gaps become one when there are too many."""
        there = {(debt.after, debt.upto, debt.reason) for debt in self.debts}
        new = (debt for debt in debts if (debt.after, debt.upto, debt.reason) not in there)
        found = [*self.debts, *new]
        while len(found) > DEBTS_MAX:
            found[:2] = [_joined(*found[:2])]
        return msgspec.structs.replace(self, debts=tuple(found))

    def without(self, debt: Debt, rest: Debt | None = None) -> "Record":
        """With this debt paid, or but for the rest of it."""
        found = tuple(
            other for other in (rest if has == debt else has for has in self.debts) if other is not None
        )
        return msgspec.structs.replace(self, debts=found)

    def delivering(self, after: EntryId) -> "Record":
        """For a group that is given all entries after this place: none of them is owed besides."""
        found = (debt for debt in self.debts if debt.reason is not None or EntryId.parse(debt.after) < after)
        return msgspec.structs.replace(self, debts=tuple(found))

    def elsewhere(self) -> "Record":
        """In another stream: what was skipped in the one before can only be told."""
        found = (
            debt if debt.reason else msgspec.structs.replace(debt, reason=STREAM_RECREATED)
            for debt in self.debts
        )
        return msgspec.structs.replace(self, debts=tuple(found))

    def with_past(self, *generations: str) -> "Record":
        """An heir of these, too."""
        known = [name for name in generations if not self.knows(name)]
        return msgspec.structs.replace(self, past=(*self.past, *dict.fromkeys(known))[-PAST_MAX:])

    def heir(self, generation: str) -> "Record":
        """The next generation, at the same place and with the same debts."""
        past = (*(name for name in self.past if name != generation), self.generation)[-PAST_MAX:]
        return msgspec.structs.replace(self, generation=generation, past=past)


def first_record(generation: str, place: Standing, root: EntryId = ZERO_ID) -> Record:
    """A generation without a past, which begins at this place."""
    return Record(generation, str(root), "0-0", "0-0").at(place)


def encode_record(record: Record) -> bytes:
    """As it stands in Redis."""
    return msgspec.json.encode(record)


def decode_record(reply: Any) -> tuple[bytes, Record | None]:
    """What a ZRANGE of the key found, as it stands there and as it is meant; what cannot be read counts as none."""
    if not isinstance(reply, Sequence) or isinstance(reply, bytes) or not reply:
        return b"", None
    return bytes(reply[0]), read_record(bytes(reply[0]))


def read_record(raw: bytes) -> Record | None:
    """What this means; None for nothing, or for what is no record."""
    try:
        record = msgspec.json.decode(raw, type=Record) if raw else None
        if record is not None:
            _ = record.standing, record.deleted_to, EntryId.parse(record.root)
            _ = [debt.gap("") for debt in record.debts]
    except (msgspec.MsgspecError, ValueError):
        return None
    return record


def tags(consumers: Any) -> frozenset[str]:
    """The generations that a reply of XINFO CONSUMERS shows."""
    if not isinstance(consumers, list):
        return frozenset()
    names = (dict(zip(raw[::2], raw[1::2], strict=True))[b"name"] for raw in consumers)
    return frozenset(tag for name in names if (tag := generation_of(name)) is not None)


def generation_of(name: bytes) -> str | None:
    """The generation that this consumer stands for; None for a worker."""
    text = name.decode("utf-8", "replace")
    return text.removeprefix(TAG) if text.startswith(TAG) else None


def owed_gaps(by: str, gaps: Collection[Gap | None]) -> list[Debt]:
    """These gaps as debts."""
    return [
        Debt(by, id_at(gap.from_ns), id_at(gap.to_ns), gap.reason, gap.missing)
        for gap in gaps
        if gap is not None
    ]


def id_at(time_ns: int) -> str:
    """An id that stands for this time, to the nanosecond."""
    ms, ns = divmod(time_ns, 1_000_000)
    return f"{ms}-{ns * 1_000}"


def _joined(first: Debt, second: Debt) -> Debt:
    """One gap for two debts: entries that nobody has fetched in all this time are told and not handed out."""
    after = min(first.after, second.after, key=EntryId.parse)
    upto = max(first.upto, second.upto, key=EntryId.parse)
    return Debt(first.by, after, upto, first.reason or second.reason or "trimmed")

"""Which segments exist, which of their records are handed out and settled, and which have to go.

Decides where the next record is written and read, when a segment is done, and what is shed. Must never touch a
file or read a clock.

Positions: a segment's first record has its `base`, the others follow by their ordinal, so a record that is lost
leaves a hole in the count and moves no other one.
"""

from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ingestor.spool.records import HEADER_BYTES, Found, Item, Record, record_bytes

FULL: Final = "spool_full"
TOO_OLD: Final = "spool_too_old"
MOST_SEGMENTS: Final = 4096
FIRST_NUMBER: Final = 1000
"""Of the first segment in an empty folder; those below are for what has to come before it."""
_SPANS: Final = 16
"""A segment spans at most this part of the age bound: what is shed for its age is whole segments."""


@dataclass(slots=True)
class Segment:
    """One file. `held` is neither settled nor lost; `unread` is held and not handed out; sizes in bytes."""

    number: int
    first: int
    base: int
    is_digest: bool = False
    is_damaged: bool = False
    is_sealed: bool = False
    end: int = HEADER_BYTES
    ordinals: int = 0
    written_quotes: int = 0
    held_records: int = 0
    held_quotes: int = 0
    unread_records: int = 0
    unread_quotes: int = 0
    in_flight: int = 0
    oldest_ns: int = 0
    newest_ns: int = 0
    begun_ns: int = 0
    written_ns: int = 0
    read_offset: int = HEADER_BYTES
    holes: dict[int, int] = field(default_factory=dict)
    untold: tuple[int, str] | None = None
    instead_of: list["Segment"] = field(default_factory=list)
    """Whose files go as soon as this one, a digest that tells of them, has a file or is done."""

    @property
    def is_begun(self) -> bool:
        """Whether any of its records was handed out."""
        return self.read_offset > HEADER_BYTES

    @property
    def is_done(self) -> bool:
        """Whether nothing in it waits for anything."""
        return self.read_offset >= self.end and self.in_flight == 0

    def is_in_hole(self, offset: int) -> bool:
        """Whether a byte was once found damaged: what was given up stays so, even if it reads well again."""
        return any(start <= offset < end for start, end in self.holes.items())

    def add(self, ordinal: int, before: int, quotes: int, at_ns: int, end: int) -> None:
        """One whole record more, which ends at a byte."""
        if self.held_records == 0:
            self.oldest_ns = self.newest_ns = at_ns
        self.oldest_ns, self.newest_ns = min(self.oldest_ns, at_ns), max(self.newest_ns, at_ns)
        self.ordinals, self.written_quotes, self.end = ordinal + 1, before + quotes, end
        self.held_records += 1
        self.held_quotes += quotes
        self.unread_records += 1
        self.unread_quotes += quotes


@dataclass(frozen=True, slots=True)
class Portion:
    """Items that go into one segment."""

    segment: Segment
    is_new: bool
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Excess:
    """A segment that has to go, and the digest right before it that would be merged with its own."""

    reason: str
    segment: Segment
    earlier: Segment | None


@dataclass(frozen=True, slots=True)
class _Handed:
    position: int
    segment: Segment
    offset: int
    quotes: int
    at_ns: int


def _take(segment: Segment, item: Item) -> _Handed:
    """The record that was added last is handed out without being read."""
    offset, segment.read_offset = segment.read_offset, segment.end
    segment.unread_records -= 1
    segment.unread_quotes -= item[0]
    segment.in_flight += 1
    return _Handed(segment.base + segment.ordinals - 1, segment, offset, item[0], item[1])


class Shelf:
    """The segments in the order of their numbers, which is that of the queue."""

    def __init__(self, *, max_bytes: int, max_age_ns: int, segment_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_age_ns = max_age_ns
        self._segment_bytes = segment_bytes
        self._segments: dict[int, Segment] = {}
        self._handed: deque[_Handed] = deque()
        self._next_number = FIRST_NUMBER
        self._next_position = 0
        self._first_position = 0

    @property
    def segments(self) -> list[Segment]:
        """All of them, oldest first."""
        return list(self._segments.values())

    @property
    def bytes(self) -> int:
        """What the segments take on disk."""
        return sum(segment.end for segment in self._segments.values())

    @property
    def quotes(self) -> int:
        """Not settled."""
        return sum(segment.held_quotes for segment in self._segments.values())

    @property
    def records(self) -> int:
        """Not settled."""
        return sum(segment.held_records for segment in self._segments.values())

    @property
    def oldest_ns(self) -> int | None:
        """No record that is not settled is older; it may be younger by the span of one segment."""
        if self._handed:
            return self._handed[0].at_ns
        return next((s.oldest_ns for s in self._segments.values() if s.held_records), None)

    def fill(self, segments: Sequence[Segment], next_number: int, now_ns: int) -> None:
        """Take what was found on disk; no number below the given one is free. How old it is only the wall clocks of
        then and now can tell; from here on its age grows by the caller's clock."""
        for segment in segments:
            segment.begun_ns = min(segment.oldest_ns, now_ns)
            segment.written_ns = min(segment.newest_ns, now_ns)
            segment.base = self._next_position
            self._next_position += segment.ordinals
            self._segments[segment.number] = segment
        self._next_number = next_number

    def plan(self, items: Sequence[Item], now_ns: int | None = None) -> list[Portion]:
        """Where these items go. Nothing counts before `commit`, but numbers of new segments are used up."""
        portions: list[Portion] = []
        last = self.last
        room, begun_ns = 0, 0
        is_open = last is not None and not (last.is_sealed or last.is_digest or last.is_damaged)
        if last is not None and is_open and last.base + last.ordinals == self._next_position:
            portions.append(Portion(last, False, []))
            room, begun_ns = self._segment_bytes - last.end, last.begun_ns
        position = self._next_position
        for item in items:
            size = record_bytes(item)
            at_ns = item[1] if now_ns is None else now_ns
            is_long = abs(at_ns - begun_ns) * _SPANS > self._max_age_ns
            if not portions or size > room or is_long:
                segment = Segment(self._next_number, self._next_number, position)
                self._next_number += 1
                portions.append(Portion(segment, True, []))
                room, begun_ns = self._segment_bytes - HEADER_BYTES, at_ns
            portions[-1].items.append(item)
            room -= size
            position += 1
        return [portion for portion in portions if portion.items]

    def commit(self, portion: Portion, now_ns: int | None = None, *, is_copy: bool = False) -> list[int]:
        """The items of a portion are written; their positions. Copies count as handed out, which takes that nothing
        before them is unread."""
        segment = portion.segment
        self._segments[segment.number] = segment
        times_ns = [item[1] for item in portion.items] if now_ns is None else [now_ns]
        segment.begun_ns = segment.begun_ns or times_ns[0]
        segment.written_ns = max([segment.written_ns] * (segment.ordinals > 0) + times_ns)
        first = segment.ordinals
        for item in portion.items:
            self._add(segment, item)
            if is_copy:
                self._handed.append(_take(segment, item))
        self._next_position = segment.base + segment.ordinals
        return list(range(segment.base + first, self._next_position))

    def plan_first(self, items: Sequence[Item], taken: Iterable[int]) -> Portion | None:
        """Where items go that come before all others and below the numbers taken; None where no number is left."""
        number = min((self._next_number, *taken, *(s.first for s in self._segments.values()))) - 1
        base = min(0, self._first_position) - len(items)
        if number < 0:
            return None
        return Portion(Segment(number, number, base, is_sealed=True), True, list(items))

    def commit_first(self, portion: Portion) -> list[int]:
        """The items that come before all others are written, and count as handed out; their positions."""
        segment = portion.segment
        self._segments = {segment.number: segment, **self._segments}
        self._first_position = segment.base
        handed = []
        for item in portion.items:
            self._add(segment, item)
            handed.append(_take(segment, item))
        self._handed.extendleft(reversed(handed))
        return [entry.position for entry in handed]

    def _add(self, segment: Segment, item: Item) -> None:
        end = segment.end + record_bytes(item)
        segment.add(segment.ordinals, segment.written_quotes, item[0], item[1], end)

    def next_unread(self) -> Segment | None:
        """Where the next record to hand out lies."""
        return next((s for s in self._segments.values() if s.read_offset < s.end), None)

    def hand_out(self, segment: Segment, found: Found) -> Record:
        """The record was read and goes to the caller."""
        position = segment.base + found.ordinal
        segment.read_offset = found.end
        segment.unread_records -= 1
        segment.unread_quotes -= found.quotes
        segment.in_flight += 1
        self._handed.append(_Handed(position, segment, found.offset, found.quotes, found.at_ns))
        return Record(position, found.quotes, found.at_ns, found.body)

    def write_off(self, segment: Segment) -> tuple[int, int]:
        """Nothing more can be read of a segment: the records and quotes that are lost with that."""
        lost = segment.unread_records, segment.unread_quotes
        segment.held_records -= lost[0]
        segment.held_quotes -= lost[1]
        segment.unread_records = segment.unread_quotes = 0
        segment.read_offset = segment.end
        segment.is_damaged = segment.is_damaged or lost[0] > 0
        return lost

    def settle(self, position: int) -> None:
        """Records up to this position need not be kept. Those that are not handed out are not meant."""
        while self._handed and self._handed[0].position <= position:
            handed = self._handed.popleft()
            handed.segment.in_flight -= 1
            handed.segment.held_records -= 1
            handed.segment.held_quotes -= handed.quotes

    def take_off(self, positions: Container[int]) -> frozenset[int]:
        """The caller has these records, and not from here any more; those of them that were handed out."""
        taken = [handed for handed in self._handed if handed.position in positions]
        for handed in taken:
            handed.segment.in_flight -= 1
            handed.segment.held_records -= 1
            handed.segment.held_quotes -= handed.quotes
        self._handed = deque(handed for handed in self._handed if handed.position not in positions)
        return frozenset(handed.position for handed in taken)

    def rewind(self, position: int) -> None:
        """Records from this position on are to be handed out again, unless they are settled."""
        while self._handed and self._handed[-1].position >= position:
            handed = self._handed.pop()
            segment = handed.segment
            segment.in_flight -= 1
            segment.unread_records += 1
            segment.unread_quotes += handed.quotes
            segment.read_offset = handed.offset

    def clear(self) -> list[Segment]:
        """Nothing on disk counts any more; the segments whose files are to be deleted."""
        segments = list(self._segments.values())
        self._segments.clear()
        self._handed.clear()
        return segments

    def done(self) -> list[Segment]:
        """Segments whose files can go."""
        return [segment for segment in self._segments.values() if segment.is_done]

    def remove(self, segment: Segment) -> None:
        """The segment is off the shelf."""
        del self._segments[segment.number]

    def excess(self, now_ns: int) -> Excess | None:
        """The oldest segment of which nothing was handed out, if it is too old or the whole is too large."""
        earlier: Segment | None = None
        for segment in self._segments.values():
            if not segment.is_begun and not segment.is_digest:
                break
            earlier = segment
        else:
            return None
        if now_ns - segment.written_ns > self._max_age_ns:
            reason = TOO_OLD
        elif self.bytes > self._max_bytes or len(self._segments) > MOST_SEGMENTS:
            reason = FULL
        else:
            return None
        is_mergeable = earlier is not None and earlier.is_digest and not earlier.is_begun
        return Excess(reason, segment, earlier if is_mergeable else None)

    @property
    def last(self) -> Segment | None:
        """The segment at the end of the queue."""
        return next(reversed(self._segments.values()), None)

    def replace(self, excess: Excess, digest: Segment | None) -> None:
        """A digest (or nothing) stands where the segment and an earlier digest stood."""
        if excess.earlier is not None:
            self.remove(excess.earlier)
        if digest is None:
            self.remove(excess.segment)
        else:
            self._segments[digest.number] = digest

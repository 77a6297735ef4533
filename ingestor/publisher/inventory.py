"""What lies on disk and was not read back, by symbol, in case it never can be.

Decides what is remembered of each record, and which records are missing when a later one comes. Must never know
files, Redis or the clock. All of it takes no more than a bound; of records beyond it no more is known than that
there were some, and since when. Nothing here takes longer the more lies on disk, but for what is given up whole,
and that goes in steps.
"""

import functools
from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from ingestor.publisher.batch import Batch, Losses
from wire import EntryId

MAX_BYTES: Final = 8 * 1024 * 1024
"""A record of many symbols takes a fifth of what it takes on disk, one of few symbols next to nothing."""
MOST_IN_A_RUN: Final = 256
"""So many records of which nothing is known are remembered as one; the first time among them holds for all."""
RUN_BYTES: Final = 64
"""What a record costs besides its spans, when it is gone through."""
STEP_BYTES: Final = 64 * 1024
"""What is worked off at once of records that are missing: a millisecond's work."""


class Span(msgspec.Struct, array_like=True):
    """Entries of one symbol: the ids of the first and the last; how many quotes they are, or tell to be missing
    (None where markers do not tell); the venue times between which they lie, in unix nanoseconds, which are 0 where
    the ids tell them; why they are missing, where the first is a marker already."""

    symbol: str
    first_id: str
    last_id: str
    quotes: int | None
    from_ns: int = 0
    to_ns: int = 0
    reason: str = ""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Span]).decode
_json = msgspec.json.Decoder().decode


def spans_of(batch: Batch) -> bytes:
    """What is to be remembered of one record."""
    rows = batch.rows()
    if not batch.markers:
        # Tens of thousands a second: nothing is parsed before it is needed.
        return _pack([(row[0], row[2], row[-2], len(row) // 2 - 1) for row in rows])
    spans = []
    for row in rows:
        payloads = [str(payload) for payload in row[3::2]]
        bodies = [_json(payload) for payload in payloads]
        times = [time_ns for body in bodies for time_ns in _times_of(body)]
        told = [1 if isinstance(body, list) else body.get("missing") for body in bodies]
        quotes = functools.reduce(_sum, told)
        reason = "" if isinstance(bodies[0], list) else bodies[0]["reason"]
        spans.append(Span(str(row[0]), str(row[2]), str(row[-2]), quotes, min(times), max(times), reason))
    return _pack(spans)


def _sum(known: int | None, more: int | None) -> int | None:
    return known if more is None else (known or 0) + more


def _times_of(body: list[int] | dict[str, int]) -> tuple[int, int]:
    return (body[8], body[8]) if isinstance(body, list) else (body["from"], body["to"])


@dataclass(slots=True)
class Run:
    """Records from `first` on and before `end`, received from `at_ns` on: a single one, or several without spans.
    `is_all` is whether the spans are all that was in it."""

    first: int
    end: int
    at_ns: int
    packed: bytes
    is_all: bool

    def part(self, first: int, end: int) -> "Run | None":
        """What of it lies between these positions."""
        first, end = max(first, self.first), min(end, self.end)
        return replace(self, first=first, end=end) if first < end else None


class Missing:
    """Records that cannot be read back, in their order."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs = runs if isinstance(runs, deque) else deque(runs)
        self._whole: dict[str, Span] = {}
        self._first_received_ns = 0
        self._unknown_from_ns: int | None = None

    def __bool__(self) -> bool:
        return bool(self._runs or self._whole) or self._unknown_from_ns is not None

    def add(self, run: Run) -> None:
        """Some records more."""
        self._runs.append(run)

    def steps(self) -> Iterator[None]:
        """Go through them, as far as nobody has yet, with a pause behind each step: a full inventory has more than
        a hundred thousand spans, which would hold up an event loop for a tenth of a second."""
        taken_bytes = 0
        while self._runs:
            run = self._runs.popleft()
            for span in _unpack(run.packed) if run.packed else ():
                self._join(span)
            self._first_received_ns = self._first_received_ns or run.at_ns
            if not run.is_all and (self._unknown_from_ns is None or run.at_ns < self._unknown_from_ns):
                self._unknown_from_ns = run.at_ns
            taken_bytes += len(run.packed) + RUN_BYTES
            if taken_bytes >= STEP_BYTES:
                taken_bytes = 0
                yield

    @property
    def unknown_from_ns(self) -> int | None:
        """Of some nothing is known but that they were received from then on; None where all are known."""
        self._finish()
        return self._unknown_from_ns

    def pack(self) -> bytes:
        """What is to be remembered of all of them, as of one record."""
        self._finish()
        return _pack(list(self._whole.values())) if self._whole else b""

    def beginnings(self) -> list[tuple[str, int]]:
        """Whose they were, and the venue time of the first of each."""
        self._finish()
        return [(span.symbol, _times_between(span)[0]) for span in self._whole.values()]

    def losses(self, reason: str, epoch: int | None) -> Losses:
        """What is left of them: one marker for each symbol, in the place of its last entry."""
        self._finish()
        losses = Losses(reason, epoch, self._first_received_ns)
        for span in self._whole.values():
            losses.add_span(span.symbol, span.last_id, *_times_between(span), span.quotes, span.reason)
        return losses

    def _finish(self) -> None:
        for _ in self.steps():
            pass

    def _join(self, span: Span) -> None:
        known = self._whole.get(span.symbol)
        if known is None:
            self._whole[span.symbol] = span
            return
        # Reading an id takes the longest. Ids ascend: those between the first and the last tell nothing.
        if known.from_ns or span.from_ns:
            (from_ns, to_ns), (since_ns, until_ns) = _times_between(known), _times_between(span)
            known.from_ns, known.to_ns = min(from_ns, since_ns), max(to_ns, until_ns)
        known.last_id = span.last_id
        known.quotes = _sum(known.quotes, span.quotes)


def _times_between(span: Span) -> tuple[int, int]:
    if span.from_ns:
        return span.from_ns, span.to_ns
    return EntryId.parse(span.first_id).time_ns, EntryId.parse(span.last_id).time_ns


class Inventory:
    """When each record was received, and its spans where there was room for them; by position, ascending."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._runs: deque[Run] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return sum(run.end - run.first for run in self._runs)

    @property
    def size_bytes(self) -> int:
        """What the spans take up."""
        return self._bytes

    @property
    def runs(self) -> int:
        """How many things are remembered: one for each record with spans, or for many without."""
        return len(self._runs)

    def add(self, position: int, at_ns: int, spans: bytes) -> None:
        """A record was written, behind all others."""
        if self._bytes + len(spans) <= self._max_bytes:
            self._runs.append(Run(position, position + 1, at_ns, spans, True))
            self._bytes += len(spans)
            return
        last = self._runs[-1] if self._runs else None
        is_more = last is not None and not (last.is_all or last.packed) and last.end == position
        if last is not None and is_more and position - last.first < MOST_IN_A_RUN:
            last.end = position + 1
        else:
            self._runs.append(Run(position, position + 1, at_ns, b"", False))

    def came(self, position: int) -> None:
        """The record at this position was read back, and all before it were asked for."""
        self.missing_before(position + 1)

    def missing_before(self, position: int | None) -> Missing:
        """Forget all records before this position, or simply all: they were not read back, and never will be."""
        if position is not None:
            first = self._runs[0].first if self._runs else position
            return self.missing_in(range(first, max(first, position)))
        missing = Missing(self._runs)
        self._runs, self._bytes = deque(), 0
        return missing

    def missing_in(self, positions: range) -> Missing:
        """Forget the records of these positions: they were not read back, and never will be."""
        before, taken = self._take_out(positions)
        self._runs.extendleft(reversed(before))
        return Missing(taken)

    def shed(self, positions: range, told: Container[int], digest: int | None) -> Missing:
        """Records at these positions were replaced by the digest at one of them, if there is one, or else given up.
        What is returned could not be read for the digest, and is not told by it."""
        missing, kept = Missing(), Missing()
        before, taken = self._take_out(positions)
        for run in taken:
            untold = sum(position not in told for position in range(run.first, run.end))
            if untold:
                missing.add(run)
            if untold < run.end - run.first:
                kept.add(run)
        if digest is not None and kept:
            packed, is_all = kept.pack(), kept.unknown_from_ns is None
            at_ns = min(run.at_ns for run in taken)
            self._runs.appendleft(Run(digest, digest + 1, at_ns, packed, is_all))
            self._bytes += len(packed)
        self._runs.extendleft(reversed(before))
        return missing

    def clear(self) -> None:
        """Nothing lies on disk."""
        self._runs.clear()
        self._bytes = 0

    def _take_out(self, positions: range) -> tuple[list[Run], list[Run]]:
        """The runs before these positions, and those of them; all are taken out, those behind stay."""
        before, taken = [], []
        while self._runs and self._runs[0].first < positions.stop:
            run = self._runs.popleft()
            if (earlier := run.part(run.first, positions.start)) is not None:
                before.append(earlier)
            if (inside := run.part(positions.start, positions.stop)) is not None:
                taken.append(inside)
                self._bytes -= len(inside.packed)
            if (later := run.part(positions.stop, run.end)) is not None:
                self._runs.appendleft(later)
                break
        return before, taken

"""The spool against a list in memory, in any order of calls."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingestor.spool import Record, Spool
from ingestor.spool.spool import MAX_SEGMENT_BYTES
from tests.ingestor.spooled import SECOND_NS, die, item, lost_in, spool


class Queue(RuleBasedStateMachine):
    """A spool with room for a few records, closed and killed and opened again.

    `held` is what the spool must still have, in order; of these, `handed` were handed out. A settled record may
    come again after an opening, in its old place; then it is held again.
    """

    LIMITS: ClassVar[dict[str, Any]] = {"segment_bytes": 1500, "max_bytes": 6000, "max_age_s": 60}
    SCALE = 1

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.queue: Spool = spool(self.folder, **self.LIMITS)
        self.queue.open()
        self.held: list[Record] = []
        self.handed = 0
        self.settled: set[bytes] = set()
        self.made = 0
        # Times are positive, as of any clock that is used: 0 stands for none.
        self.now_s = 1000
        self.last_position = -1

    def teardown(self) -> None:
        """Everything comes out in the end."""
        self.queue.unread(0)
        records = self.queue.read(1 << 40)
        assert records == self.held
        if records:
            self.queue.settle(records[-1].position)
        assert self.queue.is_empty
        self.queue.close()
        assert [path.name for path in self.folder.iterdir()] == ["lock"]
        shutil.rmtree(self.folder)

    @rule(
        sizes=st.lists(st.sampled_from([0, 0, 0, 200, 700, 2000]), min_size=1, max_size=6), late=st.booleans()
    )
    def append(self, sizes: list[int], late: bool) -> None:
        """Some records, a few larger than a segment; now and then some were received before the others."""
        items = []
        for size in sizes:
            self.made += 1
            self.now_s += 1
            items.append(item(self.made, size * self.SCALE, at_ns=(self.now_s - 30 * late) * SECOND_NS))
        positions = self.queue.append(items)
        assert [self.last_position, *positions] == sorted({self.last_position, *positions})
        self.last_position = positions[-1]
        self.held += [Record(p, *one) for p, one in zip(positions, items, strict=True)]

    @rule(max_bytes=st.sampled_from([1, 600, 3000, 1 << 40]))
    def read(self, max_bytes: int) -> None:
        """What comes next, as much as fits."""
        max_bytes *= self.SCALE
        waiting = self.held[self.handed :]
        records = self.queue.read(max_bytes)
        assert records == waiting[: len(records)]
        assert bool(records) == bool(waiting)
        size = sum(len(record.body) for record in records)
        assert len(records) <= 1 or size <= max_bytes
        if len(records) < len(waiting):
            assert size + len(waiting[len(records)].body) > max_bytes
        self.handed += len(records)

    @precondition(lambda self: self.handed)
    @rule(part=st.floats(0, 1))
    def settle(self, part: float) -> None:
        """The oldest of those that were handed out."""
        count = max(1, round(part * self.handed))
        self.queue.settle(self.held[count - 1].position)
        self.settled |= {record.body for record in self.held[:count]}
        self.held, self.handed = self.held[count:], self.handed - count

    @precondition(lambda self: self.handed)
    @rule(part=st.floats(0, 1))
    def unread(self, part: float) -> None:
        """The connection was lost, with the last of them under way."""
        self.handed = min(int(part * self.handed), self.handed - 1)
        self.queue.unread(self.held[self.handed].position)

    @rule()
    def sync(self) -> None:
        """As once a second."""
        self.queue.sync()

    @rule(pause_s=st.sampled_from([0, 0, 50]))
    def shed(self, pause_s: int) -> None:
        """Until enough is gone; each time one digest stands where records, or it and another digest, stood."""
        self.now_s += pause_s
        while (shed := self.queue.shed(self.now_s * SECOND_NS)) is not None:
            there = [r for r in self.queue.recovered() if r.position >= self.held[0].position]
            kept = {(record.position, record.body) for record in there}
            first = next(i for i, r in enumerate(self.held) if (r.position, r.body) not in kept)
            last = next(i for i in reversed(range(len(self.held))) if self.held[i] not in there)
            gone = self.held[first : last + 1]
            assert first >= self.handed
            assert not self.queue.has_digests_to_put
            assert set(shed.positions) >= shed.told == {record.position for record in gone}
            assert shed.digest == there[first].position
            assert shed.quotes == sum(record.quotes for record in gone) > 0
            assert lost_in(there[first]) == shed.quotes + sum(map(lost_in, gone))
            assert there == [*self.held[:first], there[first], *self.held[last + 1 :]]
            self.held = there
        segments = self.queue._shelf.segments
        sheddable = [segment for segment in segments if not (segment.is_begun or segment.is_digest)]
        if sheddable:
            assert self.queue.bytes_used <= self.LIMITS["max_bytes"]
            limit_ns = (self.now_s - self.LIMITS["max_age_s"]) * SECOND_NS
            assert sheddable[0].newest_ns >= limit_ns

    @rule(is_kill=st.booleans())
    def restart(self, is_kill: bool) -> None:
        """The daemon ends, one way or the other, and comes back."""
        if is_kill:
            die(self.queue)
        else:
            self.queue.close()
        self.queue = spool(self.folder, **self.LIMITS)
        found = self.queue.open()
        there = list(self.queue.recovered())
        again = len(there) - len(self.held)
        assert [r.body for r in there[again:]] == [record.body for record in self.held]
        assert all(record.body in self.settled for record in there[:again])
        assert (found.damages, found.records, found.quotes) == ([], len(there), sum(r.quotes for r in there))
        self.held, self.handed = there, 0
        self.last_position = there[-1].position if there else -1

    @invariant()
    def it_says_what_it_holds(self) -> None:
        """The figures for an operator."""
        assert self.queue.records_held == len(self.held)
        assert self.queue.quotes_held == sum(record.quotes for record in self.held)
        assert self.queue.is_empty == (not self.held)
        assert self.queue.take_damages() == []
        files = list(self.folder.glob("*.segment"))
        assert self.queue.segments == len(files)
        assert self.queue.bytes_used == sum(path.stat().st_size for path in files)
        oldest_ns = self.queue.oldest_at_ns
        assert (oldest_ns is None) == (not self.held)
        if oldest_ns is not None:
            # The record that is next, or one up to a segment older that was settled already.
            assert oldest_ns <= self.held[0].at_ns


class LargeQueue(Queue):
    """The same at the sizes of real life."""

    LIMITS: ClassVar = {"segment_bytes": None, "max_bytes": 64 << 20, "max_age_s": 60}
    SCALE = 5000


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)

TestLargeQueue = LargeQueue.TestCase
TestLargeQueue.settings = settings(max_examples=6, stateful_step_count=40, deadline=None)
assert LargeQueue.LIMITS["max_bytes"] == 16 * MAX_SEGMENT_BYTES

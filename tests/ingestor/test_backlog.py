"""Batches that wait in memory, held against lists: bounded, in order, and every loss told where it happened."""

from collections import Counter, defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingestor.publisher.backlog import Backlog
from ingestor.publisher.batch import Batch
from tests.ingestor.entries import Entry, batch_with, entries_of, gap, is_quote, marker, quote

CAPACITY_BYTES = 1500


class Queue(RuleBasedStateMachine):
    """A backlog against all that was ever put into it, and all that came out."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(CAPACITY_BYTES)
        self.put_in: list[Entry] = []
        self.waiting: list[Batch] = []
        self.out: list[Batch] = []
        self.delivered: list[Entry] = []
        self.lost: Counter[str] = Counter()

    @rule(symbols=st.text("ABC", min_size=1, max_size=6), holes=st.booleans())
    def put(self, symbols: str, holes: bool) -> None:
        """A batch comes, perhaps with a marker of a hole in the feed."""
        first = len(self.put_in) + 1
        made = [quote(symbol, ordinal) for ordinal, symbol in enumerate(symbols, first)]
        if holes:
            made[0] = marker(symbols[0], first)
        self.put_in += made
        self.backlog.put(batch_with(*made))

    @rule()
    def shed(self) -> None:
        """The owner looks whether all fits; then it does, and no more went than had to."""
        before = self.backlog.bytes
        lost = self.backlog.shed(3)
        assert all(lost.values())
        self.lost += Counter(lost)
        assert self.backlog.bytes <= CAPACITY_BYTES
        if before <= CAPACITY_BYTES:
            assert (lost, self.backlog.bytes) == ({}, before)

    @precondition(lambda self: not self.out)
    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        """Some are taken, to be handed on."""
        while len(self.out) < most and (batch := self.backlog.take()) is not None:
            self.out.append(batch)
        assert len(self.out) == most or not self.backlog

    @precondition(lambda self: self.out)
    @rule()
    def deliver(self) -> None:
        """They have gone where they should."""
        self.delivered += entries_of(self.out)
        self.out = []

    @precondition(lambda self: self.out)
    @rule()
    def put_back(self) -> None:
        """They could not be handed on."""
        self.lost += Counter(self.backlog.put_back(self.out, 3))
        self.out = []

    @invariant()
    def every_quote_is_somewhere_once(self) -> None:
        """Delivered, taken, waiting, or lost and counted."""
        quotes = sum(map(is_quote, self.put_in))
        delivered = sum(map(is_quote, self.delivered))
        taken = sum(batch.quotes for batch in self.out)
        assert quotes == delivered + taken + self.backlog.quotes + self.lost.total()
        assert (self.backlog.bytes > 0) >= (self.backlog.quotes > 0)

    def teardown(self) -> None:
        """What comes out at last is what came in, but for holes that say how much is missing in them, and where."""
        self.delivered += entries_of(self.out)
        while (batch := self.backlog.take()) is not None:
            self.delivered += entries_of([batch])
        assert (self.backlog.bytes, self.backlog.quotes, bool(self.backlog)) == (0, 0, False)
        by_symbol: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.delivered:
            by_symbol[entry[0]].append(entry)
        for symbol in {entry[0] for entry in self.put_in}:
            expected = [entry for entry in self.put_in if entry[0] == symbol]
            missing = check_holes(expected, by_symbol[symbol])
            assert missing == self.lost[symbol]


def check_holes(expected: list[Entry], found: list[Entry]) -> int:
    """Each entry stands in its place, or a marker at or behind it tells of it; how many quotes are missing."""
    assert [e[1] for e in found] == sorted({e[1] for e in found})
    missing, rest = 0, list(expected)
    for entry in found:
        if entry == rest[0]:
            rest.pop(0)
            continue
        assert not is_quote(entry), "quotes are missing before a quote"
        size = [e[1] for e in rest].index(entry[1]) + 1
        quotes = sum(map(is_quote, rest[:size]))
        rest = rest[size:]
        assert (gap(entry).missing or 0) == quotes
        missing += quotes
    assert rest == []
    return missing


TestBacklog = Queue.TestCase
TestBacklog.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_oldest_go_and_their_markers_come_first() -> None:
    """One batch of markers at the head, however many batches went; it grows until it is taken."""
    size = batch_with(quote("A", 1)).size_bytes
    backlog = Backlog(2 * size)
    for ordinal in range(1, 6):
        backlog.put(batch_with(quote("A", ordinal)))
    assert backlog.shed(3) == {"A": 3}
    backlog.put(batch_with(quote("A", 6)))
    assert backlog.shed(3) == {"A": 1}
    assert backlog.shed(3) == {}
    taken = [entries_of([batch]) for batch in iter(backlog.take, None)]
    assert [e for (e,) in taken[1:]] == [quote("A", 5), quote("A", 6)]
    ((marked),) = taken[0]
    assert marked[:2] == quote("A", 4)[:2]
    found = gap(marked)
    assert (found.missing, found.reason, found.epoch) == (4, "queue_full", 3)


def test_a_batch_larger_than_all_memory_goes_too() -> None:
    """The bound is a bound."""
    backlog = Backlog(10)
    backlog.put(batch_with(quote("A", 1), quote("B", 2)))
    assert backlog.shed(None) == {"A": 1, "B": 1}
    assert (backlog.bytes, backlog.quotes, bool(backlog)) == (0, 0, True)


def test_what_comes_back_would_stand_before_markers_of_later_losses_and_goes_with_them() -> None:
    """A stream never goes back: the marker takes the place of the last of all."""
    size = batch_with(quote("A", 1)).size_bytes
    backlog = Backlog(size)
    backlog.put(batch_with(quote("A", 1)))
    taken = backlog.take()
    assert taken is not None
    backlog.put(batch_with(quote("A", 2)))
    backlog.put(batch_with(quote("A", 3)))
    assert backlog.shed(3) == {"A": 1}
    assert backlog.put_back([taken], 3) == {"A": 1}
    first, last = entries_of(iter(backlog.take, None))
    assert (first[1], gap(first).missing) == (quote("A", 2)[1], 2)
    assert last == quote("A", 3)


def test_markers_that_come_back_are_not_counted_twice() -> None:
    """Their quotes were lost when they went, and are not lost again with their marker."""
    backlog = Backlog(10)
    backlog.put(batch_with(quote("A", 1)))
    assert backlog.shed(3) == {"A": 1}
    for _ in range(3):
        markers = backlog.take()
        assert markers is not None
        backlog.put(batch_with(quote("A", 2)))
        backlog.shed(3)
        assert backlog.put_back([markers], 3) == {}
    taken = backlog.take()
    assert taken is not None
    assert gap(entries_of([taken])[0]).missing == 4


@pytest.mark.parametrize(("bytes_waiting", "is_filling"), [(1, True), (2, False)])
def test_it_says_when_it_is_filling(bytes_waiting: int, is_filling: bool) -> None:
    """More than half: it is time for the disk."""
    size = batch_with(quote("A", 1)).size_bytes
    backlog = Backlog(bytes_waiting * size)
    backlog.put(batch_with(quote("A", 1), received_ns=77))
    assert backlog.is_filling is is_filling
    assert backlog.oldest_received_ns == 77

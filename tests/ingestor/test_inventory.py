"""What is remembered of records on disk, and which are missing when others come."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.publisher import inventory as module
from ingestor.publisher.batch import Batch, Losses, batch_of
from ingestor.publisher.inventory import (
    MOST_IN_A_RUN,
    RUN_BYTES,
    STEP_BYTES,
    Inventory,
    Missing,
    Run,
    Span,
    spans_of,
)
from wire import EntryId, encode_gap

MS = 1_000_000


def quotes_of(symbol: str, first_ms: int, count: int) -> Batch:
    """So many quotes of one symbol, a millisecond apart."""
    row: list[str | bool] = [symbol, False]
    for ms in range(first_ms, first_ms + count):
        row += [f"{ms}-0", msgspec.json.encode([1, 1, "V", 1, 1, "V", ["R"], "C", ms * MS, 0]).decode()]
    return batch_of([row], count, 0, first_ms * MS)


def told(missing: Missing) -> list[tuple[str, str, int, int, int | None, str]]:
    """The markers: symbol, id, beginning and end in milliseconds, quotes, reason."""
    found = []
    for row in missing.losses("spool_damaged", 3).seal().rows():
        gap = msgspec.json.decode(str(row[3]))
        times = gap["from"] // MS, gap["to"] // MS
        found.append((str(row[0]), str(row[2]), *times, gap.get("missing"), gap["reason"]))
    return found


def filled(*batches: Batch, max_bytes: int = 1 << 20) -> Inventory:
    """An inventory with these at 10, 20 and so on."""
    inventory = Inventory(max_bytes)
    for n, batch in enumerate(batches, 1):
        inventory.add(10 * n, batch.first_received_ns, spans_of(batch))
    return inventory


def test_what_a_later_record_passes_over_is_missing() -> None:
    """One marker for each symbol, in the place of its last quote, with how many there were."""
    inventory = filled(
        quotes_of("A", 100, 2), quotes_of("A", 200, 3), quotes_of("B", 300, 1), quotes_of("A", 400, 1)
    )
    inventory.came(10)
    assert told(inventory.missing_before(40)) == [
        ("A", "202-0", 200, 202, 3, "spool_damaged"),
        ("B", "300-0", 300, 300, 1, "spool_damaged"),
    ]
    assert not inventory.missing_before(40)
    inventory.came(40)
    assert (len(inventory), inventory.size_bytes) == (0, 0)


@pytest.mark.parametrize(("missing", "told_missing"), [(None, None), (7, 7)])
def test_a_marker_that_is_lost_is_told_again(missing: int | None, told_missing: int | None) -> None:
    """With the hole that it told of, its reason, and how many quotes were in it, where it knew."""
    marker = encode_gap(50 * MS, 90 * MS, "feed_disconnected", 1, missing=missing).decode()
    batch = batch_of([["A", False, "50-7", marker]], 0, 1, 0)
    assert told(filled(batch).missing_before(None)) == [
        ("A", "50-7", 50, 90, told_missing, "feed_disconnected")
    ]
    inventory = filled(batch, quotes_of("A", 100, 1))
    assert told(inventory.missing_before(None)) == [
        ("A", "100-0", 50, 100, (told_missing or 0) + 1, "feed_disconnected")
    ]


def test_what_was_shed_is_told_by_its_digest_and_remembered_with_it() -> None:
    """What could not be read for the digest is missing; if the digest is lost as well, so is what it told."""
    batches = [quotes_of("A", 100 * n, 1) for n in (1, 2, 3, 4)]
    inventory = filled(*batches)
    missing = inventory.shed(range(10, 40), frozenset({10, 20}), 10)
    assert told(missing) == [("A", "300-0", 300, 300, 1, "spool_damaged")]
    assert told(inventory.missing_before(40)) == [("A", "200-0", 100, 200, 2, "spool_damaged")]
    assert len(inventory) == 1


def test_beyond_its_bound_it_knows_only_that_there_was_something() -> None:
    """And since when: whoever asks has to think of every stream."""
    first = quotes_of("A", 100, 1)
    inventory = filled(first, quotes_of("B", 200, 1), quotes_of("C", 300, 1), max_bytes=len(spans_of(first)))
    assert inventory.size_bytes == len(spans_of(first))
    missing = inventory.missing_before(None)
    assert told(missing) == [("A", "100-0", 100, 100, 1, "spool_damaged")]
    assert missing.unknown_from_ns == 200 * MS
    assert EntryId.parse("100-0").time_ns == 100 * MS


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 3), st.booleans()), max_size=12))
def test_all_that_is_lost_is_in_one_marker(records: Sequence[tuple[str, int, bool]]) -> None:
    """As if each record were told of for itself, in its order, markers among them."""
    batches = []
    for n, (symbol, quotes, has_marker) in enumerate(records):
        row = quotes_of(symbol, 100 * n + 150, quotes).rows()[0]
        if has_marker:
            gap = encode_gap((100 * n + 20) * MS, (100 * n + 150) * MS, "feed_disconnected", 1).decode()
            row[2:2] = [f"{100 * n + 120}-0", gap]
        if len(row) > 2:
            batches.append(batch_of([row], quotes, int(has_marker), 0))
    missing, losses = Missing(), Losses("spool_damaged", 3)
    for batch in batches:
        missing.add(Run(0, 1, 1, spans_of(batch), True))
        (span,) = msgspec.msgpack.decode(spans_of(batch), type=list[Span])
        first, last = EntryId.parse(span.first_id), EntryId.parse(span.last_id)
        losses.add_span(
            span.symbol,
            span.last_id,
            span.from_ns or first.time_ns,
            span.to_ns or last.time_ns,
            span.quotes,
            span.reason,
        )
    assert missing.losses("spool_damaged", 3).seal().rows() == losses.seal().rows()


def test_many_records_beyond_the_bound_are_remembered_as_few() -> None:
    """A day of them takes no more memory than an hour; which of them came, and since when others are missing, is
    still known, but for the time within one run."""
    inventory = Inventory(max_bytes=0)
    for n in range(10 * MOST_IN_A_RUN):
        inventory.add(n, n * MS, b"spans")
    assert (len(inventory), inventory.runs) == (10 * MOST_IN_A_RUN, 10)
    for n in range(MOST_IN_A_RUN + 9):
        inventory.came(n)
    assert len(inventory) == 9 * MOST_IN_A_RUN - 9
    assert inventory.missing_before(MOST_IN_A_RUN + 10).unknown_from_ns == MOST_IN_A_RUN * MS
    assert inventory.missing_in(range(3 * MOST_IN_A_RUN - 1, 3 * MOST_IN_A_RUN + 1)).unknown_from_ns == (
        2 * MOST_IN_A_RUN * MS
    )
    assert len(inventory) == 9 * MOST_IN_A_RUN - 12
    inventory.missing_before(3 * MOST_IN_A_RUN)
    assert inventory.missing_before(None).unknown_from_ns == 3 * MOST_IN_A_RUN * MS
    assert not inventory.missing_before(None)


def test_a_digest_takes_no_more_than_a_record() -> None:
    """However much was shed into it: a spool that stays full for hours leaves room for what comes."""
    inventory = Inventory()
    for n in range(100):
        inventory.add(n, 1, spans_of(quotes_of("A", 1 + n, 1)))
        if n:
            assert not inventory.shed(range(n - 1, n + 1), frozenset({n - 1, n}), n)
    assert inventory.size_bytes <= 2 * len(spans_of(quotes_of("A", 100, 1)))
    assert told(inventory.missing_before(None)) == [("A", "100-0", 1, 100, 100, "spool_damaged")]


def test_a_digest_of_records_without_spans_tells_of_everyone() -> None:
    """If it is lost: of whom its records were is on disk alone."""
    inventory = Inventory(max_bytes=0)
    for n in range(4):
        inventory.add(n, (n + 1) * MS, b"spans")
    assert not inventory.shed(range(3), frozenset({0, 1, 2}), 2)
    assert len(inventory) == 2
    assert inventory.missing_before(3).unknown_from_ns == MS


class Model:
    """An inventory of which every record is known by itself."""

    def __init__(self) -> None:
        self.records: dict[int, list[int]] = {}

    def take(self, positions: Sequence[int]) -> list[int]:
        """Which records were there."""
        return [name for position in positions for name in self.records.pop(position, [])]


POSITIONS: Final = st.integers(0, 60)
STEPS: Final = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 20)),
    st.tuples(st.just("came"), POSITIONS),
    st.tuples(st.just("before"), POSITIONS),
    st.tuples(st.just("in"), POSITIONS, POSITIONS),
    st.tuples(st.just("shed"), POSITIONS, POSITIONS, st.sets(POSITIONS)),
)


@given(st.lists(STEPS, max_size=30), st.sampled_from([0, 100, 1 << 20]))
def test_every_record_is_missing_once_or_came(
    steps: Sequence[tuple[str, *tuple[Any, ...]]], max_bytes: int
) -> None:
    """In whatever order, and however little is known of them: none is forgotten, and none is told twice."""
    inventory, model, end = Inventory(max_bytes), Model(), 0
    for kind, *arguments in steps:
        gone: list[int] = []
        missing = Missing()
        if kind == "add":
            for position in range(end, end + arguments[0]):
                inventory.add(position, (position + 1) * MS, spans_of(quotes_of("A", position + 1, 1)))
                model.records[position] = [position + 1]
            end += arguments[0]
        elif kind == "came":
            inventory.missing_before(arguments[0])
            inventory.came(arguments[0])
            model.take(range(arguments[0] + 1))
        elif kind == "before":
            missing, gone = inventory.missing_before(arguments[0]), model.take(range(arguments[0]))
        elif kind == "in":
            positions = range(min(arguments), max(arguments))
            missing, gone = inventory.missing_in(positions), model.take(positions)
        else:
            first, last, told_positions = arguments
            positions = range(min(first, last), max(first, last))
            known = told_positions & set(positions) & model.records.keys()
            digest = max(known, default=None)
            missing = inventory.shed(positions, known, digest)
            kept = model.take(sorted(known))
            gone = model.take(positions)
            if digest is not None:
                model.records[digest] = kept
        check(missing, gone, is_exact=max_bytes > 1000)
        assert len(inventory) == len(model.records)
        assert 0 <= inventory.size_bytes <= max(0, max_bytes)
    check(inventory.missing_before(None), model.take(sorted(model.records)), is_exact=max_bytes > 1000)


def check(missing: Missing, gone: Sequence[int], *, is_exact: bool) -> None:
    """One marker for all that is gone, or since when something may be."""
    if is_exact:
        assert missing.unknown_from_ns is None
        expected = [("A", f"{gone[-1]}-0", min(gone), max(gone), len(gone), "spool_damaged")] if gone else []
        assert told(missing) == expected
        return
    markers = told(missing)
    counted = sum(marker[4] or 0 for marker in markers)
    assert bool(missing) == bool(gone)
    assert counted <= len(gone)
    if counted < len(gone):
        assert missing.unknown_from_ns is not None
        assert missing.unknown_from_ns <= max(gone) * MS


def test_what_is_shed_costs_no_more_the_more_lies_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that is full sheds every second, beside a hundred thousand records that stay."""
    inventory, looked = Inventory(), 0
    for n in range(10_000):
        inventory.add(n, 1, spans_of(quotes_of("A", 1 + n, 1)))

    def part(run: Run, first: int, end: int) -> Run | None:
        nonlocal looked
        looked += 1
        return original(run, first, end)

    original = Run.part
    monkeypatch.setattr(Run, "part", part)
    assert not inventory.shed(range(100, 150), frozenset(range(100, 150)), 149)
    assert looked <= 3 * 150


def test_a_full_inventory_is_gone_through_in_small_steps() -> None:
    """So that others have their turn in between; what comes of it is the same."""
    missing = Missing()
    for n in range(20_000):
        missing.add(Run(n, n + 1, 1, spans_of(quotes_of("A", 1 + n, 1)), True))
    steps = missing.steps()
    spans_bytes = len(spans_of(quotes_of("A", 10_000, 1)))
    in_all = 20_000 * (spans_bytes + RUN_BYTES)
    assert sum(1 for _ in steps) == pytest.approx(in_all / STEP_BYTES, rel=0.1)
    assert told(missing) == [("A", "20000-0", 1, 20_000, 20_000, "spool_damaged")]


def test_a_full_inventory_is_told_within_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of the fastest feed: to read every id would take the event loop the better part of a second."""
    inventory, read = Inventory(), 0

    def parse(text: str) -> EntryId:
        nonlocal read
        read += 1
        return EntryId.parse(text)

    for n in range(2_000):
        inventory.add(n, 1, spans_of(quotes_of("A", 1 + n, 1)))
    monkeypatch.setattr(module, "EntryId", SimpleNamespace(parse=parse))
    assert told(inventory.missing_before(None)) == [("A", "2000-0", 1, 2_000, 2_000, "spool_damaged")]
    assert read <= 4

"""What is remembered of records on disk, and which are missing when others come."""

from collections.abc import Sequence
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.publisher import inventory as module
from ingestor.publisher.batch import Batch, Losses, batch_of
from ingestor.publisher.inventory import Inventory, Missing, Span, spans_of
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
    """One marker for each symbol, in the place of its first quote, with how many there were."""
    inventory = filled(
        quotes_of("A", 100, 2), quotes_of("A", 200, 3), quotes_of("B", 300, 1), quotes_of("A", 400, 1)
    )
    inventory.came(10)
    assert told(inventory.missing_before(40)) == [
        ("A", "200-0", 200, 202, 3, "spool_damaged"),
        ("B", "300-0", 300, 300, 1, "spool_damaged"),
    ]
    assert not inventory.missing_before(40)
    inventory.came(40)
    assert (len(inventory), inventory.size_bytes) == (0, 0)


def test_a_marker_that_is_lost_is_told_again() -> None:
    """With the hole that it told of, and no quote counted for it."""
    marker = encode_gap(50 * MS, 90 * MS, "feed_disconnected", 1).decode()
    inventory = filled(batch_of([["A", False, "50-7", marker]], 0, 1, 0), quotes_of("A", 100, 1))
    assert told(inventory.missing_before(None)) == [("A", "50-7", 50, 100, 1, "spool_damaged")]


def test_what_was_shed_is_told_by_its_digest_and_remembered_with_it() -> None:
    """What could not be read for the digest is missing; if the digest is lost as well, so is what it told."""
    batches = [quotes_of("A", 100 * n, 1) for n in (1, 2, 3, 4)]
    inventory = filled(*batches)
    missing = inventory.shed(lambda position: position >= 40, frozenset({10, 20}), 10)
    assert told(missing) == [("A", "300-0", 300, 300, 1, "spool_damaged")]
    assert told(inventory.missing_before(40)) == [("A", "100-0", 100, 200, 2, "spool_damaged")]
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
        missing.add(0, [spans_of(batch)])
        (span,) = msgspec.msgpack.decode(spans_of(batch), type=list[Span])
        first, last = EntryId.parse(span.first_id), EntryId.parse(span.last_id)
        losses.add_span(
            span.symbol,
            span.first_id,
            span.from_ns or first.time_ns,
            span.to_ns or last.time_ns,
            span.quotes,
        )
    assert missing.losses("spool_damaged", 3).seal().rows() == losses.seal().rows()
    assert missing.losses("spool_damaged", 3).per_symbol() == losses.per_symbol()


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
    assert told(inventory.missing_before(None)) == [("A", "1-0", 1, 2_000, 2_000, "spool_damaged")]
    assert read <= 4

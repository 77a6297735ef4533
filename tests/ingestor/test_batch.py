"""Batches on their way to disk and back, and what is left of those that are given up."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.publisher.batch import (
    Batch,
    Losses,
    StreamEnd,
    ends_of,
    first_ids_of,
    from_record,
    given_up,
    time_of,
    to_record,
)
from tests.ingestor.entries import Entry, batch_with, entries_of, gap, is_quote, marker, quote, span_ns
from tests.ingestor.vendor import T0_NS
from wire import encode_gap

KINDS = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from(["quote", "late", "marker", "counted"])),
    min_size=1,
    max_size=12,
)


def entries_from(kinds: list[tuple[str, str]], first: int = 1) -> list[Entry]:
    """Entries in their order; a late quote's venue time lies before all others."""
    made = []
    for ordinal, (symbol, kind) in enumerate(kinds, first):
        if kind == "quote":
            made.append(quote(symbol, ordinal))
        elif kind == "late":
            made.append(quote(symbol, ordinal, T0_NS - ordinal))
        else:
            made.append(marker(symbol, ordinal, kind, ordinal if kind == "counted" else None))
    return made


@given(KINDS, st.integers(0, 2**62), st.integers(0, 2**40))
def test_a_batch_comes_back_from_its_record(
    kinds: list[tuple[str, str]], received_ns: int, position: int
) -> None:
    """With every byte of its rows, as a batch that was never sent and knows its place on disk."""
    batch = batch_with(*entries_from(kinds), received_ns=received_ns)
    again = from_record(position, *to_record(batch))
    for name in ("symbols", "blob", "quotes", "markers", "first_received_ns"):
        assert getattr(again, name) == getattr(batch, name)
    assert (again.position, again.number, again.sent_before, again.accounted) == (position, 0, False, False)
    assert again.rows() == batch.rows()
    assert again.entries == len(kinds)


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x93\x90", b'{"symbols": []}', b"\x93\xa1A\xc4\x00\x01"])
def test_a_body_that_is_no_batch_is_told_as_such(body: bytes) -> None:
    """By one kind of error, whatever it holds."""
    with pytest.raises(msgspec.MsgspecError):
        from_record(1, 1, 1, body)


@given(KINDS)
def test_a_batch_knows_where_each_stream_begins_and_ends_in_it(kinds: list[tuple[str, str]]) -> None:
    """The last entry's id with the last quote's time, which need not be the same entry's."""
    made = entries_from(kinds)
    ends, firsts = ends_of(batch_with(*made)), first_ids_of(batch_with(*made))
    assert set(ends) == set(firsts) == {symbol for symbol, _ in kinds}
    for symbol, end in ends.items():
        own = [entry for entry in made if entry[0] == symbol]
        times = [span_ns(entry)[0] for entry in own if is_quote(entry)]
        assert end == StreamEnd(own[-1][1], times[-1] if times else None)
        assert firsts[symbol] == own[0][1]


def test_a_batch_without_rows_ends_nowhere() -> None:
    """There is one where all entries were rejected."""
    assert ends_of(batch_with()) == {}
    assert first_ids_of(batch_with()) == {}


def test_the_time_of_an_entry_is_its_quotes_or_where_its_hole_begins() -> None:
    """Venue time, in nanoseconds."""
    assert time_of(quote("A", 5)[2]) == T0_NS + 5000
    assert time_of(marker("A", 5)[2]) == T0_NS + 4000


def test_a_batch_costs_about_its_packed_rows() -> None:
    """And something for itself, so that a million empty ones are not free."""
    small, large = batch_with(quote("A", 1)), batch_with(*(quote("A", n) for n in range(1, 101)))
    assert small.size_bytes > len(small.blob)
    assert 0 < small.size_bytes - len(small.blob) == large.size_bytes - len(large.blob) < 1000


@given(st.lists(KINDS, min_size=1, max_size=5))
def test_losses_leave_one_marker_per_symbol_in_the_place_of_the_last(
    parts: list[list[tuple[str, str]]],
) -> None:
    """Its span covers all that went, it counts their quotes and what earlier markers had counted, and where the
    first entry was a marker already it keeps that one's reason."""
    batches: list[Batch] = []
    made: list[Entry] = []
    for number, kinds in enumerate(parts):
        part = entries_from(kinds, len(made) + 1)
        made += part
        batches.append(batch_with(*part, received_ns=T0_NS + number))
    losses = given_up(batches, "queue_full", 9)
    sealed = losses.seal()
    assert (sealed.quotes, sealed.markers) == (0, len({entry[0] for entry in made}))
    assert sealed.first_received_ns == T0_NS
    assert sum(losses.per_symbol().values()) == sum(map(is_quote, made))
    assert sorted(sealed.symbols) == sorted({entry[0] for entry in made})
    for entry in entries_of([sealed]):
        own = [e for e in made if e[0] == entry[0]]
        found = gap(entry)
        assert entry[1] == own[-1][1]
        assert found.from_ns == min(span_ns(e)[0] for e in own)
        assert found.to_ns == max(span_ns(e)[1] for e in own)
        assert found.reason == ("queue_full" if is_quote(own[0]) else gap(own[0]).reason)
        counts = [1 if is_quote(e) else gap(e).missing for e in own]
        known = [count for count in counts if count is not None]
        assert found.missing == (sum(known) if known else None)
        assert losses.per_symbol().get(entry[0], 0) == sum(map(is_quote, own))


@given(st.lists(KINDS, min_size=2, max_size=6), st.data())
def test_losses_of_losses_are_those_of_all(parts: list[list[tuple[str, str]]], data: st.DataObject) -> None:
    """Given up in two steps, the markers of the first step among the second's, they say the same; but a quote is
    only counted as lost when it goes itself."""
    batches: list[Batch] = []
    count = 0
    for kinds in parts:
        batches.append(batch_with(*entries_from(kinds, count + 1)))
        count += len(kinds)
    cut = data.draw(st.integers(1, len(batches) - 1))
    earlier = given_up(batches[:cut], "queue_full", 9)
    later = given_up([earlier.seal(), *batches[cut:]], "queue_full", 9)
    whole = given_up(batches, "queue_full", 9)
    assert later.seal().rows() == whole.seal().rows()
    for symbol, lost in whole.per_symbol().items():
        assert earlier.per_symbol().get(symbol, 0) + later.per_symbol().get(symbol, 0) == lost


def test_no_losses_are_nothing() -> None:
    """And hold no marker."""
    losses = Losses("queue_full", 1)
    assert not losses
    assert losses.seal().entries == 0
    losses.add(batch_with(quote("A", 1)))
    assert losses


def test_the_epoch_of_a_loss_is_the_writers_that_knows_of_it() -> None:
    """None where the daemon has not been granted one."""
    for epoch in (None, 4):
        found: Any = gap(entries_of([given_up([batch_with(quote("A", 1))], "x", epoch).seal()])[0])
        assert (found.epoch, found.missing) == (epoch, 1)
    assert encode_gap(1, 2, "x", None).endswith(b'"epoch":null}')

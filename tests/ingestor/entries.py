"""Batches for tests, made by hand entry by entry, and taken apart again."""

import json
from collections.abc import Iterable
from typing import Any

from ingestor.publisher.batch import Batch, Row, batch_of
from tests.ingestor.vendor import T0_NS
from wire import EntryId, Gap, decode_gap, encode_gap, encode_quote, entry_id_at

Entry = tuple[str, EntryId, str]
"""Symbol, id, payload."""


def quote(symbol: str, ordinal: int, time_ns: int | None = None) -> Entry:
    """A quote that bears its ordinal as bid size, and stands where that many microseconds have passed."""
    at_ns = T0_NS + 1000 * ordinal
    row = (1.5, ordinal, None, 1.6, 1, None, None, None, at_ns if time_ns is None else time_ns, 0)
    return symbol, entry_id_at(at_ns), encode_quote(row).decode()


def marker(symbol: str, ordinal: int, reason: str = "feed_disconnected", missing: int | None = None) -> Entry:
    """A gap marker in that place, of a hole that began one microsecond before."""
    at_ns = T0_NS + 1000 * ordinal
    return (
        symbol,
        entry_id_at(at_ns),
        encode_gap(at_ns - 1000, at_ns, reason, 7, missing=missing).decode(),
    )


def is_quote(entry: Entry) -> bool:
    """Whether it is one, and no marker."""
    return entry[2].startswith("[")


def batch_with(*entries: Entry, received_ns: int = T0_NS) -> Batch:
    """One batch of these entries; ids grow within each symbol."""
    rows: dict[str, Row] = {}
    for symbol, entry_id, payload in entries:
        rows.setdefault(symbol, [symbol, False]).extend([str(entry_id), payload])
    quotes = sum(map(is_quote, entries))
    return batch_of(list(rows.values()), quotes, len(entries) - quotes, received_ns)


def entries_of(batches: Iterable[Batch]) -> list[Entry]:
    """All entries, row by row."""
    return [
        (str(row[0]), EntryId.parse(str(row[i])), str(row[i + 1]))
        for batch in batches
        for row in batch.rows()
        for i in range(2, len(row), 2)
    ]


def gap(entry: Entry) -> Gap:
    """What a marker says."""
    symbol, entry_id, payload = entry
    return decode_gap(symbol, str(entry_id), payload)


def span_ns(entry: Entry) -> tuple[int, int]:
    """From which instant to which an entry tells something."""
    body: Any = json.loads(entry[2])
    return (body[8], body[8]) if is_quote(entry) else (body["from"], body["to"])

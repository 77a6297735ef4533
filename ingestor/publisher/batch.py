"""Entries with their ids, ready to be sent any number of times, kept in memory or put on disk.

Decides how a batch is laid out, what is left of batches that had to be given up, and how one is written into
the spool. Must never know Redis, files or the clock. Rows are packed once: a quote in a waiting batch costs
some hundred bytes, and a batch that comes back from disk is sent as it is.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from ingestor.spool.records import Item, Record
from wire import EntryId, encode_gap

Row: TypeAlias = list[str | bool]
"""Symbol, cache value or False, then id and payload of each entry in turn, as `append.lua` reads them."""

_OVERHEAD_BYTES: Final = 200
"""About what a batch costs in memory beside its packed rows."""
_TIME: Final = 8
"""Where the venue time stands in a quote's array."""

pack: Final = msgspec.msgpack.Encoder().encode
_unpack_rows = msgspec.msgpack.Decoder(list[Row]).decode
_json = msgspec.json.Decoder().decode


@dataclass(slots=True, eq=False)
class Batch:
    """Entries of one call. `number` is given when it is sent for the first time; `first_received_ns` is the oldest
    quote's. `position` is its place in the spool, if it has one there."""

    symbols: list[str]
    blob: bytes
    quotes: int
    markers: int
    first_received_ns: int
    number: int = 0
    sent_before: bool = False
    """An earlier sending may have been applied: entries that are there already are ours."""
    recovered: bool = False
    """From the spool of an earlier life of the daemon."""
    accounted: bool = False
    """It was stored before, and is sent again since the server forgot it."""
    position: int | None = None

    @property
    def entries(self) -> int:
        """Quotes and markers together."""
        return self.quotes + self.markers

    @property
    def size_bytes(self) -> int:
        """About what it costs in memory."""
        return len(self.blob) + 8 * len(self.symbols) + _OVERHEAD_BYTES

    def is_proven(self, applied: int) -> bool:
        """Whether a server that has applied so many batches has applied this one; its answer was not heard."""
        return self.sent_before and 0 < self.number <= applied

    def rows(self) -> list[Row]:
        """The rows, unpacked."""
        return _unpack_rows(self.blob)


def batch_of(rows: list[Row], quotes: int, markers: int, first_received_ns: int) -> Batch:
    """A batch of these rows."""
    return Batch([str(row[0]) for row in rows], pack(rows), quotes, markers, first_received_ns)


class _Record(msgspec.Struct, array_like=True):
    symbols: list[str]
    blob: bytes
    markers: int


_read_record = msgspec.msgpack.Decoder(_Record).decode


def to_record(batch: Batch) -> Item:
    """What the spool keeps of a batch: quotes, when the oldest was received, and the body."""
    return batch.quotes, batch.first_received_ns, pack(_Record(batch.symbols, batch.blob, batch.markers))


def from_record(position: int, quotes: int, at_ns: int, body: bytes) -> Batch:
    """The batch that a record holds; `msgspec.MsgspecError` when the body is none of ours."""
    record = _read_record(body)
    return Batch(record.symbols, record.blob, quotes, record.markers, at_ns, position=position)


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last entry of one symbol in a batch; `time_ns` is the venue time of its last quote, if it has one."""

    last: EntryId
    time_ns: int | None


def later(known: StreamEnd | None, end: StreamEnd) -> StreamEnd:
    """Where a stream ends that has both; records may repeat what came before."""
    if known is None or end.last > known.last:
        return end if end.time_ns is not None or known is None else StreamEnd(end.last, known.time_ns)
    return known


def ends_of(batch: Batch) -> dict[str, StreamEnd]:
    """Where each symbol's stream will end when the batch is stored."""
    ends = {}
    for row in batch.rows():
        times = [_json(str(payload))[_TIME] for payload in row[3::2] if str(payload).startswith("[")][-1:]
        ends[str(row[0])] = StreamEnd(EntryId.parse(str(row[-2])), times[0] if times else None)
    return ends


def time_of(payload: str) -> int:
    """The venue time of a quote, or the beginning of a marker's hole."""
    body = _json(payload)
    return int(body[_TIME] if isinstance(body, list) else body["from"])


def first_ids_of(batch: Batch) -> dict[str, EntryId]:
    """The id of each symbol's first entry in the batch."""
    return {str(row[0]): EntryId.parse(str(row[2])) for row in batch.rows()}


@dataclass(slots=True)
class _Missing:
    entry_id: str
    from_ns: int
    to_ns: int
    reason: str
    quotes: int | None


class Losses:
    """What is left of batches that were given up: per symbol one marker, in the place of the last lost entry.

    The marker takes the id of that entry, so it fits into the stream wherever that would have. The first ones may
    be stored all the same, where the answer was not heard: in their place a marker would be refused.
    """

    def __init__(self, reason: str, epoch: int | None, first_received_ns: int = 0) -> None:
        self._reason = reason
        self._epoch = epoch
        self._missing: dict[str, _Missing] = {}
        self._quotes: Counter[str] = Counter()
        self._first_received_ns = first_received_ns

    def __bool__(self) -> bool:
        return bool(self._missing)

    def add(self, batch: Batch) -> None:
        """Give up one batch; batches come in their order."""
        self._first_received_ns = self._first_received_ns or batch.first_received_ns
        for row in batch.rows():
            for i in range(2, len(row), 2):
                self._add(str(row[0]), str(row[i]), str(row[i + 1]))

    def add_span(
        self, symbol: str, last_id: str, from_ns: int, to_ns: int, quotes: int | None, reason: str = ""
    ) -> None:
        """Tell of so many quotes of one symbol, or nobody knows how many, of which no more is known; in their
        order. `reason` is for what was lost before."""
        self._join(symbol, _Missing(last_id, from_ns, to_ns, reason or self._reason, quotes))

    def per_symbol(self) -> dict[str, int]:
        """How many quotes of each symbol were given up here: what markers tell of was counted when it went."""
        return dict(self._quotes)

    def seal(self) -> Batch:
        """The batch of markers that takes their place."""
        rows: list[Row] = []
        for symbol, missing in self._missing.items():
            marker = encode_gap(
                missing.from_ns, missing.to_ns, missing.reason, self._epoch, missing=missing.quotes
            )
            rows.append([symbol, False, missing.entry_id, marker.decode()])
        return batch_of(rows, 0, len(rows), self._first_received_ns)

    def _add(self, symbol: str, entry_id: str, payload: str) -> None:
        body = _json(payload)
        if isinstance(body, list):
            found = _Missing(entry_id, body[_TIME], body[_TIME], self._reason, 1)
            self._quotes[symbol] += 1
        else:
            found = _Missing(entry_id, body["from"], body["to"], body["reason"], body.get("missing"))
        self._join(symbol, found)

    def _join(self, symbol: str, found: _Missing) -> None:
        known = self._missing.get(symbol)
        if known is None:
            self._missing[symbol] = found
            return
        known.entry_id = found.entry_id
        known.from_ns = min(known.from_ns, found.from_ns)
        known.to_ns = max(known.to_ns, found.to_ns)
        if found.quotes is not None:
            known.quotes = (known.quotes or 0) + found.quotes


def given_up(batches: Iterable[Batch], reason: str, epoch: int | None) -> Losses:
    """The losses of these batches, oldest first."""
    losses = Losses(reason, epoch)
    for batch in batches:
        losses.add(batch)
    return losses


def digest(records: Sequence[Record]) -> Item:
    """What is left on disk of records that had to go: the markers of their quotes."""
    losses = Losses("spool_full", None)
    for record in records:
        # A body that is none of ours has nothing to tell; its quotes are counted by the record's head.
        with contextlib.suppress(msgspec.MsgspecError):
            losses.add(from_record(record.position, record.quotes, record.at_ns, record.body))
    return to_record(losses.seal())

"""What lies on disk and was not read back, by symbol, in case it never can be.

Decides what is remembered of each record, and which records are missing when a later one comes. Must never know
files, Redis or the clock. All of it takes no more than a bound; of records beyond it no more is known than that
there were some.
"""

from collections.abc import Callable, Container
from typing import Final

import msgspec

from ingestor.publisher.batch import Batch, Losses
from wire import EntryId

MAX_BYTES: Final = 8 * 1024 * 1024
"""A record of many symbols takes a fifth of what it takes on disk, one of few symbols next to nothing."""


class Span(msgspec.Struct, array_like=True):
    """Entries of one symbol: the ids of the first and the last, how many quotes, and the venue times between which
    they lie, in unix nanoseconds; these are 0 where the ids tell them."""

    symbol: str
    first_id: str
    last_id: str
    quotes: int
    from_ns: int = 0
    to_ns: int = 0


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
        quotes = sum(payload.startswith("[") for payload in payloads)
        spans.append(Span(str(row[0]), str(row[2]), str(row[-2]), quotes, min(times), max(times)))
    return _pack(spans)


def _times_of(body: list[int] | dict[str, int]) -> tuple[int, int]:
    return (body[8], body[8]) if isinstance(body, list) else (body["from"], body["to"])


class Missing:
    """Records that cannot be read back. Of some nothing is known but that they were received from
    `unknown_from_ns` on."""

    def __init__(self) -> None:
        self.packed: list[bytes] = []
        self.unknown_from_ns: int | None = None

    def __bool__(self) -> bool:
        return bool(self.packed) or self.unknown_from_ns is not None

    def add(self, at_ns: int, packed: list[bytes] | None) -> None:
        """One record more; records come in their order."""
        if packed is not None:
            self.packed += packed
        elif self.unknown_from_ns is None or at_ns < self.unknown_from_ns:
            self.unknown_from_ns = at_ns

    def losses(self, reason: str, epoch: int | None) -> Losses:
        """What is left of them: one marker for each symbol."""
        losses = Losses(reason, epoch)
        whole: dict[str, Span] = {}
        for packed in self.packed:
            for span in _unpack(packed):
                # A full inventory has more than a hundred thousand spans, and reading an id takes the longest. Ids
                # ascend, so those between the first and the last of a symbol have nothing to tell.
                known = whole.get(span.symbol)
                if known is None or span.from_ns:
                    _add(losses, span)
                    whole.setdefault(span.symbol, Span(span.symbol, span.first_id, span.last_id, 0))
                    continue
                known.first_id = known.first_id if known.quotes else span.first_id
                known.last_id = span.last_id
                known.quotes += span.quotes
        for span in whole.values():
            if span.quotes:
                _add(losses, span)
        return losses


def _add(losses: Losses, span: Span) -> None:
    from_ns = span.from_ns or EntryId.parse(span.first_id).time_ns
    to_ns = span.to_ns or EntryId.parse(span.last_id).time_ns
    losses.add_span(span.symbol, span.first_id, from_ns, to_ns, span.quotes)


class Inventory:
    """When each record was received, and its spans where there was room for them; by position, ascending."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._records: dict[int, tuple[int, list[bytes] | None]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size_bytes(self) -> int:
        """What the spans take up."""
        return self._bytes

    def add(self, position: int, at_ns: int, spans: bytes) -> None:
        """A record was written, behind all others."""
        if self._bytes + len(spans) > self._max_bytes:
            self._records[position] = at_ns, None
            return
        self._records[position] = at_ns, [spans]
        self._bytes += len(spans)

    def came(self, position: int) -> None:
        """This record was read back."""
        self._take(position)

    def missing_before(self, position: int | None) -> Missing:
        """Forget all records before this position, or simply all: they were not read back, and never will be."""
        missing = Missing()
        for known in list(self._records):
            if position is not None and known >= position:
                break
            missing.add(*self._take(known))
        return missing

    def missing_in(self, positions: range) -> Missing:
        """Forget the records of these positions: they were not read back, and never will be."""
        missing = Missing()
        for known in [known for known in self._records if known in positions]:
            missing.add(*self._take(known))
        return missing

    def shed(self, is_there: Callable[[int], bool], told: Container[int], digest: int | None) -> Missing:
        """Records that are not there any more were replaced by the digest at this position, if there is one, or
        else forgotten. What is returned could not be read for the digest, and is not told by it."""
        missing = Missing()
        kept: list[bytes] = []
        digest_at_ns: int | None = None
        for known in list(self._records):
            if known != digest and is_there(known):
                continue
            at_ns, spans = self._take(known)
            if known not in told:
                missing.add(at_ns, spans)
            elif digest is not None:
                digest_at_ns = at_ns if digest_at_ns is None else digest_at_ns
                kept += spans or []
        if digest is not None and digest_at_ns is not None:
            self._records[digest] = digest_at_ns, kept
            self._records = dict(sorted(self._records.items()))
            self._bytes += sum(map(len, kept))
        return missing

    def clear(self) -> None:
        """Nothing lies on disk."""
        self._records.clear()
        self._bytes = 0

    def _take(self, position: int) -> tuple[int, list[bytes] | None]:
        at_ns, spans = self._records.pop(position, (0, []))
        self._bytes -= sum(map(len, spans or []))
        return at_ns, spans

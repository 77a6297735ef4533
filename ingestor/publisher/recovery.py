"""What is missing from streams whose server came back with less than it had acknowledged.

Decides where markers go, given how far each stream still reaches and what can be sent again. Must never know Redis
or the clock. A marker takes the first id behind what is left, so it stands before everything that is sent again.
"""

from collections.abc import Iterable, Mapping, Sequence

from ingestor.publisher.batch import Batch, Row, batch_of, first_ids_of
from ingestor.publisher.stamper import Stamper
from wire import ZERO_ID, EntryId, encode_gap, place

REASON = "redis_lost"


def ends_found(symbols: Sequence[str], reply: Sequence[bytes]) -> dict[str, EntryId | None]:
    """Each symbol's last id as the server says it; None where there is no stream."""
    return {
        symbol: EntryId.parse(last) if last else None for symbol, last in zip(symbols, reply, strict=True)
    }


def markers_of_losses(
    stamper: Stamper, ends: Mapping[str, EntryId | None], sent_again: Iterable[Batch]
) -> Batch:
    """A batch with one marker for each stream in which something may be missing before what is sent again."""
    firsts: dict[str, EntryId] = {}
    for batch in sent_again:
        for symbol, first in first_ids_of(batch).items():
            firsts.setdefault(symbol, first)
    rows: list[Row] = []
    for symbol, end in ends.items():
        # A symbol may have been forgotten while the server was asked.
        row = _marker(stamper, symbol, end, firsts.get(symbol)) if stamper.knows(symbol) else None
        if row is not None:
            rows.append(row)
    return batch_of(rows, 0, len(rows), 0)


def _marker(stamper: Stamper, symbol: str, end: EntryId | None, first_again: EntryId | None) -> Row | None:
    last, since_ns, last_time_ns = stamper.end_of(symbol)
    if since_ns is None or (end is not None and end >= last):
        return None
    try:
        spot = place(since_ns, ZERO_ID, since_ns)[0] if end is None else end.successor()
    except OverflowError:
        return None
    if spot > last or (first_again is not None and spot >= first_again):
        return None
    from_ns = since_ns if end is None else end.time_ns
    until = first_again if first_again is not None else last
    to_ns = max(from_ns, until.time_ns if last_time_ns is None else min(until.time_ns, last_time_ns))
    return [symbol, False, str(spot), encode_gap(from_ns, to_ns, REASON, stamper.epoch).decode()]

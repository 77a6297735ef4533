"""New ids for entries whose place in a stream somebody else has taken, and for all that wait behind them.

Decides which waiting entries have to move so that the order of receipt is kept. Must never know Redis, the clock or
why a place was taken. Ids are given once, before the first attempt; this is the one exception, and it holds for
entries that were refused, or never sent.
"""

from typing import cast

import msgspec

from ingestor.publisher.batch import Batch, Row, batch_of, pack
from ingestor.publisher.stamper import Stamper
from wire import EntryId, QuoteRow, encode_latest


class Restamper:
    """Remembers how far each stream's entries were moved, for as long as older ones wait."""

    def __init__(self, stamper: Stamper) -> None:
        self._stamper = stamper
        self._ends: dict[str, EntryId] = {}

    def restamp(self, symbol: str, payloads: list[str], last: EntryId, received_ns: int) -> Batch:
        """A new batch for entries that the server refused for good, after the last id that it named.

        Entries for which the stream has no id left are counted as rejected; the batch may be empty.
        """
        row = self._lay(symbol, payloads, max(last, self._stamper.tail(symbol)))
        rows = [row] if len(row) > 2 else []
        quotes = _quotes(row)
        return batch_of(rows, quotes, (len(row) - 2) // 2 - quotes, received_ns)

    def follow(self, batch: Batch) -> Batch:
        """The same batch, with new ids for what would come before entries that were moved.

        For a batch that waited and was never sent.
        """
        if not self._ends or self._ends.keys().isdisjoint(batch.symbols):
            return batch
        rows = batch.rows()
        for i, row in enumerate(rows):
            end = self._ends.get(str(row[0]))
            if end is not None and EntryId.parse(str(row[2])) <= end:
                rows[i] = self._lay(str(row[0]), [str(payload) for payload in row[3::2]], end)
        rows = [row for row in rows if len(row) > 2]
        batch.symbols = [str(row[0]) for row in rows]
        batch.blob = pack(rows)
        batch.quotes = sum(map(_quotes, rows))
        batch.markers = sum((len(row) - 2) // 2 for row in rows) - batch.quotes
        return batch

    def nothing_waits(self) -> None:
        """All that is stamped from now on comes behind what was moved."""
        self._ends.clear()

    def _lay(self, symbol: str, payloads: list[str], end: EntryId) -> Row:
        row: Row = [symbol, False]
        for payload in payloads:
            try:
                end = end.successor()
            except OverflowError:
                self._stamper.counts.rejected["stream_exhausted"] += payload.startswith("[")
                continue
            row += [str(end), payload]
        self._ends[symbol] = end
        self._stamper.raise_tail(symbol, end)
        if len(row) > 2 and str(row[-1]).startswith("["):
            values = cast("QuoteRow", tuple(msgspec.json.decode(str(row[-1]))))
            row[1] = encode_latest(symbol, str(row[-2]), values).decode()
        return row


def _quotes(row: Row) -> int:
    return sum(str(payload).startswith("[") for payload in row[3::2])

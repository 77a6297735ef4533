"""What the server said of the entries of an applied batch, and what follows for each.

Decides whether an entry is stored, was stored before, gets a new place, or is lost to a reason; and which streams
refuse just now. Must never send anything, nor know when a batch was sent. A stream that refuses is tried again with
each of its quotes, so it heals by itself when the cause is gone; meanwhile the other streams notice nothing.
"""

from typing import Any, Final

import msgspec

from ingestor.journal import Journal
from ingestor.publisher.batch import Batch, Row
from ingestor.publisher.displaced import Displaced
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.second_looks import Reckoning, SecondLooks
from ingestor.publisher.stamper import Stamper
from wire import Keyspace

_REASONS: Final = {"wrong_type": "wrong_type", "exhausted": "stream_exhausted"}


class Verdicts:
    """Settles the accounts of answered batches. `refusing` holds the symbols whose stream takes no entry now, with
    the server's reason."""

    def __init__(
        self,
        keys: Keyspace,
        stamper: Stamper,
        displaced: Displaced,
        outbox: Outbox,
        counts: PublishCounts,
        journal: Journal,
    ) -> None:
        self._keys = keys
        self._stamper = stamper
        self._displaced = displaced
        self._counts = counts
        self._journal = journal
        self.refusing: dict[str, str] = {}
        self.second_looks = SecondLooks(outbox)

    def on_stored(self, batch: Batch) -> None:
        """All its entries are stored."""
        self.second_looks.stored(batch)
        if not batch.accounted:
            self._counts.stored += batch.quotes
            self._counts.markers_stored += batch.markers
        if self.refusing:
            self._heal(batch, frozenset())

    def on_noted(self, batch: Batch, notes: list[Any]) -> None:
        """Stored but for what the notes say: row, entry, why, last id, as `append.lua` replies them."""
        rows = batch.rows()
        refused: set[str] = set()
        not_there: set[tuple[int, int]] = set()
        begun: set[int] = set()
        quotes, markers = batch.quotes, batch.markers
        for i in range(0, len(notes), 4):
            row_number, entry, why, last_id = notes[i : i + 4]
            row = rows[row_number - 1]
            if entry == 0:
                self._on_created(str(row[0]))
                begun.add(row_number)
                continue
            if why != b"present":
                not_there.add((row_number, entry))
            is_quote = str(row[2 * entry + 1]).startswith("[")
            quotes -= is_quote
            markers -= not is_quote
            if self._on_refused(batch, row, entry, why.decode("utf-8", "replace"), last_id):
                refused.add(str(row[0]))
        self.second_looks.stored(batch, not_there, begun)
        if not batch.accounted:
            self._counts.stored += quotes
            self._counts.markers_stored += markers
        if self.refusing:
            self._heal(batch, refused)

    def on_gone(self, reckoning: Reckoning) -> None:
        """Entries of ours are not where they were put: each symbol's next quote stands behind a marker for them."""
        since_ns = {s: self._stamper.end_of(s)[1] for s in reckoning.losses if self._stamper.knows(s)}
        for symbol, lost in self.second_looks.settle(reckoning, since_ns).items():
            self._counts.lost_by_redis += lost.quotes
            self._stamper.open_gap_behind(symbol, lost.from_ns, lost.reason, lost.missing)
            known = {} if lost.missing is None else {"missing": lost.missing}
            stream = self._keys.stream(symbol)
            self._journal.note_rarely(
                "marker_lost", symbol, "error", reason=lost.reason, stream=stream, **known
            )

    def _on_created(self, symbol: str) -> None:
        if self._stamper.created(symbol):
            self._counts.streams_vanished += 1
            self._journal.note_rarely("stream_vanished", symbol, "error", stream=self._keys.stream(symbol))

    def _on_refused(self, batch: Batch, row: Row, entry: int, why: str, last_id: bytes) -> bool:
        """Whether the stream itself refuses."""
        symbol, payload = str(row[0]), str(row[2 * entry + 1])
        is_quote = payload.startswith("[")
        is_ours = batch.sent_before or batch.recovered
        if why == "present" or (why == "trimmed" and is_ours):
            self._counts.already_stored += is_quote and not batch.accounted
        elif why in ("too_small", "trimmed"):
            self._on_displaced(batch, symbol, payload, last_id)
        else:
            self._reject(batch, symbol, why, payload)
            return True
        return False

    def _on_displaced(self, batch: Batch, symbol: str, payload: str, last_id: bytes) -> None:
        """Its place is behind the end of the stream, and it is not there: somebody else has written."""
        is_quote = payload.startswith("[")
        if batch.recovered:
            # Another daemon went on while this one was down, and has marked its own beginning.
            self._counts.drop("superseded", is_quote)
            self._journal.note_rarely("spool_superseded", symbol, "error", last_id=last_id.decode())
            return
        if batch.accounted:
            self._counts.lost_by_redis += is_quote
            self._open_gap(symbol, payload, "redis_lost")
        else:
            self._displaced.add(symbol, payload, last_id, batch.first_received_ns)
        self._journal.note_rarely(
            "foreign_entries", symbol, "error", last_id=last_id.decode(), stream=self._keys.stream(symbol)
        )

    def _reject(self, batch: Batch, symbol: str, why: str, payload: str) -> None:
        is_quote = payload.startswith("[")
        if batch.accounted:
            self._counts.lost_by_redis += is_quote
        elif is_quote:
            self._counts.reject(_REASONS.get(why, "refused_by_redis"), symbol, why[:200])
        self._open_gap(symbol, payload, "refused_by_redis")
        if symbol not in self.refusing:
            self._journal.note_rarely(
                "stream_refuses", symbol, "error", reason=why[:200], stream=self._keys.stream(symbol)
            )
        self.refusing[symbol] = why[:200]

    def _open_gap(self, symbol: str, payload: str, reason: str) -> None:
        body = msgspec.json.decode(payload)
        if isinstance(body, list):
            self._stamper.open_gap_behind(symbol, body[8], reason)
        else:
            self._stamper.open_gap_behind(symbol, body["from"], body["reason"])

    def _heal(self, batch: Batch, refused: frozenset[str] | set[str]) -> None:
        for symbol in batch.symbols:
            if symbol in self.refusing and symbol not in refused:
                del self.refusing[symbol]
                self._journal.note("stream_accepts", symbol=symbol)

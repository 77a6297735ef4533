"""What lies on disk unread, what was read back and is sent next, and what of it is missing.

Decides which markers stand in for records that cannot be read, and that they stand in their place: before whatever
comes behind. Must never know why something is read, nor wait for anything but the disk.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from ingestor.journal import Journal
from ingestor.publisher.batch import Batch, Row, StreamEnd, batch_of, ends_of, from_record, later, to_record
from ingestor.publisher.disk import Disk
from ingestor.publisher.inventory import Inventory, Missing, spans_of
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.stamper import Stamper
from ingestor.spool.outcomes import Opened, Shed
from ingestor.spool.records import Damage, Item
from ingestor.spool.spool import Spool
from wire import encode_gap

AHEAD_BYTES: Final = 4 * 1024 * 1024
DAMAGED: Final = "spool_damaged"


class ReadBack:
    """`unread` records with `quotes` quotes are on disk, `ahead` are the batches that were read back."""

    def __init__(self, stamper: Stamper, counts: PublishCounts, journal: Journal) -> None:
        self._stamper = stamper
        self._counts = counts
        self._journal = journal
        self._inventory = Inventory()
        self._ahead_bytes = 0
        self._recovered_upto = -1
        self.ahead: deque[Batch] = deque()
        self.has_all = asyncio.Event()
        """Set, unless something is on its way into `ahead` that comes before all else."""
        self.has_all.set()
        self.unread = 0
        self.quotes = 0

    def take(self) -> Batch | None:
        """The next batch that was read back; None while it is still to be read."""
        if not self.ahead:
            return None
        batch = self.ahead.popleft()
        self._ahead_bytes -= batch.size_bytes
        return batch

    @property
    def is_enough(self) -> bool:
        """Whether what was read back does for a while."""
        return self._ahead_bytes > AHEAD_BYTES // 2

    def open(self, spool: Spool, now_ns: int) -> tuple[Opened, dict[str, StreamEnd]]:
        """Open the spool, in its thread; what is in it, and where each stream will end with that."""
        opened = spool.open(now_ns)
        floors: dict[str, StreamEnd] = {}
        for record in spool.recovered():
            with contextlib.suppress(msgspec.MsgspecError):
                batch = from_record(record.position, record.quotes, record.at_ns, record.body)
                self._inventory.add(record.position, record.at_ns, spans_of(batch))
                for symbol, end in ends_of(batch).items():
                    floors[symbol] = later(floors.get(symbol), end)
            self._recovered_upto = record.position
        return opened, floors

    def wrote(self, positions: Sequence[int], batches: Sequence[Batch], spans: Sequence[bytes]) -> None:
        """These are on disk now, behind all others."""
        for position, batch, packed in zip(positions, batches, spans, strict=True):
            self._inventory.add(position, batch.first_received_ns, packed)

    async def read(self, disk: Disk) -> None:
        """Read back what comes next, with markers where something is missing. Raises OSError."""
        records = await disk.call(disk.spool.read, AHEAD_BYTES)
        came: list[Batch | Missing] = []
        unreadable = 0
        for record in records:
            came.append(self._inventory.missing_before(record.position))
            try:
                batch = from_record(record.position, record.quotes, record.at_ns, record.body)
            except msgspec.MsgspecError as error:
                unreadable += record.quotes
                self._journal.note_rarely("spool_damaged", "record", "error", reason=str(error)[:200])
                continue
            self._inventory.came(record.position)
            batch.recovered = record.position <= self._recovered_upto
            came.append(batch)
        if not disk.spool.unread_records:
            came.append(self._inventory.missing_before(None))
        try:
            await self._take_in(came, DAMAGED)
        finally:
            # In the turn in which they no longer count as unread.
            self._counts.drop(DAMAGED, unreadable)

    def on_shed(self, shed: Shed) -> None:
        """Some records were replaced by their digest; others could not even be read for it. Markers of those stand
        before the next quotes, which is late but in the stream."""
        missing = self._inventory.shed(shed.positions, shed.told, shed.digest)
        for symbol, from_ns in missing.beginnings():
            self._stamper.open_gap_behind(symbol, from_ns, DAMAGED)
        self._mark_unknown(missing, DAMAGED)

    def tell(self, damages: Sequence[Damage]) -> None:
        """Count what was found damaged, and say so."""
        for damage in damages:
            self._counts.spool_errors += 1
            self._journal.note(
                "spool_damaged", "error", file=damage.file, reason=damage.reason, quotes=damage.quotes_lost
            )

    async def give_up(self, reason: str) -> None:
        """What is unread is lost, and counted at once: its markers come behind what was read back, as soon as they
        are known."""
        lost, self.unread, self.quotes = self.quotes, 0, 0
        missing = self._inventory.missing_before(None)
        self._counts.drop(reason, lost)
        self._journal.note_rarely("quotes_dropped", reason, "error", quotes=lost)
        await self._take_in([missing], reason)

    def give_up_within(self, positions: range) -> tuple[Item | None, int | None]:
        """What is unread at these positions is lost: the markers that stand in for it, in its place on disk, if it
        is known whose they are; and since when all others may have lost something, if any may."""
        missing = self._inventory.missing_in(positions)
        markers = missing.losses(DAMAGED, self._stamper.epoch).seal()
        return to_record(markers) if markers.markers else None, missing.unknown_from_ns

    def last_markers(self, from_ns: int, now_ns: int) -> Batch:
        """Something may be missing in every stream, and no quote will come any more that a marker could stand
        before."""
        rows: list[Row] = []
        for symbol in sorted(self._stamper.with_quotes(self._stamper.symbols)):
            with contextlib.suppress(OverflowError):
                end = self._stamper.tail(symbol).successor()
                self._stamper.raise_tail(symbol, end)
                marker = encode_gap(from_ns, now_ns, DAMAGED, self._stamper.epoch)
                rows.append([symbol, False, str(end), marker.decode()])
        return batch_of(rows, 0, len(rows), now_ns)

    def forget(self) -> None:
        """Nothing on disk counts any more."""
        self._inventory.clear()

    async def _take_in(self, came: Sequence[Batch | Missing], reason: str) -> None:
        """Put these behind what was read back, all at once, with markers for what is missing. Others have their
        turn before that; when it is cancelled, it ends in one turn."""
        self.has_all.clear()
        try:
            for part in came:
                if isinstance(part, Missing):
                    for _ in part.steps():
                        await asyncio.sleep(0)
        finally:
            for part in came:
                if isinstance(part, Batch):
                    self._put(part)
                elif part:
                    self._stand_in(part, reason)
            self.has_all.set()

    def _stand_in(self, missing: Missing, reason: str) -> None:
        markers = missing.losses(reason, self._stamper.epoch).seal()
        if markers.markers:
            self._put(markers)
        self._mark_unknown(missing, reason)

    def _mark_unknown(self, missing: Missing, reason: str) -> None:
        """Of whom they were nobody knows any more: something may be missing in every stream."""
        if missing.unknown_from_ns is None:
            return
        for symbol in self._stamper.with_quotes(self._stamper.symbols):
            self._stamper.open_gap_behind(symbol, missing.unknown_from_ns, reason)

    def _put(self, batch: Batch) -> None:
        self.ahead.append(batch)
        self._ahead_bytes += batch.size_bytes

"""A queue of records on disk: what was appended comes out in order, also after a crash, until it is settled.

Decides the order of file operations, so that a crash between any two of them loses nothing that is not counted, and
what an error of the disk means for the caller. Must never know what a body holds, nor wait for anything but the
disk. Not for several threads at once, its figures included.

There is no file that says how far the queue was settled. After a restart every segment that still exists is handed
out from its beginning, so records must be harmless to repeat.
"""

import contextlib
import errno
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from ingestor.spool.folder import Folder, SpoolUnusable, is_damage
from ingestor.spool.home import Bus, find_home, write_note
from ingestor.spool.outcomes import Gone, Opened, Shed
from ingestor.spool.records import (
    HEADER_BYTES,
    Damage,
    Found,
    Hole,
    Item,
    Record,
    head,
    header,
    identity_of,
    record_bytes,
    walk,
)
from ingestor.spool.recovery import recover
from ingestor.spool.shelf import Excess, Portion, Segment, Shelf
from ingestor.spool.writer import Writer

MAX_SEGMENT_BYTES: Final = 4 << 20
MIN_SEGMENT_BYTES: Final = 64 << 10
PROBE_BYTES: Final = 16 << 10
"""A few batches; a disk on which no whole segment fits is used all the same."""
_SEGMENTS: Final = 16
_QUARANTINE_SHARE: Final = 8
"""Damaged files that are kept may take this part of `max_bytes` on top of it."""


class Spool:
    """The queue. `identity` names the Redis and namespace that the records are for.

    `digest` turns records that are shed into the one that tells of them, or None where nothing is to be told. It
    may be given an earlier digest again, before other records. Sizes in bytes, on disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        identity: str,
        max_bytes: int,
        max_age_s: float,
        digest: Callable[[Sequence[Record]], Item | None],
        segment_bytes: int | None = None,
    ) -> None:
        if segment_bytes is None:
            segment_bytes = max(min(MAX_SEGMENT_BYTES, max_bytes // _SEGMENTS), MIN_SEGMENT_BYTES)
        self.max_bytes: Final = max_bytes
        self._named = identity
        self._identity = identity_of(identity)
        self._digest = digest
        self._folder = Folder(folder, max_quarantined_bytes=max_bytes // _QUARANTINE_SHARE)
        self._shelf = Shelf(
            max_bytes=max_bytes, max_age_ns=round(max_age_s * 1e9), segment_bytes=segment_bytes
        )
        self._writer = Writer(self._folder, self._identity)
        self._undeleted: dict[int, Segment] = {}
        self._damages: list[Damage] = []

    @property
    def bytes_used(self) -> int:
        """On disk, damaged files that are kept aside not included."""
        return self._shelf.bytes + sum(segment.end for segment in self._undeleted.values())

    @property
    def quotes_held(self) -> int:
        """Quotes that are not settled."""
        return self._shelf.quotes

    @property
    def records_held(self) -> int:
        """Records that are not settled."""
        return self._shelf.records

    @property
    def unread_quotes(self) -> int:
        """Quotes that are not handed out."""
        return sum(segment.unread_quotes for segment in self._shelf.segments)

    @property
    def unread_records(self) -> int:
        """Records that are not handed out."""
        return sum(segment.unread_records for segment in self._shelf.segments)

    @property
    def oldest_at_ns(self) -> int | None:
        """When the oldest quote that is not settled was received, or up to one segment earlier."""
        return self._shelf.oldest_ns

    @property
    def is_empty(self) -> bool:
        """Whether everything is settled."""
        return self._shelf.records == 0

    @property
    def segments(self) -> int:
        """Number of files in the queue."""
        return len(self._shelf.segments)

    @property
    def quarantined(self) -> int:
        """Number of damaged files that are kept aside."""
        return self._folder.quarantined

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._folder.path

    def move_in(self, bus: Bus) -> str:
        """Before `open`: have the folder that belongs to this bus, and say so there; the id of the bus. Raises
        SpoolUnusable."""
        home = find_home(self._folder.path, self._named, bus)
        write_note(home, bus)
        self._identity = identity_of(home.segments)
        self._folder = Folder(home.path, max_quarantined_bytes=self.max_bytes // _QUARANTINE_SHARE)
        self._folder.on_new = partial(write_note, home, bus)
        self._writer = Writer(self._folder, self._identity)
        return home.bus

    def open(self, now_ns: int | None = None) -> Opened:
        """Take the folder and verify what it holds. Raises SpoolUnusable.

        `now_ns`, here and elsewhere, is unix time by a clock that is not set anew while the spool is open; None is
        when each record was received.
        """
        self._folder.lock()
        try:
            found = recover(self._folder, self._identity)
        except SpoolUnusable:
            self._folder.unlock()
            raise
        except OSError as error:
            self._folder.unlock()
            raise SpoolUnusable(
                f"the spool cannot be opened in {self._folder.path}: {error}; mend it, or move the folder away"
            ) from error
        newest_ns = max((segment.newest_ns for segment in found.segments), default=0)
        self._shelf.fill(found.segments, found.next_number, newest_ns if now_ns is None else now_ns)
        return Opened(self._shelf.records, self._shelf.quotes, self._shelf.bytes, found.damages)

    def recovered(self) -> Iterator[Record]:
        """Every record in order, without handing any out. For the time before the first other call."""
        for segment in self._shelf.segments:
            yield from self._records_of(segment)

    def take_damages(self) -> list[Damage]:
        """What was found damaged since the opening, each once."""
        damages, self._damages = self._damages, []
        return damages

    def append(self, items: Sequence[Item], *, is_copy: bool = False, now_ns: int | None = None) -> list[int]:
        """Write all of them, or none and raise OSError; their positions.

        They outlast the process at once, and a loss of power from the next `sync` on. Copies of what the caller has
        in hand are not handed out again; nothing before them may be unread.
        """
        if (last := self._shelf.last) is not None and not (last.is_sealed or self._writer.has(last)):
            # What would be written to it could never be read.
            self._writer.stop(last)
        portions = self._shelf.plan(items, now_ns)
        begun: list[Portion] = []
        try:
            for portion in portions:
                begun.append(portion)
                self._writer.write(portion)
        except BaseException:
            self._undeleted |= {segment.number: segment for segment in self._writer.take_back(begun)}
            raise
        positions = []
        for portion in portions:
            self._writer.count(portion)
            positions += self._shelf.commit(portion, now_ns, is_copy=is_copy)
        return positions

    def prepend(self, items: Sequence[Item], instead_of: Collection[int] = ()) -> list[int]:
        """Write copies of what the caller has in hand, to come before all others after a restart; their positions.
        Records that these take the place of were handed out, and are not asked for any more.

        All of them or none. They outlast a loss of power at once. Raises OSError.
        """
        portion = self._shelf.plan_first(items, self._undeleted)
        if portion is None:
            raise OSError(errno.ENOSPC, "no number is left before the first file of the spool")
        segment = portion.segment
        parts = [header(segment.number, segment.first, self._identity)]
        offset, before = segment.end, 0
        for ordinal, item in enumerate(portion.items):
            parts += (head(segment.number, offset, ordinal, before, item), item[2])
            offset, before = offset + record_bytes(item), before + item[0]
        self._folder.put(segment.number, parts)
        self._shelf.take_off(instead_of)
        return self._shelf.commit_first(portion)

    def read(self, max_bytes: int) -> list[Record]:
        """The next records that are not handed out, at least one if there is any. Raises OSError where the system
        is short of something; what is unreadable is skipped and noted as damage."""
        records: list[Record] = []
        while (segment := self._shelf.next_unread()) is not None:
            try:
                self._read_from(segment, records, max_bytes)
            except OSError as error:
                if is_damage(error):
                    segment.untold = segment.read_offset, f"unreadable: {error.strerror}"
                    segment.holes[segment.read_offset] = segment.end
                    segment.read_offset = segment.end
                elif records:
                    return records
                else:
                    raise
            if segment.read_offset < segment.end:
                return records
            self._finish(segment)
        return records

    def look(self) -> list[Gone]:
        """Which files are gone, or cut short, and see to it that the folder is there and ours.

        The caller's copies in them count as never written. What is unread stays until it is read, which tells of
        the damage, or `stand_in`. Raises OSError where the disk does not say.
        """
        self._folder.keep()
        gone = []
        for segment in self._shelf.segments:
            if self._writer.has(segment):
                continue
            self._writer.stop(segment)
            positions = range(segment.base, segment.base + segment.ordinals)
            in_hand = self._shelf.take_off(positions)
            gone.append(Gone(segment.number, positions, in_hand, segment.unread_records > 0))
        with contextlib.suppress(
            OSError
        ):  # The next `settle` or `sync` tries again; what is gone must be told.
            self._clear_away()
        return gone

    def stand_in(self, gone: Gone, item: Item | None) -> None:
        """Set a record, or nothing, in the place of what was unread in a file that is gone, which is noted as
        damage. Raises OSError, with nothing done."""
        segment = next(one for one in self._shelf.segments if one.number == gone.number)
        digest: Segment | None = None
        if item is not None:
            digest, parts = self._digest_of(segment, segment.first, item)
            self._folder.put(digest.number, parts)
        segment.untold = segment.untold or (HEADER_BYTES, "the file is gone, or cut short")
        self._finish(segment)
        self._shelf.replace(Excess("", segment, None), digest)
        if digest is None:
            self._undeleted[segment.number] = segment

    def unread(self, position: int) -> None:
        """Hand out again everything from this position on that is not settled."""
        self._shelf.rewind(position)

    def settle(self, position: int) -> None:
        """Records up to this position are safe elsewhere. Raises OSError if a file cannot be deleted; that is tried
        again with the next `settle` or `sync`. Records that are not handed out are not meant."""
        self._shelf.settle(position)
        self._clear_away()

    def is_too_much(self, now_ns: int) -> bool:
        """Whether `shed` would find something."""
        return self._shelf.excess(now_ns) is not None

    def shed(self, now_ns: int) -> Shed | None:
        """Replace the oldest segment that is too much by a digest of it; None when nothing has to go.

        A digest that the disk does not take stays in memory until `put_digests`. Raises OSError if the disk lets
        nothing be replaced or deleted; the segment is kept then.
        """
        excess = self._shelf.excess(now_ns)
        if excess is None:
            return None
        segment, earlier = excess.segment, excess.earlier
        end = segment.base + segment.ordinals
        records = list(self._records_of(segment))
        if not records:
            self._folder.delete(segment.number)
            self._writer.stop(segment)
            self._shelf.remove(segment)
            self._note_unreadable(segment, records)
            return Shed(excess.reason, 0, range(segment.base, end))
        before = [] if earlier is None else list(self._records_of(earlier))
        item = self._digest([*before, *records])
        self._replace(excess, item)
        self._note_unreadable(segment, records)
        if earlier is not None:
            self._note_unreadable(earlier, before)
        gone = [*before, *records]
        return Shed(
            excess.reason,
            sum(record.quotes for record in gone) - (0 if item is None else item[0]),
            range((earlier or segment).base, end),
            frozenset(record.position for record in gone),
            None if item is None else segment.base,
        )

    @property
    def has_digests_to_put(self) -> bool:
        """Whether a digest is only in memory, since the disk did not take it."""
        return bool(self._folder.held)

    def put_digests(self) -> None:
        """Write digests that are only in memory. Raises OSError where the disk does not take them."""
        self._folder.put_held()
        for segment in self._shelf.segments:
            self._put_away(segment.instead_of)
            segment.instead_of = []
        self._delete_done()

    def sync(self) -> None:
        """Make what was appended outlast a loss of power. Raises NotDurable, once for the same records, and OSError
        where a file that is done cannot be deleted."""
        self._writer.sync()
        self._clear_away()

    def discard(self) -> None:
        """Give up all that is on disk: the caller has it, or has counted it. Raises OSError where a file cannot be
        deleted, which is tried again with the next `settle` or `sync`; nothing of it is read even so."""
        for segment in self._shelf.clear():
            self._writer.stop(segment)
            self._put_away([segment, *segment.instead_of])
        self._damages.clear()
        self._delete_done()

    def clear_away(self) -> None:
        """Delete what is done with. Raises OSError where that does not go; it is tried again with each `settle`."""
        self._clear_away()

    def probe(self) -> None:
        """Find out whether a little could be written now. Raises OSError where not."""
        self._folder.probe(PROBE_BYTES)

    def close(self) -> None:
        """Sync and let go of the folder. Raises OSError as `sync` does, after everything is closed."""
        try:
            self.sync()
        finally:
            self._writer.close()
            self._folder.unlock()

    def _read_from(self, segment: Segment, records: list[Record], max_bytes: int) -> None:
        taken = sum(len(record.body) for record in records)

        def fits(length: int) -> bool:
            return not records or taken + length <= max_bytes

        with self._folder.source(segment.number) as source:
            for piece in walk(source, segment.number, segment.read_offset, segment.end, fits):
                if isinstance(piece, Found) and not segment.is_in_hole(piece.offset):
                    records.append(self._shelf.hand_out(segment, piece))
                    taken += len(piece.body)
                    continue
                if isinstance(piece, Hole) and not segment.is_in_hole(piece.offset):
                    segment.holes[piece.offset] = piece.end
                    segment.untold = segment.untold or (piece.offset, piece.reason)
                segment.read_offset = piece.end

    def _finish(self, segment: Segment) -> None:
        lost_records, lost_quotes = self._shelf.write_off(segment)
        if not lost_records:
            return
        offset, reason = segment.untold or (segment.end, "fewer records than were written")
        segment.untold = None
        segment.is_sealed = True
        self._damages.append(Damage(self._folder.file(segment.number).name, offset, reason, lost_quotes))

    def _records_of(self, segment: Segment) -> Iterator[Record]:
        try:
            with self._folder.source(segment.number) as source:
                for piece in walk(source, segment.number, HEADER_BYTES, segment.end):
                    if isinstance(piece, Found) and not segment.is_in_hole(piece.offset):
                        position = segment.base + piece.ordinal
                        yield Record(position, piece.quotes, piece.at_ns, piece.body)
        except OSError as error:
            if not is_damage(error):
                raise

    def _note_unreadable(self, segment: Segment, records: Sequence[Record]) -> None:
        if len(records) < segment.held_records:
            lost = segment.held_quotes - sum(record.quotes for record in records)
            name = self._folder.file(segment.number).name
            self._damages.append(Damage(name, HEADER_BYTES, "unreadable when it had to go", lost))

    def _replace(self, excess: Excess, item: Item | None) -> None:
        number = excess.segment.number
        digest: Segment | None = None
        if item is None:
            self._folder.delete(number)
        else:
            first = excess.segment.first if excess.earlier is None else excess.earlier.first
            digest, parts = self._digest_of(excess.segment, first, item)
            try:
                self._folder.put(number, parts)
            except OSError:
                # Makes room, once the file is closed too. If not even that works, nothing has changed.
                self._folder.delete(number)
                self._writer.stop(excess.segment)
                try:
                    self._folder.put(number, parts)
                except OSError:
                    self._folder.hold(number, parts)
        self._writer.stop(excess.segment)
        self._shelf.replace(excess, digest)
        earlier = [] if excess.earlier is None else [*excess.earlier.instead_of, excess.earlier]
        if excess.earlier is not None and self._folder.let_go(excess.earlier.number):
            del earlier[-1]
        if digest is not None and number in self._folder.held:
            # What is on disk tells of its part, should the process be killed before the disk takes the whole.
            digest.instead_of = earlier
            return
        self._put_away(earlier)
        with contextlib.suppress(OSError):  # The next `settle` or `sync` tries again, and says so.
            self._delete_done()

    def _digest_of(self, segment: Segment, first: int, item: Item) -> tuple[Segment, list[bytes]]:
        """A record in the place of a segment, and of others from number `first` on; what its file is to hold."""
        number = segment.number
        digest = Segment(number, first, segment.base, is_digest=True, is_sealed=True)
        begin = header(number, first, self._identity, is_digest=True)
        parts = [begin, head(number, digest.end, 0, 0, item), item[2]]
        digest.add(0, 0, item[0], item[1], digest.end + record_bytes(item))
        return digest, parts

    def _clear_away(self) -> None:
        for segment in self._shelf.done():
            self._writer.stop(segment)
            self._shelf.remove(segment)
            self._put_away([segment, *segment.instead_of])
        self._delete_done()

    def _put_away(self, segments: Sequence[Segment]) -> None:
        self._undeleted |= {segment.number: segment for segment in segments}

    def _delete_done(self) -> None:
        failed: OSError | None = None
        for number, segment in list(self._undeleted.items()):
            try:
                put_away = self._folder.quarantine if segment.is_damaged else self._folder.delete
                put_away(number)
                del self._undeleted[number]
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

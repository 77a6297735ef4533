"""The end of the queue: the one segment that is written to.

Decides when a file is synced and closed, and how what was half written is taken back. Must never know how records
are read. A file whose sync failed once is never written or synced again: the system may have forgotten the data and
would call the next sync a success.
"""

import contextlib
import os

from ingestor.spool.folder import Folder, sync_data, write_all
from ingestor.spool.records import head, header, record_bytes
from ingestor.spool.shelf import Portion, Segment


class NotDurable(OSError):
    """The disk did not confirm these records. They can be read, but may not outlast a loss of power."""

    def __init__(self, error: OSError, records: int, quotes: int) -> None:
        super().__init__(error.errno, error.strerror, error.filename)
        self.records = records
        self.quotes = quotes


class Writer:
    """Writes portions to the segments that they are planned for."""

    def __init__(self, folder: Folder, identity: bytes) -> None:
        self._folder = folder
        self._identity = identity
        self._active: tuple[Segment, int] | None = None
        self._is_dirty = False
        self._unsynced = (0, 0)

    def write(self, portion: Portion) -> None:
        """Write the whole portion, or raise OSError with some of it written: then `take_back` is due."""
        segment = portion.segment
        parts: list[bytes] = []
        if self._active is None or self._active[0] is not segment:
            self._seal()
            segment.is_sealed = True  # Until it is open: a file that cannot be opened is not tried again.
            open_file = self._folder.create if portion.is_new else self._folder.reopen
            self._active = segment, open_file(segment.number)
            segment.is_sealed = False
            if portion.is_new:
                parts.append(header(segment.number, segment.first, self._identity))
        offset, ordinal, before = segment.end, segment.ordinals, segment.written_quotes
        for item in portion.items:
            parts += (head(segment.number, offset, ordinal, before, item), item[2])
            offset, ordinal, before = offset + record_bytes(item), ordinal + 1, before + item[0]
        self._is_dirty = True
        write_all(self._active[1], parts)

    def take_back(self, portions: list[Portion]) -> list[Segment]:
        """Undo portions that do not count; the segments whose files are still to be deleted."""
        left = []
        for portion in portions:
            segment = portion.segment
            try:
                if portion.is_new:
                    self.stop(segment)
                    self._folder.delete(segment.number)
                else:
                    self._folder.cut(segment.number, segment.end)
            except OSError:
                # What is too much is never read in this run. A later one may find whole records: a repetition.
                segment.is_sealed = True
                if portion.is_new:
                    left.append(segment)
        return left

    def has(self, segment: Segment) -> bool:
        """Whether the folder has all of the file, and what would be written to it could be read. Raises OSError
        where the disk does not say."""
        is_active = self._active is not None and self._active[0] is segment
        descriptor = self._active[1] if self._active is not None and is_active else None
        return self._folder.has(segment.number, segment.end, descriptor)

    def count(self, portion: Portion) -> None:
        """The portion counts; until the next sync it is not durable."""
        if self._active is not None and self._active[0] is portion.segment:
            records, quotes = self._unsynced
            self._unsynced = records + len(portion.items), quotes + sum(item[0] for item in portion.items)

    def stop(self, segment: Segment) -> None:
        """Write nothing more to this segment."""
        segment.is_sealed = True
        if self._active is not None and self._active[0] is segment:
            descriptor, self._active = self._active[1], None
            self._is_dirty, self._unsynced = False, (0, 0)
            with contextlib.suppress(OSError):  # It is closed even so, and what is to last was synced before.
                os.close(descriptor)

    def sync(self) -> None:
        """Make what counts outlast a loss of power. Raises NotDurable, once for the same records."""
        try:
            if self._active is not None and self._is_dirty:
                sync_data(self._active[1])
            self._folder.sync()
        except OSError as error:
            raise self._give_up(error) from error
        self._is_dirty, self._unsynced = False, (0, 0)

    def close(self) -> None:
        """Let go of the file as it is."""
        if self._active is not None:
            self.stop(self._active[0])

    def _seal(self) -> None:
        if self._active is None:
            return
        try:
            if self._is_dirty:
                sync_data(self._active[1])
        except OSError as error:
            raise self._give_up(error) from error
        self.stop(self._active[0])

    def _give_up(self, error: OSError) -> NotDurable:
        records, quotes = self._unsynced
        self.close()
        self._is_dirty, self._unsynced = False, (0, 0)
        return NotDurable(error, records, quotes)

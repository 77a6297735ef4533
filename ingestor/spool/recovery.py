"""What an earlier run left in the folder: verified, cut where it is torn, put aside where it is useless.

Decides what damage means for a file: a torn end is cut off, a segment of which nothing can be read is put aside at
once, any other damaged one stays until its good records are settled. Must never know how records are handed out.

Nothing is changed before every header was read: a folder that belongs to another Redis or to a newer version is
refused as it lies.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from ingestor.spool.folder import Folder, SpoolUnusable, is_damage
from ingestor.spool.records import (
    HEADER_BYTES,
    TORN,
    VERSION,
    Damage,
    Found,
    Header,
    Hole,
    parse_header,
    walk,
)
from ingestor.spool.shelf import FIRST_NUMBER, Segment


@dataclass(slots=True)
class Recovery:
    """Segments with records, oldest first; what was damaged; the number of the next new segment."""

    segments: list[Segment] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    next_number: int = FIRST_NUMBER


def recover(folder: Folder, identity: bytes) -> Recovery:
    """Go through the folder. Raises SpoolUnusable where a file has to be left alone, and OSError."""
    listing = folder.listing()
    headers = {number: _header_of(folder, number, identity) for number in listing.segments}
    found = Recovery(
        next_number=max([FIRST_NUMBER - 1, *listing.segments, *listing.damaged, *listing.unfinished]) + 1
    )
    for number in listing.unfinished:
        folder.discard_unfinished(number)
    for number, header in headers.items():
        segment = _verify(folder, number, header, found.damages)
        if segment is not None:
            found.segments.append(segment)
    for segment in list(found.segments):
        # A crash came between the digest and the deletion of what it stands for.
        for earlier in [s for s in found.segments if segment.first <= s.number < segment.number]:
            folder.delete(earlier.number)
            found.segments.remove(earlier)
    folder.trim_quarantine()
    return found


def _header_of(folder: Folder, number: int, identity: bytes) -> Header | None:
    try:
        with folder.source(number) as source:
            header = parse_header(source.read(HEADER_BYTES))
    except OSError as error:
        if is_damage(error):
            return None
        raise
    if header is None or header.number != number:
        return None
    said = f"the spool cannot be opened in {folder.path}: {folder.file(number).name} "
    if header.version > VERSION:
        raise SpoolUnusable(
            f"{said}was written by a newer release (format {header.version}, this one knows {VERSION}); "
            "run that release until the spool is empty, or move the folder away"
        )
    if header.identity != identity:
        raise SpoolUnusable(
            f"{said}belongs to another Redis or namespace; run the daemon against that one until the spool is "
            "empty, or move the folder away"
        )
    return header


def _verify(folder: Folder, number: int, header: Header | None, damages: list[Damage]) -> Segment | None:
    name = folder.file(number).name
    first = number if header is None else header.first
    segment = Segment(number, first, 0, is_digest=header is not None and header.is_digest)
    holes: list[Hole] = []
    try:
        with folder.source(number) as source:
            size = os.fstat(source.fileno()).st_size
            for piece in _pieces(walk(source, number, HEADER_BYTES, size), holes):
                segment.add(piece.ordinal, piece.before, piece.quotes, piece.at_ns, piece.end)
    except OSError as error:
        if not is_damage(error):
            raise
        segment.is_damaged = segment.is_sealed = True
        damages.append(Damage(name, segment.end, f"unreadable: {error.strerror}", None))
        size = HEADER_BYTES  # Worth keeping, whatever it is.
    if header is None:
        lost = None if holes or segment.is_damaged or size < HEADER_BYTES else segment.held_quotes
        if not segment.is_damaged:
            damages.append(
                Damage(name, 0, TORN if size < HEADER_BYTES else "no header that can be read", lost)
            )
        segment.is_damaged = size >= HEADER_BYTES
        _put_away(folder, segment)
        return None
    for hole in holes:
        damages.append(Damage(name, hole.offset, hole.reason, hole.quotes))
        segment.holes[hole.offset] = hole.end
        if hole.reason != TORN or not _cut(folder, number, segment):
            segment.is_damaged = True
            segment.end = max(segment.end, hole.end)  # It takes that room while it is there.
    if segment.held_records == 0:
        _put_away(folder, segment)
        return None
    return segment


def _pieces(walked: Iterator[Found | Hole], holes: list[Hole]) -> Iterator[Found]:
    for piece in walked:
        if isinstance(piece, Hole):
            holes.append(piece)
        else:
            yield piece


def _cut(folder: Folder, number: int, segment: Segment) -> bool:
    try:
        folder.cut(number, segment.end)
    except OSError:
        return False
    return True


def _put_away(folder: Folder, segment: Segment) -> None:
    if segment.is_damaged:
        folder.quarantine(segment.number)
    else:
        folder.delete(segment.number)

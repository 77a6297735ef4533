"""What a segment file looks like: one header, then records, each with checksums of its own.

Decides which bytes are a whole record of this very place, and where the next one begins behind damage. Must never
know which files exist, nor what a body means.

A checksum is seeded with the segment's number and the record's offset, so neither a block left over from another
file nor a body that happens to contain a record can be taken for one.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Final, Protocol

VERSION: Final = 1
MAX_BODY_BYTES: Final = 2**32 - 1
TORN: Final = "torn"
"""The file ends inside a record: what a crash in the middle of a write leaves behind."""

_MAGIC: Final = b"QBSPOOL\n"
_MARK: Final = b"\xf1qb\x1e"
_HEADER: Final = Struct(">8sHHQQ16s")
_HEAD: Final = Struct(">4sIQQQqI")
_CHECKSUM: Final = Struct(">I")
_PLACE: Final = Struct(">QQ")
_SEARCH_BYTES: Final = 1 << 20
_RECORDS, _DIGEST = 0, 1

HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size
HEAD_BYTES: Final = _HEAD.size + _CHECKSUM.size

Item = tuple[int, int, bytes]
"""What is to be kept: number of quotes, when the oldest was received (unix nanoseconds), body."""


@dataclass(frozen=True, slots=True)
class Record:
    """One body of the queue.

    `position` grows strictly within one opening, with holes. `quotes` is how many the body holds, `at_ns` when the
    oldest of them was received.
    """

    position: int
    quotes: int
    at_ns: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """What could not be read back. `quotes_lost` is None where nothing tells."""

    file: str
    offset: int
    reason: str
    quotes_lost: int | None


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a segment; `first` is the first of the segments that it stands for."""

    version: int
    number: int
    first: int
    is_digest: bool
    identity: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A whole record. `before` counts the quotes of the segment's earlier records."""

    offset: int
    end: int
    ordinal: int
    before: int
    quotes: int
    at_ns: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes that are no record."""

    offset: int
    end: int
    reason: str
    quotes: int | None


@dataclass(frozen=True, slots=True)
class _Head:
    length: int
    ordinal: int
    before: int
    quotes: int
    at_ns: int
    checksum: int


class Source(Protocol):
    """What `walk` needs of an open file."""

    def seek(self, offset: int, /) -> int:
        """Go to a byte."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, fewer only at the end."""


def identity_of(name: str) -> bytes:
    """Sixteen bytes that stand for one Redis and namespace."""
    return blake2b(name.encode(), digest_size=16).digest()


def header(number: int, first: int, identity: bytes, *, is_digest: bool = False) -> bytes:
    """The first bytes of a segment. Their form stays the same in every version."""
    kind = _DIGEST if is_digest else _RECORDS
    raw = _HEADER.pack(_MAGIC, VERSION, kind, number, first, identity)
    return raw + _CHECKSUM.pack(zlib.crc32(raw))


def parse_header(raw: bytes) -> Header | None:
    """None where the bytes are no whole header."""
    if len(raw) < HEADER_BYTES or zlib.crc32(raw[: _HEADER.size]) != _checksum_at(raw, _HEADER.size):
        return None
    magic, version, kind, number, first, identity = _HEADER.unpack_from(raw)
    if magic != _MAGIC or version < 1:
        return None
    return Header(version, number, first, kind == _DIGEST, identity)


def record_bytes(item: Item) -> int:
    """How much room an item takes in a segment."""
    return HEAD_BYTES + len(item[2])


def head(number: int, offset: int, ordinal: int, before: int, item: Item) -> bytes:
    """What stands before the body. Raises ValueError for a body of 4 GiB or more."""
    quotes, at_ns, body = item
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a body of {len(body)} bytes does not fit a record: at most {MAX_BODY_BYTES}")
    raw = _HEAD.pack(_MARK, len(body), ordinal, before, quotes, at_ns, zlib.crc32(body))
    return raw + _CHECKSUM.pack(zlib.crc32(raw, _seed(number, offset)))


def walk(
    source: Source, number: int, start: int, end: int, fits: Callable[[int], bool] | None = None
) -> Iterator[Found | Hole]:
    """Records and holes of a segment in order, from one offset to another.

    At most one body is held at a time. Stops before a body whose length `fits` refuses. Errors of the source pass.
    """
    offset, before = start, 0 if start == HEADER_BYTES else None
    while offset < end:
        if end - offset < HEAD_BYTES:
            yield Hole(offset, end, TORN, None)
            return
        here = _head_at(source, number, offset)
        if here is None:
            found, behind, is_blank = _search(source, number, offset, end)
            lost = behind.before - before if behind is not None and before is not None else None
            yield Hole(offset, found, TORN if is_blank else "checksum of a record's head", lost)
            offset = found
            before = None if behind is None else behind.before
            continue
        if fits is not None and not fits(here.length):
            return
        next_offset = offset + HEAD_BYTES + here.length
        body = source.read(here.length) if next_offset <= end else b""
        before = here.before + here.quotes
        if len(body) < here.length:
            yield Hole(offset, end, TORN, here.quotes)
            return
        if zlib.crc32(body) != here.checksum:
            yield Hole(offset, next_offset, "checksum of a record's body", here.quotes)
        else:
            yield Found(offset, next_offset, here.ordinal, here.before, here.quotes, here.at_ns, body)
        offset = next_offset


def _search(source: Source, number: int, offset: int, end: int) -> tuple[int, _Head | None, bool]:
    """The next head behind damage (or the end, and None), and whether there are only zeros up to there."""
    at, is_blank = offset, True
    while at < end:
        source.seek(at)
        chunk = source.read(min(_SEARCH_BYTES, end - at))
        is_blank = is_blank and chunk.count(0) == len(chunk)
        mark = chunk.find(_MARK)
        while mark >= 0:
            found = _head_at(source, number, at + mark) if at + mark > offset else None
            if found is not None:
                return at + mark, found, False
            mark = chunk.find(_MARK, mark + 1)
        # The mark itself may lie across the edge of two chunks.
        at += max(len(chunk) - len(_MARK) + 1, 1) if at + len(chunk) < end and chunk else end
    return end, None, is_blank


def _head_at(source: Source, number: int, offset: int) -> _Head | None:
    source.seek(offset)
    raw = source.read(HEAD_BYTES)
    if len(raw) < HEAD_BYTES or not raw.startswith(_MARK):
        return None
    if zlib.crc32(raw[: _HEAD.size], _seed(number, offset)) != _checksum_at(raw, _HEAD.size):
        return None
    _, length, ordinal, before, quotes, at_ns, checksum = _HEAD.unpack_from(raw)
    return _Head(length, ordinal, before, quotes, at_ns, checksum)


def _seed(number: int, offset: int) -> int:
    return zlib.crc32(_PLACE.pack(number, offset))


def _checksum_at(raw: bytes, offset: int) -> int:
    (checksum,) = _CHECKSUM.unpack_from(raw, offset)
    return int(checksum)

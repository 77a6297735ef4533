"""Torn and damaged files: the rest of the queue comes out, and nobody is told that all is well."""

import errno
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.spool import Damage, Record, Spool
from ingestor.spool.folder import MOST_QUARANTINED, Folder
from ingestor.spool.shelf import FIRST_NUMBER
from tests.ingestor.spooled import die, item, name_of, names, opened, segment_files, spool

SECOND = FIRST_NUMBER + 1
TINY = {"segment_bytes": 200}


def tiny(name: int) -> tuple[int, int, bytes]:
    """A body of a few bytes that names itself."""
    return name, name, b"<%d>" % name


def tiny_names(records: list[Record]) -> list[int]:
    """Their names, once it is clear that each is whole."""
    found = [record.quotes for record in records]
    assert [(r.quotes, r.at_ns, r.body) for r in records] == [tiny(name) for name in found]
    return found


def filled(folder: Path) -> None:
    """Three segments: 1 and 2, 3 and 4, 5 and 6."""
    queue = opened(folder, **TINY)
    queue.append([tiny(name) for name in range(1, 7)])
    die(queue)
    assert len(segment_files(folder)) == 3


def drain(queue: Spool) -> list[Record]:
    """Everything, settled."""
    records = queue.read(10**9)
    if records:
        queue.settle(records[-1].position)
    assert queue.is_empty
    return records


@pytest.mark.fault("P11")
def test_a_tail_torn_at_any_byte_costs_only_what_is_torn(tmp_path: Path) -> None:
    """For every length of the last file: the longest whole prefix comes out, and writing goes on behind it."""
    filled(tmp_path / "whole")
    size = segment_files(tmp_path / "whole")[-1].stat().st_size
    ends = [size - 2 * 51, size - 51, size]
    for length in range(size):
        folder = tmp_path / str(length)
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(segment_files(folder)[-1], length)
        queue = spool(folder, **TINY)
        damages = queue.open().damages
        kept = [1, 2, 3, 4, *([5] if length >= ends[1] else [])]
        assert [damage.reason for damage in damages] == ([] if length in ends else ["torn"])
        queue.append([tiny(9), tiny(10)])
        die(queue)
        again = opened(folder, **TINY)
        assert tiny_names(list(again.recovered())) == tiny_names(drain(again)) == [*kept, 9, 10]
        assert again.quarantined == 0
        again.close()


@pytest.mark.fault("P11")
def test_a_tail_of_zeros_is_torn(tmp_path: Path) -> None:
    """Some file systems leave them behind after a loss of power."""
    filled(tmp_path)
    with segment_files(tmp_path)[-1].open("ab") as file:
        file.write(bytes(70_000))
    queue = spool(tmp_path, **TINY)
    assert [damage.reason for damage in queue.open().damages] == ["torn"]
    assert queue.bytes_used == sum(path.stat().st_size for path in segment_files(tmp_path))
    assert tiny_names(drain(queue)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.fault("P12")
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flip_of_any_byte_costs_only_what_it_hits(tmp_path: Path, which: int, mask: int) -> None:
    """For every byte of every file: no error, nothing false, the rest comes out, the file is put aside."""
    filled(tmp_path / "whole")
    size = segment_files(tmp_path / "whole")[which].stat().st_size
    for offset in range(size):
        folder = tmp_path / str(offset)
        shutil.copytree(tmp_path / "whole", folder)
        path = segment_files(folder)[which]
        raw = bytearray(path.read_bytes())
        raw[offset] ^= mask
        path.write_bytes(raw)
        queue = spool(folder, **TINY)
        opening = queue.open()
        (damage,) = opening.damages
        hit = range(2 * which + 1, 2 * which + 3)
        if offset >= 48:
            hit = hit[:1] if offset < 48 + 51 else hit[1:]
        kept = [name for name in range(1, 7) if name not in hit]
        assert (damage.file, opening.quotes) == (path.name, sum(kept))
        assert opening.bytes == sum(path.stat().st_size for path in segment_files(folder))
        assert damage.quotes_lost in (sum(hit), None)
        # Only a head at the very end leaves no trace of what it counted.
        assert damage.quotes_lost is not None or offset >= 48 + 51
        queue.append([tiny(9)])
        assert tiny_names(list(queue.recovered())) == tiny_names(drain(queue)) == [*kept, 9]
        assert (queue.quarantined, len(list(folder.glob("*.damaged")))) == (1, 1)
        assert segment_files(folder) == []
        die(queue)
        again = opened(folder, **TINY)
        assert drain(again) == []
        die(again)


@pytest.mark.fault("P12")
@settings(max_examples=150, deadline=None)
@given(
    wounds=st.lists(
        st.tuples(st.integers(0, 449), st.binary(min_size=1, max_size=60)), min_size=1, max_size=6
    ),
    cut=st.none() | st.integers(0, 450),
)
def test_any_damage_leaves_a_queue_that_works(
    tmp_path_factory: pytest.TempPathFactory, wounds: list[tuple[int, bytes]], cut: int | None
) -> None:
    """Whatever is written over a file, in any number of places: what comes out was put in, in order."""
    folder = tmp_path_factory.mktemp("wounded")
    queue = opened(folder, segment_bytes=450)
    queue.append([tiny(name) for name in range(1, 15)])
    die(queue)
    whole = segment_files(folder)
    raw = bytearray(whole[0].read_bytes())
    for offset, blob in wounds:
        raw[offset : offset + len(blob)] = blob
    whole[0].write_bytes(raw[:cut])
    for is_first in (True, False):
        wounded = spool(folder, segment_bytes=450)
        opening = wounded.open()
        kept = tiny_names(list(wounded.recovered()))
        assert kept == sorted(set(kept))
        assert set(range(8, 15)) <= set(kept)
        known = [damage.quotes_lost for damage in opening.damages]
        # A file that ends with a whole record does not tell that there were more.
        if is_first and cut is None and None not in known:
            assert sum(lost or 0 for lost in known) == sum(range(1, 15)) - sum(kept)
        die(wounded)
    last = spool(folder, segment_bytes=450)
    last.open()
    assert tiny_names(drain(last)) == kept
    last.close()


@pytest.mark.fault("P12")
def test_damage_behind_the_opening_is_found_while_reading(tmp_path: Path) -> None:
    """A record that went bad is left out and told of, and those behind it come out; once, also when read again."""
    queue = opened(tmp_path)
    queue.append([item(name) for name in range(1, 6)])
    (path,) = segment_files(tmp_path)
    assert names(queue.read(1)) == [1]
    raw = bytearray(path.read_bytes())
    raw[48 + 2 * (48 + 258) - 10] ^= 1
    path.write_bytes(raw)
    records = queue.read(10**6)
    assert names(records) == [3, 4, 5]
    assert queue.take_damages() == [Damage(path.name, 48 + 306, "checksum of a record's body", 2)]
    assert (queue.records_held, queue.quotes_held) == (4, 13)
    queue.unread(0)
    assert names(queue.read(10**6)) == [1, 3, 4, 5]
    raw[48 + 2 * (48 + 258) - 10] ^= 1
    path.write_bytes(raw)
    queue.unread(0)
    assert names(queue.read(10**6)) == [1, 3, 4, 5]
    assert queue.take_damages() == []
    queue.append([item(6)])
    queue.settle(records[-1].position)
    assert (queue.quarantined, queue.records_held) == (1, 1)
    assert names(drain(queue)) == [6]


@pytest.mark.fault("P12")
def test_a_file_that_vanished_is_told_of(tmp_path: Path) -> None:
    """Somebody tidied up. The others come out, and new ones can be written."""
    queue = opened(tmp_path, segment_bytes=700)
    queue.append([item(name) for name in range(1, 7)])
    for path in segment_files(tmp_path)[1:]:
        path.unlink()
    queue.append([item(7, 900)])
    assert names(queue.read(10**6)) == [1, 2, 7]
    damages = queue.take_damages()
    assert [damage.quotes_lost for damage in damages] == [7, 11]
    assert all("No such file" in damage.reason for damage in damages)
    queue.settle(10**6)
    assert queue.is_empty


class BadSector:
    """Files of which one read fails, counted over all of them."""

    def __init__(self, folder: Folder, at: int, error: int) -> None:
        self.folder = folder
        self.at = at
        self.error = error
        self.reads = 0

    def source(self, number: int) -> Any:
        """A segment that may fail."""
        file: Any = self.folder.file(number).open("rb")
        read = file.read

        def failing(size: int) -> bytes:
            self.reads += 1
            if self.reads == self.at:
                raise OSError(self.error, os.strerror(self.error))
            return bytes(read(size))

        file.read = failing
        return file


@pytest.mark.fault("P12")
def test_a_bad_sector_costs_the_rest_of_its_file(tmp_path: Path) -> None:
    """At the opening, whichever read it hits: the other files come out, and the start succeeds."""
    filled(tmp_path / "whole")
    for at in range(1, 16):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "whole", folder)
        queue = spool(folder, **TINY)
        disk = BadSector(queue._folder, at, errno.EIO)
        queue._folder.source = disk.source  # type: ignore[method-assign]
        (damage,) = queue.open().damages
        assert disk.reads >= at
        kept = tiny_names(drain(queue))
        lost = sorted(set(range(1, 7)) - set(kept))
        assert lost in ([1, 2], [2], [3, 4], [4], [5, 6], [6])
        assert damage.reason == f"unreadable: {os.strerror(errno.EIO)}" or damage.offset == 0
        assert queue.quarantined == 1
        die(queue)


@pytest.mark.fault("P12")
@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE])
def test_a_read_that_fails_later(tmp_path: Path, error: int) -> None:
    """A bad sector is counted and passed over; a lack of files is an error, and loses nothing."""
    for at in range(1, 14):
        folder = tmp_path / str(at)
        filled(folder)
        queue = opened(folder, **TINY)
        disk = BadSector(queue._folder, at, error)
        queue._folder.source = disk.source  # type: ignore[method-assign]
        kept = []
        if at <= 2 and error == errno.EMFILE:
            with pytest.raises(OSError, match=os.strerror(error)):
                queue.read(10**6)
        else:
            kept += tiny_names(queue.read(10**6))
        disk.at = 0
        kept += tiny_names(queue.read(10**6))
        damages = queue.take_damages()
        assert sum(kept) + sum(damage.quotes_lost or 0 for damage in damages) == 21
        assert bool(damages) == (error == errno.EIO and at <= 12)
        queue.unread(0)
        assert tiny_names(drain(queue)) == kept == sorted(kept)
        die(queue)


@pytest.mark.fault("P12")
def test_damaged_files_do_not_pile_up(tmp_path: Path) -> None:
    """The oldest ones go, by number and by size."""
    queue = opened(tmp_path, segment_bytes=700)
    queue.append([item(name) for name in range(40)])
    die(queue)
    for path in segment_files(tmp_path):
        os.truncate(path, 400)
        with path.open("r+b") as file:
            file.write(b"x")
    files = [path.name[:20] for path in segment_files(tmp_path)]
    again = spool(tmp_path)
    assert len(again.open().damages) == 20
    assert (again.segments, again.quarantined) == (0, MOST_QUARANTINED)
    assert [path.name[:20] for path in sorted(tmp_path.glob("*.damaged"))] == files[-MOST_QUARANTINED:]
    die(again)
    small = opened(tmp_path, max_bytes=8 * 1000)
    assert small.quarantined == 2
    small.append([item(1)])
    assert segment_files(tmp_path)[0].name[:20] > files[-1]


@pytest.mark.fault("P12")
def test_a_folder_in_the_place_of_a_segment_is_put_aside(tmp_path: Path) -> None:
    """It cannot be read, and it must not stop the start."""
    filled(tmp_path)
    (tmp_path / f"{SECOND:020}.segment").unlink()
    (tmp_path / f"{SECOND:020}.segment").mkdir()
    queue = spool(tmp_path, **TINY)
    (damage,) = queue.open().damages
    assert (damage.file, damage.quotes_lost) == (f"{SECOND:020}.segment", None)
    assert tiny_names(drain(queue)) == [1, 2, 5, 6]


@pytest.mark.fault("P12")
def test_a_copy_under_another_name_is_not_handed_out(tmp_path: Path) -> None:
    """A segment is what its name says, or it is damaged."""
    filled(tmp_path)
    shutil.copy(segment_files(tmp_path)[0], tmp_path / f"{SECOND + 7:020}.segment")
    queue = spool(tmp_path, **TINY)
    assert [damage.file for damage in queue.open().damages] == [f"{SECOND + 7:020}.segment"]
    assert tiny_names(drain(queue)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.fault("P12")
def test_damage_before_shedding_is_counted_beside_it(tmp_path: Path) -> None:
    """What could not be read any more is no part of the digest."""
    queue = opened(tmp_path, segment_bytes=700, max_bytes=1)
    queue.append([item(name) for name in range(1, 5)])
    first, second = segment_files(tmp_path)
    raw = bytearray(first.read_bytes())
    raw[60] ^= 1
    first.write_bytes(raw)
    second.unlink()
    half, nothing = queue.shed(0), queue.shed(0)
    assert half is not None
    assert (half.quotes, half.positions, half.told) == (2, range(2), frozenset({1}))
    assert nothing is not None
    assert (nothing.quotes, nothing.positions, nothing.told) == (0, range(2, 4), frozenset())
    assert queue.shed(0) is None
    assert [damage.quotes_lost for damage in queue.take_damages()] == [1, 7]
    (record,) = queue.read(1)
    assert record.body == b"lost 2"
    assert queue.quotes_held == 0


@pytest.mark.fault("P12")
@pytest.mark.parametrize("shift", range(-2, 6))
def test_the_next_record_is_found_wherever_it_begins(tmp_path: Path, shift: int) -> None:
    """The search goes by pieces of a mebibyte, and a record may begin at the edge of two."""
    queue = opened(tmp_path)
    queue.append([(7, 7, bytes((1 << 20) - 48 - shift)), tiny(1)])
    die(queue)
    (path,) = segment_files(tmp_path)
    with path.open("r+b") as file:
        file.seek(48)
        file.write(b"x")
    again = spool(tmp_path)
    assert [damage.quotes_lost for damage in again.open().damages] == [7]
    assert tiny_names(drain(again)) == [1]


@pytest.mark.fault("P12")
def test_scanning_holds_one_record_at_a_time(tmp_path: Path) -> None:
    """A large file with a damaged head is searched without being held in memory."""
    queue = opened(tmp_path, segment_bytes=1 << 30)
    queue.append([item(name, 100_000) for name in range(1, 401)])
    die(queue)
    (path,) = segment_files(tmp_path)
    with path.open("r+b") as file:
        file.seek(48)
        file.write(b"x")
    tracemalloc.start()
    again = spool(tmp_path)
    (damage,) = again.open().damages
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 38 << 20
    assert peak < 5 << 20
    assert damage.quotes_lost == 1
    assert [name_of(record) for record in again.recovered()] == list(range(2, 401))

"""The spool as a queue: in order, nothing invented, nothing forgotten, whatever comes between."""

import struct
from pathlib import Path

import pytest

from ingestor.spool import SpoolUnusable
from ingestor.spool.records import identity_of
from ingestor.spool.shelf import FIRST_NUMBER
from tests.ingestor.spooled import SECOND_NS, die, item, lost_in, names, opened, segment_files, spool


def test_records_come_out_as_they_went_in(tmp_path: Path) -> None:
    """Name, quotes, time and body, with the positions that `append` gave."""
    queue = opened(tmp_path / "a" / "b", segment_bytes=1000)
    items = [item(n, 300 * (n % 4)) for n in range(20)]
    positions = queue.append(items[:3]) + queue.append([]) + queue.append(items[3:])
    assert positions == sorted(set(positions))
    records = queue.read(10**9)
    assert [(r.position, (r.quotes, r.at_ns, r.body)) for r in records] == list(
        zip(positions, items, strict=True)
    )
    assert queue.read(10**9) == []
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_reading_is_bounded_and_always_goes_on(tmp_path: Path) -> None:
    """At most so many bytes, but one record at least."""
    queue = opened(tmp_path, segment_bytes=2000)
    queue.append([item(n, 255) for n in range(1, 8)])
    assert [names(queue.read(600)) for _ in range(3)] == [[1, 2], [3, 4], [5, 6]]
    assert names(queue.read(1)) == [7]


def test_a_record_larger_than_a_segment_is_alone_in_one(tmp_path: Path) -> None:
    """It is not refused."""
    queue = opened(tmp_path, segment_bytes=1000)
    queue.append([item(1), item(2, 5000), item(3)])
    assert queue.segments == 3
    assert names(queue.read(10**6)) == [1, 2, 3]


def test_what_is_settled_is_deleted_by_whole_segments(tmp_path: Path) -> None:
    """And the rest is handed out again after a restart, settled neighbours included."""
    queue = opened(tmp_path, segment_bytes=700)
    positions = queue.append([item(n, 255) for n in range(1, 9)])
    assert queue.segments == 4
    queue.read(10**6)
    queue.settle(positions[4])
    assert (queue.segments, queue.records_held, queue.quotes_held) == (2, 3, 6 + 7 + 8)
    queue.close()
    again = opened(tmp_path)
    assert names(again.read(10**6)) == [5, 6, 7, 8]


def test_an_empty_queue_leaves_no_file(tmp_path: Path) -> None:
    """Nothing is handed out twice once all is settled."""
    queue = opened(tmp_path)
    positions = queue.append([item(1), item(2)])
    queue.read(10**6)
    queue.settle(positions[-1])
    assert queue.is_empty
    assert (queue.segments, queue.bytes_used, queue.oldest_at_ns) == (0, 0, None)
    assert segment_files(tmp_path) == []
    assert queue.append([item(3)])[0] > positions[-1]
    assert names(queue.read(1)) == [3]


def test_what_was_not_handed_out_cannot_be_settled(tmp_path: Path) -> None:
    """A late answer for a position that was taken back settles nothing by mistake."""
    queue = opened(tmp_path)
    positions = queue.append([item(n) for n in (1, 2, 3)])
    queue.read(10**6)
    queue.unread(positions[1])
    queue.settle(positions[2])
    assert names(queue.read(10**6)) == [2, 3]


def test_a_lost_connection_hands_out_again(tmp_path: Path) -> None:
    """From the position on, across segments, with the same positions."""
    queue = opened(tmp_path, segment_bytes=700)
    positions = queue.append([item(n, 255) for n in range(6)])
    queue.read(10**6)
    queue.settle(positions[0])
    queue.unread(positions[2])
    assert [record.position for record in queue.read(10**6)] == positions[2:]
    queue.unread(0)
    assert [record.position for record in queue.read(10**6)] == positions[1:]


def test_all_can_be_looked_at_without_being_handed_out(tmp_path: Path) -> None:
    """After a restart somebody wants to know what is in there."""
    queue = opened(tmp_path, segment_bytes=700)
    queue.append([item(n, 255) for n in range(6)])
    die(queue)
    again = spool(tmp_path, segment_bytes=700)
    found = again.open()
    assert (found.records, found.quotes, found.bytes) == (6, 15, again.bytes_used)
    assert found.bytes == sum(path.stat().st_size for path in segment_files(tmp_path))
    seen = list(again.recovered())
    assert seen == again.read(10**6)
    assert names(seen) == list(range(6))


def test_a_restart_goes_on_in_the_last_segment(tmp_path: Path) -> None:
    """A daemon that starts again and again does not fill the folder with tiny files."""
    for n in range(5):
        queue = opened(tmp_path)
        queue.append([item(n)])
        die(queue)
    assert len(segment_files(tmp_path)) == 1
    assert names(opened(tmp_path).read(10**6)) == [0, 1, 2, 3, 4]


def test_what_is_too_much_goes_from_the_oldest_end(tmp_path: Path) -> None:
    """One digest in its place tells of all of it, and what was handed out is left alone."""
    queue = opened(tmp_path, segment_bytes=700, max_bytes=2000)
    queue.append([item(n, 255) for n in range(1, 13)])
    assert names(queue.read(1)) == [1]
    sheds = []
    while (shed := queue.shed(0)) is not None:
        sheds.append(shed)
    assert {shed.reason for shed in sheds} == {"spool_full"}
    assert not queue.has_digests_to_put
    assert queue.bytes_used <= 2000
    die(queue)
    records = list(opened(tmp_path).recovered())
    assert names(records[:2]) == [1, 2]
    assert names(records[3:]) == list(range(13 - len(records[3:]), 13))
    assert lost_in(records[2]) == sum(shed.quotes for shed in sheds) == sum(range(3, 13 - len(records[3:])))


def test_a_digest_that_is_under_way_is_left_alone(tmp_path: Path) -> None:
    """What is lost after it was handed out is told by another one, behind it."""
    queue = opened(tmp_path, segment_bytes=700, max_bytes=1000)
    queue.append([item(n, 255) for n in range(1, 5)])
    assert queue.shed(0) is not None
    assert [lost_in(record) for record in queue.read(1)] == [3]
    queue.append([item(n, 255) for n in range(5, 9)])
    assert queue.shed(0) is not None
    assert [lost_in(record) for record in list(queue.recovered())[:2]] == [3, 7]
    assert [record.body for record in queue.read(1)] == [b"lost 7"]


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    """By whole segments, which are small in time too: nothing that is young goes with it."""
    queue = opened(tmp_path, max_age_s=160)
    queue.append([item(n) for n in range(1000)])
    while (shed := queue.shed(999 * SECOND_NS)) is not None:
        assert shed.reason == "spool_too_old"
    first, *rest = queue.read(10**9)
    kept = names(rest)
    assert 839 - 10 <= kept[0] <= 839
    assert kept == list(range(kept[0], 1000))
    assert lost_in(first) == sum(range(kept[0]))


def test_a_digest_may_be_nothing(tmp_path: Path) -> None:
    """Then the records are gone and only counted."""
    queue = opened(tmp_path, segment_bytes=700, max_bytes=1, digest=lambda _: None)
    queue.append([item(n, 255) for n in range(1, 6)])
    lost = 0
    while (shed := queue.shed(0)) is not None:
        lost += shed.quotes
    assert (lost, queue.is_empty, segment_files(tmp_path)) == (15, True, [])
    queue.append([item(9)])
    assert names(queue.read(1)) == [9]


def test_positions_grow_though_the_last_segment_is_gone(tmp_path: Path) -> None:
    """What is appended behind a hole does not get the positions of what was in it."""
    queue = opened(tmp_path, segment_bytes=700)
    queue.append([item(1, 255), item(2, 255), item(3, 255)])
    die(queue)
    queue = opened(tmp_path, max_bytes=1, digest=lambda _: None)
    last = [record.position for record in queue.recovered()][-1]
    assert names(queue.read(1)) == [1]
    assert queue.shed(0) is not None
    assert queue.append([item(4)])[0] > last
    assert names(queue.read(10**6)) == [2, 4]


def test_a_newer_format_is_refused_as_it_lies(tmp_path: Path) -> None:
    """The message names the file and the remedy, and nothing in the folder has changed."""
    queue = opened(tmp_path, segment_bytes=700)
    queue.append([item(n, 255) for n in range(6)])
    die(queue)
    with pytest.MonkeyPatch.context() as later:
        later.setattr("ingestor.spool.records.VERSION", 2)
        later.setattr("ingestor.spool.recovery.VERSION", 2)
        newer = opened(tmp_path, segment_bytes=700)
        newer.append([item(6, 9000)])
        die(newer)
    (tmp_path / f"{FIRST_NUMBER:020}.new").write_bytes(b"x")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"}
    with pytest.raises(
        SpoolUnusable, match=r"1003\.segment was written by a newer release .*; run that"
    ) as said:
        spool(tmp_path).open()
    assert str(tmp_path) in str(said.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"} == before


def test_the_queue_of_another_redis_is_refused(tmp_path: Path) -> None:
    """It is not poured into the wrong one, and can still be opened for the right one."""
    queue = opened(tmp_path)
    queue.append([item(1)])
    die(queue)
    with pytest.raises(SpoolUnusable, match="belongs to another Redis or namespace; run the daemon against"):
        spool(tmp_path, identity="redis://b quotes").open()
    assert names(opened(tmp_path).read(1)) == [1]
    assert identity_of("a") != identity_of("b")


def test_a_body_that_contains_a_segment_is_only_a_body(tmp_path: Path) -> None:
    """Even where damage makes the reader search for the next record inside of it."""
    inner = opened(tmp_path / "inner")
    inner.append([item(n) for n in range(1, 4)])
    die(inner)
    body = segment_files(tmp_path / "inner")[0].read_bytes()
    queue = opened(tmp_path / "outer")
    queue.append([(1, 0, body), item(2)])
    die(queue)
    (path,) = segment_files(tmp_path / "outer")
    raw = bytearray(path.read_bytes())
    raw[52] ^= 1
    path.write_bytes(raw)
    again = spool(tmp_path / "outer")
    assert [damage.quotes_lost for damage in again.open().damages] == [1]
    assert names(again.read(10**6)) == [2]


def test_an_item_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """A mistake of the caller is an error for that call alone."""
    queue = opened(tmp_path, segment_bytes=700)
    queue.append([item(1)])
    with pytest.raises(struct.error):
        queue.append([item(2, 600), item(3), (-1, 0, b"")])
    queue.append([item(4)])
    die(queue)
    assert names(opened(tmp_path).read(10**6)) == [1, 4]

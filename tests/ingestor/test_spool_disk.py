"""The spool on disks that are full, read-only, somebody else's or broken: real ones, where they can be had."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from ingestor.spool import NotDurable, Spool, SpoolUnusable
from ingestor.spool.spool import MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES
from tests.ingestor.spooled import die, item, lost_in, names, opened, segment_files, spool

LIVES: Final = [sys.executable, "-m", "tests.ingestor.spool_lives"]
NAMESPACE: Final = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-m"]
NOBODY: Final = 65534
SHIM: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    if (access(getenv("BROKEN_WHILE"), F_OK) == 0) { errno = EIO; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


def run(command: list[str], **environment: str) -> Any:
    """What a life printed."""
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def on_tmpfs(life: str, folder: Path, options: str = "size=1m", then: str = "true") -> Any:
    """A life on a small disk, which is gone with the process."""
    script = f'mount -t tmpfs -o {options} tmpfs "$0" && {then} && exec "$@"'
    return run([*NAMESPACE, "sh", "-c", script, str(folder), *LIVES, life, str(folder)])


def can_mount() -> bool:
    """Whether this machine lets us have a disk of our own."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        script = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        return subprocess.run(script, capture_output=True, check=False).returncode == 0


DISKS: Final = ["tmpfs"] if can_mount() else []


@pytest.mark.fault("P10")
@pytest.mark.parametrize("kind", ["limit", *DISKS])
def test_a_full_disk_keeps_whole_records_only(tmp_path: Path, kind: str) -> None:
    """What was taken is read back, what was refused is not, and with room again it goes on."""
    seen = on_tmpfs("full_disk", tmp_path) if kind == "tmpfs" else run([*LIVES, "file_limit", str(tmp_path)])
    assert seen["errno"] == (errno.ENOSPC if kind == "tmpfs" else errno.EFBIG)
    assert len(seen["first"]) > 4
    assert seen["first_read"] == seen["first_again"] == seen["first"]
    assert seen["second_read"] == seen["last"] == seen["first"] + seen["second"]
    assert seen["damages"] == 0


@pytest.mark.fault("P10")
@pytest.mark.parametrize("kind", DISKS)
def test_what_is_settled_makes_room_on_a_full_disk(tmp_path: Path, kind: str) -> None:
    """The queue frees itself."""
    seen = on_tmpfs("full_disk_settled", tmp_path)
    assert len(seen["more"]) > 2
    assert seen["left"] == seen["taken"][len(seen["settled"]) :] + seen["more"]


@pytest.mark.fault("P10")
@pytest.mark.parametrize("kind", DISKS)
@pytest.mark.parametrize("life", ["full_disk_shed", "full_disk_shed_at_once"])
def test_shedding_works_on_a_full_disk(tmp_path: Path, life: str, kind: str) -> None:
    """There is no room for the digest before the segment is gone; it is told of all the same."""
    seen = on_tmpfs(life, tmp_path)
    lost = sum(quotes for _, quotes, _ in seen["shed"])
    assert {(reason, is_kept) for reason, _, is_kept in seen["shed"]} == {("spool_full", True)}
    assert seen["told"] == lost == sum(seen["taken"]) - sum(seen["kept"]) > 0
    assert seen["kept"] == seen["taken"][len(seen["taken"]) - len(seen["kept"]) :]
    assert seen["damages"] == 0
    assert seen["bytes"] <= 600_000


def of_eight(folder: Path) -> Spool:
    """A small one that holds eight records, two in each segment."""
    queue = opened(folder, segment_bytes=700, max_bytes=1700)
    queue.append([item(name) for name in range(1, 9)])
    return queue


@contextmanager
def no_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For as long as it lasts there is room for nothing on the disk."""

    def refuse(descriptor: int, parts: list[bytes]) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "writev", refuse)
        yield


@pytest.mark.parametrize("is_put", [True, False])
def test_a_digest_that_the_disk_does_not_take_is_read_from_memory_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_put: bool
) -> None:
    """Behind what was begun, before what is left, with what earlier digests told; and so once the disk has it."""
    queue = of_eight(tmp_path)
    assert names(queue.read(1)) == [1]
    with no_room(monkeypatch):
        sheds = [queue.shed(0), queue.shed(0)]
        with pytest.raises(OSError, match="No space left"):
            queue.put_digests()
    assert [shed and shed.quotes for shed in sheds] == [3 + 4, 5 + 6]
    assert queue.has_digests_to_put
    assert queue.look() == []
    if is_put:
        queue.put_digests()
        assert not queue.has_digests_to_put
    records = queue.read(10**6)
    assert [lost_in(record) or names([record])[0] for record in records] == [2, 3 + 4 + 5 + 6, 7, 8]
    queue.settle(records[-1].position)
    assert (queue.is_empty, queue.has_digests_to_put, segment_files(tmp_path)) == (True, False, [])


def test_a_digest_in_memory_outlasts_the_process_once_the_disk_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands on disk then for all that went before, digests included."""
    queue = of_eight(tmp_path)
    with no_room(monkeypatch):
        while queue.shed(0) is not None:
            pass
    queue.append([item(name) for name in range(9, 13)])
    while queue.shed(0) is not None:
        pass
    queue.put_digests()
    die(queue)
    first, *rest = opened(tmp_path).read(10**6)
    assert lost_in(first) == sum(range(names(rest)[0])) > 1 + 2 + 3 + 4
    assert names(rest)[-1] == 12


@pytest.mark.parametrize("is_put", [True, False])
def test_what_a_digest_on_disk_tells_stays_there_until_its_successor_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_put: bool
) -> None:
    """A kill before that costs what was lost last, and no marker that was safe already."""
    queue = of_eight(tmp_path)
    assert queue.shed(0) is not None
    with no_room(monkeypatch):
        assert queue.shed(0) is not None
    queue.append([item(9), item(10)])
    if is_put:
        queue.put_digests()
        assert len(segment_files(tmp_path)) == queue.segments
    die(queue)
    records = opened(tmp_path).read(10**6)
    assert [lost_in(record) for record in records][:2] == [1 + 2 + (3 + 4) * is_put, 0]
    assert names(records[1:]) == [5, 6, 7, 8, 9, 10]


def test_files_that_a_digest_in_memory_stands_for_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored, it needs no file any more, and neither do they."""
    queue = of_eight(tmp_path)
    assert queue.shed(0) is not None
    with no_room(monkeypatch):
        assert queue.shed(0) is not None
    queue.settle(queue.read(10**6)[-1].position)
    assert (queue.is_empty, queue.has_digests_to_put, segment_files(tmp_path)) == (True, False, [])


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that any user can get to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def refusal_as_nobody(folder: Path) -> str:
    """What a user without rights is told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"no refusal"
        try:
            if os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            spool(folder).open()
        except SpoolUnusable as error:
            said = str(error).encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


@pytest.mark.fault("P13")
@pytest.mark.parametrize("rights", [0o000, 0o400, 0o500])
def test_a_folder_without_permission_is_refused(shared: Path, rights: int) -> None:
    """The message names the folder, who was refused, and what to do."""
    folder = shared / "spool"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    folder.chmod(rights)
    said = refusal_as_nobody(folder)
    folder.chmod(0o700)
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert said == (
        f"the spool cannot be opened in {folder}: user {user} may not read and write there; "
        "give it the folder (chown, chmod 700)"
    )
    assert list(folder.iterdir()) == []


@pytest.mark.fault("P13")
def test_a_folder_that_cannot_be_made_is_refused(shared: Path) -> None:
    """Its parent is not ours."""
    shared.chmod(0o555)
    assert "may not read and write there" in refusal_as_nobody(shared / "spool")
    shared.chmod(0o755)


@pytest.mark.fault("P13")
@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_in_the_folders_place_is_refused(tmp_path: Path, below: str) -> None:
    """Or in the place of a folder above it; the file is left as it is."""
    place = tmp_path / "spool"
    place.write_text("mine")
    with pytest.raises(
        SpoolUnusable, match=r"spool.*: a file is in the folder's place; move it away, or name"
    ):
        spool(place / below).open()
    assert place.read_text() == "mine"


@pytest.mark.fault("P13")
@pytest.mark.parametrize("kind", DISKS)
@pytest.mark.parametrize("before", ["true", 'mkdir "$0/spool"', 'mkdir "$0/spool" && touch "$0/spool/lock"'])
def test_a_read_only_disk_is_refused(tmp_path: Path, kind: str, before: str) -> None:
    """Whether the folder was there already or not."""
    remount = f'{before} && mount -o remount,ro tmpfs "$0"'
    folder = tmp_path / "disk"
    folder.mkdir()
    script = f'mount -t tmpfs tmpfs "$0" && {remount} && exec "$@"'
    seen = run([*NAMESPACE, "sh", "-c", script, str(folder), *LIVES, "refused", str(folder / "spool")])
    assert seen["refused"] == (
        f"the spool cannot be opened in {folder / 'spool'}: the file system is read-only; "
        "mount it writable, or name another folder"
    )


def test_a_spool_that_another_process_uses_is_refused(tmp_path: Path) -> None:
    """The message names the process; when that one is killed, the spool is free, and whole."""
    with subprocess.Popen([*LIVES, "hold", str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert json.loads(holder.stdout.readline()) == "held"
        with pytest.raises(SpoolUnusable, match=f"process {holder.pid} uses it; stop that one, or give each"):
            spool(tmp_path).open()
        holder.kill()
    queue = opened(tmp_path)
    assert names(queue.read(1)) == [1]
    queue.close()
    opened(tmp_path).close()


@pytest.mark.parametrize("lines", [1, 6, 7, 30])
def test_what_a_killed_process_had_appended_is_there(tmp_path: Path, lines: int) -> None:
    """All of it that was confirmed, and perhaps what was on its way."""
    command = [*LIVES, "write_for_ever", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        confirmed = [int(writer.stdout.readline()) for _ in range(lines)]
        writer.kill()
        confirmed += [int(line) for line in writer.stdout]
    queue = spool(tmp_path)
    assert [damage.reason for damage in queue.open().damages] in ([], ["torn"])
    there = names(queue.read(1 << 40))
    assert there == list(range(1, len(there) + 1))
    assert len(confirmed) <= len(there) <= len(confirmed) + 1


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that stands before the system's `fdatasync`."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"],
        check=True,
        timeout=60,
    )
    return folder / "shim.so"


def check_no_sync(seen: dict[str, Any]) -> None:
    """A sync that failed is told of once, for the records that it was about, and the file is not gone on with."""
    assert tuple(seen["error"]) == (errno.EIO, 2, 3 + 4)
    assert (seen["segments"], seen["segments_later"]) == (1, 2)
    assert seen["read"] == [1, 2, 3, 4, 5]
    assert tuple(seen["rolling"]) == (errno.EIO, 1, 6)
    assert seen["read_rolling"] == [1, 2, 3, 4, 5, 6]
    assert tuple(seen["closing"]) == (errno.EIO, 1, 10)
    assert seen["last"] == [1, 2, 3, 4, 5, 6, 10]
    assert seen["damages"] == 0


@pytest.mark.fault("P14")
@pytest.mark.parametrize("kind", ["gcc"] if shutil.which("gcc") and sys.platform == "linux" else [])
def test_a_disk_that_cannot_sync_is_not_believed(shim: Path, tmp_path: Path, kind: str) -> None:
    """The system call fails: at a sync, when a segment is full, and at the end."""
    check_no_sync(
        run([*LIVES, "no_sync", str(tmp_path)], LD_PRELOAD=str(shim), BROKEN_WHILE=str(tmp_path / "broken"))
    )


@pytest.mark.fault("P14")
def test_a_sync_that_failed_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With how many records and quotes are in doubt; the next ones go into another file."""
    queue = opened(tmp_path)
    queue.append([item(1), item(2)])
    real = getattr(os, "fdatasync", os.fsync)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail, raising=False)
    with pytest.raises(NotDurable) as said:
        queue.sync()
    assert (said.value.errno, said.value.records, said.value.quotes) == (errno.EIO, 2, 3)
    queue.sync()
    monkeypatch.setattr(os, "fdatasync", real, raising=False)
    queue.append([item(3)])
    queue.sync()
    assert queue.segments == 2
    assert names(queue.read(10**6)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [(1 << 30, MAX_SEGMENT_BYTES), (32 << 20, 2 << 20), (1 << 16, MIN_SEGMENT_BYTES), (1, MIN_SEGMENT_BYTES)],
)
def test_a_segment_is_a_small_part_of_the_whole(tmp_path: Path, max_bytes: int, expected: int) -> None:
    """So that shedding drops a sixteenth at most, where that is not too small a file."""
    assert spool(tmp_path, max_bytes=max_bytes)._shelf._segment_bytes == expected

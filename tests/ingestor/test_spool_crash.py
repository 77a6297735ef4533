"""A crash, or an error of the disk, at any call of the file system: nothing is lost that is not counted."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestor.spool import Record, Shed, Spool, SpoolUnusable
from tests.ingestor.spooled import SECOND_NS, die, item, lost_in, name_of, spool

CALLS = ("mkdir", "open", "writev", "truncate", "unlink", "replace", "fdatasync", "fsync", "close")
LIMITS = {"segment_bytes": 700, "max_bytes": 2500, "max_age_s": 1000}


class Died(BaseException):
    """The process is no more."""


class Disk:
    """Counts the calls that change the disk; from one of them on (or at that one alone) they fail."""

    def __init__(self, at: int, error: int | None) -> None:
        self.at = at
        self.error = error
        self.calls = 0
        self.failed: list[str] = []

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, which may fail."""

        def wrapped(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at or (self.calls > self.at and self.error is None):
                self.failed.append(name)
                if name == "writev" and self.calls == self.at:
                    half = b"".join(args[1])
                    os.write(args[0], half[: len(half) // 2])
                if name == "close":  # It is closed all the same: by the system, or by the end of the process.
                    call(*args, **options)
                if self.error is None:
                    raise Died
                raise OSError(self.error, os.strerror(self.error))
            return call(*args, **options)

        return wrapped


@contextmanager
def failing(disk: Disk) -> Iterator[None]:
    """The calls of the file system fail as the disk says."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, disk.wrap(name, getattr(os, name)))
        yield


class Story:
    """A life of a spool, and what its user knows of it at each moment."""

    def __init__(self, folder: Path) -> None:
        self.queue: Spool = spool(folder, **LIMITS)
        self.kept: list[int] = []
        self.doubtful: list[int] = []
        self.settled: list[int] = []
        self.settled_digests: set[tuple[int, int]] = set()
        self.next = 1
        self.out: list[Record] = []

    def run(self) -> None:
        """Everything that a spool can do, with little room."""
        self.queue.open()
        self.append(2, 300)
        self.append(5, 300)
        self.sync()
        self.read(2200)
        self.settle(3)
        self.shed(0)
        self.append(12, 100)
        self.shed(0)
        self.append(6, 500)
        self.shed(0)
        self.unread()
        self.shed(0)
        self.append(3, 0)
        self.shed(10**6 * SECOND_NS)
        self.append(4, 900)
        self.sync()
        self.read(4000)
        self.settle(2)
        self.queue.close()

    def append(self, count: int, size: int) -> None:
        """A few bodies in one call."""
        new = list(range(self.next, self.next + count))
        self.next += count
        self.doubtful = new
        with self.disk_error() as is_well:
            self.queue.append([item(name, size) for name in new])
            self.kept += new
        self.doubtful = [] if is_well else self.doubtful

    def sync(self) -> None:
        """As once a second."""
        with self.disk_error():
            self.queue.sync()

    def read(self, size: int) -> None:
        """Hand out."""
        with self.disk_error():
            self.out += self.queue.read(size)

    def unread(self) -> None:
        """The connection is lost."""
        self.queue.unread(0)
        self.out = []

    def settle(self, count: int) -> None:
        """The first ones of those handed out."""
        settled, self.out = self.out[:count], self.out[count:]
        self.settled += [name_of(record) for record in settled if not lost_in(record)]
        self.settled_digests |= digests(settled)
        if settled:
            with self.disk_error():
                self.queue.settle(settled[-1].position)

    def shed(self, now_ns: int) -> None:
        """Until nothing is too much."""
        shed: Shed | None = None
        for _ in range(100):
            with self.disk_error():
                shed = self.queue.shed(now_ns)
                if shed is None:
                    return

    @contextmanager
    def disk_error(self) -> Iterator[list[bool]]:
        """An error of the disk is survived; the list stays empty if there was one."""
        is_well: list[bool] = []
        try:
            yield is_well
            is_well.append(True)
        except OSError:
            pass

    def check(self, opened: Spool) -> None:
        """After a new start: all that was kept is there or told of."""
        assert not [damage for damage in opened.take_damages() if damage.reason != "torn"]
        records = list(opened.recovered())
        there = [name_of(record) for record in records if not lost_in(record)]
        assert there == sorted(set(there))
        assert set(there) <= {*self.kept, *self.doubtful}
        gone = set(self.kept) - set(there) - set(self.settled)
        # A settled digest may come again, as any record may.
        told = sum(lost for _, lost in digests(records) | self.settled_digests)
        assert sum(gone) == told


def digests(records: list[Record]) -> set[tuple[int, int]]:
    """Which digests are among them: since when, and what they tell."""
    return {(record.at_ns, lost_in(record)) for record in records if lost_in(record)}


def total_calls(folder: Path) -> int:
    """How many calls the story makes on a disk that is well."""
    disk = Disk(0, errno.EIO)
    with failing(disk):
        story = Story(folder)
        story.run()
    assert len(story.settled) >= 3
    return disk.calls


def test_a_crash_at_any_instant_loses_nothing_uncounted(tmp_path: Path) -> None:
    """For every call of the file system in a life with rolling, settling and shedding: die there, start again."""
    for at in range(1, total_calls(tmp_path / "well") + 1):
        folder = tmp_path / str(at)
        story = Story(folder)
        disk = Disk(at, None)
        with failing(disk), pytest.raises(Died):
            story.run()
        die(story.queue)
        after = spool(folder, **LIMITS)
        damages = after.open().damages
        assert [damage.reason for damage in damages] in ([], ["torn"]), disk.failed
        story.check(after)
        after.append([item(1000)])
        assert [name_of(r) for r in after.read(10**9) if not lost_in(r)][-1] == 1000
        die(after)


@pytest.mark.fault("P10", "P14")
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_an_error_at_any_instant_loses_nothing_uncounted(tmp_path: Path, error: int) -> None:
    """For every call of the file system: it fails once, the daemon goes on, and later starts again."""
    for at in range(1, total_calls(tmp_path / "well") + 1):
        folder = tmp_path / str(at)
        story = Story(folder)
        disk = Disk(at, error)
        with failing(disk):
            try:
                story.run()
            except SpoolUnusable:
                assert story.next == 1
            except OSError:
                assert story.next > 20  # The last of all, `close`, says what it could not do.
        die(story.queue)
        after = spool(folder, **LIMITS)
        assert after.open().damages == []
        story.check(after)
        die(after)

"""The spool's folder: its lock, its segment files, and the damaged files that are kept for a while.

Decides file names, and how a file is written, replaced or put aside so that a crash leaves the old or the new one.
A segment that the disk does not take may stay in memory for the time being, and looks like any other from outside.
Must never know what a record is, nor which segment is needed.
"""

import contextlib
import errno
import fcntl
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

MOST_QUARANTINED: Final = 8
_NAME: Final = re.compile(r"(\d{20})\.(segment|damaged|new)")
_PARTS_PER_WRITE: Final = 512
_DAMAGE_ERRORS: Final = frozenset(
    {errno.EIO, errno.ENOENT, errno.EISDIR, errno.ENODATA, errno.EBADMSG, errno.ESTALE, errno.ENXIO}
    | {getattr(errno, "EUCLEAN", errno.EIO)}
)


class SpoolUnusable(Exception):
    """The spool cannot be opened; the message names the folder, the reason and the remedy."""


def is_damage(error: OSError) -> bool:
    """Whether an error of reading means that the file is bad or gone; any other one may pass."""
    return error.errno in _DAMAGE_ERRORS


def write_all(descriptor: int, parts: list[bytes]) -> None:
    """Write every part, in as few calls as the system allows."""
    views = [memoryview(part) for part in parts if part]
    at = 0
    while at < len(views):
        written = os.writev(descriptor, views[at : at + _PARTS_PER_WRITE])
        if written == 0:
            raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
        while at < len(views) and written >= len(views[at]):
            written -= len(views[at])
            at += 1
        if written:
            views[at] = views[at][written:]


def sync_data(descriptor: int) -> None:
    """Make a file's bytes durable."""
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has none.
    sync(descriptor)


@dataclass(frozen=True, slots=True)
class Listing:
    """Numbers of the files of each kind, smallest first."""

    segments: list[int]
    damaged: list[int]
    unfinished: list[int]


class Folder:
    """File operations by segment number. OSError passes unless a method says otherwise."""

    def __init__(self, path: Path, *, max_quarantined_bytes: int) -> None:
        self.path = path
        self._max_quarantined_bytes = max_quarantined_bytes
        self._lock: int | None = None
        self._is_dirty = False
        self._held: dict[int, bytes] = {}
        self.quarantined = 0
        self.on_new: Callable[[], None] = lambda: None
        """What is to be done where the folder was made anew."""

    def lock(self) -> None:
        """Make the folder where it is missing, and be its only user. Raises SpoolUnusable."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
                self._refuse()
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.unlock()
            raise SpoolUnusable(self._explain(error)) from error
        with contextlib.suppress(
            OSError
        ):  # Who holds the lock is a courtesy; a full disk must not prevent the rest.
            os.ftruncate(self._lock, 0)
            os.write(self._lock, b"%d\n" % os.getpid())

    def unlock(self) -> None:
        """Let another process in. The file stays: deleting it would let two in."""
        if self._lock is not None:
            descriptor, self._lock = self._lock, None
            os.close(descriptor)

    def listing(self) -> Listing:
        """What lies in the folder; files with other names are none of ours."""
        numbers: dict[str, list[int]] = {"segment": [], "damaged": [], "new": []}
        for path in self.path.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is not None:
                numbers[match[2]].append(int(match[1]))
        kinds = (sorted(numbers[kind]) for kind in ("segment", "damaged", "new"))
        return Listing(*kinds)

    def file(self, number: int) -> Path:
        """Where a segment lies."""
        return self.path / f"{number:020}.segment"

    def has(self, number: int, size: int, descriptor: int | None = None) -> bool:
        """Whether a segment is there, with at least so many bytes, and is the file that is open as `descriptor`."""
        if number in self._held:
            return True
        try:
            status = self.file(number).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return status.st_size >= size and (
            descriptor is None or os.path.samestat(status, os.fstat(descriptor))
        )

    def keep(self) -> None:
        """Make the folder anew where it is gone, and lock it again where another stands in its place."""
        try:
            is_ours = self._lock is not None and os.path.samestat(
                (self.path / "lock").stat(), os.fstat(self._lock)
            )
        except (FileNotFoundError, NotADirectoryError):
            is_ours = False
        if not is_ours:
            self._make_anew()

    def source(self, number: int) -> BinaryIO:
        """A segment, to read from."""
        if number in self._held:
            return io.BytesIO(self._held[number])
        return self.file(number).open("rb")

    def create(self, number: int) -> int:
        """The descriptor of a new and empty segment, to write to its end."""
        self.keep()
        self._is_dirty = True
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self.file(number), flags, 0o600)

    def reopen(self, number: int) -> int:
        """The descriptor of a segment that exists, to write to its end."""
        return os.open(self.file(number), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def cut(self, number: int, size: int) -> None:
        """Shorten a segment to so many bytes."""
        os.truncate(self.file(number), size)

    def delete(self, number: int) -> None:
        """Delete a segment; one that is gone already is no error."""
        self._held.pop(number, None)
        self.file(number).unlink(missing_ok=True)

    def put(self, number: int, parts: list[bytes]) -> None:
        """Set a segment in the place of what has its name, or leave that as it is and raise."""
        self.keep()
        new = self.path / f"{number:020}.new"
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, parts)
                sync_data(descriptor)
            finally:
                os.close(descriptor)
            new.replace(self.file(number))
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        self._is_dirty = True

    def hold(self, number: int, parts: list[bytes]) -> None:
        """Have a segment in memory alone, until `put_held`."""
        self._held[number] = b"".join(parts)

    def let_go(self, number: int) -> bool:
        """Forget a segment that is in memory alone; whether it was."""
        return self._held.pop(number, None) is not None

    @property
    def held(self) -> frozenset[int]:
        """The segments that are in memory alone."""
        return frozenset(self._held)

    def put_held(self) -> None:
        """Write the segments that are in memory alone. Raises OSError where one cannot be."""
        for number, content in list(self._held.items()):
            self.put(number, [content])
            del self._held[number]

    def probe(self, size: int) -> None:
        """Write so many bytes, make them durable, and delete them again."""
        self.keep()
        path = self.path / "probe"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, [bytes(size)])
            sync_data(descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def discard_unfinished(self, number: int) -> None:
        """Delete what a crash left of `put`."""
        with contextlib.suppress(OSError):  # `put` writes over it.
            (self.path / f"{number:020}.new").unlink(missing_ok=True)

    def quarantine(self, number: int) -> None:
        """Put a segment aside for whoever wants to look into it, and let the oldest such files go."""
        with contextlib.suppress(FileNotFoundError):
            self.file(number).replace(self.path / f"{number:020}.damaged")
        self.trim_quarantine()

    def trim_quarantine(self) -> None:
        """Keep the damaged files within their bounds, in number and in bytes."""
        try:
            kept = [self.path / f"{number:020}.damaged" for number in self.listing().damaged]
        except FileNotFoundError:
            # The whole folder is gone; it is made anew with the next segment.
            kept = []
        sizes = [path.lstat().st_size for path in kept]
        while kept and (len(kept) > MOST_QUARANTINED or sum(sizes) > self._max_quarantined_bytes):
            with contextlib.suppress(OSError):  # A file that cannot be deleted must not stop the queue.
                kept[0].unlink()
            del kept[0], sizes[0]
        self.quarantined = len(kept)

    def sync(self) -> None:
        """Make new names durable. An error is raised once and not tried again."""
        if not self._is_dirty:
            return
        self._is_dirty = False
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make_anew(self) -> None:
        """The folder was deleted or moved away under us, with the file that was locked. Raises OSError where
        another process has taken the place."""
        self.unlock()
        try:
            self.lock()
        except SpoolUnusable as problem:
            raise OSError(errno.EBUSY, str(problem)) from problem
        self.on_new()

    def _refuse(self) -> None:
        is_read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
        reason = errno.EROFS if is_read_only else errno.EACCES
        raise OSError(reason, os.strerror(reason))

    def _explain(self, error: OSError) -> str:
        said = f"the spool cannot be opened in {self.path}: "
        match error.errno:
            case errno.EAGAIN:
                return (
                    said + f"{self._holder()} uses it; stop that one, or give each daemon a folder of its own"
                )
            case errno.EEXIST | errno.ENOTDIR:
                return said + "a file is in the folder's place; move it away, or name another folder"
            case errno.EROFS:
                return said + "the file system is read-only; mount it writable, or name another folder"
            case errno.EACCES | errno.EPERM:
                who = f"user {os.geteuid()}"
                return said + f"{who} may not read and write there; give it the folder (chown, chmod 700)"
            case errno.ENOSPC | errno.EDQUOT:
                return said + "no space is left; free some, or name a folder on another disk"
            case errno.ENOLCK | errno.EOPNOTSUPP:
                return said + "its file system has no locks (flock); name a folder on a local disk"
        return said + f"{error.strerror or error}; mend it, or name another folder"

    def _holder(self) -> str:
        try:
            pid = int((self.path / "lock").read_bytes()[:20])
        except (OSError, ValueError):
            return "another process"
        return f"process {pid}"

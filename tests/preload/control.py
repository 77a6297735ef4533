"""What the preloaded library is told, and what it has seen: one file that both sides map.

Decides the layout, word for word the one of `faults.c`. Must never know who is started with it, nor why a call is
to fail. A change holds from the process's next call on, and also for calls that are hanging; several processes that
were started with the same environment share all of it, counts included.

A process is slowed down by nothing but an extra system call or two per file. What is not seen: descriptors that
were inherited, duplicated or opened through stdio's own functions, memory-mapped files, and io_uring.
"""

import enum
import errno as errors
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

ALWAYS: Final = -1
_MAGIC: Final = 0x71756F7465627573
_WORD: Final = struct.Struct("=q")
_WORDS_OF_HEAD: Final = 8
_WORDS_OF_CALL: Final = 10
_FOLDER_AT: Final = 4096
_CONTROL_BYTES: Final = 8192
_LONGEST_PATH: Final = 4000


class Call(enum.IntEnum):
    """Kinds of system calls, each with those that count as it."""

    OPEN = 0
    """open, openat, creat."""
    READ = 1
    """read, readv, pread, preadv, preadv2."""
    WRITE = 2
    """write, writev, pwrite, pwritev, pwritev2."""
    SYNC = 3
    """fsync, fdatasync; of a folder as well."""
    TRUNCATE = 4
    """truncate, ftruncate."""
    UNLINK = 5
    """unlink, unlinkat, rmdir."""
    RENAME = 6
    """rename, renameat, renameat2, from or into the folder."""
    MKDIR = 7
    """mkdir, mkdirat; of the folder itself as well."""
    STAT = 8
    """stat, lstat, fstat, fstatat, access, statvfs, fstatvfs."""
    LIST = 9
    """opendir: what `os.listdir`, `os.scandir` and `Path.iterdir` begin with."""
    LOCK = 10
    """flock."""
    CLOSE = 11
    """close. An error is reported, and the descriptor is gone all the same, as the system has it."""


class _Head(enum.IntEnum):
    MAGIC = 0
    CLOCK_NS = 1
    CAPACITY_BYTES = 2
    USED_BYTES = 3
    HOG_BYTES = 4


class _Word(enum.IntEnum):
    ERRNO = 0
    SKIP = 1
    TIMES = 2
    DELAY_NS = 3
    HANGS = 4
    MOST_BYTES = 5
    CALLS = 6
    FAILED = 7
    WAITING = 8


class Faults:
    """The faults of one folder, and of the wall clock of whoever is started with `environment`.

    A context manager; leaving it releases what hangs. `folder` is the absolute path that the process will use, with
    the same symbolic links; it need not exist.
    """

    def __init__(self, folder: Path, library: Path) -> None:
        path = os.fsencode(folder)
        if not folder.is_absolute() or len(path) > _LONGEST_PATH:
            raise ValueError(f"{folder} must be an absolute path of at most {_LONGEST_PATH} bytes")
        self._folder = folder
        self._library = library
        with tempfile.NamedTemporaryFile(prefix="preloaded-faults-", delete=False) as file:
            self._path = Path(file.name)
            file.write(bytes(_CONTROL_BYTES))
            file.flush()
            self._map = mmap.mmap(file.fileno(), _CONTROL_BYTES)
        self._map[_FOLDER_AT : _FOLDER_AT + len(path)] = path
        self._set_head(_Head.MAGIC, _MAGIC)
        self._set_head(_Head.CAPACITY_BYTES, -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self._map.close()
        self._path.unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process is to be started with."""
        others = os.environ.get("LD_PRELOAD", "")
        return {"LD_PRELOAD": f"{self._library} {others}".strip(), "PRELOADED_FAULTS": str(self._path)}

    # --- what is to happen ---------------------------------------------------------------------------------------

    def fail(self, call: Call, errno: int = errors.EIO, *, times: int = ALWAYS, skip: int = 0) -> None:
        """So many calls fail with this errno, after the next `skip` ones, which do not."""
        self._set(call, _Word.ERRNO, 0)
        self._set(call, _Word.SKIP, skip)
        self._set(call, _Word.TIMES, times)
        self._set(call, _Word.ERRNO, errno)

    def slow(self, call: Call, delay_s: float) -> None:
        """Each call takes so much longer."""
        self._set(call, _Word.DELAY_NS, int(delay_s * 1e9))

    def hang(self, call: Call) -> None:
        """Calls do not come back before this is healed. Then they are carried out, as on a disk that recovers."""
        self._set(call, _Word.HANGS, 1)

    def shorten(self, call: Call, most_bytes: int) -> None:
        """A READ or WRITE moves at most so many bytes (at least 1), which is no error."""
        self._set(call, _Word.MOST_BYTES, most_bytes)

    def resize(self, capacity_bytes: int | None, *, hog_bytes: int = 0) -> None:
        """The folder has so much room, of which others have taken `hog_bytes`; None is all that the disk has.

        What lies there now is counted once, and from then on what this process writes, cuts and deletes. A write
        that fits in part is short, the next one fails with ENOSPC, and so does a new file on a full disk.
        """
        self._set_head(_Head.CAPACITY_BYTES, -1)
        self._set_head(_Head.HOG_BYTES, hog_bytes)
        if capacity_bytes is not None:
            self._set_head(_Head.USED_BYTES, sum(_size(path) for path in self._folder.rglob("*")))
            self._set_head(_Head.CAPACITY_BYTES, capacity_bytes)

    def jump_clock(self, by_s: float) -> None:
        """The wall clock of the process is so far ahead of the machine's, or behind it; 0 sets it right.

        The clocks of elapsed time go on as they were. Times of files are the machine's.
        """
        self._set_head(_Head.CLOCK_NS, int(by_s * 1e9))

    def heal(self, *calls: Call) -> None:
        """These calls (none: all calls, the folder's size and the clock) are as they should be; counts stay."""
        for call in calls or Call:
            for word in (_Word.ERRNO, _Word.DELAY_NS, _Word.HANGS, _Word.MOST_BYTES):
                self._set(call, word, 0)
        if not calls:
            self.resize(None)
            self.jump_clock(0)

    # --- what has happened ---------------------------------------------------------------------------------------

    def calls(self, call: Call) -> int:
        """How many there were so far; those that hang, too."""
        return self._get(call, _Word.CALLS)

    def failed(self, call: Call) -> int:
        """How many were made to fail; of WRITE those for which there was no room, too."""
        return self._get(call, _Word.FAILED)

    def hanging(self, call: Call) -> int:
        """How many hang now; of a process that was killed meanwhile they are never taken off."""
        return self._get(call, _Word.WAITING)

    @property
    def used_bytes(self) -> int:
        """What the folder holds, as far as `resize` has it counted."""
        return self._word(_Head.USED_BYTES)

    # --- words ---------------------------------------------------------------------------------------------------

    def _set_head(self, word: _Head, value: int) -> None:
        _WORD.pack_into(self._map, word * _WORD.size, value)

    def _word(self, at: int) -> int:
        return int(_WORD.unpack_from(self._map, at * _WORD.size)[0])

    def _set(self, call: Call, word: _Word, value: int) -> None:
        at = _WORDS_OF_HEAD + call * _WORDS_OF_CALL + word
        _WORD.pack_into(self._map, at * _WORD.size, value)

    def _get(self, call: Call, word: _Word) -> int:
        return self._word(_WORDS_OF_HEAD + call * _WORDS_OF_CALL + word)


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until it holds; for tests without an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not so within {timeout_s} s")
        time.sleep(0.005)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:
        return 0

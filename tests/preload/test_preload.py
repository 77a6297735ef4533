"""The preloaded library, in a real process that uses the file system as the daemon does."""

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.preload.build import NoCompiler, build
from tests.preload.control import Call, Faults, until

CALLS: Final[dict[Call, str]] = {
    Call.OPEN: "os.open(f'{folder}/new', os.O_RDWR | os.O_CREAT)",
    Call.READ: "os.pread(fd, 1, 0)",
    Call.WRITE: "os.write(fd, b'x')",
    Call.SYNC: "os.fdatasync(fd)",
    Call.TRUNCATE: "os.truncate(f'{folder}/file', 1)",
    Call.UNLINK: "os.unlink(f'{folder}/file')",
    Call.RENAME: "os.replace(f'{folder}/file', f'{folder}/other')",
    Call.MKDIR: "os.mkdir(f'{folder}/deep')",
    Call.STAT: "os.stat(f'{folder}/file')",
    Call.LIST: "os.listdir(folder)",
    Call.LOCK: "fcntl.flock(fd, fcntl.LOCK_EX)",
    Call.CLOSE: "os.close(fd)",
}
OTHERS: Final[list[tuple[Call, str]]] = [
    (Call.OPEN, "open(f'{folder}/file')"),
    (Call.OPEN, "os.open('file', os.O_RDONLY, dir_fd=folder_fd)"),
    (Call.READ, "os.read(fd, 1)"),
    (Call.READ, "os.readv(fd, [bytearray(1)])"),
    (Call.READ, "os.preadv(fd, [bytearray(1)], 0)"),
    (Call.WRITE, "os.writev(fd, [b'x', b'y'])"),
    (Call.WRITE, "os.pwrite(fd, b'x', 0)"),
    (Call.WRITE, "os.pwritev(fd, [b'x'], 0)"),
    (Call.WRITE, "os.pwritev(fd, [b'x'], 0, os.RWF_DSYNC)"),
    (Call.WRITE, "pathlib.Path(folder, 'file').write_bytes(b'x')"),
    (Call.SYNC, "os.fsync(fd)"),
    (Call.SYNC, "os.fsync(folder_fd)"),
    (Call.TRUNCATE, "os.ftruncate(fd, 1)"),
    (Call.UNLINK, "os.unlink('file', dir_fd=folder_fd)"),
    (Call.UNLINK, "(os.mkdir(f'{folder}/deep'), os.rmdir(f'{folder}/deep'))"),
    (Call.UNLINK, "shutil.rmtree(folder)"),
    (Call.RENAME, "os.rename(f'{folder}/file', f'{folder}/../elsewhere/file')"),
    (Call.MKDIR, "os.makedirs(f'{folder}/deep/deeper')"),
    (Call.STAT, "os.lstat(f'{folder}/file')"),
    (Call.STAT, "os.fstat(fd)"),
    (Call.STAT, "os.statvfs(folder)"),
    (Call.LIST, "list(pathlib.Path(folder).iterdir())"),
]
PREFACE: Final = """
import fcntl, os, pathlib, shutil, sys, time
folder = sys.argv[1]
elsewhere = sys.argv[2]
fd = os.open(f'{folder}/file', os.O_RDWR | os.O_CREAT)
folder_fd = os.open(folder, os.O_RDONLY)
print('open', flush=True)
sys.stdin.readline()
try:
    {code}
except OSError as error:
    print(error.errno)
else:
    print('done')
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, and another one beside it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "faulty").mkdir()
    return tmp_path / "faulty"


@pytest.fixture
def faults(folder: Path, fault_library: Path) -> Iterator[Faults]:
    """Control over the folder."""
    with Faults(folder, fault_library) as control:
        yield control


@contextlib.contextmanager
def process(faults: Faults, folder: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Python with the library: `fd` is a file of the folder; told to by a line, it runs the code."""
    command = [
        sys.executable,
        "-IS",
        "-c",
        PREFACE.replace("{code}", code),
        str(folder),
        str(folder.parent / "elsewhere"),
    ]
    with subprocess.Popen(
        command,
        env={**os.environ, **faults.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            yield child
        finally:
            child.kill()


def outcome(child: subprocess.Popen[str]) -> str:
    """What came of its code: an errno, `done`, or what it printed before."""
    said, _ = child.communicate("go\n", timeout=30)
    return said.strip()


@pytest.mark.parametrize(("call", "code"), [*CALLS.items(), *OTHERS], ids=lambda value: str(value))
def test_a_call_fails_as_it_was_told_and_no_other_does(
    faults: Faults, folder: Path, call: Call, code: str
) -> None:
    """With the errno that was set, and counted; what the process does elsewhere goes on."""
    with process(faults, folder, code) as child:
        faults.fail(call, errno.EDQUOT)
        assert outcome(child) == str(errno.EDQUOT)
    assert faults.failed(call) >= 1
    assert [other for other in Call if faults.failed(other) and other is not call] == []


@pytest.mark.parametrize(("call", "code"), CALLS.items(), ids=lambda value: str(value))
def test_a_call_hangs_until_it_is_healed(faults: Faults, folder: Path, call: Call, code: str) -> None:
    """Nothing comes back before, and then the call is carried out."""
    with process(faults, folder, code) as child:
        faults.hang(call)
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        until(lambda: faults.hanging(call) == 1)
        assert child.poll() is None
        faults.heal(call)
        assert outcome(child) == "done"
    assert faults.hanging(call) == 0


def test_nothing_fails_outside_of_the_folder(faults: Faults, folder: Path) -> None:
    """Neither beside it, nor in one whose name merely begins alike, nor on a socket."""
    code = (
        "import socket; a, b = socket.socketpair(); a.send(b'x'); os.write(a.fileno(), b'y');"
        "os.read(b.fileno(), 1);"
        "os.close(fd); pathlib.Path(elsewhere, 'file').write_bytes(b'x'); os.mkdir(folder + '2');"
        "pathlib.Path(folder + '2', 'file').write_text('x'); shutil.rmtree(folder + '2')"
    )
    with process(faults, folder, code) as child:
        for call in set(Call) - {Call.CLOSE}:
            faults.fail(call)
        assert outcome(child) == "done"
    assert not any(faults.failed(call) for call in Call)


def test_some_calls_pass_before_and_after(faults: Faults, folder: Path) -> None:
    """Two go through, three fail, and the rest is well."""
    code = """
    for _ in range(7):
        try:
            print(os.write(fd, b'x'))
        except OSError as error:
            print(error.errno)
"""
    with process(faults, folder, code) as child:
        faults.fail(Call.WRITE, errno.EIO, skip=2, times=3)
        assert outcome(child).split() == ["1", "1", "5", "5", "5", "1", "1", "done"]


def test_a_short_write_is_no_error(faults: Faults, folder: Path) -> None:
    """What was written is said, over several parts as well, and so for reading."""
    code = "print(os.write(fd, b'12345'), os.writev(fd, [b'1', b'2345']), len(os.pread(fd, 100, 0)))"
    with process(faults, folder, code) as child:
        faults.shorten(Call.WRITE, 3)
        faults.shorten(Call.READ, 4)
        assert outcome(child).split() == ["3", "3", "4", "done"]
    assert (folder / "file").read_bytes() == b"123123"


def test_a_slow_call_takes_its_time(faults: Faults, folder: Path) -> None:
    """Each one."""
    with process(faults, folder, "os.fsync(fd); os.fsync(fd)") as child:
        faults.slow(Call.SYNC, 0.2)
        began_s = time.monotonic()
        assert outcome(child) == "done"
        assert time.monotonic() - began_s >= 0.4


def test_a_folder_has_a_size(faults: Faults, folder: Path) -> None:
    """What fits is written, what is overwritten takes no room, and what is cut or deleted gives it back."""
    (folder / "older").write_bytes(bytes(600))
    code = """
    def attempt(action):
        try:
            return action()
        except OSError as error:
            return -error.errno
    def append(count):
        return os.write(os.open(f'{folder}/new', os.O_CREAT | os.O_WRONLY | os.O_APPEND), bytes(count))
    print(attempt(lambda: os.write(fd, bytes(300))), attempt(lambda: os.write(fd, bytes(300))),
          attempt(lambda: os.write(fd, bytes(1))), attempt(lambda: os.pwrite(fd, bytes(400), 0)),
          attempt(lambda: open(f'{folder}/new', 'w')), os.statvfs(folder).f_bavail,
          attempt(lambda: os.ftruncate(fd, 100)), attempt(lambda: append(900)),
          attempt(lambda: os.unlink(f'{folder}/older')), attempt(lambda: append(900)))
"""
    with process(faults, folder, code) as child:
        faults.resize(1000)
        full = -errno.ENOSPC
        assert outcome(child).split() == [
            *map(str, (300, 100, full, 400, full, 0, None, 300, None, 600)),
            "done",
        ]
    assert faults.used_bytes == 1000 == sum(path.stat().st_size for path in folder.iterdir())


def test_a_neighbour_takes_room_and_gives_it_back(faults: Faults, folder: Path) -> None:
    """A full disk fails until whoever filled it goes."""
    with process(faults, folder, "os.write(fd, b'x')") as child:
        faults.resize(1000, hog_bytes=1000)
        assert outcome(child) == str(errno.ENOSPC)
    with process(faults, folder, "os.write(fd, b'x')") as child:
        faults.resize(1000)
        assert outcome(child) == "done"


@pytest.mark.parametrize("by_s", [2 * 86_400.0, -3600.0])
def test_the_wall_clock_jumps_and_elapsed_time_does_not(faults: Faults, folder: Path, by_s: float) -> None:
    """In the running process, and back again."""
    code = """
    def both():
        return [time.time_ns() // 10**9, time.monotonic_ns() // 10**9]
    print(*both(), flush=True)
    sys.stdin.readline()
    print(*both(), time.gmtime()[:3] == time.gmtime(time.time())[:3])
"""
    with process(faults, folder, code) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        wall_s, elapsed_s = map(int, child.stdout.readline().split())
        assert abs(wall_s - time.time_ns() / 1e9) < 30
        faults.jump_clock(by_s)
        later_wall_s, later_elapsed_s, *_ = outcome(child).split()
    assert abs(int(later_wall_s) - wall_s - by_s) < 30
    assert 0 <= int(later_elapsed_s) - elapsed_s < 30


def test_a_compiler_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy; nothing is skipped in silence."""
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(NoCompiler, match=r"/nowhere/cc cannot be run: .*; set CC"):
        build(tmp_path)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("TCC", "/nowhere/tcc")
    with pytest.raises(NoCompiler, match=r"apt install gcc.*CC="):
        build(tmp_path)


def test_a_machine_without_a_compiler_fetches_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """tcc alone, without the C library's headers, makes a library that works."""
    plain = tmp_path / "bin"
    plain.mkdir()
    names = (
        "sh printenv dirname basename cat apt-get dpkg-deb mktemp mkdir rm mv find head tail grep sed tr sort ls "
        "ldd chmod tar env"
    )
    for name in names.split():
        found = subprocess.run(
            ["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=False
        )
        if found.stdout.startswith("/"):
            (plain / name).symlink_to(found.stdout.strip())
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(plain))
    library = build(tmp_path)
    with Faults(folder, library) as faults, process(faults, folder, "os.write(fd, b'x')") as child:
        faults.fail(Call.WRITE, errno.EIO)
        assert outcome(child) == str(errno.EIO)

"""Lives of a spool in a process of its own: `python -m tests.ingestor.spool_lives LIFE FOLDER` says what it saw.

A full disk, a disk that cannot sync and a second process cannot be had within the process of the tests.
"""

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ingestor.spool import NotDurable, Spool, SpoolUnusable
from tests.ingestor.spooled import die, item, lost_in, name_of, names, spool

LIMITS: Final = {"segment_bytes": 128 << 10}


def fill(queue: Spool, first: int, sizes: list[int]) -> tuple[list[int], int]:
    """Append until the disk takes no more of any of these sizes: the names that were taken, and the error."""
    taken, name, number = [], first, 0
    for size in sizes:
        while True:
            try:
                queue.append([item(name, size), item(name + 1, size)])
            except OSError as error:
                number = error.errno or 0
                break
            taken += [name, name + 1]
            name += 2
    return taken, number


def read_all(queue: Spool) -> list[int]:
    """The names of all records that are there."""
    queue.unread(0)
    return names(queue.read(1 << 40))


def full_disk(folder: Path) -> dict[str, Any]:
    """A disk of 1 MB, which something else takes up as well and leaves again."""
    other = folder / "other"
    other.write_bytes(bytes(400_000))
    return _full(folder / "spool", lambda: other.unlink())


def file_limit(folder: Path) -> dict[str, Any]:
    """No file may grow beyond 100 kB, and later it may."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    return _full(folder / "spool", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))


def _full(folder: Path, make_room: Callable[[], None]) -> dict[str, Any]:
    queue = spool(folder, **LIMITS)
    queue.open()
    first, number = fill(queue, 1, [30_000, 2_000, 0])
    seen: dict[str, Any] = {"errno": number, "first": first, "first_read": read_all(queue)}
    queue.sync()
    die(queue)
    queue = spool(folder, **LIMITS)
    seen["damages"] = len(queue.open().damages)
    seen["first_again"] = read_all(queue)
    make_room()
    second = list(range(1001, 1010))
    queue.append([item(name, 1_000) for name in second])
    seen["second_read"] = read_all(queue)
    queue.close()
    queue = spool(folder, **LIMITS)
    seen["damages"] += len(queue.open().damages)
    seen["last"] = read_all(queue)
    return seen | {"second": second}


def full_disk_settled(folder: Path) -> dict[str, Any]:
    """A disk of 1 MB: what is settled makes room by itself."""
    queue = spool(folder / "spool", **LIMITS)
    queue.open()
    taken, _ = fill(queue, 1, [30_000])
    records = queue.read(200_000)
    queue.settle(records[-1].position)
    more, _ = fill(queue, 1001, [30_000])
    return {"taken": taken, "more": more, "left": read_all(queue), "settled": names(records)}


def full_disk_shed(folder: Path) -> dict[str, Any]:
    """A disk of 1 MB, full to the last byte, and a bound that asks for less."""
    return _shed_when_full(folder, max_bytes=600_000, **LIMITS)


def full_disk_shed_at_once(folder: Path) -> dict[str, Any]:
    """The same, where all is in the one segment that is being written."""
    return _shed_when_full(folder, max_bytes=600_000, segment_bytes=2 << 20)


def _shed_when_full(folder: Path, **limits: int) -> dict[str, Any]:
    queue = spool(folder / "spool", **limits)
    queue.open()
    taken, _ = fill(queue, 1, [30_000, 2_000, 0])
    with (folder / "dust").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    shed = []
    while (one := queue.shed(0)) is not None:
        shed.append((one.reason, one.quotes, not queue.has_digests_to_put))
    die(queue)
    queue = spool(folder / "spool", **LIMITS)
    damages = queue.open().damages
    first, *rest = queue.recovered()
    return {
        "taken": taken,
        "shed": shed,
        "told": lost_in(first),
        "kept": [name_of(record) for record in rest],
        "damages": len(damages),
        "bytes": queue.bytes_used,
    }


def no_sync(folder: Path) -> dict[str, Any]:
    """`fdatasync` fails while there is a file `broken`."""
    queue = spool(folder / "spool", **LIMITS)
    queue.open()
    queue.append([item(1), item(2)])
    queue.sync()
    queue.append([item(3), item(4)])
    (folder / "broken").touch()
    seen: dict[str, Any] = {}
    try:
        queue.sync()
    except NotDurable as error:
        seen["error"] = (error.errno, error.records, error.quotes)
    queue.sync()  # Has nothing to do any more, and does not pretend.
    seen["segments"] = queue.segments
    queue.append([item(5)])
    (folder / "broken").unlink()
    queue.sync()
    seen["segments_later"] = queue.segments
    seen["read"] = read_all(queue)
    (folder / "broken").touch()
    queue.append([item(6)])
    try:
        queue.append([item(7, 60_000), item(8, 60_000), item(9, 60_000)])
    except NotDurable as error:
        seen["rolling"] = (error.errno, error.records, error.quotes)
    seen["read_rolling"] = read_all(queue)
    queue.append([item(10)])
    try:
        queue.close()
    except NotDurable as error:
        seen["closing"] = (error.errno, error.records, error.quotes)
    (folder / "broken").unlink()
    queue = spool(folder / "spool", **LIMITS)
    seen["damages"] = len(queue.open().damages)
    return seen | {"last": read_all(queue)}


def refused(folder: Path) -> dict[str, Any]:
    """Only tries to open."""
    try:
        spool(folder).open()
    except SpoolUnusable as error:
        return {"refused": str(error)}
    return {"refused": None}


def hold(folder: Path) -> dict[str, Any]:
    """Opens the spool and keeps it until it is killed."""
    spool_held = spool(folder)
    spool_held.open()
    spool_held.append([item(1)])
    sys.stdout.write(json.dumps("held") + "\n")
    sys.stdout.flush()
    time.sleep(600)
    return {}


def write_for_ever(folder: Path) -> dict[str, Any]:
    """Appends until it is killed, and says what was taken."""
    queue = spool(folder, **LIMITS)
    queue.open()
    for name in range(1, 1_000_000):
        queue.append([item(name, 20_000)])
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
    return {}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))

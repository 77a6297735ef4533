"""Spools for tests: bodies that name themselves, a digest that can be read, and a process that dies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ingestor.spool import Item, Record, Spool

SECOND_NS = 1_000_000_000


def item(name: int, size: int = 0, *, at_ns: int | None = None) -> Item:
    """A body that begins with its name; it holds as many quotes as its name says, and was received that second."""
    body = b"%d:" % name
    return name, name * SECOND_NS if at_ns is None else at_ns, body + bytes(range(256)) * (size // 256 + 1)


def name_of(record: Record) -> int:
    """The name of a body, once it is clear that the body is what was written, and no digest."""
    name = int(record.body.partition(b":")[0])
    assert (record.quotes, len(record.body) % 256) == (name, len(b"%d:" % name))
    assert record.body == item(name, len(record.body) - 256)[2]
    return name


def names(records: Sequence[Record]) -> list[int]:
    """What the records are called."""
    return [name_of(record) for record in records]


def digest(records: Sequence[Record]) -> Item:
    """How many quotes were lost, in words; what an earlier digest tells is told again."""
    lost = sum(record.quotes + lost_in(record) for record in records)
    return 0, records[0].at_ns, b"lost %d" % lost


def lost_in(record: Record) -> int:
    """What a digest tells; nothing for any other record."""
    return int(record.body[5:]) if record.body.startswith(b"lost ") else 0


_MADE: Final[list[Spool]] = []


def end_all() -> None:
    """What the end of a test does to the spools that it still has open."""
    while _MADE:
        die(_MADE.pop())


def spool(folder: Path, **changes: Any) -> Spool:
    """A spool that is not open yet."""
    options: dict[str, Any] = {"max_bytes": 1 << 30, "max_age_s": 1e9, "digest": digest} | changes
    made = Spool(folder, identity=options.pop("identity", "redis://a quotes"), **options)
    if len(_MADE) > 100:
        _MADE[:] = [one for one in _MADE if one._folder._lock is not None]
    _MADE.append(made)
    return made


def opened(folder: Path, **changes: Any) -> Spool:
    """A spool that is open, over a folder in which nothing is damaged."""
    made = spool(folder, **changes)
    assert made.open().damages == []
    return made


def die(made: Spool) -> None:
    """What the death of a process does to its spool: nothing but closed files."""
    made._writer.close()
    made._folder.unlock()


def segment_files(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("*.segment"))

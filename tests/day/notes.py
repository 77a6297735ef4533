"""What a strategy writes down, so that an interrupt at any moment neither loses nor doubles a line of it.

Decides how it is written. Must never know how a strategy reads.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from consumers.sync import Delivery, Gap, Newest, Quote
from tests.day.account import Handled, Note, Part


class Notes:
    """Numbered files in a folder. What is taken is appended to `taken`; `keep` writes it and makes a new one.

    Interrupted anywhere, `keep` is done again, and the file is written again.
    """

    def __init__(self, folder: Path, start: dict[str, str]) -> None:
        self._folder: Final = folder
        self._number = 0
        self.taken: list[Any] = []
        self.saved: dict[str, str] = start
        """The positions that belong to what was kept."""
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, positions: dict[str, str]) -> None:
        """What was taken is written down, and stands up to these positions."""
        data = msgspec.msgpack.encode(Part(list(_notes(self.taken))))
        (self._folder / f"{self._number:06}").write_bytes(data)
        # No call between these, so that an interrupt comes before all or after all.
        self._number, self.taken, self.saved = self._number + 1, [], positions

    def handed(self) -> dict[str, str]:
        """The positions that belong to what was taken."""
        return self.saved | {
            symbol: entry_id for symbol, entry_id in _ids(self.taken) if entry_id is not None
        }

    def drop(self) -> None:
        """What was taken and not kept does not count: its work was not done."""
        self.taken = []


class Lines:
    """A file to which each line of a worker goes in one call: an interrupt comes before it or after it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: Final = os.open(folder / "lines", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, deliveries: Iterable[Delivery], *, is_acknowledged: bool) -> None:
        """Write one line, with the time of it on the clock that all processes share."""
        entries = [
            (each.symbol, int(each.item.bid_size or 0)) for each in deliveries if isinstance(each.item, Quote)
        ]
        line = msgspec.json.encode(Handled(time.monotonic(), is_acknowledged, entries))
        os.write(self._file, line + b"\n")


def read_notes(folder: Path) -> Iterable[Note]:
    """All that stands in such a folder, in order."""
    for path in sorted(folder.iterdir()):
        yield from msgspec.msgpack.decode(path.read_bytes(), type=Part).notes


def read_lines(folder: Path) -> list[Handled]:
    """All lines of a worker."""
    data = (folder / "lines").read_bytes()
    return [msgspec.json.decode(line, type=Handled) for line in data.splitlines()]


def _ids(taken: Iterable[Any]) -> Iterable[tuple[str, str | None]]:
    for item in taken:
        if isinstance(item, list):
            yield from _ids(item)
        elif isinstance(item, Newest):
            yield item.symbol, item.quote.id
        else:
            yield item.symbol, item.id


def _notes(taken: Iterable[Any]) -> Iterable[Note]:
    for item in taken:
        if isinstance(item, list):
            yield from _notes(item)
        elif isinstance(item, Gap):
            yield Note(item.symbol, -1, 0, item.from_ns, item.to_ns, item.reason)
        elif isinstance(item, Newest):
            yield Note(item.symbol, int(item.quote.bid_size or 0), item.conflated)
        else:
            yield Note(item.symbol, int(item.bid_size or 0))

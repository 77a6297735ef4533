"""Recorded quotes on disk: what `quotebus tail --json` printed, or a CSV tape.

Decides what a line means, and what is wrong with one that means nothing. Must never know the clock, nor who replays
them. Files are read line by line, so that a day of any length fits.
"""

import csv
import gzip
import json
import math
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TextIO, TypeVar

import msgspec

from consumers.testing.builders import a_quote
from wire import BadSymbol, Gap, Quote, parse_symbol

TAPE_COLUMNS: Final = ("t_ns", "bid_price", "bid_size", "ask_price", "ask_size")
"""What the header of a tape must name; a column `symbol` may be there too, and any other is ignored."""
_MAX_LINE: Final = 10_000
_Item = TypeVar("_Item", Quote, Gap)


class BadRecording(ValueError):
    """A recording that cannot be read; the message names file, line, reason and remedy."""

    def __init__(self, path: Path, line: int | None, reason: str, remedy: str) -> None:
        where = str(path) if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}; {remedy}")
        self.path = path
        self.line = line


def read_recording(path: str | Path, *, symbol: str | None = None) -> Iterator[Quote | Gap]:
    """The items of a file, in its order, one in memory at a time.

    A name with `.csv` is a tape: columns `t_ns` (nanoseconds since the epoch), `bid_price`, `bid_size`,
    `ask_price`, `ask_size`, perhaps `symbol`; without that column the symbol is the one given, else what the file's
    name begins with, up to the first hyphen. Anything else is read as one JSON object per line, as
    `quotebus tail --json` prints and `write_recording` writes. A name that ends in `.gz` is gzip. Raises
    `BadRecording` at the line where the trouble is.
    """
    path = Path(path)
    is_tape = ".csv" in path.suffixes
    return _checked(path, _tape(path, symbol) if is_tape else _json_lines(path))


async def write_recording(path: str | Path, items: Iterable[Quote | Gap] | AsyncIterable[Quote | Gap]) -> int:
    """Write items, such as those of `bus.history(...)`, one JSON object per line; returns how many."""
    count = 0
    with _opened(Path(path), "wt") as file:
        if isinstance(items, AsyncIterable):
            async for item in items:
                file.write(_line(item))
                count += 1
        else:
            for item in items:
                file.write(_line(item))
                count += 1
    return count


def _line(item: Quote | Gap) -> str:
    fields = {name: getattr(item, name) for name in item.__struct_fields__}
    return json.dumps({"type": type(item).__name__.lower(), **fields}) + "\n"


def _checked(path: Path, items: Iterator[Quote | Gap]) -> Iterator[Quote | Gap]:
    try:
        yield from items
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadRecording(path, None, reason, "check the path and the file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRecording(path, None, f"not a text: {error}", "save it as UTF-8") from None


def _json_lines(path: Path) -> Iterator[Quote | Gap]:
    remedy = "mend or delete the line"
    with _opened(path) as file:
        for number, line in enumerate(_bounded(file, path), 1):
            if not line.strip():
                continue
            try:
                fields: Any = msgspec.json.decode(line)
                kind = fields.pop("type")
                if kind not in {"quote", "gap"}:
                    raise BadRecording(path, number, f"an item of type {str(kind)[:40]!r}", remedy)
                item = _convert(fields, Quote) if kind == "quote" else _convert(fields, Gap)
                parse_symbol(item.symbol)
            except (msgspec.MsgspecError, AttributeError, KeyError, TypeError, BadSymbol) as error:
                raise BadRecording(path, number, f"no quote and no gap ({error})", remedy) from None
            yield item


def _convert(fields: Any, kind: type[_Item]) -> _Item:
    return msgspec.convert(fields, kind)


def _tape(path: Path, symbol: str | None) -> Iterator[Quote]:
    with _opened(path) as file:
        rows = csv.reader(_bounded(file, path))
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in TAPE_COLUMNS if name not in header]
        if missing:
            remedy = f"the first line must be {','.join(TAPE_COLUMNS)}"
            raise BadRecording(path, 1, f"no column {', '.join(missing)}", remedy)
        if "symbol" not in header and symbol is None:
            symbol = path.name.partition("-")[0].partition(".csv")[0]
        for row in rows:
            if not row:
                continue
            try:
                fields = dict(zip(header, row, strict=True))
                yield _quote(fields.get("symbol", symbol or ""), fields)
            except (ValueError, BadSymbol) as error:
                raise BadRecording(path, rows.line_num, str(error), "mend or delete the row") from None


def _quote(symbol: str, fields: dict[str, str]) -> Quote:
    bid, ask = float(fields["bid_price"]), float(fields["ask_price"])
    sizes = _size(fields["bid_size"]), _size(fields["ask_size"])
    if not math.isfinite(bid + ask + sum(sizes)) or min(bid, ask, *sizes) < 0:
        raise ValueError("a value is negative or not finite")
    return a_quote(
        symbol, bid=bid or None, ask=ask or None, bid_size=sizes[0], ask_size=sizes[1], at=int(fields["t_ns"])
    )


def _size(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _opened(path: Path, mode: Literal["rt", "wt"] = "rt") -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, mode, encoding="utf-8", newline="")


def _bounded(file: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise BadRecording(path, number, f"over {_MAX_LINE} characters", "this is not a recording")
        yield line

"""A recorded day: a CSV of quotes, read row by row, and when each row is due.

Decides what a row means and that every row counts: ties, exact repeats and rows dated before their predecessor
are data. Must never know the clock (times are arguments) nor who listens.

The header is `t_ns,bid_price,bid_size,ask_price,ask_size`, with an optional column `symbol`; any further column is
ignored. `t_ns` is nanoseconds since the epoch, prices are USD, sizes are shares. A name ending in `.gz` is gzip.
"""

import csv
import gzip
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, TextIO

from simulator.frames import SimQuote
from wire import BadSymbol, parse_symbol

COLUMNS: Final = ("t_ns", "bid_price", "bid_size", "ask_price", "ask_size")
_MAX_LINE: Final = 10_000


class BadTape(ValueError):
    """A tape that cannot be replayed; the message names file, line, reason and remedy."""

    def __init__(self, path: Path, line: int | None, reason: str, remedy: str) -> None:
        where = str(path) if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}; {remedy}")
        self.path = path
        self.line = line


def symbol_of_name(path: Path) -> str:
    """The symbol that the file's name begins with, up to the first hyphen; `BadTape` when that is none."""
    prefix = path.name.split("-", 1)[0].split(".csv", 1)[0]
    try:
        return parse_symbol(prefix)
    except BadSymbol as error:
        raise BadTape(
            path, None, f"its name does not begin with a symbol ({error})", "give the symbol or rename it"
        ) from None


def read_tape(path: Path, symbol: str | None = None) -> Iterator[SimQuote]:
    """The rows as quotes, in the file's order, one in memory at a time.

    The symbol is that of the row's own column, else the one given, else the file name's. Raises `BadTape`, at the
    row where the trouble is.
    """
    if symbol is not None:
        try:
            symbol = parse_symbol(symbol)
        except BadSymbol as error:
            raise BadTape(path, None, f"symbol {symbol!r} is unusable: {error}", "give another") from None
    line = 0
    try:
        with _opened(path) as file:
            rows = csv.reader(_bounded(file, path))
            header = _header(next(rows, None), path)
            at_t, at_bp, at_bs, at_ap, at_as = (header.index(name) for name in COLUMNS)
            at_symbol = header.index("symbol") if "symbol" in header else None
            if at_symbol is None and symbol is None:
                symbol = symbol_of_name(path)
            width = len(header)
            for row in rows:
                line = rows.line_num
                if not row:
                    continue
                if len(row) != width:
                    raise BadTape(
                        path,
                        line,
                        f"{len(row)} values where the header has {width}",
                        "mend or delete the row",
                    )
                try:
                    quote = SimQuote(
                        symbol if at_symbol is None else parse_symbol(row[at_symbol]),  # type: ignore[arg-type]
                        int(row[at_t]),
                        float(row[at_bp]),
                        _size(row[at_bs]),
                        float(row[at_ap]),
                        _size(row[at_as]),
                    )
                    # One sum tells: it is finite only if all of them are.
                    numbers = (quote.bid_price, quote.ask_price, quote.bid_size, quote.ask_size)
                    if not math.isfinite(sum(numbers)) or (
                        quote.t_ns < 0
                        or quote.bid_price < 0
                        or quote.ask_price < 0
                        or quote.bid_size < 0
                        or quote.ask_size < 0
                    ):
                        raise ValueError("a value is negative or not finite")  # noqa: TRY301
                except ValueError as error:
                    raise BadTape(path, line, str(error), "mend or delete the row") from None
                yield quote
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadTape(path, line + 1 if line else None, reason, "check the path and the file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadTape(path, line + 1, f"not a CSV text: {error}", "save it as UTF-8 CSV") from None


def check_tape(path: Path, symbol: str | None = None) -> SimQuote:
    """The first row. Raises `BadTape` when this tape cannot even begin."""
    first = next(read_tape(path, symbol), None)
    if first is None:
        raise BadTape(path, None, "it has a header and no row", "give another tape")
    return first


def write_tape(path: Path, quotes: Iterable[SimQuote], *, with_symbols: bool = False) -> int:
    """Write quotes as a tape that `read_tape` gives back; returns the number of rows."""
    count = 0
    with _opened(path, "wt") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, "symbol") if with_symbols else COLUMNS)
        for q in quotes:
            row = (q.t_ns, q.bid_price, q.bid_size, q.ask_price, q.ask_size)
            writer.writerow((*row, q.symbol) if with_symbols else row)
            count += 1
    return count


class Pace:
    """When a row is due, and how it is dated.

    `speed` is how many recorded seconds pass per second; None is no pace at all. With `redate` the first row is
    dated `start_ns` and the others keep their distance, divided by the speed; otherwise times stay as recorded.
    `start_s` is monotonic seconds, `start_ns` nanoseconds since the epoch.
    """

    __slots__ = ("_first_ns", "_redate", "_speed", "_start_ns", "_start_s")

    def __init__(
        self, first_ns: int, speed: float | None, start_s: float, start_ns: int, *, redate: bool = False
    ) -> None:
        self._first_ns = first_ns
        self._speed = speed
        self._start_s = start_s
        self._start_ns = start_ns
        self._redate = redate

    def due_s(self, t_ns: int) -> float:
        """The monotonic second at which this row goes out. A row dated back is due at once."""
        if self._speed is None:
            return self._start_s
        return self._start_s + (t_ns - self._first_ns) / 1e9 / self._speed

    def dated(self, quote: SimQuote) -> SimQuote:
        """The quote as it is sent."""
        if not self._redate:
            return quote
        distance_ns = quote.t_ns - self._first_ns
        if self._speed is not None and self._speed != 1.0:
            distance_ns = int(distance_ns / self._speed)
        return SimQuote(
            quote.symbol,
            self._start_ns + distance_ns,
            quote.bid_price,
            quote.bid_size,
            quote.ask_price,
            quote.ask_size,
            quote.bid_exchange,
            quote.ask_exchange,
            quote.conditions,
            quote.tape,
        )


def _size(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _opened(path: Path, mode: Literal["rt", "wt"] = "rt") -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, mode, encoding="utf-8", newline="")


def _header(cells: list[str] | None, path: Path) -> list[str]:
    if cells is None:
        raise BadTape(path, 1, "the file is empty", f"begin with the line {','.join(COLUMNS)}")
    header = [name.strip() for name in cells]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise BadTape(
            path, 1, f"no column {', '.join(missing)}", f"the first line must be {','.join(COLUMNS)}"
        )
    return header


def _bounded(file: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise BadTape(path, number, f"a line of over {_MAX_LINE} characters", "this is not a tape")
        yield line

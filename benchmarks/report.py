"""What was measured, for eyes and for programs, and whether it is as fast as it should be.

Decides layout and limits. Must never measure. A limit that is missed is shown as such and is no error of the run:
figures depend on the machine, ratios less so.
"""

import json
import os
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

Cell: TypeAlias = str | int | float | None
PACKAGES: Final = ("quotebus", "picows", "uvloop", "msgspec", "hiredis", "redis", "websockets", "alpaca-py")


@dataclass(frozen=True)
class Limit:
    """A wish and what became of it."""

    name: str
    side: Literal["at least", "at most"]
    wanted: float
    measured: float

    @property
    def is_kept(self) -> bool:
        """Whether the measured value is on the right side."""
        if self.side == "at least":
            return self.measured >= self.wanted
        return self.measured <= self.wanted


@dataclass(frozen=True)
class Table:
    """Columns and rows under a title, and a sentence about how to read them."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


@dataclass
class Report:
    """All tables and limits of a run."""

    server: str
    tables: list[Table] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, table: Table) -> None:
        """Keep a table, and print it: a run takes minutes."""
        self.tables.append(table)
        print(_text(table), flush=True)

    def remark(self, sentence: str) -> None:
        """Something that a reader of the figures has to know."""
        self.remarks.append(sentence)
        print(f"! {sentence}\n", flush=True)

    def print_limits(self) -> None:
        """The verdicts."""
        if not self.limits:
            return
        rows: list[tuple[Cell, ...]] = [
            (
                limit.name,
                f"{limit.side} {limit.wanted:g}",
                limit.measured,
                "kept" if limit.is_kept else "MISSED",
            )
            for limit in self.limits
        ]
        print(_text(Table("Limits", "", ("", "wanted", "measured", ""), rows)), flush=True)

    def write_json(self, path: Path) -> None:
        """The same for programs."""
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")

    def as_json(self) -> dict[str, Any]:
        """The same as one object."""
        return {
            "machine": machine(),
            "server": self.server,
            "versions": versions(),
            "tables": [
                {
                    "title": table.title,
                    "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
                }
                for table in self.tables
            ],
            "limits": [
                {
                    "name": limit.name,
                    "side": limit.side,
                    "wanted": limit.wanted,
                    "measured": limit.measured,
                    "kept": limit.is_kept,
                }
                for limit in self.limits
            ],
            "remarks": self.remarks,
        }


def machine() -> dict[str, Cell]:
    """What the figures were measured on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": load,
    }


def versions() -> dict[str, str]:
    """Of the packages that matter."""
    return {name: metadata.version(name) for name in PACKAGES}


def _text(table: Table) -> str:
    rows = [tuple(map(_shown, row)) for row in table.rows]
    every = [table.columns, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(table.columns))]
    lines = [table.title, "-" * len(table.title)]
    for row in every:
        # Names to the left, figures to the right.
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    if table.note:
        lines.append(f"({table.note})")
    return "\n".join(lines) + "\n"


def _shown(cell: Cell) -> str:
    if cell is None or cell != cell:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell

"""The catalogue of faults: what can go wrong, what must hold, and which test shows it.

Decides which test shows which row, from the markers in the source alone, and writes docs/faults.md. Must never
import a test. `python -m tests.catalogue` writes the page anew.
"""

import ast
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TABLE: Final = ROOT / "tests" / "faults.toml"
PAGE: Final = ROOT / "docs" / "faults.md"
FAMILIES: Final = {
    "S": "The vendor",
    "K": "Redis",
    "C": "The set of symbols",
    "P": "The process and its host",
    "Q": "Readers",
}


@dataclass(frozen=True)
class Row:
    """One fault. `why_not` is the reason why no test shows it."""

    id: str
    fault: str
    holds: str
    why_not: str | None = None


@dataclass(frozen=True)
class Shown:
    """One test that carries the mark of a row; `path` counts from the root of the checkout."""

    row: str
    path: Path
    test: str


def read_rows(text: str) -> list[Row]:
    """The rows of the table, in its order. `TypeError` names a field that no row has."""
    return [Row(id=name, **fields) for name, fields in tomllib.loads(text).items()]


def find_marks(folder: Path = ROOT / "tests") -> list[Shown]:
    """Every mark on every test, by file, then by place in the file."""
    found = []
    for path in sorted(folder.rglob("test_*.py")):
        for name, rows in marks_in(path.read_text()):
            found += [Shown(row, path.relative_to(ROOT), name) for row in rows]
    return found


def marks_in(source: str) -> Iterator[tuple[str, list[str]]]:
    """Each test of a file that carries marks, with the rows they name; the marks of single parameters count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            calls = (call for decorator in node.decorator_list for call in ast.walk(decorator))
            rows = [row for call in calls for row in _named(call)]
            if rows:
                yield node.name, list(dict.fromkeys(rows))


def page(rows: Iterable[Row], shown: Iterable[Shown]) -> str:
    """The text of docs/faults.md."""
    rows = list(rows)
    tests: dict[str, list[Shown]] = {row.id: [] for row in rows}
    for mark in shown:
        tests.setdefault(mark.row, []).append(mark)
    lines = [
        "# Faults",
        "",
        "What can go wrong, what must hold all the same, and the tests that bring the fault about and look.",
        "Made by `make faults` from [tests/faults.toml](../tests/faults.toml) and the tests' own marks; do not",
        "edit.",
        "",
        *_counts(rows, tests),
    ]
    for letter, name in FAMILIES.items():
        lines += ["", f"## {name}", "", "| row | fault | what must hold | shown by |", "|---|---|---|---|"]
        lines += [
            f"| {row.id} | {row.fault} | {row.holds} | {_evidence(row, tests[row.id])} |"
            for row in rows
            if row.id.startswith(letter)
        ]
    return "\n".join(lines) + "\n"


def complaints(rows: Iterable[Row], shown: Iterable[Shown]) -> list[str]:
    """What is wrong with table and marks, one sentence each."""
    shown, table = list(shown), {row.id: row for row in rows}
    marked = {mark.row for mark in shown}
    found = [
        f"{mark.path}: {mark.test} is marked {mark.row}, and tests/faults.toml has no such row"
        for mark in shown
        if mark.row not in table
    ]
    for row in table.values():
        if row.id in marked and row.why_not is not None:
            found.append(f"{row.id} is shown by a test and says why not; remove one")
        if row.id not in marked and not row.why_not:
            found.append(f"{row.id} has neither a test nor a reason; mark a test, or write its why_not")
    return found


def _named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
        return [str(ast.literal_eval(argument)) for argument in node.args]
    return []


def _counts(rows: list[Row], tests: Mapping[str, list[Shown]]) -> list[str]:
    lines = [
        "| faults of | rows | shown by tests | not shown, with the reason |",
        "|---|---|---|---|",
    ]
    for letter, name in (*FAMILIES.items(), ("", "All")):
        family = [row for row in rows if row.id.startswith(letter)]
        shown = sum(bool(tests[row.id]) for row in family)
        title = f"**{name}**" if not letter else f"[{name}](#{name.lower().replace(' ', '-')})"
        lines.append(f"| {title} | {len(family)} | {shown} | {len(family) - shown} |")
    return lines


def _evidence(row: Row, tests: list[Shown]) -> str:
    if tests:
        return "<br>".join(f"[{mark.test}](../{mark.path.as_posix()})" for mark in tests)
    return f"*{row.why_not}*"


if __name__ == "__main__":
    PAGE.write_text(page(read_rows(TABLE.read_text()), find_marks()))

"""The checkout as the tests of this folder see it."""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = (ROOT / "README.md").read_text()
REFERENCE: Final = (ROOT / "docs" / "reference-consumers.md").read_text()
PACKAGES: Final = ("wire", "ingestor", "consumers", "simulator")
_NOT_OURS: Final = frozenset({"__pycache__", "dist", "build"})


def files(*suffixes: str) -> list[Path]:
    """Every file with one of these endings, apart from caches and hidden folders."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_OURS]
        found += [Path(folder, name) for name in names if name.endswith(suffixes)]
    return sorted(found)


def modules() -> list[Path]:
    """Every Python module of the packages."""
    return [path for path in files(".py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def table(head: str, page: str = README) -> list[list[str]]:
    """The cells of every row of a page's table whose first column has this head."""
    lines = page.split(f"\n| {head} |", 1)[1].splitlines()[2:]
    ends = next(i for i, line in enumerate(lines) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:ends]]


def rows(heading: str) -> list[list[str]]:
    """The cells of every table row in one section of the README, heads and rulers left out."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = section.splitlines()
    heads = {i - 1 for i, line in enumerate(lines) if line.startswith("|---")}
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for i, line in enumerate(lines)
        if line.startswith("|") and not line.startswith("|---") and i not in heads
    ]

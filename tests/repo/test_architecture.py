"""docs/architecture.md says who imports whom, and what is a brain, as the import rules and the imports do."""

import re
import tomllib
from functools import cache
from typing import Any, Final

import grimp
import pytest

from tests.repo.tree import PACKAGES, ROOT, table

PAGE: Final = (ROOT / "docs" / "architecture.md").read_text()
RULES: Final[dict[str, dict[str, Any]]] = {
    rule["name"]: rule
    for rule in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
BRAINS: Final = frozenset(
    module for name, rule in RULES.items() if name.startswith("Brains ") for module in rule["source_modules"]
)


@cache
def imports() -> grimp.ImportGraph:
    """Who imports whom, as the code has it."""
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def names(cell: str, folder: str = "") -> list[str]:
    """The modules that a cell names. One without a dot lies beside the one before it, or else in the folder."""
    found: list[str] = []
    beside = folder
    for name in re.findall(r"`([a-z_.]+)`", cell):
        if "." in name:
            beside = f"{folder}{name.rpartition('.')[0]}."
            found.append(f"{folder}{name}")
        else:
            found.append(f"{beside}{name}")
    return found


def crossings(package: str) -> set[str]:
    """What this package imports of the others: `wire`, a module, or who in it imports which other package."""
    found = set()
    for module in imports().find_descendants(package) | {package}:
        for imported in imports().find_modules_directly_imported_by(module):
            root = imported.partition(".")[0]
            if root == "wire" != package:
                found.add("wire")
            elif root != package:
                found |= {imported} if root == "ingestor" else {module, root}
    return found


@pytest.mark.parametrize("row", table("folder", PAGE), ids=lambda row: row[0].strip("`/"))
def test_who_imports_whom_is_as_the_page_says(row: list[str]) -> None:
    """The third column has each import over a package's border, and no other."""
    folder, _, said = row
    assert set(re.findall(r"`([a-z_.]+)`", said)) == crossings(folder.strip("`/"))


def test_the_page_has_every_package() -> None:
    """A row for each."""
    assert {row[0].strip("`/") for row in table("folder", PAGE)} == set(PACKAGES)


def test_the_daemon_s_brains_are_those_of_the_import_rules() -> None:
    """What the page calls a brain cannot open a socket, and no brain is left out of the page."""
    said = [name for row in table("brain", PAGE) for name in names(row[0], "ingestor.")]
    assert sorted(said) == sorted(name for name in BRAINS if name.startswith("ingestor."))


def test_the_library_s_brains_are_those_of_the_import_rules() -> None:
    """The same for the rooms of the library."""
    said = []
    for room, _, brains in table("room", PAGE):
        modules = re.findall(r"`([a-z_]+)`", brains)
        is_folder = (ROOT / "consumers" / room.strip("`")).is_dir()
        said += [
            f"consumers.{room.strip('`')}.{name}" if is_folder else f"consumers.{name}" for name in modules
        ]
    assert sorted(said) == sorted(name for name in BRAINS if name.startswith("consumers."))


def test_every_shell_of_the_page_is_there() -> None:
    """No table names a module that was renamed."""
    said = [name for row in table("shell", PAGE) for name in names(row[0], "ingestor.")]
    assert [name for name in said if name not in imports().modules] == []


def test_the_library_s_rooms_stand_in_the_order_of_its_layers() -> None:
    """What stands higher on the page stands no lower in the rules, and nothing is left out."""
    layers = [re.findall(r"\w+", layer) for layer in RULES["The library reads top to bottom"]["layers"]]
    level = {name: n for n, layer in enumerate(layers) for name in layer}
    rooms = [name for row in table("room", PAGE) for name in re.findall(r"`(\w+)`", row[0])]
    assert set(rooms) == set(level)
    assert [level[room] for room in rooms] == sorted(level[room] for room in rooms)

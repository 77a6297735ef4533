"""What holds for the whole checkout: charters, links, versions, locks, and nobody's private paths."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.repo.tree import ROOT, files, modules

SHARED_PLACES = ("/opt/", "/srv/", "/usr/", "/app", "/src")
"""Where an installed checkout may lie, and what the deployment files may rightly name."""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_its_charter(path: Path) -> None:
    """A reader learns from the first lines what a module is."""
    assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("path", files(".md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    """Every link to a file of the checkout has its file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.fault("P30")
def test_no_later_python_is_refused() -> None:
    """What was not known when a release was made may still run it; pip would rather install an older release."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert re.fullmatch(r">=\d+\.\d+", wanted)


def test_the_changelog_knows_this_version() -> None:
    """The newest release of the changelog is the version of the package, with its date."""
    heads = re.findall(r"^## \[(\d[^\]]*)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert heads[0][0] == version
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", heads[0][1])


def test_the_changelog_is_newest_first() -> None:
    """Releases come in falling order, under a place for what is not released."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\]", text, re.MULTILINE)
    numbers = [tuple(map(int, version)) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True)
    assert text.index("## [Unreleased]") < text.index("## [", text.index("## [Unreleased]") + 1)


@pytest.mark.parametrize("path", files(".lock"), ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_name_no_host(path: Path) -> None:
    """Where packages come from is each machine's own choice."""
    assert "://" not in path.read_text()


def test_nobodys_private_path_is_in_the_tree() -> None:
    """No file names a developer's home or the folder that this checkout lies in."""
    here = str(ROOT)
    own = "" if here.startswith(SHARED_PLACES) else rf"|{re.escape(here)}\b"
    private = re.compile(rf"/(?:home|Users)/\w|C:\\Users{own}")
    kinds = (".py", ".md", ".toml", ".lua", ".sh", ".yaml", ".yml", ".service", ".example", ".lock", ".txt")
    for path in files(*kinds):
        assert private.findall(path.read_text()) == [], path.relative_to(ROOT)


def test_decisions_are_numbered_without_a_hole() -> None:
    """Each decision has its own number, and its title repeats it."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]} ")
        assert text.split("\n\n")[1].startswith("**Situation.**"), page.name

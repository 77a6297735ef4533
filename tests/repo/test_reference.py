"""The library's reference, the guide and every snippet of Python say what the code says, no less and no more."""

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import consumers
import consumers.alpaca
import consumers.analysis
import consumers.rest
import consumers.service
import consumers.sync
import consumers.testing
from consumers.groups.delivery import GroupLag, Member
from consumers.reading.freshness import TOO_OLD
from consumers.reading.gaps import STREAM_RECREATED, TRIMMED
from consumers.service import DaemonStatus, ServiceStatus, StreamStatus
from ingestor.settings import KNOWN_VARIABLES
from tests.repo.tree import README, REFERENCE, ROOT, modules, table
from wire import Gap, Level, Quality, Quote

GUIDE = (ROOT / "docs" / "guide.md").read_text()
PUBLIC = (
    consumers,
    consumers.sync,
    consumers.alpaca,
    consumers.rest,
    consumers.service,
    consumers.analysis,
    consumers.testing,
)
FIELDS = (
    Quote,
    Gap,
    Quality,
    consumers.Newest,
    consumers.Delivery,
    consumers.Lag,
    GroupLag,
    Member,
    consumers.rest.Bar,
    consumers.rest.MarketClock,
    consumers.rest.MarketDay,
    consumers.rest.Asset,
    consumers.rest.Shared,
    consumers.rest.Judgement,
    StreamStatus,
)
METHODS = (
    consumers.Bus,
    consumers.QuoteStream,
    consumers.NewestStream,
    consumers.GroupStream,
    consumers.Interest,
    consumers.MarketDataService,
    consumers.service.ServiceStream,
    consumers.rest.AlpacaRest,
    consumers.rest.Budget,
    consumers.alpaca.StockDataStream,
    consumers.testing.MemoryBus,
    consumers.testing.MemoryServer,
    consumers.testing.Publisher,
    consumers.testing.Clock,
    consumers.sync.Bus,
    consumers.sync.QuoteStream,
    consumers.sync.NewestStream,
    consumers.sync.GroupStream,
    consumers.sync.Interest,
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]
SNIPPETS = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL), 1)
]


def first_cells(head: str, pattern: str = r"`(\w+)`") -> list[Any]:
    """Every name in the first column of a table of the reference."""
    return [name for cells in table(head, REFERENCE) for name in re.findall(pattern, cells[0])]


def public_names(kind: type) -> set[str]:
    """Methods and properties that the class or a base of the library's own has."""
    own = [base for base in kind.__mro__ if base.__module__.startswith("consumers")]
    return {name for base in own for name in vars(base) if not name.startswith("_")}


def name_of(kind: type) -> str:
    """As the head of its table has it: the twin's names are those of the native ones."""
    return f"{'consumers.sync.' * kind.__module__.startswith('consumers.sync.')}{kind.__name__}"


def fields_of(kind: type) -> list[str]:
    """Fields and computed fields of a struct, a dataclass or a typed dictionary."""
    if dataclasses.is_dataclass(kind):
        fields = [field.name for field in dataclasses.fields(kind)]
    else:
        fields = list(getattr(kind, "__struct_fields__", ()) or kind.__annotations__)
    return [*fields, *(name for name, value in vars(kind).items() if isinstance(value, property))]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module: ModuleType) -> None:
    """Each module's table has all that the module exports, and nothing else."""
    assert sorted(first_cells(f"`{module.__name__}`")) == sorted(module.__all__)


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_every_field_that_a_strategy_reads_is_documented(kind: type) -> None:
    """Each table has every field and each computed one, and no other."""
    assert sorted(first_cells(f"`{kind.__name__}`")) == sorted(fields_of(kind))


def test_the_larger_status_dictionaries_are_documented_by_what_they_add() -> None:
    """The sentence behind the table names what the others have besides."""
    assert set(ServiceStatus.__annotations__) - set(StreamStatus.__annotations__) == {"streams"}
    assert set(DaemonStatus.__annotations__) - set(ServiceStatus.__annotations__) == {
        "daemon",
        "quality",
        "lag",
    }
    assert re.search(r"`ServiceStatus` has .*`streams`.*`DaemonStatus` has also `daemon`", REFERENCE)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_method_is_documented(kind: type) -> None:
    """Each table has every public method and property, and no other."""
    name = name_of(kind)
    assert sorted(first_cells(f"method of `{name}`", r"`(?:await )?(\w+)(?:\(.*?\))?`")) == sorted(
        public_names(kind)
    )


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_parameters_are_those_of_the_code(kind: type) -> None:
    """Every parameter that a row names is one, and a default is the code's."""
    name = name_of(kind)
    for method, said in first_cells(f"method of `{name}`", r"`(?:await )?(\w+)\((.*?)\)`"):
        known = inspect.signature(getattr(kind, method)).parameters
        for part in filter(None, re.split(r", (?![^()]*\))", said)):
            parameter, _, default = part.strip(" *").partition("=")
            if parameter in {"", "…"}:
                continue
            assert parameter in known, (method, parameter)
            if default:
                assert ast.literal_eval(default) == known[parameter].default, (method, part)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_await_stands_before_what_is_awaited(kind: type) -> None:
    """And before nothing else."""
    cells = first_cells(f"method of `{name_of(kind)}`", r"`(await )?(\w+)")
    said = {name: bool(awaited) for awaited, name in cells}
    assert said == {name: inspect.iscoroutinefunction(getattr(kind, name)) for name in said}


def test_constructors_and_functions_are_those_of_the_code() -> None:
    """Each signature has every parameter in its order and each default, and `await` where it belongs."""
    exported = {name: getattr(module, name) for module in reversed(PUBLIC) for name in module.__all__}
    for awaited, name, said in first_cells("constructor or function", r"`(await )?(\w+)(\(.*?\))`"):
        found = exported[name]
        assert bool(awaited) == inspect.iscoroutinefunction(found), name
        made = eval(f"lambda {said[1:-1]}: None", dict(exported))
        assert [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(made).parameters.values()
        ] == [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(found).parameters.values()
        ], name


@pytest.mark.parametrize("kind", [consumers.Reconnect, consumers.rest.Retry], ids=lambda kind: kind.__name__)
def test_every_default_is_documented(kind: Any) -> None:
    """Names and defaults, in order."""
    said = [
        tuple(cell.strip("`") for cell in cells[:2])
        for cells in table(f"setting of `{kind.__name__}`", REFERENCE)
    ]
    assert said == [(field.name, str(field.default)) for field in dataclasses.fields(kind)]


def test_every_level_of_quality_is_documented() -> None:
    """The table has each level, the best first, and no other."""
    assert first_cells("level") == [level.value for level in Level]


def test_every_error_of_the_library_is_documented() -> None:
    """The table of errors has each one that is exported anywhere, with what it is."""
    errors = {
        name: {base.__name__ for base in found.__bases__}
        for module in PUBLIC
        for name in module.__all__
        if isinstance(found := getattr(module, name), type) and issubclass(found, Exception)
    }
    said = {cells[0].strip("`"): set(re.findall(r"`(\w+)`", cells[1])) for cells in table("error", REFERENCE)}
    assert said == errors


def test_every_reason_of_a_gap_is_documented() -> None:
    """Every reason that the code names for a gap stands in the table, each in the table is in the code."""
    texts = [path.read_text() for path in modules()]
    said = first_cells("reason of a gap")
    for reason in said:
        assert any(f'"{reason}"' in text for text in texts), reason
    named = r'(?:open_gap|open_gap_behind|_note_hole|note_hole)\([^()]*(?:\([^()]*\)[^()]*)*"(\w+)"\)'
    given = {reason for text in texts for reason in re.findall(named, text)}
    known = {"feed_disconnected", "not_subscribed", "refused_by_redis", TRIMMED, STREAM_RECREATED, TOO_OLD}
    assert known < set(said)
    assert given <= set(said)


def test_the_guide_says_what_to_do_about_every_reason_of_a_gap() -> None:
    """Its table has the same reasons."""
    told = [name for cells in table("when the gap says", GUIDE) for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(told) == sorted(first_cells("reason of a gap"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_variables_in_running_text_exist(page: Path) -> None:
    """Every variable that a page mentions is one that the daemon or the library knows."""
    assert set(re.findall(r"QUOTEBUS_[A-Z_]+[A-Z]", page.read_text())) <= KNOWN_VARIABLES


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_use_names_that_exist(code: str) -> None:
    """Each compiles, imports what there is, and calls methods that some public class has."""
    tree = ast.parse(code)
    compile(code, "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"consumers", "wire"}:
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert alias.name in module.__all__, alias.name
    known = {name for kind in METHODS for name in public_names(kind)} | {"get"}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name("bus" | "stream" | "service" | "rest" | "quote_bus"), name):
                assert name in known, name


def test_the_readme_leads_to_the_pages() -> None:
    """Whoever begins with the README finds guide, reference and examples."""
    for target in ("docs/guide.md", "docs/reference-consumers.md", "examples/README.md"):
        assert f"]({target}" in README

"""The README's reference tables say what the code says, no less and no more."""

import ast
import re
import tomllib
from collections import defaultdict
from enum import Enum
from typing import Any

import pytest
import typer.main
from pydantic import ByteSize, SecretStr
from typer.testing import CliRunner

from ingestor.cli import app
from ingestor.daemon import Daemon
from ingestor.feed.session import Credentials
from ingestor.settings import KNOWN_VARIABLES, Settings
from ingestor.watching.metrics import render
from tests.repo.tree import README, ROOT, modules, rows, table
from wire import Keyspace
from wire.redis.options import OPTIONS


def shown(default: Any) -> str:
    """A default as the settings table spells it."""
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    value = value.value if isinstance(value, Enum) else value
    if value is None or value == "":
        return "empty"
    if isinstance(value, ByteSize):
        return f"`{value.human_readable().replace('.0', '')}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command that does something."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        deeper = hasattr(command, "commands")
        found += commands(command, (*path, name)) if deeper else [(*path, name)]
    return found


COMMANDS = commands(typer.main.get_command(app))


def test_every_setting_is_documented() -> None:
    """The settings table has every field, its variable and its default, and nothing else."""
    said = {name.strip("`"): (variable, default) for name, variable, default, _ in rows("Settings")}
    expected = {
        name: (f"`QUOTEBUS_{name.upper()}`", "HOST:PID" if name == "instance" else shown(field.default))
        for name, field in Settings.model_fields.items()
    }
    assert said == expected


@pytest.mark.fault("Q13")
@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "Key reference"), ("docs/guide.md", "Other languages")]
)
def test_other_languages_are_warned_of_large_numbers_first(page: str, heading: str) -> None:
    """In the first paragraph: a double cannot hold what the contract writes, and a reader may not notice."""
    _, _, section = (ROOT / page).read_text().partition(f"\n## {heading}\n\n")
    first = section.partition("\n\n")[0]
    assert "2^53" in first
    assert "JSON" in first
    assert "64-bit integers" in first
    for number in re.findall(r"\d{19}", first)[1:]:
        assert int(float(number)) != int(number) > 2**53


def test_every_option_of_the_redis_url_is_documented() -> None:
    """The table has every option that is heeded, what may stand there and what it is for, and nothing else."""
    said = [(name.strip("`"), form, meaning) for name, form, meaning in rows("The Redis URL")]
    assert said == [(name, option.form, option.meaning) for name, option in OPTIONS.items()]


def test_variables_in_running_text_exist() -> None:
    """Every variable that the README mentions is one that the daemon knows."""
    assert set(re.findall(r"QUOTEBUS_[A-Z_]+[A-Z]", README)) <= KNOWN_VARIABLES


async def test_every_metric_is_documented() -> None:
    """The metrics table has every family as a scrape names it, its kind, and nothing else."""
    daemon = Daemon(Settings(), lambda: Credentials("key", "secret"))
    text = render(daemon.registry).decode()
    await daemon.control.aclose()
    exposed = dict(re.findall(r"^# TYPE (quotebus_\w+) (\w+)$", text, re.MULTILINE))
    assert {cells[0].strip("`"): cells[1] for cells in rows("Metrics")} == exposed


def test_metrics_in_running_text_exist() -> None:
    """Metrics that the README mentions outside of its table are in the table."""
    listed = {cells[0].strip("`") for cells in rows("Metrics")}
    assert set(re.findall(r"quotebus_[a-z_]+", README)) <= listed


def test_every_command_is_documented() -> None:
    """The commands table has every command, and each row is a command."""
    said = [cells[0].strip("`").split()[1:] for cells in rows("Commands") if "`quotebus" in cells[0]]
    for words in said:
        assert any(tuple(words[: len(path)]) == path for path in COMMANDS), words
    for path in COMMANDS:
        assert any(tuple(words[: len(path)]) == path for words in said), path


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example(path: tuple[str, ...]) -> None:
    """`--help` of each command ends with one to copy."""
    answer = CliRunner().invoke(app, [*path, "--help"])
    assert answer.exit_code == 0
    assert re.search(rf"Example: .*quotebus {' '.join(path)}\b", " ".join(answer.output.split()))


def test_every_key_is_documented() -> None:
    """The key table has every name that the contract builds, and no other."""
    keys = Keyspace()
    names = {getattr(keys, slot) for slot in Keyspace.__slots__} - {keys.namespace, keys.stream_prefix}
    said = {cells[0].strip("`") for cells in rows("Key reference") if cells[0].startswith("`quotes:")}
    built = {keys.rest_calls("ACCOUNT"), keys.assets("ACCOUNT"), keys.group("GROUP", "AAPL")}
    assert said == names | built | {keys.stream("AAPL")}


def test_every_key_is_used() -> None:
    """No name of the contract is there for nobody: each stands in the code of daemon or library."""
    code = "".join(path.read_text() for path in modules() if path.relative_to(ROOT).parts[0] != "wire")
    for name in set(Keyspace.__slots__) - {"namespace", "stream_prefix"}:
        assert re.search(rf"\bkeys\.{name}\b", code), f"nobody uses {name}"


async def test_every_status_field_is_documented() -> None:
    """The fields of the status hash stand in the key table, in the daemon's order."""
    daemon = Daemon(Settings(), lambda: Credentials("key", "secret"))
    fields = list(daemon.status_fields())
    await daemon.control.aclose()
    (cell,) = (cells[-1] for cells in rows("Key reference") if cells[0] == "`quotes:status`")
    assert re.findall(r"`(\w+)`", cell)[: len(fields)] == fields


def test_every_extra_is_documented() -> None:
    """The table of extras has each one that a user may install, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = {name for cells in table("extra") for name in re.findall(r"`(\w+)`", cells[0])}
    assert said == project["optional-dependencies"].keys() - {"dev"}


def noted_in(source: str) -> dict[str, set[str]]:
    """Every kind of event that this module notes, with the fields that it names there.

    A kind may be handed through a function of the module; one that is made up in any other way is an error.
    """
    tree = ast.parse(source)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in _calls(function, "note", "note_rarely"):
                for kind in _kinds(call.args[0], function, tree):
                    found[kind] |= {keyword.arg for keyword in call.keywords if keyword.arg}
                    if ast.unparse(call.func).endswith("note_rarely") and isinstance(call.args[1], ast.Name):
                        found[kind].add("subject")
    return found


def _calls(tree: ast.AST, *names: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names
    ]


def _kinds(argument: ast.expr, function: ast.FunctionDef | ast.AsyncFunctionDef, tree: ast.AST) -> set[str]:
    if isinstance(argument, ast.Constant):
        return {str(argument.value)}
    assert isinstance(argument, ast.Name), ast.unparse(argument)
    place = [parameter.arg for parameter in function.args.args].index(argument.id) - 1
    handed = [call.args[place] for call in _calls(tree, function.name)]
    assert handed, f"nobody hands a kind to {function.name}"
    return {str(ast.literal_eval(kind)) for kind in handed}


def test_every_kind_of_event_is_documented() -> None:
    """The table of events has each kind that the daemon notes, with its fields, and no other."""
    noted: defaultdict[str, set[str]] = defaultdict(set)
    for path in modules():
        # The journal's own module hands on what others note.
        if path.relative_to(ROOT).parts[0] == "ingestor" and path.name != "journal.py":
            for kind, fields in noted_in(path.read_text()).items():
                noted[kind] |= fields
    said = {
        kind: " ".join(cells) for cells in table("kind of event") for kind in re.findall(r"`(\w+)`", cells[0])
    }
    assert said.keys() == noted.keys()
    missing = {
        kind: unsaid
        for kind, fields in noted.items()
        if (unsaid := fields - set(re.findall(r"`(\w+)`", said[kind])))
    }
    assert missing == {}


def test_kinds_are_found_where_they_are_handed_through() -> None:
    """Constants, both ways of noting, and a kind that is an argument."""
    source = """
class A:
    def a(self, reason):
        self.journal.note("first", "error", reason=reason)
        self.journal.note_rarely("second", reason, server=1)
        self._tell("third", 1)
    def _tell(self, kind, value):
        self.journal.note(kind, "info", value=value)
"""
    assert noted_in(source) == {"first": {"reason"}, "second": {"server", "subject"}, "third": {"value"}}

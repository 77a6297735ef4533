"""The README's reference tables say what the code says, no less and no more."""

import re
from enum import Enum
from typing import Any

import pytest
import typer.main
from pydantic import ByteSize, SecretStr
from typer.testing import CliRunner

import consumers
from consumers.reading.gaps import STREAM_RECREATED, TRIMMED
from ingestor.cli import app
from ingestor.daemon import Daemon
from ingestor.feed.session import Credentials
from ingestor.settings import KNOWN_VARIABLES, Settings
from ingestor.watching.metrics import render
from tests.repo.tree import README, modules, rows, table
from wire import Gap, Keyspace, Level, Quality, Quote


def shown(default: Any) -> str:
    """A default as the settings table spells it."""
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    value = value.value if isinstance(value, Enum) else value
    if value is None or value == "":
        return "empty"
    if isinstance(value, ByteSize):
        return f"`{value.human_readable().replace('.0', '')}`"
    return f"`{value:.0f}`" if isinstance(value, float) else f"`{value}`"


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
    assert said == names | {keys.stream("AAPL"), keys.rest_calls("ACCOUNT")}


async def test_every_status_field_is_documented() -> None:
    """The fields of the status hash stand in the key table, in the daemon's order."""
    daemon = Daemon(Settings(), lambda: Credentials("key", "secret"))
    fields = list(daemon.status_fields())
    await daemon.control.aclose()
    (cell,) = (cells[-1] for cells in rows("Key reference") if cells[0] == "`quotes:status`")
    assert re.findall(r"`(\w+)`", cell)[: len(fields)] == fields


@pytest.mark.parametrize("kind", [Quote, Gap, Quality])
def test_every_field_that_a_strategy_reads_is_documented(kind: type[Quote | Gap | Quality]) -> None:
    """The tables of quote, gap and quality have each field and each computed one, and no other."""
    said = [name for cells in table(f"`{kind.__name__}`") for name in re.findall(r"`(\w+)`", cells[0])]
    computed = [name for name, value in vars(kind).items() if isinstance(value, property)]
    assert sorted(said) == sorted([*kind.__struct_fields__, *computed])


def test_every_level_of_quality_is_documented() -> None:
    """The table has each level, the best first, and no other."""
    assert [cells[0].strip("`") for cells in table("level")] == [level.value for level in Level]


def test_every_error_of_the_library_is_documented() -> None:
    """The table of errors has each one that is exported, with what it is."""
    errors = {
        name: {base.__name__ for base in found.__bases__}
        for name in consumers.__all__
        if isinstance(found := getattr(consumers, name), type) and issubclass(found, Exception)
    }
    said = {cells[0].strip("`"): set(re.findall(r"`(\w+)`", cells[1])) for cells in table("error")}
    assert said == errors


def test_every_reason_of_a_gap_is_documented() -> None:
    """Every reason that the code names for a gap stands in the table, and each in the table is in the code."""
    texts = [path.read_text() for path in modules()]
    said = [cells[0].strip("`") for cells in table("reason of a gap")]
    for reason in said:
        assert any(f'"{reason}"' in text for text in texts), reason
    named = r'(?:open_gap|open_gap_behind|_note_hole|note_hole)\([^()]*(?:\([^()]*\)[^()]*)*"(\w+)"\)'
    given = {reason for text in texts for reason in re.findall(named, text)}
    assert {"feed_disconnected", "not_subscribed", "refused_by_redis", TRIMMED, STREAM_RECREATED} < set(said)
    assert given <= set(said)


def test_the_python_example_uses_names_that_exist() -> None:
    """The README's program compiles, and imports what the library exports."""
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")
        for names in re.findall(r"from consumers import (.+)", block):
            assert set(names.split(", ")) <= set(consumers.__all__)

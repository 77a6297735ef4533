"""What pytest finds where quotebus is installed: fixtures that cost nothing until they are used."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STRATEGY = """
import asyncio

from consumers import Bus, Gap
from consumers.testing import a_gap, a_quote


async def buy_narrow(bus: Bus, orders: list) -> None:
    async for item in bus.quotes("AAPL"):
        if isinstance(item, Gap):
            orders.append("cancel")
        elif item.spread is not None and item.spread < 0.015:
            orders.append(("buy", item.ask_price))


async def check(bus) -> None:
    orders = []
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buy_narrow(bus, orders))
        await bus.caught_up()
        await bus.publish(
            a_quote("AAPL", bid=187.10, ask=187.13, at="09:30:00.5"),
            a_quote("AAPL", bid=187.12, ask=187.13, at="09:30:01"),
            a_gap("AAPL", start="09:30:01", end="09:30:04"),
        )
        await bus.caught_up()
        running.cancel()
    assert orders == [("buy", 187.13), "cancel"]
    assert (await bus.quality("AAPL"))["AAPL"].is_live


def test_with_asyncio_alone(quote_bus):
    asyncio.run(check(quote_bus))
"""

WITH_A_PLUGIN = """
import pytest

from test_strategy import check


@pytest.mark.asyncio
async def test_with_pytest_asyncio(quote_bus):
    assert await quote_bus.latest("AAPL") is None
    await check(quote_bus)


@pytest.mark.asyncio
async def test_the_next_one_is_empty(quote_bus):
    assert await quote_bus.latest("AAPL") is None
"""

UNRELATED = """
import sys


def test_nothing_of_ours_was_imported():
    assert not {"consumers", "wire", "redis", "msgspec", "fakeredis", "websockets"} & set(sys.modules)
    assert not [name for name in sys.modules if name.startswith("simulator.") and name != "simulator.pytest_plugin"]
"""

SIMULATED = """
import asyncio

from alpaca.data.live import StockDataStream

from simulator import SimQuote


def test_the_vendors_client_reads_from_the_double(alpaca_simulator):
    got = []
    stream = StockDataStream("key", "secret", url_override=alpaca_simulator.url())

    async def keep(quote):
        got.append(quote.ask_price)
        await stream.stop_ws()

    async def check():
        stream.subscribe_quotes(keep, "AAPL")
        reading = asyncio.create_task(stream._run_forever())
        await asyncio.to_thread(alpaca_simulator.wait_for, lambda sim: "AAPL" in sim.symbols)
        alpaca_simulator.send(SimQuote("AAPL", 1_763_000_000_000_000_000, 1.5, 1, 1.6, 1))
        await asyncio.wait_for(reading, 20)

    asyncio.run(check())
    assert got == [1.6]
"""


def run(folder: Path, *options: str, **files: str) -> str:
    """The output of a fresh pytest in a folder of its own, as in an environment that has quotebus installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = folder / "site" / f"quotebus-{project['version']}.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: quotebus\nVersion: {project['version']}\n"
    )
    points = "\n".join(f"{name} = {target}" for name, target in project["entry-points"]["pytest11"].items())
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{points}\n")
    tests = folder / "tests"
    tests.mkdir()
    for name, text in files.items():
        (tests / f"{name}.py").write_text(text)
    # What pytest-asyncio wants to have said.
    scope = ("-o", "asyncio_default_fixture_loop_scope=function")
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *scope, *options, "."]
    path = f"{installed.parent}:{ROOT}"
    done = subprocess.run(
        command,
        cwd=tests,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_strategys_tests_pass_with_the_bus_in_memory(tmp_path: Path) -> None:
    """With a plugin for asynchronous tests and without one, each test with a bus of its own, warnings as errors."""
    output = run(tmp_path, test_strategy=STRATEGY, test_with_a_plugin=WITH_A_PLUGIN)
    assert "3 passed" in output, output


@pytest.mark.fault("Q14")
def test_the_tests_to_copy_run_as_they_stand(tmp_path: Path) -> None:
    """The guide's and the toy strategy's, in a pytest that nobody has configured, with the plugin they need among
    what `pip install ".[testing]"` brings."""
    guide = (ROOT / "docs" / "guide.md").read_text().split("\n## Tests\n", 1)[1]
    (snippet,) = re.findall(r"```python\n(.*?)```", guide.split("\n## ", 1)[0], re.DOTALL)
    toy = (ROOT / "tests" / "examples" / "test_toy_strategy.py").read_text()
    output = run(tmp_path, test_guide=snippet, test_toy=toy)
    count = len(re.findall(r"^async def test_", snippet + toy, re.MULTILINE))
    assert f"{count} passed" in output, output
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(package.startswith("pytest-asyncio") for package in extras["testing"])


def test_the_vendors_double_serves_a_users_test(tmp_path: Path) -> None:
    """The vendor's own client connects to it and gets the quote that the test sends."""
    # alpaca-py still rides on the client that websockets calls legacy.
    ignored = "ignore:websockets:DeprecationWarning"
    output = run(tmp_path, "-W", ignored, test_simulated=SIMULATED)
    assert "1 passed" in output, output


def test_a_run_without_our_fixtures_imports_nothing_of_ours(tmp_path: Path) -> None:
    """Other projects of that environment do not pay for it."""
    output = run(tmp_path, test_unrelated=UNRELATED)
    assert "1 passed" in output, output


@pytest.mark.parametrize(
    ("fixture", "absent", "remedy"),
    [
        ("quote_bus", "fakeredis", r'pip install "quotebus\[testing\]"'),
        ("alpaca_simulator", "websockets", r'pip install "quotebus\[simulator\]"'),
    ],
)
def test_a_package_that_is_absent_is_an_error_only_where_the_fixture_is_used(
    tmp_path: Path, fixture: str, absent: str, remedy: str
) -> None:
    """The message has the remedy, and the other test passes."""
    conftest = f"import sys\nsys.modules[{absent!r}] = None\n"
    tests = f"def test_other():\n    pass\n\ndef test_ours({fixture}):\n    pass\n"
    output = run(tmp_path, conftest=conftest, test_both=tests)
    assert "1 passed, 1 error" in output, output
    assert re.search(rf"{absent} is needed for the \w.*: {remedy}", output), output
    assert "Traceback" not in output

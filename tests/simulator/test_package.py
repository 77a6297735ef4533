"""What the package costs, and that every name it promises is there."""

import subprocess
import sys

import pytest

import simulator


@pytest.mark.parametrize("name", simulator.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    """Every name of `__all__` is the thing of that name."""
    found = getattr(simulator, name)
    assert getattr(found, "__name__", name) == name


def test_no_other_name_is_there() -> None:
    """A misspelt name is an error as everywhere else."""
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        simulator.Nonsense  # type: ignore[attr-defined]  # noqa: B018


def run(code: str) -> str:
    """What this code prints, in an interpreter of its own."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("module", ["simulator", "simulator.redis_server", "simulator.market"])
def test_nobody_pays_for_a_server_they_do_not_want(module: str) -> None:
    """Only the package's own names load the websocket library, not its modules that can do without."""
    code = f"import sys, {module}; print({{'websockets', 'asyncio', 'msgspec'}}.intersection(sys.modules))"
    heavy = {"msgspec"} if module == "simulator.market" else set()
    assert run(code).strip() == str(heavy)


def test_a_missing_library_is_told_by_any_name() -> None:
    """Whoever imports the settings learns at once that the double cannot run."""
    code = (
        "import sys; sys.modules['websockets'] = None\n"
        "try:\n    from simulator import SimulatorSettings\n"
        "except ImportError as error:\n    print(error.name)"
    )
    assert run(code).startswith("websockets")

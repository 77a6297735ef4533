"""What holds for every test, wherever it runs and whoever runs it.

Decides that tests have a home of their own, for the user's may be missing, read-only, or full of what the user
needs; and that a test closes what it opens, for an ordinary process may have 1 024 files and sockets open.
"""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest
import uvloop

from tests.preload.build import NoCompiler, build

# How long one example takes is the machine's business; a whole test has its own limit.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

pytest_plugins = ["tests.limits", "tests.order", "tests.processes", "tests.second_tries", "tests.warm_starts"]
DESCRIPTORS: Final = Path("/proc/self/fd")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected, and in each worker again."""
    config.addinivalue_line(
        "markers", "keeps_open(reason): what this test opens is not its own to close, and why"
    )
    if not hasattr(config, "workerinput"):
        home = tempfile.TemporaryDirectory(prefix="quotebus-home-", ignore_cleanup_errors=True)
        config.add_cleanup(home.cleanup)
        os.environ["HOME"] = home.name
        for name in (
            "XDG_STATE_HOME",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "STATE_DIRECTORY",
        ):
            os.environ.pop(name, None)
        # Hundreds of daemons and commands are started: without its cache, each would compile the product anew.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def fault_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls of a process fail; see `tests.preload`. Without a compiler the test fails."""
    try:
        return build(tmp_path_factory.mktemp("preload"))
    except NoCompiler as error:
        pytest.fail(str(error))


def _descriptors() -> dict[str, str]:
    found = {}
    for link in DESCRIPTORS.glob("*"):
        try:
            found[link.name] = str(link.readlink())
        except OSError:
            continue
    return found


@pytest.fixture(scope="session", autouse=True)
def _what_a_process_opens_once() -> None:
    """libuv keeps a pipe from its first loop on, whichever test has that."""
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _what_a_test_opens_it_closes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up behind the fixtures of session and module, and torn down behind those of the test itself."""
    before = _descriptors()
    yield
    if len(_descriptors()) > len(before) and request.node.get_closest_marker("keeps_open") is None:
        gc.collect()
        after = _descriptors()
        opened = sorted(target for number, target in after.items() if before.get(number) != target)
        assert len(after) <= len(before), f"left open by this test: {', '.join(opened)}"

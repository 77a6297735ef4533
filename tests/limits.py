"""No test holds up the run, whatever it hangs in.

pytest-timeout interrupts a test once, by a signal: what does not heed it, or hangs again in tearing down, would
hold its worker for ever, and with it the run. Decides that such a process prints where each thread is, and ends;
its test has failed, its guard ends what it had started, and a new worker goes on with the rest.
"""

import faulthandler
import os
import sys
from collections.abc import Iterator
from typing import Final

import pytest

OPTION: Final = "hang_limit_s"
DEFAULT_S: Final = 180.0
"""For setting up, running and tearing down each; above the timeout of a whole test."""
BEYOND_S: Final = 60.0
"""Above the timeout of a test that has one of its own."""


class Limits:
    """The plugin in one process of a test run."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s: Final = limit_s
        assert sys.__stderr__ is not None
        # A copy, for while a test runs its own output goes elsewhere.
        self._stderr: Final = os.dup(sys.__stderr__.fileno())

    def _limited(self, item: pytest.Item) -> Iterator[None]:
        own = item.get_closest_marker("timeout")
        limit_s = self._limit_s if own is None else max(self._limit_s, float(own.args[0]) + BEYOND_S)
        faulthandler.dump_traceback_later(limit_s, exit=True, file=self._stderr)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Around the fixtures of a test."""
        return (yield from self._limited(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Around its body."""
        return (yield from self._limited(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Around the end of its fixtures, and of those of the session behind the last test."""
        return (yield from self._limited(item))

    def pytest_unconfigure(self) -> None:
        """Nothing is limited any more."""
        os.close(self._stderr)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The limit can be chosen."""
    parser.addini(
        OPTION, "seconds after which a process that hangs in a test is ended", default=str(DEFAULT_S)
    )


def pytest_configure(config: pytest.Config) -> None:
    """In every process of the run."""
    config.pluginmanager.register(Limits(float(config.getini(OPTION))), "limits")

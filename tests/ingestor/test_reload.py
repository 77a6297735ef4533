"""SIGHUP without a process: what applies, what waits, what is refused."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from ingestor.reload import Reload
from ingestor.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """Put the log level back after each test."""
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


class Operator:
    """Changes the environment that stands for the file, sends the signal, reads the notes."""

    def __init__(self) -> None:
        self.file: dict[str, str] = {}
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.reload = Reload(load_settings(None, {}), lambda: load_settings(None, self.file))
        self.reload.begin(lambda kind, *_, **details: self.notes.append((kind, details)))

    def hangs_up(self, **changed: str) -> tuple[str, dict[str, Any]]:
        """Signal after this change; the note."""
        self.file = {f"QUOTEBUS_{name.upper()}": value for name, value in changed.items()}
        self.reload.on_hangup()
        return self.notes[-1]


@pytest.mark.fault("C18")
def test_the_log_level_applies_at_once_and_the_rest_is_named() -> None:
    """In the order of the settings table; no value is shown."""
    kind, details = Operator().hangs_up(
        log_level="ERROR", grace_s="5", redis_url="redis://:hunter2@other:1/0"
    )
    assert (kind, details) == (
        "settings_reloaded",
        {"applied": "log_level", "needs_restart": "redis_url grace_s"},
    )
    assert logging.getLogger().level == logging.ERROR


@pytest.mark.fault("C18")
def test_settings_that_cannot_be_used_change_nothing() -> None:
    """Not even the good ones among them; each problem is told."""
    logging.getLogger().setLevel("INFO")
    kind, details = Operator().hangs_up(log_level="error", grace_s="-1", feed="nasdaq")
    assert kind == "settings_refused"
    assert len(details["problems"].splitlines()) == 2
    assert logging.getLogger().level == logging.INFO


def test_what_waits_for_a_restart_is_told_each_time_until_it_is_taken_back() -> None:
    """The comparison is with what is in force, not with the last look."""
    operator = Operator()
    assert operator.hangs_up(grace_s="5")[1]["needs_restart"] == "grace_s"
    assert operator.hangs_up(grace_s="5")[1]["needs_restart"] == "grace_s"
    assert operator.hangs_up()[1] == {"applied": "", "needs_restart": ""}


def test_a_signal_before_anybody_listens_is_met_when_somebody_does() -> None:
    """It comes while the daemon starts; nothing of it is lost."""
    told = []
    reload = Reload(Settings(), lambda: load_settings(None, {"QUOTEBUS_LOG_LEVEL": "debug"}))
    reload.on_hangup()
    assert logging.getLogger().level != logging.DEBUG
    reload.begin(lambda kind, *_, **details: told.append((kind, details["applied"])))
    assert logging.getLogger().level == logging.DEBUG
    assert told == [("settings_reloaded", "log_level")]

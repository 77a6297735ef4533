"""Notes for an operator: told, not repeated, and never more than can be held."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from ingestor import journal as journal_module
from ingestor.journal import MAX_QUEUED, MAX_SUBJECTS, Journal


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What goes to the log."""
    capture = LogCapture()
    structlog.configure(
        processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
    )
    yield capture.entries
    structlog.reset_defaults()


def test_a_note_goes_into_the_log_and_the_trail(told: list[Any]) -> None:
    """With its details and its time."""
    journal = Journal()
    journal.note("connected", "warning", server="x", code=1)
    assert told == [{"event": "connected", "log_level": "warning", "server": "x", "code": 1}]
    (note,) = journal.queue
    assert (note.kind, note.details) == ("connected", {"server": "x", "code": 1})
    assert note.at_ns > 10**18


def test_the_same_thing_is_told_once_a_minute(told: list[Any]) -> None:
    """Per kind and subject."""
    journal = Journal()
    for _ in range(100):
        for subject in ("A", "B"):
            journal.note_rarely("refused", subject, reason="x")
            journal.note_rarely("other", subject)
    assert len(told) == len(journal.queue) == 4
    assert [note.details["subject"] for note in journal.queue if note.kind == "refused"] == ["A", "B"]


def test_what_was_held_back_is_counted_when_it_is_told_again(
    told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once only."""
    journal = Journal()
    for _ in range(5):
        journal.note_rarely("refused", "A")
    monkeypatch.setattr(journal_module, "REPEAT_AFTER_S", 0.0)
    for _ in range(2):
        journal.note_rarely("refused", "A")
    assert [entry.get("held_back") for entry in told] == [None, 4, None]


def test_the_first_of_a_kind_is_told_however_young_the_machine_is(
    told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock may begin at zero."""
    monkeypatch.setattr(journal_module, "REPEAT_AFTER_S", 1e12)
    Journal().note_rarely("refused", "A")
    assert len(told) == 1


def test_a_trail_that_nobody_writes_loses_its_oldest_and_counts_them(told: list[Any]) -> None:
    """While Redis is away."""
    journal = Journal()
    for i in range(MAX_QUEUED + 5):
        journal.note("x", "debug", number=i)
    assert len(journal.queue) == MAX_QUEUED
    assert journal.dropped == 5
    assert journal.queue[0].details == {"number": 5}


def test_no_number_of_subjects_grows_its_memory(told: list[Any]) -> None:
    """A hostile set has as many as it likes."""
    journal = Journal()
    for i in range(2 * MAX_SUBJECTS + 10):
        journal.note_rarely("refused", str(i), "debug")
        journal.note_rarely("refused", str(i), "debug")
    assert len(journal._told_s) <= MAX_SUBJECTS
    assert len(journal._suppressed) <= MAX_SUBJECTS

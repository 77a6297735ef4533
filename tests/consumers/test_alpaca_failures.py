"""Which failures of handlers are told, and which are counted."""

import pytest

from consumers.alpaca.failures import COUNT_EVERY_S, KINDS_MAX, OTHERS, Failures, Kind

ONE = Kind("handle", "ValueError")
OTHER = Kind("handle", "KeyError")


@pytest.mark.fault("Q18")
def test_the_first_of_a_kind_is_told_and_the_others_are_counted() -> None:
    """Each kind for itself; a count is told once."""
    failures = Failures()
    assert failures.note(ONE, 0.0)
    assert not failures.note(ONE, 0.1)
    assert failures.note(OTHER, 0.2)
    assert not failures.note(ONE, 0.3)
    assert failures.due(COUNT_EVERY_S - 1) == {}
    assert failures.due(COUNT_EVERY_S + 1) == {ONE: 2}
    assert failures.due(COUNT_EVERY_S + 2) == {}


def test_at_the_end_every_count_is_told() -> None:
    """However short the run was."""
    failures = Failures()
    for _ in range(614):
        failures.note(ONE, 1.0)
    assert failures.due(2.0, all_of_them=True) == {ONE: 613}


def test_a_kind_that_stays_away_is_told_again_as_a_first() -> None:
    """With its traceback: what failed yesterday may fail for another reason today."""
    failures = Failures()
    failures.note(ONE, 0.0)
    failures.note(ONE, 1.0)
    assert failures.due(COUNT_EVERY_S) == {ONE: 1}
    assert not failures.note(ONE, COUNT_EVERY_S + 1)
    assert failures.due(2 * COUNT_EVERY_S) == {ONE: 1}
    assert failures.due(3 * COUNT_EVERY_S) == {}
    assert failures.note(ONE, 3 * COUNT_EVERY_S + 1)


def test_kinds_without_number_are_counted_together() -> None:
    """A program that makes up its exceptions must not fill memory."""
    failures = Failures()
    told = sum(failures.note(Kind("handle", f"Error{number}"), 0.0) for number in range(10 * KINDS_MAX))
    assert told == KINDS_MAX + 1
    assert failures.due(COUNT_EVERY_S) == {OTHERS: 9 * KINDS_MAX - 1}

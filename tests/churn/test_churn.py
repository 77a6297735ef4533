"""A little churn in every run of the tests, and the account of it; `make churn` lives through hundreds."""

from typing import Any

import pytest

from tests.churn.accounts import Blow, account
from tests.churn.design import KINDS, runs
from tests.programs import outcome


@pytest.mark.fault("Q21")
@pytest.mark.timeout(240)
async def test_whatever_befalls_a_group_each_entry_is_handled_or_told() -> None:
    """Real workers that are killed, frozen and started, and a real server that loses things under them."""
    code, said = await outcome("tests.churn", "--seed", "1", "--count", "2", "--seconds", "8")
    assert code == 0, said


def test_a_seed_and_a_number_stand_for_one_run() -> None:
    """Whatever the count; and a few runs meet every kind of deed."""
    assert runs(7, 3, 20.0) == runs(7, 9, 20.0)[:3]
    assert {deed.kind for run in runs(1, 6, 60.0) for deed in run.deeds} == set(KINDS)


def note(what: str, at: float, **more: Any) -> dict[str, Any]:
    """A line of a worker."""
    return {"what": what, "at": at, "symbol": "A", **more}


def test_the_account_tells_what_was_lost() -> None:
    """Handled by nobody, and in no gap of its own symbol."""
    notes = [
        note("handled", 1.0, id="1-0", time=10),
        note("told", 2.0, since=15, to=20, why="trimmed"),
        {**note("told", 2.0, since=30, to=40, why="trimmed"), "symbol": "B"},
    ]
    found = account({"A": [10, 20, 30]}, notes, [])
    assert (found.entries, found.handled, found.told, found.lost) == (3, 1, 1, 1)
    assert found.missing == ["A 30"]


@pytest.mark.parametrize(
    ("blows", "needless"),
    [
        ([], 1),
        ([Blow(3.0, "A")], 0),
        ([Blow(3.0, "B")], 1),
        ([Blow(8.0, "A")], 1),
        ([Blow(8.0, None, True)], 0),
    ],
)
def test_the_account_tells_what_came_twice_without_need(blows: list[Blow], needless: int) -> None:
    """What was acknowledged may come again only where the group was unmade soon after, or set back."""
    notes = [
        note("handled", 1.0, id="1-0", time=10),
        note("acked", 2.0, ids=[["A", "1-0"]]),
        note("handled", 9.0, id="1-0", time=10),
    ]
    found = account({"A": [10]}, notes, blows)
    assert (found.twice, found.twice_acknowledged, found.needless) == (1, 1, needless)

"""A short day (`make random`), and its account; `make day` sends two million quotes."""

import pytest

from tests.day.account import Handled, Note, account, account_of_group
from tests.day.design import OF_GROUP, SYMBOLS, WAYS, WORKERS, lives
from tests.programs import outcome


@pytest.mark.random
@pytest.mark.timeout(240)
async def test_whatever_interrupts_a_strategy_each_entry_comes_once_or_is_told() -> None:
    """Real processes that read with the twin, SIGINT at any moment, forks, threads, another thread that closes."""
    code, said = await outcome("tests.day", "--seed", "1", "--quotes", "20000", "--within", "150")
    assert code == 0, said


def test_a_seed_stands_for_one_day() -> None:
    """With each way of reading once, and the workers of one group on the same symbols."""
    chosen = lives(7)
    assert chosen == lives(7) != lives(8)
    assert [life.way for life in chosen] == [*WAYS, *["group"] * WORKERS]
    assert {len(life.symbols) for life in chosen if life.is_worker} == {OF_GROUP}
    assert all(set(life.symbols) <= set(SYMBOLS) for life in chosen)


def test_the_account_tells_what_is_missing_and_what_came_twice() -> None:
    """Right is what was handed out once, or passed over by a newer one, or lies in a gap of its symbol."""
    sent = {"A": [10, 20, 30, 40, 50], "B": [10, 20]}
    right = [Note("A", 0), Note("A", -1, from_ns=15, to_ns=20), Note("A", 4, 2), Note("B", 1, 1)]
    found = account(sent, right)
    assert found.is_right
    assert (found.expected, found.received, found.told) == (7, 6, 1)
    wrong = account(
        sent, [Note("A", 0), Note("A", 2), Note("A", 1), Note("A", 4), Note("A", 4), Note("B", 1)]
    )
    assert not wrong.is_right
    assert (wrong.missing, wrong.twice, wrong.out_of_order) == (2, 1, 2)
    assert wrong.names == ["A 1 behind 2", "twice: A 4", "A 4 behind 4", "missing: A 3", "missing: B 0"]


@pytest.mark.parametrize(("again_at_s", "twice", "repeated"), [(1.5, 0, 1), (2.5, 0, 1), (3.5, 1, 0)])
def test_the_account_of_a_group_allows_what_was_not_acknowledged(
    again_at_s: float, twice: int, repeated: int
) -> None:
    """To come again; and what another worker had in hand when the acknowledgement came."""
    lines = [
        Handled(1.0, False, [("A", 0)]),
        Handled(2.0, True, [("A", 0)]),
        Handled(again_at_s, False, [("A", 0)]),
    ]
    found = account_of_group({"A": [10, 20]}, lines)
    assert (found.twice, found.repeated, found.missing) == (twice, repeated, 1)

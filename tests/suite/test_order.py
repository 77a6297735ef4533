"""Each worker begins with its share of the tests that wait, and computes behind them."""

import pytest

from tests.order import dealt


@pytest.mark.parametrize("workers", [2, 5, 6])
def test_every_worker_waits_first_and_computes_behind_it(workers: int) -> None:
    """Whole modules of waiting tests; about as many for each."""
    waiting = [[f"w{module}::{n}" for n in range(module % 9 + 1)] for module in range(60)]
    others = [f"c{n}" for n in range(4001)]
    order = dealt(waiting, others, workers)
    assert sorted(order) == sorted([*others, *(test for module in waiting for test in module)])
    assert [test for test in order if test.startswith("c")] == others
    waits = []
    for i in range(workers):
        # As pytest-xdist divides them.
        part, order = order[: len(order) // (workers - i)], order[len(order) // (workers - i) :]
        kinds = [test[0] for test in part]
        assert kinds == sorted(kinds, reverse=True)
        waits.append(kinds.count("w"))
    assert max(waits) - min(waits) <= 9


def test_tests_that_all_wait_are_all_there() -> None:
    """A run of one folder, on more workers than it has modules."""
    assert sorted(dealt([["a", "b"], ["c"]], [], 6)) == ["a", "b", "c"]

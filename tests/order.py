"""In which order the workers take the tests: those that wait come first, as many for each worker.

The scenarios wait for real clocks and processes; all others compute. Decides that every worker begins with its
share of the waiting, so that a long wait is never the last thing of a run, and that what computes fills the rest.
Every worker must come to the same order, and does: it depends on the tests and the number of workers alone.
"""

import os
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Final

import pytest

WAITING: Final = ("histories", "scenario", "soak")
"""Folders of tests that spend their time in waiting."""
_TESTS: Final = Path(__file__).parent


def dealt(waiting: list[list[str]], others: list[str], workers: int) -> list[str]:
    """One list that falls into equal parts, one for each worker: whole modules of what waits, then the rest."""
    hands: list[list[str]] = [[] for _ in range(workers)]
    for module in sorted(waiting, key=len, reverse=True):
        min(hands, key=len).extend(module)
    total = len(others) + sum(map(len, hands))
    rest, order = iter(others), list[str]()
    for i, hand in enumerate(hands):
        # As pytest-xdist divides what is left among the workers that are left.
        size = (total - len(order)) // (workers - i)
        order += hand
        order += islice(rest, max(0, size - len(hand)))
    return order + list(rest)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only where there are several workers; one process takes them as they stand."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    modules: defaultdict[Path, list[str]] = defaultdict(list)
    others = []
    for item in items:
        if item.path.is_relative_to(_TESTS) and item.path.relative_to(_TESTS).parts[0] in WAITING:
            modules[item.path].append(item.nodeid)
        else:
            others.append(item.nodeid)
    by_id = {item.nodeid: item for item in items}
    items[:] = [by_id[nodeid] for nodeid in dealt(list(modules.values()), others, workers)]

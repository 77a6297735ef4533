"""A few histories (`make random`); `make histories` lives through hundreds."""

from typing import Final

import pytest

from tests.programs import outcome

SEED: Final = 1
NUMBERS: Final = ("1", "2", "4")


@pytest.mark.random
@pytest.mark.timeout(300)
@pytest.mark.fault("P29")
async def test_every_quote_of_a_random_history_is_stored_once_or_marked() -> None:
    """Whatever befell disk, Redis, vendor, clock and daemon at once; and all of it is well soon afterwards."""
    code, said = await outcome("tests.histories", "--seed", str(SEED), "--jobs", "3", "--only", *NUMBERS)
    assert code == 0, said

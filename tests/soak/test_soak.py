"""A short soak (`make random`); `make soak` is the long one."""

import pytest

from tests.soak.run import soak
from tests.soak.world import World


@pytest.mark.random
@pytest.mark.timeout(240)
@pytest.mark.fault("P29")
async def test_twenty_seconds_of_random_faults_leave_a_balance_that_is_right() -> None:
    """A failover, a killed daemon, a mute vendor and more: nothing lost outside of markers, and nothing twice."""
    async with World(rate=1000.0, symbols=10, seed=21) as world:
        outcome = await soak(world, seed=21, length_s=20.0)
        assert outcome.problems == [], "\n".join([outcome.report, *outcome.problems])
        assert sum(outcome.faults.values()) >= 5
        assert len(world.balance.lives) == 2

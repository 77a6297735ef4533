"""The server in memory answers as a real one does, to single commands and to the whole library."""

import asyncio

import pytest

from consumers.testing import memory_bus, quotes_of
from tests.twins.__main__ import compare

SEEDS = 8


@pytest.mark.random
@pytest.mark.fault("Q23")
def test_memory_and_a_real_server_agree_on_random_operations() -> None:
    """But for the known limits, which `tests.twins.limits` has with their reasons; `make twins` compares 500."""
    assert compare(0, SEEDS) == []


@pytest.mark.fault("Q23")
async def test_a_delivery_that_is_not_acknowledged_comes_again_in_memory() -> None:
    """After `claim_after_s`, with its number, as on a server; once this ended the group and blamed one."""
    async with memory_bus() as bus:
        stored = await bus.publish(*quotes_of("AAPL", count=2))
        async with (
            bus.group("g", "AAPL", start="earliest", claim_after_s=0.05) as stream,
            asyncio.timeout(30),
        ):
            first = [await stream.get(), await stream.get()]
            again = [await stream.get(), await stream.get()]
    ids = [item.id for item in stored]
    assert [delivery.id for delivery in first if delivery] == ids
    assert [(delivery.id, delivery.times_delivered) for delivery in again if delivery] == [
        (id_, 2) for id_ in ids
    ]

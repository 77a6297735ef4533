"""The account's calls, shared by all who use it, counted at the double."""

import asyncio
import logging
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from consumers import Bus
from consumers.link import Target
from consumers.rest import AlpacaRest, Budget, RestLimited, Retry
from consumers.rest.budget import REDIS_PAUSE_S
from consumers.shared_link import SharedLink
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from simulator.rest.faults import RefuseRest
from tests.consumers.conftest import KEYS
from tests.consumers.rest.conftest import KEY, SECRET

STRATEGY = Path(__file__).with_name("one_strategy.py")


def linked(server: RedisServer, timeout_s: float = 10.0) -> SharedLink:
    """An open link to the server."""
    link = SharedLink(Target(server.url, timeout_s=timeout_s))
    link.open()
    return link


def is_shared(budget: Budget) -> bool:
    """Whether Redis counts; a function, because the answer changes."""
    return budget.is_shared


def most_in_a_window(times_s: list[float], window_s: float) -> int:
    """The most calls in any window, wherever it begins."""
    return max(sum(begin <= at < begin + window_s for at in times_s) for begin in times_s)


async def test_ten_processes_share_one_budget(
    sim: AlpacaSimulator, server: RedisServer, redis: Redis
) -> None:
    """Ten strategies that all want to call at once: never more arrive in any window than one account may make."""
    limit, window_s, each, count = 12, 1.0, 4, 10
    arguments = (sim.rest_url, server.url, KEY, SECRET, str(limit), str(window_s), str(each))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            STRATEGY,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    began_s = time.monotonic()
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [output for output, _ in outputs] == [b"answers 4\n"] * count
    times_s = sorted(call.at_s for call in sim.rest_calls)
    assert len(times_s) == each * count
    assert most_in_a_window(times_s, window_s) <= limit
    # Nor is the budget left unused: 40 calls at 12 in 1 s take 3 s and what the waits are spread by.
    assert times_s[-1] - began_s < 3 * 6


async def test_a_bus_makes_the_budget_of_its_account(sim: AlpacaSimulator, bus: Bus) -> None:
    """Two strategies with a bus each need nothing else to count together."""
    first, second = (
        AlpacaRest(KEY, SECRET, data_url=sim.rest_url, budget=bus.budget(KEY, 2), retry=Retry(deadline_s=1.0))
        for _ in range(2)
    )
    async with first, second:
        await first.latest_quotes("AAPL")
        await second.latest_quotes("AAPL")
        with pytest.raises(RestLimited):
            await first.latest_quotes("AAPL")
    assert len(sim.rest_calls) == 2


async def test_calls_are_not_spent_twice_in_one_process(
    sim: AlpacaSimulator, server: RedisServer, redis: Redis
) -> None:
    """Two clients of one account: what one has spent the other has not, and is told how long."""
    link = linked(server)
    try:
        for number in range(2):
            budget = Budget(link, KEYS, KEY, 3)
            async with AlpacaRest(
                KEY, SECRET, trading_url=sim.rest_url, budget=budget, retry=Retry(deadline_s=20)
            ) as rest:
                if number == 0:
                    for _ in range(3):
                        await rest.clock()
                    continue
                began_s = time.monotonic()
                with pytest.raises(RestLimited, match="3 calls per 60 s") as caught:
                    await rest.clock()
                assert 30 < caught.value.retry_after_s <= 60
                assert time.monotonic() - began_s < 10
                assert is_shared(budget)
        assert len(sim.rest_calls) == 3
        assert 0 < await redis.pttl(budget.key) <= 130_000
        assert await redis.zcard(budget.key) == 3
        assert KEY not in budget.key
    finally:
        await link.close()


async def test_a_429_told_to_one_stops_all(sim: AlpacaSimulator, server: RedisServer, redis: Redis) -> None:
    """Nobody calls before the reset, though the count has room."""
    link, other = linked(server), linked(server)
    try:
        once = Retry(attempts=1, deadline_s=20)
        hosts = {"trading_url": sim.rest_url, "retry": once}
        async with (
            AlpacaRest(KEY, SECRET, budget=Budget(link, KEYS, KEY), **hosts) as first,  # type: ignore[arg-type]
            AlpacaRest(KEY, SECRET, budget=Budget(other, KEYS, KEY), **hosts) as second,  # type: ignore[arg-type]
        ):
            await second.clock()
            sim.arm(RefuseRest(429, reset_s=2.0), times=1)
            with pytest.raises(RestLimited):
                await first.clock()
            await second.clock()
        _, refused, after = sim.rest_calls
        assert after.at_s - refused.at_s >= 1.9
    finally:
        await link.close()
        await other.close()


async def test_accounts_do_not_share(server: RedisServer, redis: Redis) -> None:
    """Another key is another account."""
    link = linked(server)
    try:
        budgets = [Budget(link, KEYS, key, 1) for key in (KEY, "PKOTHER")]
        for budget in budgets:
            await budget.take(1, 1)
            with pytest.raises(RestLimited):
                await budget.take(1, 1)
        assert sorted(await redis.keys("*")) == sorted(budget.key.encode() for budget in budgets)
    finally:
        await link.close()


async def test_asking_again_takes_no_second_place(server: RedisServer, redis: Redis) -> None:
    """A question that reached Redis twice, because the first answer was lost, costs one call."""
    link = linked(server)
    try:
        budget = Budget(link, KEYS, KEY, 2)
        for _ in range(5):
            assert await budget._asked("take", "the same", 1) == 0
        assert await budget._asked("take", "another", 1) == 0
        assert await budget._asked("take", "the same", 1) == 0
        wait_s = await budget._asked("take", "a third", 1)
        assert wait_s is not None
        assert wait_s > 0
    finally:
        await link.close()


async def test_without_redis_each_process_counts_for_itself(
    sim: AlpacaSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    """REST still works, its calls are still counted, those before the outage too, and the log says so once."""
    caplog.set_level(logging.INFO)
    with RedisServer() as mortal:
        link = linked(mortal, timeout_s=2.0)
        budget = Budget(link, KEYS, KEY, 5)
        async with AlpacaRest(
            KEY, SECRET, trading_url=sim.rest_url, budget=budget, retry=Retry(deadline_s=20)
        ) as rest:
            await rest.clock()
            assert is_shared(budget)
            mortal.stop()
            for _ in range(4):
                await rest.clock()
            assert not is_shared(budget)
            with pytest.raises(RestLimited):
                await rest.clock()
        await link.close()
    assert len(sim.rest_calls) == 5
    told = [record for record in caplog.records if "in this process alone" in record.message]
    assert len(told) == 1
    assert SECRET not in caplog.text
    assert KEY not in caplog.text


async def test_a_redis_that_comes_back_is_asked_again(server: RedisServer, redis: Redis) -> None:
    """After a pause, so that no call waits for a dead server more than once in a while."""
    link = SharedLink(Target(server.url, timeout_s=5))
    budget = Budget(link, KEYS, KEY, 5)
    await budget.take(1, 1)
    assert not is_shared(budget)
    link.open()
    try:
        budget._redis_from_s -= REDIS_PAUSE_S
        await budget.take(1, 1)
        assert is_shared(budget)
        assert await redis.zcard(budget.key) == 1
    finally:
        await link.close()


@pytest.mark.parametrize("wrong", [{"calls_per_minute": 0}, {"window_s": 0}])
def test_a_budget_that_is_none_is_refused_by_name(wrong: dict[str, float]) -> None:
    """The message says which and what is allowed."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Budget(None, KEYS, KEY, **wrong)  # type: ignore[arg-type]

"""The control plane's client under cancellation."""

import asyncio

from ingestor.control import control_client
from ingestor.redis_link import RedisAddress
from simulator.redis_server import RedisServer

MOMENTS = 400


async def test_a_cancellation_at_any_moment_ends_what_asks(server: RedisServer) -> None:
    """A part of the daemon is cancelled once, and then waited for: none may go on asking."""
    async with control_client(RedisAddress(server.url)) as client:

        async def ask_for_ever() -> None:
            while True:
                await client.ping()

        async with asyncio.timeout(60):
            for moment in range(MOMENTS):
                task = asyncio.get_running_loop().create_task(ask_for_ever())
                await asyncio.sleep(0.001)
                for _ in range(moment % 20):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait((task,), timeout=5.0)
                assert done, f"it went on asking after it was cancelled, at moment {moment}"
        assert await client.ping()


async def test_a_task_that_is_cancelled_while_it_runs_ends_with_its_next_question(
    server: RedisServer,
) -> None:
    """The cancellation is due, and the next thing that waits is redis-py."""
    async with control_client(RedisAddress(server.url)) as client:
        assert await client.ping()

        async def ask() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await client.ping()

        task = asyncio.get_running_loop().create_task(ask())
        await asyncio.wait((task,), timeout=5.0)
        assert task.cancelled()

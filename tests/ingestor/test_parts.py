"""Parts that run side by side: none of them ends without somebody who sees it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ingestor.parts import PartEnded, background, done_before, rest, together
from tests.endings import ends_in_a_cancellation, fails, returns


@pytest.mark.fault("Q19")
@pytest.mark.parametrize(
    ("part", "expected", "words"),
    [
        (fails, ZeroDivisionError, "^$"),
        (returns, PartEnded, "'second' has ended by itself"),
        (ends_in_a_cancellation, PartEnded, "'second' was cancelled, and nobody of ours did that"),
    ],
)
async def test_a_part_that_ends_in_any_way_ends_the_context(
    part: Callable[[], Coroutine[Any, Any, None]], expected: type[Exception], words: str
) -> None:
    """A task group alone would go on without one that was cancelled, or returned: a daemon without its feed."""
    ended: list[str] = []

    async def first() -> None:
        try:
            await rest()
        finally:
            ended.append("first")

    with pytest.raises(expected, match=words):
        async with asyncio.timeout(5), background({"first": first(), "second": part()}):
            await rest()
    assert ended == ["first"]
    with pytest.raises(expected, match=words):
        async with asyncio.timeout(5):
            await together({"first": first(), "second": part()})


async def test_a_part_that_somebody_cancels_before_its_first_step_is_missed() -> None:
    """It never ran, so it could not say so itself."""

    async def run() -> None:
        async with asyncio.timeout(5), background({"feed": rest()}):
            (task,) = (each for each in asyncio.all_tasks() if each.get_name() == "feed")
            task.cancel()
            await rest()

    with pytest.raises(PartEnded, match="'feed' was cancelled"):
        await run()


async def test_parts_end_with_their_context() -> None:
    """Which misses nobody that it has ended itself."""
    async with background({"first": rest(), "second": rest()}):
        pass
    with pytest.raises(ZeroDivisionError):
        async with background({"first": rest()}):
            raise ZeroDivisionError


async def test_work_is_done_before_a_stop_or_ended_by_it() -> None:
    """And one that was cancelled was not done: the spool is not open then."""
    stop = asyncio.Event()
    assert await done_before(stop, "work", returns())
    with pytest.raises(ZeroDivisionError):
        await done_before(stop, "work", fails())
    with pytest.raises(PartEnded, match="'work' was cancelled"):
        await done_before(stop, "work", ends_in_a_cancellation())
    stop.set()
    assert not await done_before(stop, "work", rest())

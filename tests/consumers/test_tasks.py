"""The library's own tasks: each of them is missed when it ends, and none is noise when it is forgotten."""

import asyncio
import gc
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import Bus, BusError, sync
from consumers.tasks import Companion, TaskEnded, all_of, together
from simulator.redis_server import RedisServer
from tests.consumers.conftest import KEYS, until
from tests.endings import ends_in_a_cancellation, fails, returns


async def for_ever() -> None:
    """Does not end."""
    await asyncio.Event().wait()


async def beside(part: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> None:
    """One that runs for ever, and this one."""
    async with asyncio.timeout(5), together() as tasks:
        tasks.start(for_ever(), "first")
        tasks.start(part(), "second", **options)
        await for_ever()


@pytest.mark.fault("Q19")
async def test_who_ends_in_any_way_ends_the_others() -> None:
    """As its own error, or as one that says which and how."""
    with pytest.raises(ZeroDivisionError):
        await beside(fails)
    with pytest.raises(TaskEnded, match="second was cancelled by somebody else") as caught:
        await beside(ends_in_a_cancellation)
    assert caught.value.was_cancelled
    with pytest.raises(TaskEnded, match="second has ended"):
        await beside(returns)
    with pytest.raises(TaskEnded, match="second was cancelled"):
        await beside(ends_in_a_cancellation, may_end=True)
    with pytest.raises(TimeoutError):
        await beside(returns, may_end=True)


async def test_tasks_end_with_their_context() -> None:
    """Nobody is missed who was ended on purpose."""
    async with together() as tasks:
        tasks.start(for_ever(), "first")
    async with together() as tasks:
        tasks.start(for_ever(), "first")
        tasks.end()
        await asyncio.sleep(0.01)  # they are ended, and nothing follows from it


async def test_what_is_done_side_by_side_is_done_by_all() -> None:
    """The first failure is raised when all have ended, and cancels nobody."""
    done: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.02)
        done.append("slow")

    with pytest.raises(ZeroDivisionError):
        await all_of(fails(), slow())
    assert done == ["slow"]


class Owner:
    """Steps of a companion, as the test says."""

    def __init__(self, *steps: Callable[[], float | None]) -> None:
        self.steps = list(steps)
        self.taken = 0
        self.task = Companion(self.step, "quotebus-test")

    async def step(self) -> float | None:
        """The next of them; the last again and again."""
        self.taken += 1
        return self.steps[min(self.taken, len(self.steps)) - 1]()

    async def has_taken(self, count: int) -> None:
        """Wait for so many steps."""

        async def enough() -> bool:
            return self.taken >= count

        await until(enough, 5)


def task_named(name: str) -> asyncio.Task[Any]:
    """The only one of that name."""
    (task,) = (each for each in asyncio.all_tasks() if each.get_name() == name)
    return task


async def test_a_companion_steps_when_it_is_due_or_woken() -> None:
    """And ends when it is closed, to begin again when it is woken after that."""
    owner = Owner(lambda: 0.01, lambda: None)
    owner.task.wake()
    await owner.has_taken(2)
    owner.task.wake()
    await owner.has_taken(3)
    await owner.task.aclose()
    assert not owner.task.is_running
    owner.task.wake()
    await owner.has_taken(4)
    await owner.task.aclose(1.0)


async def test_a_companion_that_fails_says_so_and_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its traceback; leases must not end with a defect in one beat."""
    monkeypatch.setattr("consumers.tasks.FIRST_PAUSE_S", 0.01)

    def fail() -> float:
        raise ZeroDivisionError

    owner = Owner(fail, fail, lambda: None)
    owner.task.wake()
    await owner.has_taken(3)
    await owner.task.aclose()
    told = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in told] == [
        "the task quotebus-test failed, which is a defect; it goes on in 0.01 s",
        "the task quotebus-test failed, which is a defect; it goes on in 0.02 s",
    ]


@pytest.mark.fault("Q19")
async def test_a_companion_that_somebody_cancels_begins_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that cancels all tasks, and then does not end, keeps its leases; and reads in the log why."""
    monkeypatch.setattr("consumers.tasks.FIRST_PAUSE_S", 0.01)
    owner = Owner(lambda: None)
    owner.task.wake()
    await owner.has_taken(1)
    task_named("quotebus-test").cancel()
    await owner.has_taken(2)
    await owner.task.aclose()
    assert "quotebus-test was cancelled by somebody else, and is still needed; it begins again" in caplog.text


async def test_a_companion_ends_when_nobody_has_its_owner(caplog: pytest.LogCaptureFixture) -> None:
    """Also in a cycle of references that the garbage collector finds."""
    owner = Owner(lambda: None)
    owner.task.wake()
    await owner.has_taken(1)
    owner.steps.append(owner.step)  # type: ignore[arg-type]
    del owner
    gc.collect()

    async def gone() -> bool:
        return all(task.get_name() != "quotebus-test" for task in asyncio.all_tasks())

    await until(gone, 5)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["quotebus-leases", "quotebus-states"])
async def test_leases_outlive_a_program_that_cancels_all_its_tasks(
    bus: Bus, redis: Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The bus's own tasks are among them."""
    monkeypatch.setattr("consumers.tasks.FIRST_PAUSE_S", 0.01)
    async with bus.interest("AAPL"), bus.quotes("MSFT") as stream:
        await stream.get(timeout_s=0.01)
        ended = task_named(name)
        ended.cancel()
        await asyncio.wait((ended,))
        await redis.delete(KEYS.interest)

        async def begun_again() -> bool:
            return any(task.get_name() == name for task in asyncio.all_tasks())

        await until(begun_again)
        bus._leases.server_is_back()

        async def written() -> bool:
            return await redis.zcard(KEYS.interest) == 2

        await until(written)


def test_a_twin_that_loses_its_task_says_so(server: RedisServer) -> None:
    """A `for` loop does not end as if there were no more quotes; the next one goes on."""
    with sync.connect(server.url) as bus:
        stream = bus.quotes("AAPL")
        assert stream.get(timeout_s=0.05) is None
        pump: Any = stream._pump
        bus._portal.tell(lambda: pump._task.cancel())
        with pytest.raises(BusError, match="was cancelled by somebody else"):
            next(iter(stream))
        assert stream.get(timeout_s=0.05) is None


FORK_IS_MEANT = "ignore:This process:DeprecationWarning"
FORGOTTEN = """
import asyncio, gc, logging, os, sys
from consumers import MarketDataService, connect

logging.basicConfig(level=logging.WARNING)

def leave():
    # As children of multiprocessing do: what the parent has begun is not unwound in the child.
    sys.stderr.flush()
    os._exit(0)

async def begun():
    bus = connect(sys.argv[1])
    await bus.__aenter__()
    stream = bus.quotes("AAPL")
    await stream.get(timeout_s=0.1)
    return bus, stream

async def in_a_cycle():
    bus, stream = await begun()
    bus.itself, stream.itself = bus, stream

async def cycle():
    await in_a_cycle()
    gc.collect()
    await asyncio.sleep(0.1)
    gc.collect()
    await asyncio.sleep(0.1)

async def cycle_at_rest():
    # Its tasks wait for nothing but to be woken, so that no timer of the loop holds them.
    async def in_a_cycle():
        bus, stream = await begun()
        await stream.aclose()
        await asyncio.sleep(1.5)
        bus.itself = bus
    await in_a_cycle()
    gc.collect()
    await asyncio.sleep(0.1)

def interrupted():
    from consumers.tasks import Companion

    class Owner:
        async def step(self):
            raise KeyboardInterrupt

    async def main():
        owner = Owner()
        Companion(owner.step, "interrupted").wake()
        await asyncio.sleep(5)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        gc.collect()

async def fork():
    async with connect(sys.argv[1]) as bus:
        stream = bus.quotes("AAPL")
        await stream.get(timeout_s=0.1)
        pid = os.fork()
        if pid == 0:
            del bus, stream
            gc.collect()
            return
        os.waitpid(pid, 0)

async def forked_service():
    async with MarketDataService(redis_url=sys.argv[1]) as service:
        async with asyncio.timeout(0.3), asyncio.TaskGroup() as group:
            group.create_task(service.stream_quotes("AAPL", print).run())
            await asyncio.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                gc.collect()
                leave()
            os.waitpid(pid, 0)

async def forked_drop_in():
    from consumers.alpaca import StockDataStream
    stream = StockDataStream("k", "s", redis_url=sys.argv[1])

    async def handle(quote):
        pass

    stream.subscribe_quotes(handle, "AAPL")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stream._run_forever())
        while not stream._streams:
            await asyncio.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            del stream, running
            gc.collect()
            leave()
        os.waitpid(pid, 0)
        running.cancel()

def forked_twin():
    from consumers import sync
    with sync.connect(sys.argv[1]) as bus:
        stream = bus.quotes("AAPL")
        stream.get(timeout_s=0.1)
        pid = os.fork()
        if pid == 0:
            del bus, stream
            gc.collect()
            leave()
        os.waitpid(pid, 0)

def twin_cycle():
    from consumers import sync
    bus = sync.connect(sys.argv[1]).open()
    stream = bus.quotes("AAPL")
    stream.get(timeout_s=0.1)
    bus.itself, stream.itself = bus, stream
    del bus, stream
    gc.collect()

def pool():
    import multiprocessing
    async def main():
        async with connect(sys.argv[1]) as bus:
            await bus.quotes("AAPL").get(timeout_s=0.1)
            process = multiprocessing.get_context("fork").Process(target=gc.collect)
            process.start()
            await asyncio.to_thread(process.join)
    asyncio.run(main())

try:
    case = globals()[sys.argv[2]]
    if asyncio.iscoroutinefunction(case):
        asyncio.run(case())
    else:
        case()
except TimeoutError:
    pass
gc.collect()
"""


@pytest.mark.fault("Q28")
@pytest.mark.parametrize(
    "case",
    [
        "cycle",
        "cycle_at_rest",
        "interrupted",
        "fork",
        "forked_service",
        "forked_drop_in",
        "forked_twin",
        "twin_cycle",
        "pool",
    ],
)
def test_what_is_forgotten_or_forked_makes_no_noise(server: RedisServer, case: str) -> None:
    """No "Task was destroyed", no "exception was never retrieved": neither here nor in the child."""
    done = subprocess.run(
        # Python itself warns of every fork beside threads, from 3.12 on.
        [sys.executable, "-W", FORK_IS_MEANT, "-c", textwrap.dedent(FORGOTTEN), server.url, case],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    noise = [line for line in done.stderr.splitlines() if "none come for now" not in line]
    assert (noise, done.returncode) == ([], 0)

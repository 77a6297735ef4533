"""What systemd is told, over a real socket."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from ingestor.supervisor import Supervisor
from tests.scenario.notices import Notices


async def heard(systemd: Notices, begins: str, count: int = 1) -> None:
    """Wait until so many such lines have come."""
    async with asyncio.timeout(10):
        while len(systemd.lines(begins)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_as_the_environment_says(
    environment: dict[str, str], watchdog_s: float | None
) -> None:
    """One for another process, or an unreadable one, is none."""
    assert Supervisor.of(environment)._watchdog_s == watchdog_s


async def test_without_systemd_nothing_is_told() -> None:
    """And nobody is asked; as a part of the daemon, it does not end for that."""
    with Supervisor.of({}) as supervisor:
        supervisor.tell(READY="1")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervisor.run(asyncio.Event(), pytest.fail))
            await asyncio.wait((task,), timeout=0.1)
            assert not task.done()
            task.cancel()


async def test_a_supervisor_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Nobody waits for it, and nothing breaks."""
    with Supervisor(str(tmp_path / "nobody"), None) as supervisor:
        supervisor.tell(READY="1")


async def test_a_start_that_waits_too_long_counts_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the start is told that it is over, and in the same breath how it went."""
    monkeypatch.setattr("ingestor.supervisor.READY_WITHIN_S", 0.2)
    async with Notices(tmp_path) as systemd, asyncio.TaskGroup() as group:
        with Supervisor(str(systemd.path), None) as supervisor:
            began_s = time.monotonic()
            task = group.create_task(supervisor.run(asyncio.Event(), lambda: "starting; redis: no such user"))
            await heard(systemd, "READY=1")
            assert time.monotonic() - began_s >= 0.2
            assert systemd.received[-1][1] == "READY=1\nSTATUS=starting; redis: no such user"
            task.cancel()


@pytest.mark.fault("P08")
async def test_a_loop_that_wakes_late_does_not_feed_the_watchdog(tmp_path: Path) -> None:
    """As long as a callback holds it up again and again it goes hungry; fed it is before and afterwards."""
    ready = asyncio.Event()
    async with (
        Notices(tmp_path) as systemd,
        asyncio.TaskGroup() as group,
    ):
        with Supervisor(str(systemd.path), 0.8) as supervisor:
            task = group.create_task(supervisor.run(ready, lambda: "as ever"))
            await heard(systemd, "WATCHDOG=1", 2)
            assert systemd.lines("READY") == []
            ready.set()
            await heard(systemd, "READY=1")
            await asyncio.sleep(0.05)
            fed = len(systemd.lines("WATCHDOG=1"))
            for _ in range(3):
                time.sleep(0.9)  # noqa: ASYNC251 - the fault
                await asyncio.sleep(0.01)
            assert len(systemd.lines("WATCHDOG=1")) == fed
            await heard(systemd, "WATCHDOG=1", fed + 1)
            task.cancel()
    assert systemd.lines("STATUS=as ever")

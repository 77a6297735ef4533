"""The simulator as a program."""

import asyncio
import logging

import pytest

from simulator import AlpacaSimulator, SimulatorSettings, simulate
from tests.simulator.client import joined


async def test_runs_until_told_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    """It says when clients may come, reports now and then, and leaves when told."""
    caplog.set_level(logging.INFO, "simulator")
    stop = asyncio.Event()
    ready: asyncio.Queue[AlpacaSimulator] = asyncio.Queue()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(
            simulate(SimulatorSettings(rate=100), stop, ready=ready.put_nowait, report_every_s=0.02)
        )
        sim = await ready.get()
        async with joined(sim, "AAPL") as client:
            await client.quotes(10)
        stop.set()
    assert "listening on ws://127.0.0.1:" in caplog.text
    assert "live: " in caplog.text

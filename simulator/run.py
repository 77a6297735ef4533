"""The simulator as a program: runs until it is told to stop, and says now and then how it fares.

Decides what is logged. Must never know the command line that configured it, nor signals.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from simulator.server import AlpacaSimulator
from simulator.settings import SimulatorSettings

REPORT_EVERY_S: Final = 10.0

_log: Final = logging.getLogger("simulator")


async def simulate(
    settings: SimulatorSettings,
    stop: asyncio.Event,
    *,
    ready: Callable[[AlpacaSimulator], None] | None = None,
    report_every_s: float = REPORT_EVERY_S,
) -> None:
    """Be Alpaca until `stop` is set. `ready` is called once, when clients may connect.

    Raises `OSError` when the address is taken, `BadTape` and `BadScript` when those files cannot be read.
    """
    async with AlpacaSimulator(settings) as simulator:
        _log.info("listening on %s", simulator.url(settings.feeds[0]))
        if settings.rest_port is not None:
            _log.info("answering REST calls on %s", simulator.rest_url)
        if ready is not None:
            ready(simulator)
        while not stop.is_set():
            try:
                async with asyncio.timeout(report_every_s):
                    await stop.wait()
            except TimeoutError:
                _log.info(simulator.describe())

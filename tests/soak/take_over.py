"""How long it takes until a standby is at work, when the daemon before it was killed.

Decides what is set up and what is counted. Must never reach into a daemon. Nearly all of it is waiting, so many
pairs wait side by side, each with a server, a vendor and two daemons of its own.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from typing import Final

from redis.asyncio import Redis

from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import numbered, subscribed

GHOSTS_S: Final = (90.0, 30.0, 0.0)
"""For how long the vendor keeps the slot of a connection that was not closed; about 90 s is Alpaca's."""
START_PATIENCE_S: Final = 180.0
SILENCE_S: Final = 3.0
"""Without a heartbeat for so long, a daemon is taken for dead."""
AFTERWARDS_S: Final = 10.0
"""What may be added to the silence or to the ghost, whichever is longer, before the figure is not right."""


async def measure(times: int) -> bool:
    """Print a table; whether every standby was at work in time."""
    lines = [f"take-over after kill -9, {times} times each"]
    is_right = True
    for ghost_s in GHOSTS_S:
        ready = asyncio.Barrier(times)
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(_take_over(ghost_s, ready)) for _ in range(times)]
        took_s = [run.result()[0] for run in runs]
        refusals = [run.result()[1] for run in runs]
        is_right &= max(took_s) < max(ghost_s, SILENCE_S) + AFTERWARDS_S
        lines.append(
            f"  ghost of {ghost_s:2.0f} s: the next quote stored after {statistics.median(took_s):.1f} s "
            f"in the median, {max(took_s):.1f} s at worst; logins refused: {statistics.median(refusals):g}"
        )
    sys.stdout.write("\n".join([*lines, *([] if is_right else ["NOT RIGHT: too late"])]) + "\n\n")
    return is_right


async def _take_over(ghost_s: float, ready: asyncio.Barrier) -> tuple[float, int]:
    """Seconds from the kill to the first quote that is stored again, and how many logins were refused."""
    settings = SimulatorSettings(account=AccountRules(connection_limit=1, ghost_s=ghost_s))
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        vendor = await stack.enter_async_context(AlpacaSimulator(settings))
        redis = await stack.enter_async_context(Redis.from_url(server.url, decode_responses=True, protocol=2))
        first = DaemonProcess(server.url, vendor.url("iex"))
        second = DaemonProcess(server.url, vendor.url("iex"))
        await stack.enter_async_context(contextlib.aclosing(first))
        await stack.enter_async_context(contextlib.aclosing(second))
        first.start()
        await first.until(lambda status: status["state"] == "live", START_PATIENCE_S)
        await subscribed(redis, vendor, "AAPL")
        second.start()
        await second.until(lambda status: status["state"] == "standby", START_PATIENCE_S)
        await ready.wait()
        assert first.process is not None
        began_s = time.monotonic()
        first.process.kill()
        await first.ended()
        await vendor.wait_for(lambda: not vendor.symbols, 10)
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, ghost_s + 60)
        vendor.send(numbered("AAPL", 1, 1, base_ns=time.time_ns()))
        await second.until(lambda status: status["stored"] == 1, 30)
        took_s = time.monotonic() - began_s
        return took_s, sum(action.code == 406 for action in vendor.actions)

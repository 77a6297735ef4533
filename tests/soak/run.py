"""One run: traffic, the faults of a schedule at their times, and a balance in the end.

Decides when a fault begins and that those of one lane wait for each other. Must never know what a fault does.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from tests.soak.other_faults import DEEDS as OTHER_DEEDS
from tests.soak.redis_faults import DEEDS as REDIS_DEEDS
from tests.soak.schedule import KINDS, Strike, schedule
from tests.soak.world import World

LINE_EVERY_S: Final = 30.0
DEEDS: Final = {**REDIS_DEEDS, **OTHER_DEEDS}
assert set(DEEDS) == set(KINDS), set(DEEDS) ^ set(KINDS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report of a run, and what was wrong with it."""

    report: str
    problems: list[str]
    faults: Counter[str]


async def soak(world: World, *, seed: int, length_s: float, kinds: Collection[str] | None = None) -> Outcome:
    """Let the faults of this schedule befall a world that was entered, and judge it afterwards."""
    async with world.flowing():
        async with asyncio.TaskGroup() as group:
            lines = group.create_task(_lines(world))
            await _strikes(world, schedule(seed, length_s, kinds), length_s)
            lines.cancel()
        world.vendor.heal()
        world.proxy.straighten()
    await world.settle()
    return _judged(world)


async def _strikes(world: World, strikes: list[Strike], length_s: float) -> None:
    lanes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
    async with asyncio.TaskGroup() as group:
        for strike in strikes:
            await asyncio.sleep(max(0.0, strike.at_s - world.now_s))
            group.create_task(_strike(world, strike, lanes[strike.lane]))
    await asyncio.sleep(max(0.0, length_s - world.now_s))


async def _strike(world: World, strike: Strike, lane: asyncio.Lock) -> None:
    async with lane:
        late_s = world.now_s - strike.at_s
        world.tell(f"{strike}" + (f", {late_s:.1f} s late" if late_s > 0.2 else ""))
        world.balance.faults[strike.kind] += 1
        await DEEDS[strike.kind](world, strike)


async def _lines(world: World) -> None:
    while True:
        await asyncio.sleep(LINE_EVERY_S)
        world.balance.sent = world.sending.sent
        world.tell(world.balance.line(world.now_s, world.checker.verdict()))


def _judged(world: World) -> Outcome:
    log = world.daemon.log
    lines = log.splitlines()
    kinds = Counter(world.daemon.kinds())
    balance, checker = world.balance, world.checker
    balance.log_lines = len(lines)
    balance.redis_connects = kinds["redis_connected"]
    if "Traceback" in log:
        balance.complain(f"the daemon's log has a traceback:\n{log[log.index('Traceback') :][:3000]}")
    verdict = checker.verdict()
    report = balance.report(verdict, checker.markers_by_reason, checker.missing_by_reason)
    return Outcome(report, balance.problems(verdict, checker.markers_by_reason), balance.faults)

"""What single faults cost, in figures: `python -m tests.soak.figures NAME…`, a small table each.

Decides which faults come, how often, and what is measured. Must never know how a fault is brought about. The
checker is the judge: a figure whose quotes are not all there, or marked where they are missing, makes the exit
code 1.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.processes import guarded
from tests.scenario.account import metric
from tests.soak import memory, other_faults, redis_faults, take_over
from tests.soak.schedule import Strike
from tests.soak.world import World

RATE: Final = 5000.0
TIMES: Final = 10
PERIOD_S: Final = 6.0
OUTAGE_S: Final = 60.0
CUTS: Final = 50
SILENCES: Final = 3
HABIT_S: Final = 15.0
"""After a long pause the daemon takes the feed for an illiquid one, until quotes have come for so long."""
PATIENCE_S: Final = 40.0

MEMORY: Final = "memory"
"""No fault at all, and three quarters of an hour: measured when it is named."""

TAKE_OVER: Final = "take-over"
"""Thirty pairs of daemons, and a few minutes: measured when it is named."""

Table: TypeAlias = dict[str, object]


def strike(kind: str, number: int, lasts_s: float = 0.0, size: float = 0.9) -> Strike:
    """One fault of this kind, now."""
    return Strike(number, 0.0, kind, lasts_s, size, number)


async def redis_killed(world: World) -> Table:
    """Redis is killed ten times within a minute."""
    async with world.flowing():
        for n in range(TIMES):
            ends_s = world.now_s + PERIOD_S
            await redis_faults.redis_killed(world, strike("redis_killed", n, 0.2 + 0.25 * n))
            await asyncio.sleep(max(0.0, ends_s - world.now_s))
    return {"Redis killed": TIMES}


async def failover(world: World) -> Table:
    """Ten times a replica takes over that is late by a second."""
    async with world.flowing():
        for n in range(TIMES):
            ends_s = world.now_s + PERIOD_S
            await redis_faults.failover(world, strike("failover", n, 1.0, n % 2 * 0.9))
            await asyncio.sleep(max(0.0, ends_s - world.now_s))
    return {"promotions": TIMES}


async def bad_proxy(world: World) -> Table:
    """Redis is killed ten times behind a wire that eats answers and cuts commands in the middle."""
    cuts = eaten = 0

    async def bend() -> None:
        nonlocal cuts, eaten
        for n in range(10_000):
            if n % 2:
                await other_faults.replies_eaten(world, strike("replies_eaten", n, 0.7))
                eaten += 1
            else:
                before = world.proxy.resets
                await other_faults.wire_cut(world, strike("wire_cut", n, 0.7, n % 20 / 20))
                cuts += world.proxy.resets - before
            await asyncio.sleep(0.3)

    async with asyncio.TaskGroup() as group:
        bending = group.create_task(bend())
        await redis_killed(world)
        bending.cancel()
    world.proxy.straighten()
    world.proxy.cut()
    return {"Redis killed": TIMES, "cut in the middle": cuts, "stretches of eaten answers": eaten}


async def outage(world: World) -> Table:
    """Redis is away for a minute, and there is little memory for what waits."""
    idle = world.size()
    assert idle is not None
    peak_bytes = most_on_disk = most_quotes = 0

    async def look() -> dict[str, Any] | None:
        nonlocal peak_bytes, most_on_disk, most_quotes
        size, status = world.size(), await world.status()
        peak_bytes = max(peak_bytes, size.rss_bytes if size else 0)
        if status is not None:
            most_quotes = max(most_quotes, status["spooled"])
            _, page = await world.daemon.page("/metrics")
            most_on_disk = max(most_on_disk, int(metric(page, "quotebus_spool_bytes")))
        return status

    async with world.flowing():
        await asyncio.sleep(5.0)
        before = world.size()
        assert before is not None
        await asyncio.to_thread(world.primary.kill)
        ends_s = world.now_s + OUTAGE_S
        while world.now_s < ends_s:
            await look()
            await asyncio.sleep(0.2)
        await asyncio.to_thread(world.primary.start)
        back_s = world.now_s
        while (status := await look()) is None or status["spooled"] or status["queued"] > RATE:
            if world.now_s - back_s > 2 * OUTAGE_S:
                break
            await asyncio.sleep(0.05)
        drained_s = world.now_s - back_s
    return {
        "Redis away": f"{OUTAGE_S:g} s",
        "most on disk": f"{most_quotes} quotes, {most_on_disk / 2**20:.1f} MiB",
        "drained, beside what still came": f"in {drained_s:.1f} s",
        "RSS idle, before, peak": f"{idle.rss_bytes / 2**20:.1f}, {before.rss_bytes / 2**20:.1f}, "
        f"{peak_bytes / 2**20:.1f} MiB",
    }


async def daemon_killed(world: World) -> Table:
    """The daemon is killed ten times under load, and five times while Redis stands still."""
    rows: Table = {}
    async with world.flowing():
        for name, times, with_redis in ("killed", TIMES, True), ("killed, Redis away for 4 s", 5, False):
            losses: list[int] = []
            markers: list[int] = []
            for n in range(times):
                await asyncio.sleep(1.0)
                before = await _caught_up(world)
                if not with_redis:
                    world.primary.pause()
                    await asyncio.sleep(4.0)
                await other_faults.daemon_killed(world, strike("daemon_killed", n))
                if not with_redis:
                    world.primary.resume()
                await world.until(_is_sent_to(world), "subscribed again", PATIENCE_S)
                await asyncio.sleep(0.5)
                after = await _caught_up(world)
                losses.append(after[0] - before[0])
                markers.append(after[1] - before[1])
            rows[name] = f"{times} times"
            rows[f"{name}: lost inside of markers"] = _span(losses, "quotes per kill")
            rows[f"{name}: markers"] = _span(markers, f"per kill, of {len(world.symbols)} streams")
    return rows


async def vendor(world: World) -> Table:
    """The vendor cuts fifty times, is mute, half open, and talks nonsense."""
    deeds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
        "cut": (CUTS, lambda: other_faults.vendor_cut(world, strike("vendor_cut", 0))),
        "half a frame": (10, lambda: other_faults.vendor_half_frame(world, strike("vendor_half_frame", 0))),
        "mute (mute_after_s = 3)": (SILENCES, _mute(world)),
        "half open": (SILENCES, lambda: other_faults.vendor_half_open(world, strike("half_open", 0))),
    }
    rows: Table = {}
    async with world.flowing():
        for name, (times, deed) in deeds.items():
            found: list[float] = []
            back: list[float] = []
            for _ in range(times):
                await world.until(_is_sent_to(world), "subscribed", PATIENCE_S)
                await asyncio.sleep(HABIT_S if name.startswith("mute") else 0.2)
                began_s = world.now_s
                await deed()
                await world.until(_has_noticed(world), f"{name} noticed", PATIENCE_S)
                found.append(world.now_s - began_s)
                world.vendor.heal()
                await world.until(_is_sent_to(world), f"back after {name}", PATIENCE_S)
                back.append(world.now_s - began_s)
            rows[f"{name}: {times} times, noticed"] = _span(found, "s")
            rows[f"{name}: quotes again"] = _span(back, "s")
        connections = len(world.vendor.closed)
        for _ in range(20):
            world.vendor.garbage()
            await asyncio.sleep(0.1)
        rows["nonsense: 20 frames, connections lost"] = len(world.vendor.closed) - connections
    return rows


def _mute(world: World) -> Callable[[], Awaitable[None]]:
    async def mute() -> None:
        world.vendor.mute()

    return mute


def _is_sent_to(world: World) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        since_s = time.monotonic() - world.sending.last_sent_s
        status = await world.status()
        is_live = status is not None and status["state"] in ("live", "redis_away")
        return is_live and since_s < 0.1 and world.vendor.symbols == set(world.symbols)

    return check


def _has_noticed(world: World) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        status = await world.status()
        return status is not None and status["state"] != "live"

    return check


async def _caught_up(world: World) -> tuple[int, int]:
    """What is missing inside of markers, and the markers, once all that was sent by now is there."""
    want = world.sending.numbers

    async def check() -> bool:
        await world.follow()
        return all(world.checker.highest(symbol) >= number for symbol, number in want.items())

    await world.until(check, "caught up", PATIENCE_S)
    verdict = world.checker.verdict()
    return verdict.missing_in_gaps, verdict.markers


def _span(values: list[float] | list[int], unit: str) -> str:
    digits = 2 if any(isinstance(value, float) for value in values) else 0
    return f"median {statistics.median(values):.{digits}f}, max {max(values):.{digits}f} {unit}"


FIGURES: Final[Mapping[str, tuple[Callable[[World], Awaitable[Table]], dict[str, Any]]]] = {
    "redis-killed": (redis_killed, {"with_replica": False}),
    "failover": (failover, {}),
    "bad-proxy": (bad_proxy, {"with_replica": False}),
    "outage": (outage, {"with_replica": False, "memory_bytes": "4MiB", "stream_maxlen": "0"}),
    "daemon-killed": (daemon_killed, {"with_replica": False}),
    "vendor": (vendor, {"with_replica": False, "rate": 1000.0}),
}


async def figure(name: str) -> bool:
    """Measure one, and print its table; whether the checker found nothing wrong."""
    measure, settings = FIGURES[name]
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(World(**{"rate": RATE, **settings}))
        rows = await measure(world)
        await world.settle()
        verdict = world.checker.verdict()
        problems = world.balance.problems(verdict, world.checker.markers_by_reason)
        if verdict.unneeded_markers:
            problems += [f"{verdict.unneeded_markers} markers without need", *verdict.examples]
        totals = world.balance.totals
    rows |= {
        "quotes sent": world.sending.sent,
        "stored": verdict.arrived,
        "missing inside of markers": verdict.missing_in_gaps,
        "markers, without need": f"{verdict.markers}, {verdict.unneeded_markers}",
        "lost, duplicated, out of order": f"{verdict.lost}, {verdict.duplicated}, {verdict.out_of_order}",
        "sent again after Redis forgot": totals["replayed"],
        "longest without being live": f"{world.balance.longest_outage_s:.1f} s",
        "ledger": f"even at {world.balance.ledgers} looks" if not problems else "see below",
    }
    lines = [
        f"{name}, {world.sending.rate:g} quotes/s",
        *(f"  {key:44} {value}" for key, value in rows.items()),
    ]
    lines += ["NOT RIGHT:", *problems] if problems else []
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()
    return not problems


def _measured(name: str, arguments: argparse.Namespace) -> Coroutine[Any, Any, bool]:
    if name == MEMORY:
        return memory.measure(arguments.minutes, arguments.rate, arguments.symbols, arguments.keep)
    return take_over.measure(arguments.times) if name == TAKE_OVER else figure(name)


def main() -> int:
    """Measure what the arguments name; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.figures", description="What faults cost.")
    names = [*FIGURES, MEMORY, TAKE_OVER]
    parser.add_argument("names", nargs="*", choices=[*names, []], default=list(FIGURES), metavar="NAME")
    growth = parser.add_argument_group(MEMORY)
    growth.add_argument("--minutes", type=float, default=45.0)
    growth.add_argument("--rate", type=float, default=3000.0, help="quotes a second over all symbols")
    growth.add_argument("--symbols", type=int, default=100)
    growth.add_argument("--keep", type=Path, metavar="FILE", help="write every sample there, as CSV")
    waits = parser.add_argument_group(TAKE_OVER)
    waits.add_argument("--times", type=int, default=TIMES, help="pairs of daemons for each kind of ghost")
    arguments = parser.parse_args()
    with guarded():
        outcomes = [asyncio.run(_measured(name, arguments)) for name in arguments.names]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

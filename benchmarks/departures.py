"""Strategies that go, or fall behind: when their leases end, who gets their work, and what they are told.

Decides who is killed and what is waited for. Must never know how the library does it: leases are seen in what the
daemon subscribes, claims in what another worker is handed, trimming in what the reader is told.
"""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.processes import Program, control, daemon, program, source, until
from benchmarks.recording import symbol_names
from benchmarks.strategies import KEYS, append_quotes
from benchmarks.strategy import GO, GROUP
from consumers import Gap, connect
from simulator.redis_server import RedisServer

SYMBOLS: Final = 20
PATIENCE_S: Final = 120.0


@dataclass(frozen=True)
class Claims:
    """Seconds from the kill until another worker had the dead one's first, median and last entry."""

    claim_after_s: float
    entries: int
    first_s: float
    median_s: float
    last_s: float


@dataclass(frozen=True)
class Told:
    """What a reader slower than retention got: quotes, and gaps with the number that is missing in each."""

    written: int
    read: int
    gaps: tuple[int | None, ...]


def measure_leases(*, kill: bool) -> float:
    """Seconds from the end of a strategy, killed or interrupted, until the daemon has none of its symbols live."""
    with (
        RedisServer(dies_with_us=True) as server,
        source(SYMBOLS) as feed,
        daemon(server.url, feed.url) as (child, _),
    ):
        client = control(server.url)
        with program(
            "-m", "benchmarks.strategy", "quotes", server.url, "--symbols", str(SYMBOLS)
        ) as strategy:
            # The sentinel is leased like the others.
            until("all symbols live", lambda: _live(client) == SYMBOLS + 1, child, strategy)
            begin_s = time.monotonic()
            os.kill(strategy.pid, signal.SIGKILL if kill else signal.SIGINT)
            until("their unsubscription", lambda: _live(client) == 0, child)
            return time.monotonic() - begin_s


def measure_claims(*, claim_after_s: float, entries: int) -> Claims:
    """A worker takes so many entries and is killed; another one of its group is there."""
    with RedisServer(dies_with_us=True) as server:
        append_quotes(control(server.url), entries, SYMBOLS)
        arguments = (
            "hoard",
            server.url,
            "--symbols",
            str(SYMBOLS),
            "--count",
            str(entries),
            "--start",
            "earliest",
        )
        with program("-m", "benchmarks.strategy", *arguments) as worker:
            until("the worker's taking them", lambda: GO in worker.output, worker)
            return asyncio.run(_survive(server.url, worker, claim_after_s, entries))


async def _survive(url: str, worker: Program, claim_after_s: float, entries: int) -> Claims:
    names = [*symbol_names(SYMBOLS), "ZZEND"]
    delays_s: list[float] = []
    async with asyncio.timeout(PATIENCE_S), connect(url) as bus:
        stream = bus.group(GROUP, *names, claim_after_s=claim_after_s, lease=False)
        os.kill(worker.pid, signal.SIGKILL)
        begin_s = time.monotonic()
        async for delivery in stream:
            if delivery.is_claimed:
                delays_s.append(time.monotonic() - begin_s)
            await stream.ack(delivery)
            if len(delays_s) == entries:
                break
        await stream.aclose()
    return Claims(claim_after_s, entries, delays_s[0], median(delays_s), delays_s[-1])


def measure_trimming(*, kept: int, written: int) -> Told:
    """A reader at the end of a stream of at most `kept` entries sleeps while `written` more come."""
    with RedisServer(dies_with_us=True) as server:
        return asyncio.run(_fall_behind(server.url, kept, written))


async def _fall_behind(url: str, kept: int, written: int) -> Told:
    client = control(url)
    (name,) = symbol_names(1)
    append_quotes(client, kept, 1)
    read = 0
    gaps: list[int | None] = []
    async with asyncio.timeout(PATIENCE_S), connect(url) as bus:
        items = aiter(bus.quotes(name, start="earliest", lease=False))
        for _ in range(kept - 1):
            await anext(items)
        await asyncio.to_thread(append_quotes, client, written + 1, 1)
        client.xtrim(KEYS.stream(name), maxlen=kept, approximate=False)
        while read + sum(filter(None, gaps)) < written:
            item = await anext(items)
            if isinstance(item, Gap):
                gaps.append(item.missing)
            else:
                read += 1
    return Told(written, read, tuple(gaps))


def _live(client: Any) -> int:
    states = client.hgetall(KEYS.subscriptions)
    return sum(b'"live"' in state for state in states.values())

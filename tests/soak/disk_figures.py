"""What a full and a hanging disk cost, in figures: `python -m tests.soak.disk_figures`, a line for each rate.

Decides what is measured: what becomes of every quote, the slowest `/livez`, and how a SIGTERM ends. The checker is
the judge: a quote that is neither there nor marked makes the exit code 1. `--daemon FOLDER` measures the daemon of
another checkout. The full disk is a tmpfs where this user may mount one, and else the preloaded library's.

Each line says how much of a processor the daemon's main thread and this program (source, simulator and judge) had,
and for how much of the time that thread was ready and others had the processors: where that is much, the machine
was busy with something else, and the clock's figures are the machine's.
"""

import argparse
import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.preload.build import build
from tests.preload.control import Call, Faults
from tests.processes import guarded
from tests.scenario.daemon import DaemonProcess
from tests.scenario.disk import SYMBOLS, spooling_daemon
from tests.scenario.livez import main_thread_s, watching_livez
from tests.scenario.traffic import Traffic

CLONE_NEWNS: Final = 0x00020000
"""A mount namespace of one's own: unshare(2)."""
KIB: Final = 1024
RATES: Final = (500, 5_000, 24_000)
AFTER_S: Final = 25.0
"""How long Redis is back before the balance is drawn, while quotes still come."""
BUSY: Final = 0.25
"""For such a part of the time a daemon waits for a processor only where others want them all."""
SETTLED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """A disk of so many bytes (None: one that hangs), the daemon's memory, and for how long Redis is away."""

    name: str
    room: int | None
    memory_bytes: int
    away_s: float


CASES: Final = (
    Case("full", 256 * KIB, 64 * KIB * KIB, 12.0),
    Case("full, little memory", 3 * KIB * KIB, 2 * KIB * KIB, 12.0),
    Case("hangs", None, 64 * KIB * KIB, 4.0),
)


@dataclass(frozen=True, slots=True)
class Shares:
    """What the daemon's main thread had of a processor, for which part of the time it waited for one, and what this
    program had."""

    daemon: float
    daemon_waits: float
    ours: float

    def __str__(self) -> str:
        said = f"processor: daemon {self.daemon:.0%}, waits {self.daemon_waits:.0%}, source {self.ours:.0%}"
        return f"{said} (BUSY MACHINE)" if self.daemon_waits > BUSY else said


def keep_mounts_to_ourselves() -> None:
    """What is mounted from now on is seen by us and our children alone, and is gone with us, however we end."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextmanager
def disk_of(folder: Path, faults: Faults, room: int) -> Iterator[str]:
    """A disk of so many bytes at this folder; what kind of disk it is."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        faults.resize(room)
        yield "preloaded"
        return
    try:
        yield "tmpfs"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def measure(case: Case, rate: int, folder: Path, faults: Faults) -> bool:
    """One case at one rate; prints its line; whether every quote is accounted for."""
    rules = AccountRules(connection_limit=1, ghost_s=0.5)
    simulator = AlpacaSimulator(SimulatorSettings(account=rules))
    settings = {"memory_bytes": str(case.memory_bytes)}
    with RedisServer(appendonly=True) as server:
        async with (
            simulator as vendor,
            Redis.from_url(server.url, decode_responses=True, protocol=2) as redis,
            spooling_daemon(server, redis, vendor, folder, faults, **settings) as (daemon, traffic),
        ):
            return await _measured(case, rate, server, redis, daemon, traffic, faults)


async def _measured(
    case: Case,
    rate: int,
    server: RedisServer,
    redis: Redis,
    daemon: DaemonProcess,
    traffic: Traffic,
    faults: Faults,
) -> bool:
    assert daemon.process is not None
    async with watching_livez(daemon) as livez:
        from_s, our_cpu_s = time.monotonic(), time.process_time()
        ran_s, waited_s = main_thread_s(daemon.process.pid)
        async with traffic.flowing(rate / len(SYMBOLS)):
            server.pause()
            if case.room is None:
                await asyncio.sleep(3.0)
                faults.hang(Call.WRITE)
            await asyncio.sleep(case.away_s - 3.0 * (case.room is None))
            server.resume()
            await asyncio.sleep(AFTER_S)
        flowed_s = time.monotonic() - from_s
        ran_by_s, waited_by_s = main_thread_s(daemon.process.pid)
        shares = Shares(
            (ran_by_s - ran_s) / flowed_s,
            (waited_by_s - waited_s) / flowed_s,
            (time.process_time() - our_cpu_s) / flowed_s,
        )
        status = await _settled(daemon)
        _, page = await daemon.page("/metrics")
    began_s = time.monotonic()
    daemon.signal(signal.SIGTERM)
    code = await daemon.ended(120)
    took_s = time.monotonic() - began_s
    verdict = await traffic.verdict(redis)
    reasons = [
        line.partition('reason="')[2].replace('"}', "")
        for line in page.splitlines()
        if line.startswith("quotebus_quotes_dropped_total{") and not line.endswith(" 0.0")
    ]
    left = _left(status)
    sys.stdout.write(
        f"{case.name:20} {rate:6}/s  sent {traffic.sent * len(SYMBOLS):8}  received {status['received']:8}  "
        f"stored {status['stored']:8}  dropped {status['dropped']:7} {', '.join(reasons)}  left {left}  "
        f"marked {verdict.missing_in_gaps}  lost {verdict.lost}  out of order {verdict.out_of_order}  "
        f"livez {livez.slowest_whole_s * 1e3:.0f} ms, own {livez.slowest_s * 1e3:.0f} ms, "
        f"processor {livez.most_cpu_s * 1e3:.0f} ms  SIGTERM {code} in {took_s:.1f} s  {shares}\n"
    )
    sys.stdout.flush()
    return not (verdict.lost or verdict.out_of_order or verdict.duplicated or left)


async def _settled(daemon: DaemonProcess) -> dict[str, Any]:
    """The status once nothing waits any more, or the last one in time."""
    ends_s = time.monotonic() + SETTLED_S
    while True:
        try:
            status = await daemon.status()
        except AssertionError:
            # A daemon that gets no processor answers late, which is a figure and not the end of the measuring.
            if time.monotonic() > ends_s or daemon.process is None or daemon.process.poll() is not None:
                raise
            continue
        if not _left(status) or time.monotonic() > ends_s:
            return status
        await asyncio.sleep(0.2)


def _left(status: dict[str, Any]) -> int:
    return int(status["queued"] + status["unanswered"] + status["spooled"])


def figures(names: Sequence[str], rates: Sequence[int], path: str | None) -> bool:
    """All of these cases at all of these rates."""
    if path is not None:
        os.environ["PYTHONPATH"] = path
    is_right = True
    with tempfile.TemporaryDirectory(prefix="quotebus-disk-") as scratch:
        library = build(Path(scratch))
        for case in CASES:
            for rate in rates if case.name in names else ():
                folder = Path(scratch) / f"{CASES.index(case)}-{rate}"
                with Faults(folder, library) as faults:
                    if case.room is None:
                        is_right &= asyncio.run(measure(case, rate, folder, faults))
                        continue
                    with disk_of(folder, faults, case.room):
                        is_right &= asyncio.run(measure(case, rate, folder, faults))
    return is_right


def main() -> int:
    """Measure what the arguments name; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.disk_figures", description="What a bad disk costs."
    )
    names = [case.name for case in CASES]
    parser.add_argument("names", nargs="*", metavar="CASE", help=", ".join(names))
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, help="quotes a second")
    parser.add_argument("--daemon", help="folder of the checkout whose daemon is measured")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    with guarded():
        keep_mounts_to_ourselves()
        return 0 if figures(arguments.names or names, arguments.rates, arguments.daemon) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Whether the daemon's memory grows, in figures: `python -m tests.soak.figures memory --minutes 45`.

Decides what the daemon is fed with, what is read of its process and how often, and how growth is measured. Must
never know what the daemon keeps. The vendor is a process of its own, so that what the simulator keeps does not
count; neither does the first third of the time, in which windows of seconds to minutes fill.
"""

import asyncio
import contextlib
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from simulator.market import plausible_symbols
from simulator.redis_server import RedisServer
from tests.scenario.account import metric
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, ledger_is_even
from tests.soak.balance import MIB, slope_per_h

EVERY_S: Final = 5.0
WARM_UP_SHARE: Final = 1 / 3
LIMIT_MIB_PER_H: Final = 1.0
START_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The daemon's process at one moment: sizes in bytes, from the kernel and from the daemon's own metrics."""

    at_s: float
    rss_bytes: int
    anonymous_bytes: int
    kept_bytes: int
    received: int
    batches: int


def without_stalls(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """Times and sizes of RSS, as if it had not grown while the machine had no time for the daemon.

    Such a stretch has fewer than three quarters of the append calls of an undisturbed one, each of them larger:
    quotes pile up, and the heap takes what the largest pile so far needed. How large that is says something about
    the machine, which may be busy for most of the time: its best tenth is what counts as undisturbed.
    """
    calls = [after.batches - before.batches for before, after in pairwise(samples)]
    undisturbed = statistics.quantiles(calls, n=10)[-1]
    stalled = [n < undisturbed * 3 / 4 for n in calls]
    points = [(samples[0].at_s, float(samples[0].rss_bytes))]
    for n, (before, after) in enumerate(pairwise(samples)):
        growth = after.rss_bytes - before.rss_bytes
        # What had piled up is taken in a moment later.
        is_stall = any(stalled[max(0, n - 1) : n + 2])
        points.append((after.at_s, points[-1][1] + (0 if is_stall and growth > 0 else growth)))
    return points


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Those of the last two thirds of the time."""
    begin_s, end_s = samples[0].at_s, samples[-1].at_s
    return [s for s in samples if s.at_s >= begin_s + (end_s - begin_s) * WARM_UP_SHARE]


@contextlib.contextmanager
def vendor(rate: float, symbols: int) -> Iterator[str]:
    """`quotebus simulate` as a child, and the address of its stream."""
    command = [sys.executable, "-c", "from ingestor.entry import main; main()", "simulate"]
    options = ["--port", "0", "--rate", f"{rate:g}", "--symbols", str(symbols), "--ghost-s", "0"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)
        process.stdout.close()


async def measure(minutes: float, rate: float, symbols: int, keep: Path | None) -> bool:
    """Measure and print; whether memory grows by less than the limit, but for stalls, and the books are even."""
    with RedisServer() as server, vendor(rate, symbols) as url:
        daemon = DaemonProcess(server.url, url, stream_maxlen="1000")
        async with daemon, Redis.from_url(server.url, decode_responses=True) as redis:
            await redis.sadd(KEYS.symbols, *plausible_symbols(symbols))
            await daemon.until(lambda status: status["live"] == symbols, START_TIMEOUT_S)
            samples = await _watch(daemon, minutes * 60, keep)
            status = await daemon.status()
    late = settled(samples)
    rss = slope_per_h([(s.at_s, s.rss_bytes) for s in late]) / MIB
    steady = slope_per_h(without_stalls(late)) / MIB
    sizes = ", ".join(f"{s.rss_bytes / MIB:.1f}" for s in (samples[0], late[0], samples[-1]))
    kept = " to ".join(f"{s.kept_bytes / MIB:.1f}" for s in (late[0], samples[-1]))
    rows = {
        "quotes received": samples[-1].received - samples[0].received,
        "append calls": samples[-1].batches - samples[0].batches,
        "RSS at first, after a third, at the end": f"{sizes} MiB",
        "RSS slope over the last two thirds": f"{rss:+.2f} MiB/h",
        "the same, but for what grew in stalls": f"{steady:+.2f} MiB/h (limit {LIMIT_MIB_PER_H:g})",
        "quotes kept, by the daemon's own metric": f"{kept} MiB",
        "ledger": "even" if ledger_is_even(status) else f"NOT EVEN: {status}",
    }
    lines = [f"memory, {rate:g} quotes/s of {symbols} symbols, {minutes:g} min, every {EVERY_S:g} s"]
    lines += [f"  {key:44} {value}" for key, value in rows.items()]
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()
    return steady < LIMIT_MIB_PER_H and ledger_is_even(status)


async def _watch(daemon: DaemonProcess, length_s: float, keep: Path | None) -> list[Sample]:
    samples: list[Sample] = []
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        writer = None
        if keep is not None:
            file = stack.enter_context(keep.open("w", newline=""))
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(Sample))
        while (at_s := time.monotonic() - began_s) < length_s:
            # A machine that is too busy to answer leaves a look out; the process that ended is no such.
            with contextlib.suppress(AssertionError):
                samples.append(await _look(daemon, at_s))
                if writer is not None:
                    writer.writerow(astuple(samples[-1]))
                    file.flush()
            assert daemon.process is not None
            assert daemon.process.poll() is None, daemon.log[-3000:]
            await asyncio.sleep(EVERY_S - (time.monotonic() - began_s) % EVERY_S)
    return samples


async def _look(daemon: DaemonProcess, at_s: float) -> Sample:
    assert daemon.process is not None
    _, page = await daemon.page("/metrics")
    folder = Path(f"/proc/{daemon.process.pid}")
    rollup = dict(
        line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines() if ":" in line
    )
    return Sample(
        round(at_s, 2),
        int(rollup["Rss"].split()[0]) * 1024,
        int(rollup["Anonymous"].split()[0]) * 1024,
        int(metric(page, "quotebus_memory_bytes")),
        int(metric(page, "quotebus_quotes_received_total")),
        int(metric(page, "quotebus_batches_sent_total")),
    )

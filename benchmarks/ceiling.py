"""The ceiling: how many such entries the server takes from `redis-benchmark`, which does nothing else.

Decides its options. Must never know the daemon. It appends entries of the size of ours with ids made by the server
and without a cache, 200 commands in flight on each of its connections: no client that also thinks can be expected
to pass it, except by asking for less work per entry.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import BenchmarkFailed, control, cpu_s
from simulator.redis_server import RedisServer
from wire import Keyspace

PIPELINE: Final = 200
PAYLOAD: Final = '[187.12,300,"V",187.13,200,"N",["R"],"C",1763000004123825050,8052]'
DEBIAN_TOOL: Final = Path(__file__).parent.parent / "scripts" / "debian_tool.sh"


@dataclass(frozen=True)
class Ceiling:
    """One run of redis-benchmark; CPU in microseconds per entry."""

    entries_per_s: float
    server_cpu_us: float


def find_redis_benchmark() -> str:
    """The path of the program; `FileNotFoundError` says how to get it."""
    chosen = os.environ.get("REDIS_BENCHMARK")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise FileNotFoundError(f"REDIS_BENCHMARK={chosen} is not an executable file")
        return path
    for name in ("redis-benchmark", "valkey-benchmark"):
        path = shutil.which(name)
        if path is not None:
            return path
    if DEBIAN_TOOL.exists():
        found = subprocess.run(
            [str(DEBIAN_TOOL), "redis-tools", "redis-benchmark"], capture_output=True, text=True, check=False
        )
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip().splitlines()[-1]
    raise FileNotFoundError("no redis-benchmark: install redis-tools, or name the program in REDIS_BENCHMARK")


def measure_ceiling(server: RedisServer, *, symbols: int, entries: int, maxlen: int = 50_000) -> Ceiling:
    """Entries per second over as many streams as there are symbols."""
    program = find_redis_benchmark()
    client = control(server.url)
    client.flushall()
    stream = Keyspace().stream("__rand_int__")
    # fmt: off
    command = [
        program, "-h", "127.0.0.1", "-p", str(server.port), "-P", str(PIPELINE), "-n", str(entries),
        "-r", str(symbols), "--csv", "XADD", stream, "MAXLEN", "~", str(maxlen), "*", "q", PAYLOAD,
    ]
    # fmt: on
    before_s = cpu_s(server.pid)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    used_s = cpu_s(server.pid) - before_s
    if done.returncode != 0:
        raise BenchmarkFailed(f"redis-benchmark: {done.stderr[-500:]}")
    # The name of the test holds commas and quotes; the rate is the first number after it.
    return Ceiling(_rate_in(done.stdout), used_s / entries * 1e6)


def _rate_in(csv_text: str) -> float:
    last = csv_text.strip().splitlines()[-1]
    fields = last.rsplit('","', 7)
    try:
        return float(fields[1])
    except (IndexError, ValueError):
        raise BenchmarkFailed(f"redis-benchmark printed what is not understood: {last[:200]}") from None

"""What an entry costs that a worker of a group handles and acknowledges, in this library and in that of a checkout.

`python -m benchmarks.groups --against CHECKOUT`: runs of both in turn, and the ratio of their medians. Decides how
many and in which order. Must never know how a group works.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.loops import KEYS
from simulator.redis_server import RedisServer, die_with_parent

ROOT: Final = Path(__file__).parents[1]
CASES: Final = (("one symbol", 1, 500), ("100 symbols", 100, 500), ("500 symbols", 500, 500))
WORK: Final = """
import asyncio, sys, time
from consumers import connect

async def main(url, group, count, prefetch, symbols):
    names = [f"S{number}" for number in range(int(symbols))]
    async with connect(url) as bus:
        stream = bus.group(group, *names, start="earliest", consumer="w", lease=False, auto_ack=True,
                           prefetch=int(prefetch))
        left, began = int(count), 0.0
        async for _ in stream:
            began = began or time.perf_counter()
            left -= 1
            if not left:
                break
        print(time.perf_counter() - began)

asyncio.run(main(*sys.argv[1:]))
"""


async def _fill(url: str, symbols: int, entries: int) -> None:
    from redis.asyncio import Redis

    from wire import encode_quote

    row = (187.12, 1, "V", 187.13, 200, "N", ["R"], "C", 1_763_000_000_000_000_000, 8052)
    async with Redis.from_url(url, protocol=2) as redis:
        for at in range(0, entries, 1_000):
            pipe = redis.pipeline(transaction=False)
            for number in range(at, min(at + 1_000, entries)):
                pipe.xadd(KEYS.stream(f"S{number % symbols}"), {"q": encode_quote(row)}, f"{number + 1}-1")
            await pipe.execute()


def _us(url: str, library: Path, group: str, case: tuple[str, int, int], entries: int) -> float:
    """Microseconds per entry of one worker that reads all there is."""
    _, symbols, prefetch = case
    words = [url, group, str(entries), str(prefetch), str(symbols)]
    out = subprocess.run(
        [sys.executable, "-c", WORK, *words],
        check=True,
        capture_output=True,
        cwd="/",
        preexec_fn=die_with_parent,
        env={**os.environ, "PYTHONPATH": str(library)},
    )
    return float(out.stdout) / entries * 1e6


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description=__doc__)
    parser.add_argument("--against", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--entries", type=int, default=50_000)
    arguments = parser.parse_args()
    for case in CASES:
        with RedisServer(dies_with_us=True) as server:
            asyncio.run(_fill(server.url, case[1], arguments.entries))
            before, now = [], []
            for number in range(arguments.rounds):
                stamp = f"{time.time_ns()}-{number}"
                before.append(_us(server.url, arguments.against, f"b{stamp}", case, arguments.entries))
                now.append(_us(server.url, ROOT, f"n{stamp}", case, arguments.entries))
        ratio = median(now) / median(before)
        print(
            f"{case[0]:12}  {median(before):6.2f} us before ({min(before):.2f} to {max(before):.2f})  "
            f"{median(now):6.2f} us now ({min(now):.2f} to {max(now):.2f})  ratio {ratio:.3f}"
        )


if __name__ == "__main__":
    main()

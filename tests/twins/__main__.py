"""The command line: compares so many seeds, commands and lives of the library; exit code 1 at a difference."""

import argparse
import asyncio
import logging
import sys
import time

from redis.asyncio import Redis

from consumers.testing import MemoryServer
from simulator.redis_server import RedisServer
from tests.processes import guarded
from tests.twins.compare import differences, first_difference, linked, lived
from tests.twins.limits import KNOWN


class Real(RedisServer):
    """A real server."""

    def client(self) -> Redis:
        """A client that speaks as the library does."""
        return Redis.from_url(self.url, protocol=2)


def compare(seed: int, count: int, *, commands: int = 80, deeds: int = 60) -> list[str]:
    """What differs, in words; for each seed at most one thing of each kind."""
    with Real() as real, MemoryServer() as memory:
        told = asyncio.run(_commands(seed, count, commands, (real.url, memory.url)))
        for number in range(seed, seed + count):
            found = first_difference(lived(number, real, deeds), lived(number, memory, deeds))
            if found is not None:
                at, was, is_now = found
                told.append(f"seed {number}: deed {at} {was[0]}: {was[1]!r} / {is_now[1]!r} in memory")
    return told


async def _commands(seed: int, count: int, commands: int, urls: tuple[str, str]) -> list[str]:
    told = []
    links = [await linked(url) for url in urls]
    for number in range(seed, seed + count):
        told += [
            f"seed {number}: {its.command}: {its.real!r} on a server, {its.memory!r} in memory"
            for its in await differences(number, links[0], links[1], commands)
        ]
    for link in links:
        await link.close()
    return told


def main() -> int:
    """Compare what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.twins", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    arguments = parser.parse_args()
    began_s = time.monotonic()
    # That no daemon runs, and that streams are gone, is as meant, and would hide the differences.
    logging.getLogger("consumers").setLevel(logging.ERROR)
    with guarded():
        told = compare(arguments.seed, arguments.count)
    lines = [*(line[:2_000] for line in told), *(f"known: {name}: {why}" for name, why in KNOWN.items())]
    lines.append(
        f"{arguments.count} seeds of 80 commands and 60 deeds each: {len(told)} differences "
        f"in {time.monotonic() - began_s:.0f} s"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())

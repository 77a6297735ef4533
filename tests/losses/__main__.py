"""The command line: how many histories, from which seed; the balance, and exit code 1 when something is untold."""

import argparse
import asyncio
import logging
import sys

from redis.asyncio import Redis

from simulator.redis_server import RedisServer
from tests.losses.history import PATIENCE_S, History
from tests.losses.reader import Balance
from tests.processes import guarded


async def live(seed: int, count: int, *, jobs: int, deeds: int) -> dict[int, tuple[Balance, list[str]]]:
    """The balance and the deeds of so many histories, by seed, on one server of their own."""
    found: dict[int, tuple[Balance, list[str]]] = {}
    places = asyncio.Semaphore(jobs)

    async def one(number: int, url: str, redis: Redis) -> None:
        async with places:
            history = History(number, redis, url, deeds)
            found[number] = await history.run(), history.log

    with RedisServer() as server:
        async with (
            Redis.from_url(server.url, protocol=2, socket_timeout=PATIENCE_S) as redis,
            asyncio.TaskGroup() as group,
        ):
            for number in range(seed, seed + count):
                group.create_task(one(number, server.url, redis))
    return found


def say(*words: str) -> None:
    """To whoever started this."""
    sys.stdout.write(" ".join(words) + "\n")


def main() -> int:
    """Run what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.losses", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=8, help="how many at a time")
    parser.add_argument("--deeds", type=int, default=60, help="deeds in each")
    arguments = parser.parse_args()
    # What the deeds make the library say is as meant, and would hide the balance.
    logging.getLogger("consumers").setLevel(logging.ERROR)
    with guarded():
        found = asyncio.run(live(arguments.seed, arguments.count, jobs=arguments.jobs, deeds=arguments.deeds))
    total = sum((its for its, _ in found.values()), Balance())
    for number, (its, log) in sorted(found.items()):
        if its.untold or its.twice:
            say(f"seed {number}: untold {', '.join(its.untold)[:200]}; twice {its.twice}")
            say("   ", "; ".join(log))
    told = total.missing - len(total.untold) - total.unseen
    say(
        f"{len(found)} histories: {total.written} entries, {total.missing} missing, of these "
        f"{told} told ({total.late} late), {len(total.untold)} untold, "
        f"{total.unseen} in streams that were gone before they were asked for; {total.twice} twice"
    )
    return 1 if total.untold or total.twice else 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line of a soak: how long, how fast, from which seed.

Decides what is printed, and the exit code: 1 when the balance is not right. Must never know what a fault does.
"""

import argparse
import asyncio
import sys

from tests.processes import guarded
from tests.soak.run import soak
from tests.soak.schedule import KINDS
from tests.soak.world import World


def main() -> int:
    """Run a soak as the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Traffic with random faults.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2000.0, help="quotes a second over all symbols")
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), help="these faults alone")
    parser.add_argument("--keep-log", metavar="FILE", help="copy the daemon's log there at the end")
    arguments = parser.parse_args()
    with guarded():
        return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    _say(f"seed {arguments.seed}, {arguments.minutes:g} min, {arguments.rate:g} quotes/s")
    async with World(rate=arguments.rate, symbols=arguments.symbols, seed=arguments.seed) as world:
        world.tell = _say
        try:
            outcome = await soak(
                world, seed=arguments.seed, length_s=arguments.minutes * 60, kinds=arguments.only
            )
        finally:
            if arguments.keep_log:
                with open(arguments.keep_log, "w") as file:  # noqa: ASYNC230, PTH123
                    file.write(world.daemon.log)
    _say(outcome.report)
    if outcome.problems:
        _say("\n".join(["NOT RIGHT:", *outcome.problems]))
        return 1
    _say("The balance is right.")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

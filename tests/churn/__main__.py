"""The command line of the churn: how many runs, from which seed, how long, how many at a time, of which library.

Decides what is printed, and the exit code: 1 when a run is not right, 130 when it was interrupted. Must never know
what a deed does.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.churn.design import Run, runs
from tests.churn.live import Outcome, live
from tests.processes import guarded


def main() -> int:
    """Run what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.churn",
        description="A consumer group whose workers, streams and server come and go; each entry is accounted for.",
        epilog="example: python -m tests.churn --seed 7 --count 20 --jobs 2",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of single runs")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each")
    parser.add_argument("--workers", type=Path, metavar="CHECKOUT", help="run workers of another checkout")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="put the notes of what is not right there"
    )
    arguments = parser.parse_args()
    if arguments.workers is not None and not (arguments.workers / "consumers").is_dir():
        parser.error(f"{arguments.workers} is no checkout: it has no folder consumers")
    chosen = runs(arguments.seed, max([arguments.count, *arguments.only]), arguments.seconds)
    if arguments.only:
        chosen = [run for run in chosen if run.number in arguments.only]
    # Whatever ends this ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[Outcome] = []
    try:
        with guarded():
            asyncio.run(_all(chosen, arguments, outcomes))
    except KeyboardInterrupt:
        _say(f"Interrupted after {len(outcomes)} of {len(chosen)} runs.")
    _say(table(outcomes))
    if not all(outcome.is_right for outcome in outcomes):
        return 1
    return 0 if len(outcomes) == len(chosen) else 130


async def _all(chosen: list[Run], arguments: argparse.Namespace, outcomes: list[Outcome]) -> None:
    places, began_s = asyncio.Semaphore(arguments.jobs), time.monotonic()

    async def one(run: Run) -> None:
        async with places:
            outcome = await live(run, arguments.workers, arguments.keep)
        outcomes.append(outcome)
        found = outcome.account
        _say(
            f"{time.monotonic() - began_s:7.1f} s  ONLY={run.number:<4} entries {found.entries:6}  "
            f"told {found.told:5}  lost {found.lost:4}  twice {found.twice:5}  without need {found.needless}"
        )
        if not outcome.is_right:
            _say(told(run, outcome))

    async with asyncio.TaskGroup() as group:
        for run in chosen:
            group.create_task(one(run))


def told(run: Run, outcome: Outcome) -> str:
    """A run that is not right: how to repeat it, what was done, and what was found."""
    found = outcome.account
    lines = [f"NOT RIGHT  make churn {run.name}", *(f"    {line}" for line in outcome.diary)]
    lines += [f"    never handled and in no gap: {name}" for name in found.missing]
    lines += [f"    {name}" for name in found.repeated]
    return "\n".join([*lines, *(f"    {failure}" for failure in outcome.failures)])


def table(outcomes: Sequence[Outcome]) -> str:
    """One fact in a line."""
    accounts = [outcome.account for outcome in outcomes]
    gaps = sum((Counter(found.gaps) for found in accounts), Counter[str]())
    again = sum((Counter(found.again) for found in accounts), Counter[str]())
    rows = {
        "runs": len(outcomes),
        "not right": sum(not outcome.is_right for outcome in outcomes),
        "entries": sum(found.entries for found in accounts),
        "handled": sum(found.handled for found in accounts),
        "not handled, in a gap": sum(found.told for found in accounts),
        "never handled, in no gap": sum(found.lost for found in accounts),
        "handled twice": sum(found.twice for found in accounts),
        "… without need": sum(found.needless for found in accounts),
        "gaps told": f"{sum(gaps.values())}  {', '.join(f'{why} {n}' for why, n in gaps.most_common())}",
        "failures": sum(len(outcome.failures) for outcome in outcomes),
    }
    lines = [f"  {name:26} {value}" for name, value in rows.items()]
    return "\n".join([*lines, *(f"  came again {count:7}  {why}" for why, count in again.most_common())])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

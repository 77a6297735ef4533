"""The command line of the histories: how many, from which seed, how many at a time, and of which daemon.

Decides what is printed, and the exit code: 1 when a history is not right, 130 when it was interrupted. Each
history runs in a process of its own. Must never know what a fault does.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from tests.histories.design import History, histories
from tests.histories.report import table, told, whole
from tests.histories.run import Outcome, live
from tests.preload.build import NoCompiler, build
from tests.processes import guarded

PATIENCE_S: Final = 900.0


def main() -> int:
    """Run what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.histories",
        description="Short random histories of a real daemon, each judged to the last entry.",
        epilog="example: python -m tests.histories --seed 7 --count 300 --jobs 4",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of single histories")
    parser.add_argument("--jobs", type=int, default=4, help="how many at a time")
    parser.add_argument(
        "--daemon",
        type=lambda path: Path(path).resolve(),
        metavar="CHECKOUT",
        help="run the daemon of another checkout",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="put schedule and log of what is not right there"
    )
    parser.add_argument("--preload", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.daemon is not None and not (arguments.daemon / "ingestor").is_dir():
        parser.error(f"{arguments.daemon} is no checkout: it has no folder ingestor")
    chosen = histories(arguments.seed, max([arguments.count, *arguments.only]))
    if arguments.only:
        chosen = [history for history in chosen if history.number in arguments.only]
    library: Path | None = arguments.preload
    if library is not None:
        return _one(chosen[0], library, arguments.daemon)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whatever ends this ends what it started; in the background a shell would have SIGINT ignored.
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="quotebus-histories-") as folder:
        try:
            library = build(Path(folder))
        except NoCompiler as problem:
            parser.error(str(problem))
        outcomes: list[Outcome] = []
        try:
            with guarded():
                asyncio.run(_all(chosen, arguments, library, outcomes))
        except KeyboardInterrupt:
            _say(f"Interrupted after {len(outcomes)} of {len(chosen)} histories.")
    outcomes.sort(key=lambda outcome: outcome.number)
    _say(table(chosen, outcomes))
    if wrong := sum(bool(outcome.findings) for outcome in outcomes):
        _say(f"{wrong} of {len(outcomes)} histories are not right.")
        return 1
    if len(outcomes) < len(chosen):
        return 130
    _say("All histories are right.")
    return 0


def _one(history: History, library: Path, tree: Path | None) -> int:
    outcome = asyncio.run(live(history, library, tree))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0


async def _all(
    chosen: list[History], arguments: argparse.Namespace, library: Path, outcomes: list[Outcome]
) -> None:
    places = asyncio.Semaphore(arguments.jobs)
    began_s = time.monotonic()

    async def run(history: History) -> None:
        async with places:
            outcome = await _in_a_process(history, library, arguments.daemon)
        outcomes.append(outcome)
        _say(
            f"{time.monotonic() - began_s:7.1f} s  {len(outcomes):4} of {len(chosen)}  ONLY={history.number:<4} "
            f"{outcome.took_s:5.1f} s  sent {outcome.sent:6}  in markers {outcome.in_markers:6}"
        )
        if outcome.findings:
            _say(told(history, outcome))
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                path = arguments.keep / f"{history.seed}-{history.number}.txt"
                path.write_text(whole(history, outcome))

    async with asyncio.TaskGroup() as group:
        for history in chosen:
            group.create_task(run(history))


async def _in_a_process(history: History, library: Path, tree: Path | None) -> Outcome:
    command = [sys.executable, "-m", "tests.histories", "--seed", str(history.seed)]
    command += ["--only", str(history.number), "--count", "1", "--preload", str(library)]
    if tree is not None:
        command += ["--daemon", str(tree)]
    home = Path(tempfile.mkdtemp(dir=library.parent))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(home)},
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        return msgspec.json.decode(out, type=Outcome)
    except TimeoutError:
        return Outcome(history.number, [("history without an end", f"not over within {PATIENCE_S:.0f} s")])
    except msgspec.DecodeError:
        return Outcome(history.number, [("history failed", err.decode(errors="replace")[-2000:])])
    finally:
        await asyncio.to_thread(_end_all, process.pid, home)
        await process.wait()


def _end_all(group: int, home: Path) -> None:
    """No server, daemon or probe outlives its history, however that ended: they work below its folder, or are of
    its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if cwd.readlink().is_relative_to(home):
                os.kill(int(cwd.parent.name), signal.SIGKILL)
    shutil.rmtree(home, ignore_errors=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

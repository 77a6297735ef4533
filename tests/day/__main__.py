"""The command line: how many quotes, from which seed; each strategy's account, and exit code 1 if one is wrong."""

import argparse
import signal
import sys

from tests.day.account import Account
from tests.day.day import Day, spend
from tests.day.design import WAYS
from tests.processes import guarded

ROW = "{:24} {:>10} {:>10} {:>7} {:>8} {:>6} {:>13} {:>9}"


def main() -> int:
    """Spend the day that the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.day", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quotes", type=int, default=2_000_000)
    parser.add_argument("--rate", type=float, default=10_000.0, help="quotes a second")
    parser.add_argument("--within", type=float, default=900.0, help="seconds until all must have ended")
    parser.add_argument("--only", nargs="*", choices=[*WAYS, "group"], help="ways of reading")
    arguments = parser.parse_args()
    # Whatever ends this ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with guarded():
        day = spend(arguments.seed, arguments.quotes, arguments.rate, arguments.within, arguments.only)
    sys.stdout.write(table(day) + "\n")
    return 0 if day.is_right else 1


def table(day: Day) -> str:
    """One strategy in a line, and what is wrong with it below."""
    lines = [
        ROW.format("strategy", "entries", "received", "told", "missing", "twice", "out of order", "repeated")
    ]
    for name, its in day.accounts.items():
        lines.append(_row(name, its))
        lines += [f"    {what}" for what in its.names]
    lines += [f"FAILED  {failure}" for failure in day.failures]
    lines.append(f"{day.sent} quotes, {day.interrupts} interrupts, {day.took_s:.0f} s")
    return "\n".join(lines)


def _row(name: str, its: Account) -> str:
    return ROW.format(
        name,
        its.expected,
        its.received,
        its.told,
        its.missing,
        its.twice,
        its.out_of_order,
        its.repeated,
    )


if __name__ == "__main__":
    sys.exit(main())

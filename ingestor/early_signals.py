"""The meaning of a signal before a command is loaded, and until the command gives it its own.

Decides the exit code of a command that is told to end while there is nothing to put in order yet. Must be imported
first and import next to nothing. The first process of a container needs it most: the kernel throws away every
signal that such a process has no handler for, and nobody sends it again.
"""

import os
import signal
import sys
from types import FrameType

LASTING = ("run", "demo", "simulate", "tail")
"""The commands that end because they are told to: for them it is no failure."""

has_hung_up = False
"""Whether the daemon was asked to look at its settings anew before it could listen."""


def install() -> None:
    """SIGTERM, SIGINT and SIGHUP end the process at once: with 0 if that is how its command ends, else with 128 and
    the number. For the daemon SIGHUP is a request, kept in `has_hung_up`. Ignored, as below `nohup`, it stays so.
    """
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    if not hasattr(signal, "SIGHUP"):
        # Windows has none.
        return
    if command() == "run":
        signal.signal(signal.SIGHUP, _remember)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _end)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    # No exception: whatever is being imported could catch it, and nothing is there yet to be put in order.
    os._exit(0 if command() in LASTING else 128 + number)


def _remember(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global has_hung_up
    has_hung_up = True


def command() -> str:
    """The word behind `quotebus`, or nothing."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")

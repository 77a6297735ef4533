"""Standard output, a terminal perhaps, and perhaps one that takes nothing.

Decides what of other people's text may be printed, and what is said where printing fails. Must never know what a
command prints.
"""

import contextlib
import errno
import os
import sys
from typing import Final

MAX_SHOWN: Final = 500
_TAKES_NOTHING: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def harmless(text: str) -> str:
    """On one line, bounded, and with nothing in it that a terminal would act on."""
    some = text[:MAX_SHOWN]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in some)
    return safe + ("…" if len(text) > MAX_SHOWN else "")


def is_of_output(error: OSError, only_if_it_fails_again: bool) -> bool:
    """Whether it was standard output that failed. What it could not take mostly waits still, and fails again."""
    try:
        flush()
    except OSError:
        return True
    return not only_if_it_fails_again and error.filename is None and error.errno in _TAKES_NOTHING


def flush() -> None:
    """What was printed has been taken after this, or an `OSError` says that it was not."""
    if sys.stdout is not None:
        sys.stdout.flush()


def say_that_output_failed(error: OSError) -> None:
    """In one sentence, if that can be said."""
    abandon_output()
    with contextlib.suppress(OSError):
        print(f"quotebus: standard output cannot be written: {error.strerror or error}", file=sys.stderr)


def abandon_output() -> None:
    """What still waits for it goes nowhere, so that the end of the process does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

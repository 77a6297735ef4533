"""Who asks: the name under which operators see a strategy.

Decides what a name may be, and what it is when nobody chose one. Must never know where it is shown: it has to be
fit for CLIENT SETNAME, which refuses spaces and line ends (https://redis.io/docs/latest/commands/client-setname/),
and for a lease, where an @ would end the symbol.
"""

import os
import re
import secrets
import socket
import sys
from pathlib import PurePath
from typing import Final

NAME_MAX: Final = 100
_PART_MAX: Final = 32
_NAME: Final = re.compile(r"[!-?A-~]{1,100}")
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def parse_name(name: object) -> str:
    """The name that a caller chose; `ValueError` with the reason."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = repr(name)[:60] if isinstance(name, str) else f"a {type(name).__name__}"
        raise ValueError(
            f"name={shown} is not usable: take 1 to {NAME_MAX} printable ASCII characters without spaces or @"
        )
    return name


def default_name() -> str:
    """A name that no other bus has: program, host, process id, and a random part."""
    program = PurePath(sys.argv[0] if sys.argv else "").stem
    if program == "__main__":
        program = PurePath(sys.argv[0]).parent.name
    parts = (_fit(program) or "python", _fit(socket.gethostname()) or "host", str(os.getpid()))
    return "-".join((*parts, secrets.token_hex(3)))


def _fit(text: str) -> str:
    return _UNFIT.sub("_", text)[:_PART_MAX].strip("_-.")

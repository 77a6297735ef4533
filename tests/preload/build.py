"""Compiles the preloaded library, with whichever C compiler there is.

Decides which compiler that is: `$CC`, the machine's own, or else tcc from its Debian package, which needs no root
and is 300 kB (`scripts/debian_tool.sh`). The library includes no header, so that a compiler alone is enough. Must
never know what the library does.
"""

import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("faults.c")
FETCH: Final = Path(__file__).parents[2] / "scripts/debian_tool.sh"
OWN: Final = ("cc", "gcc", "clang")
FLAGS: Final = ("-shared", "-fPIC", "-O1", "-fno-builtin", "-nostdlib")
BUILD_S: Final = 110.0


class NoCompiler(RuntimeError):
    """The library cannot be built here; the message says why, and what to install or set."""


def build(folder: Path) -> Path:
    """Compile the library into this folder; its path.

    Raises NoCompiler.
    """
    if platform.system() != "Linux":
        raise NoCompiler("faults are preloaded on Linux alone (LD_PRELOAD); run these tests there")
    library = folder / "faults.so"
    made = _run([*_compiler(), *FLAGS, "-o", str(library), str(SOURCE)])
    if made.returncode:
        raise NoCompiler(
            f"tests/preload/faults.c does not compile: {made.stderr.strip()}; install another compiler "
            "(apt install gcc), or name one: CC=/path/to/gcc"
        )
    return library


def _compiler() -> list[str]:
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    for name in OWN:
        if path := shutil.which(name):
            return [path]
    found = _run([str(FETCH), "tcc", "tcc"])
    if found.returncode:
        raise NoCompiler(
            f"a C compiler is needed, and {found.stderr.strip()}; any of gcc, clang and tcc will do "
            "(apt install gcc), or name one: CC=/path/to/gcc"
        )
    return [found.stdout.strip()]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    except OSError as error:
        raise NoCompiler(f"{command[0]} cannot be run: {error.strerror}; set CC to a C compiler") from None

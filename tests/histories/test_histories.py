"""A few histories in every run of the tests; `make histories` lives through hundreds."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SEED: Final = 1
NUMBERS: Final = ("1", "2", "4")


@pytest.mark.timeout(300)
@pytest.mark.fault("P29")
async def test_every_quote_of_a_random_history_is_stored_once_or_marked() -> None:
    """Whatever befell disk, Redis, vendor, clock and daemon at once; and all of it is well soon afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.histories", "--seed", str(SEED), "--jobs", "3", "--only", *NUMBERS),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out.decode()

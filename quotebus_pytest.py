"""The pytest fixture `quote_bus`, found by pytest through an entry point wherever quotebus is installed.

Decides the fixture's life. It stands beside the packages because importing it must cost nothing: it is loaded by
every pytest run of that environment, and `consumers` brings a Redis client along. PYTEST_DONT_REWRITE
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from consumers.testing import MemoryBus


@pytest.fixture
def quote_bus() -> "Iterator[MemoryBus]":
    """A `consumers.Bus` on an empty server in memory, with `publish` and `caught_up` beside it.

    It is open, works with any plugin for asynchronous tests or with plain `asyncio.run`, and needs no network and
    no account. `quote_bus.url` is for code that connects by itself.
    """
    from consumers.testing import FakeRedisMissing, memory_bus

    try:
        bus = memory_bus()
    except FakeRedisMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    try:
        yield bus
    finally:
        bus.close()

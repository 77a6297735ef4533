"""What every test of the simulator gets: the certainty that no handler of the server failed unseen."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_hidden_failure(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An exception in a connection's handler is only logged by its library; here it fails the test."""
    yield
    failures = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name.startswith(("websockets", "aiohttp")) and record.levelno >= logging.ERROR
    ]
    assert not failures

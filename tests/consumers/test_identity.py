"""Who asks, and where, when nobody says so."""

import os

import pytest
from redis.asyncio import Redis

from consumers import connect
from consumers.identity import NAME_MAX, default_name, parse_name
from simulator.redis_server import RedisServer


async def test_an_operator_sees_who_asks(server: RedisServer, redis: Redis) -> None:
    """CLIENT LIST has the name that was chosen, behind the library's own."""
    async with connect(server.url, name="momentum-7") as bus:
        assert bus.name == "momentum-7"
        assert "quotebus-consumers:momentum-7" in [client["name"] for client in await redis.client_list()]


async def test_a_bus_without_a_name_has_one_of_its_own(server: RedisServer, redis: Redis) -> None:
    """With the process id in it, and different for each bus."""
    async with connect(server.url) as one, connect(server.url) as two:
        assert one.name != two.name
        assert f"-{os.getpid()}-" in one.name
        names = {client["name"] for client in await redis.client_list()}
        assert {f"quotebus-consumers:{one.name}", f"quotebus-consumers:{two.name}"} <= names


async def test_two_buses_of_one_name_are_two_workers(server: RedisServer, redis: Redis) -> None:
    """Or each would fetch what the other has in its hands."""
    async with connect(server.url, name="desk") as one, connect(server.url, name="desk") as two:
        names = {one.group("g", "AAPL").consumer, two.group("g", "AAPL").consumer}
        assert len(names) == 2
        assert all(name.startswith("desk#") for name in names)


@pytest.mark.parametrize(
    "program", ["", "/opt/my bots/gap @ noon.py", "ü", "x" * 500, "-c", "pkg/__main__.py"]
)
def test_a_name_of_our_making_is_always_usable(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever program and host are called."""
    monkeypatch.setattr("sys.argv", [program])
    monkeypatch.setattr("socket.gethostname", lambda: "h\u00f6st name\n" * 9)
    assert parse_name(default_name())


@pytest.mark.parametrize("name", ["", "two words", "a@b", "x\n", "\u00fc", "x" * (NAME_MAX + 1), 7])
def test_a_name_that_redis_would_refuse_is_refused_here(name: object) -> None:
    """With what it may be."""
    with pytest.raises(ValueError, match="printable ASCII"):
        connect(name=name)  # type: ignore[arg-type]


async def test_the_url_is_that_of_the_environment(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the call names one; and the usual place where neither does."""
    monkeypatch.setenv("QUOTEBUS_REDIS_URL", server.url)
    async with connect() as bus:
        assert await bus.latest("AAPL") is None
    assert "6379/7" in repr(connect("redis://localhost:6379/7"))
    monkeypatch.delenv("QUOTEBUS_REDIS_URL")
    assert "redis://127.0.0.1:6379/0" in repr(connect())

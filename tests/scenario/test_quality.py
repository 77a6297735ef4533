"""How far a cached quote can be trusted, as a strategy and an operator see it on a real bus."""

import json
import os
import signal
import subprocess
import sys

from redis.asyncio import Redis

from consumers import Bus, Level, Quality, connect
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, subscribed


async def verdict(bus: Bus, symbol: str = "AAPL") -> Quality:
    """The verdict on one symbol."""
    return (await bus.quality(symbol))[symbol]


async def reaches(bus: Bus, level: Level, symbol: str = "AAPL", timeout_s: float = 15) -> Quality:
    """Wait until the symbol is on this level."""

    async def is_there() -> bool:
        return (await verdict(bus, symbol)).level is level

    await until(is_there, timeout_s)
    return await verdict(bus, symbol)


async def test_a_killed_daemon_makes_every_quote_stale_until_the_next_one_has_quotes(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """SIGKILL leaves a status that says live; the heartbeat gives it away, and nothing but a new quote mends it."""
    async with (
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
        connect(shared_server.url) as bus,
    ):
        await subscribed(redis, vendor, "AAPL")
        assert (await reaches(bus, Level.QUIET)).reason == "no quote yet"
        vendor.send(numbered("AAPL", 1, 1))
        assert (await reaches(bus, Level.LIVE)).reason is None
        daemon.signal(signal.SIGKILL)
        await daemon.ended()
        assert await redis.hget(KEYS.status, "state") == "live"
        stale = await reaches(bus, Level.STALE)
        assert "last heartbeat is" in (stale.reason or "")
        assert stale.since is not None
        daemon.start()
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 30)
        assert (await reaches(bus, Level.QUIET)).reason == "no quote since the feed came back"
        vendor.send(numbered("AAPL", 2, 1))
        await reaches(bus, Level.LIVE)


async def test_a_feed_that_is_cut_makes_it_stale_and_a_quote_makes_it_live_again(
    daemon: DaemonProcess, shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """While the daemon knocks at the vendor's door in vain, no quote is called live."""
    async with connect(shared_server.url) as bus:
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 1))
        await reaches(bus, Level.LIVE)
        vendor.refuse_upgrade(503, times=None)
        vendor.drop(ghost=False)
        stale = await reaches(bus, Level.STALE)
        assert stale.reason == "the daemon is not connected to its feed"
        assert stale.since is not None
        vendor.heal()
        assert (await reaches(bus, Level.QUIET, timeout_s=40)).reason == "no quote since the feed came back"
        vendor.send(numbered("AAPL", 2, 1))
        await reaches(bus, Level.LIVE)


async def test_a_symbol_that_is_removed_or_refused_is_not_subscribed(
    daemon: DaemonProcess, shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The cached quote stays, and is not called live for it; the operator's list says the same."""
    async with connect(shared_server.url) as bus:
        await subscribed(redis, vendor, "AAPL", "MSFT")
        for symbol in ("AAPL", "MSFT"):
            vendor.send(numbered(symbol, 1, 1))
            await reaches(bus, Level.LIVE, symbol)
        await redis.srem(KEYS.symbols, "MSFT")
        gone = await reaches(bus, Level.NOT_SUBSCRIBED, "MSFT")
        assert await bus.latest("MSFT") is not None
        assert gone.quote_age_s is not None
        await redis.sadd(KEYS.symbols, "goog")
    rows = {row["symbol"]: row for row in _listed(shared_server)}
    assert (rows["AAPL"]["quality"], rows["AAPL"]["quality_reason"]) == ("live", None)
    assert rows["goog"]["quality"] == "not_subscribed"


async def test_a_daemon_that_is_stopped_says_so(
    daemon: DaemonProcess, shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """At once, without waiting for a heartbeat to grow old."""
    async with connect(shared_server.url) as bus:
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 1))
        await reaches(bus, Level.LIVE)
        daemon.signal(signal.SIGTERM)
        await daemon.ended()
        found = await verdict(bus)
        assert (found.level, found.reason) == (Level.STALE, "the daemon was stopped")


async def test_a_frozen_daemon_is_never_called_live_for_longer_than_the_heartbeat_lasts(
    daemon: DaemonProcess, shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """SIGSTOP says goodbye to nobody; five seconds later it shows, and after SIGCONT it is live again."""
    async with connect(shared_server.url) as bus:
        await subscribed(redis, vendor, "AAPL")
        vendor.send(numbered("AAPL", 1, 1))
        await reaches(bus, Level.LIVE)
        daemon.signal(signal.SIGSTOP)
        try:
            stale = await reaches(bus, Level.STALE)
            assert "last heartbeat is" in (stale.reason or "")
        finally:
            daemon.signal(signal.SIGCONT)
        await daemon.until_live()


def _listed(server: RedisServer) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", "from ingestor.cli import main; main()", "symbols", "ls", "--json"],
        env={**os.environ, "QUOTEBUS_REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))

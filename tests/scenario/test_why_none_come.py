"""A running loop whose symbol is halted or misspelt is told within five seconds of what the daemon finds out."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from redis.asyncio import Redis

from consumers import QuoteStream, Unserved, connect
from simulator import AccountRules, AlpacaSimulator, SimQuote, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS

LIMIT_S = 5.0
QUIET_S = 3
"""After which the daemon says of a symbol that it is silent; a reader's own patience is a minute."""
MISSPELT = "not an active asset at Alpaca; did you mean AAPL?"


@pytest.fixture
async def market() -> AsyncIterator[AlpacaSimulator]:
    """A vendor that confirms any name, and lists three assets."""
    rules = AccountRules(ghost_s=0.0)
    async with AlpacaSimulator(SimulatorSettings(account=rules, symbols=("AAPL", "MSFT", "AMD"))) as vendor:
        yield vendor


class Loop:
    """A strategy that reads, and a market in which the symbols of `trading` have quotes all the time."""

    def __init__(self, redis: Redis, market: AlpacaSimulator, log: pytest.LogCaptureFixture) -> None:
        self.redis, self.market, self.log = redis, market, log
        self.trading: set[str] = set()
        self.seen: Counter[str] = Counter()
        """Quotes that the loop was given, by symbol."""

    async def read(self, stream: QuoteStream) -> None:
        """Until it is cancelled."""
        async for item in stream:
            self.seen[item.symbol] += 1

    async def until(self, condition: Callable[[], Awaitable[bool]], timeout_s: float = 15.0) -> None:
        """Wait for it while the market goes on."""

        async def is_so() -> bool:
            self.market.send([SimQuote(s, time.time_ns(), 100.25, 1, 100.27, 200) for s in self.trading])
            await asyncio.sleep(0.05)  # traffic
            return await condition()

        await until(is_so, timeout_s)

    async def is_remarked(self, symbol: str, reason: str) -> bool:
        """Whether the daemon says so of a symbol that is live."""
        found = json.loads(await self.redis.hget(KEYS.subscriptions, symbol) or "{}")
        return bool(found and (found["state"], found["reason"]) == ("live", reason))

    async def has_read(self, **counts: int) -> bool:
        """Whether so many quotes have come to the loop."""
        return all(self.seen[symbol] >= count for symbol, count in counts.items())

    def warnings(self) -> list[str]:
        """What the library has logged as a warning."""
        return [each.getMessage() for each in self.log.records if each.levelno >= logging.WARNING]

    async def is_told(self, *lines: str) -> bool:
        """Whether these warnings have been logged, and no others."""
        assert set(self.warnings()) <= set(lines)
        return self.warnings() == [*lines]


@pytest.fixture
async def loop(redis: Redis, market: AlpacaSimulator, caplog: pytest.LogCaptureFixture) -> Loop:
    """One that may be told something."""
    caplog.set_level(logging.INFO, "consumers")
    return Loop(redis, market, caplog)


@pytest.mark.fault("Q08")
async def test_a_running_loop_is_told_of_a_halt(
    shared_server: RedisServer, market: AlpacaSimulator, loop: Loop
) -> None:
    """In the log and as data, in the daemon's words; not of the symbol beside it, and no longer than it lasts."""
    reason = f"no quote for {QUIET_S} s"
    async with (
        DaemonProcess(shared_server.url, market.url("iex"), quiet_after_s=str(QUIET_S)) as daemon,
        connect(shared_server.url) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        await daemon.until_live()
        stream = bus.quotes("AAPL", "MSFT")
        reading = tasks.create_task(loop.read(stream))
        loop.trading = {"AAPL", "MSFT"}
        await loop.until(partial(loop.has_read, AAPL=20, MSFT=20))
        loop.log.clear()

        loop.trading = {"AAPL"}
        await loop.until(partial(loop.is_remarked, "MSFT", reason))
        await loop.until(partial(loop.is_told, f"MSFT: live, no quotes come: {reason}"), LIMIT_S)
        assert stream.unserved == {"MSFT": Unserved("MSFT", "live", reason)}
        assert stream.subscribed == {"AAPL", "MSFT"}

        loop.trading = {"AAPL", "MSFT"}
        await loop.until(partial(loop.has_read, MSFT=loop.seen["MSFT"] + 1))

        async def is_over() -> bool:
            return stream.unserved == {}

        await loop.until(is_over)
        reading.cancel()


@pytest.mark.fault("Q08", "S51")
async def test_a_running_loop_is_told_of_a_misspelt_symbol(
    shared_server: RedisServer, market: AlpacaSimulator, loop: Loop
) -> None:
    """Of one that joins in the midst of reading, as soon as the daemon has held it against the list of assets."""
    async with (
        DaemonProcess(shared_server.url, market.url("iex"), trading_url=market.rest_url) as daemon,
        connect(shared_server.url) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        await daemon.until_live()
        stream = bus.quotes("AAPL")
        reading = tasks.create_task(loop.read(stream))
        loop.trading = {"AAPL"}
        await loop.until(partial(loop.has_read, AAPL=20))
        loop.log.clear()

        stream.add("APPL")
        await loop.until(partial(loop.is_remarked, "APPL", MISSPELT))
        await loop.until(partial(loop.is_told, f"APPL: live, no quotes come: {MISSPELT}"), LIMIT_S)
        assert stream.unserved == {"APPL": Unserved("APPL", "live", MISSPELT)}
        reading.cancel()

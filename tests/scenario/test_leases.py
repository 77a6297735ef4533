"""Leases through the whole bus: a loop is all it takes to have a symbol subscribed, and to be rid of it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as ConnectionLost

from consumers import Gap, Quote, Reconnect, connect
from consumers.leases.book import BEAT_S, TTL_S
from ingestor.subscriptions.reconciler import LOOK_EVERY_S
from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, state_is
from wire import Level

FAST = Reconnect(first_delay_s=0.02, max_delay_s=0.1)
STRATEGY = """
import asyncio, sys
from consumers import connect

async def main():
    async with connect(sys.argv[1], name="strategy") as bus:
        async for quote in bus.quotes(*sys.argv[2:]):
            print(quote.symbol, quote.bid_size, flush=True)

asyncio.run(main())
"""


class Strategy:
    """A program that prints what it reads, in a process of its own; an async context manager that ends it."""

    def __init__(self, url: str, *symbols: str) -> None:
        self._arguments = [sys.executable, "-c", STRATEGY, url, *symbols]

    async def __aenter__(self) -> asyncio.subprocess.Process:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("QUOTEBUS_")}
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments, stdout=subprocess.PIPE, env=clean
        )
        return self._process

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


async def test_a_loop_subscribes_what_nobody_asked_for_and_leaving_it_unsubscribes(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, shared_server: RedisServer
) -> None:
    """From the first turn of the loop to the vendor's set, quotes through the bus, and back."""
    async with connect(shared_server.url, reconnect=FAST) as bus:
        stream = bus.quotes("NVDA")
        loop = asyncio.create_task(_read(aiter(stream), 5))  # noqa: TID251
        await vendor.wait_for(lambda: vendor.symbols == {"NVDA"})
        await until(lambda: state_is(redis, "NVDA", "live"))
        vendor.send(numbered("NVDA", 1, 5))
        assert await loop == [1, 2, 3, 4, 5]
        await vendor.wait_for(lambda: vendor.symbols == frozenset())
        assert await redis.exists(KEYS.interest) == 0


async def test_symbols_come_and_go_with_the_loop_and_are_shared_with_operators_and_others(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, shared_server: RedisServer
) -> None:
    """A symbol stays subscribed until the last who wants it has gone, operators included."""
    await redis.sadd(KEYS.symbols, "AAPL")
    async with (
        connect(shared_server.url, reconnect=FAST) as one,
        connect(shared_server.url, reconnect=FAST) as two,
    ):
        stream = one.quotes("AAPL", "MSFT")
        loop = asyncio.create_task(_read(aiter(stream), 1))  # noqa: TID251
        async with two.interest("MSFT", "TSLA"):
            await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT", "TSLA"})
            stream.add("NVDA")
            await vendor.wait_for(lambda: "NVDA" in vendor.symbols)
            stream.remove("MSFT")
            stream.remove("NVDA")
            await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT", "TSLA"})
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
        await stream.aclose()
        await loop
    assert vendor.symbols == {"AAPL"}


async def test_a_killed_strategys_leases_end_within_their_time_and_one_look(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, shared_server: RedisServer
) -> None:
    """SIGKILL gives nothing back; the daemon unsubscribes when the lease has expired."""
    async with Strategy(shared_server.url, "NVDA") as strategy:
        await vendor.wait_for(lambda: vendor.symbols == {"NVDA"}, 20)
        vendor.send(numbered("NVDA", 1, 1))
        assert strategy.stdout is not None
        async with asyncio.timeout(10):
            assert await strategy.stdout.readline() == b"NVDA 1\n"
        strategy.send_signal(signal.SIGKILL)
        await strategy.wait()
        killed_s = time.monotonic()
        await vendor.wait_for(lambda: vendor.symbols == frozenset(), TTL_S + LOOK_EVERY_S + 10)
        took_s = time.monotonic() - killed_s
    assert TTL_S - BEAT_S - 1 < took_s < TTL_S + LOOK_EVERY_S + 3


async def test_a_restarted_redis_gets_the_leases_of_running_loops_again(
    own_daemon: DaemonProcess, own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Even one that comes back empty: the symbol is subscribed again, and its quotes go on arriving."""
    async with connect(own_server.url, reconnect=FAST) as bus:
        stream = aiter(bus.quotes("NVDA"))
        first = asyncio.create_task(_read(stream, 1))  # noqa: TID251
        await until(lambda: state_is(own_redis, "NVDA", "live"))
        vendor.send(numbered("NVDA", 1, 1))
        assert await first == [1]
        rest = asyncio.create_task(_read(aiter(bus.quotes("NVDA")), 1))  # noqa: TID251
        await until(lambda: _leased(own_redis, "NVDA"))
        await own_redis.flushall()
        own_server.kill()
        own_server.start()
        await until(lambda: _leased(own_redis, "NVDA"), 3 * BEAT_S)
        await vendor.wait_for(lambda: vendor.symbols == {"NVDA"}, 20)
        await until(lambda: state_is(own_redis, "NVDA", "live"), 20)
        number = 2
        async with asyncio.timeout(30):
            while not rest.done():
                vendor.send(numbered("NVDA", number, 1))
                number += 1
                await asyncio.sleep(0.1)
        assert (await rest)[0] >= 1


@pytest.fixture
async def narrow_vendor() -> AsyncIterator[AlpacaSimulator]:
    """An account whose plan has room for six symbols."""
    rules = AccountRules(symbol_limit=6, connection_limit=1, ghost_s=0.5)
    async with AlpacaSimulator(SimulatorSettings(account=rules)) as simulator:
        yield simulator


@pytest.mark.fault("S50")
@pytest.mark.parametrize("limit", ["6", ""])
async def test_a_newcomers_lease_waits_for_a_place_and_operators_take_the_youngest(
    shared_server: RedisServer,
    redis: Redis,
    narrow_vendor: AlpacaSimulator,
    caplog: pytest.LogCaptureFixture,
    limit: str,
) -> None:
    """Who reads AMD keeps it, through a reconnection and a restart of the daemon, while AAA and QQQ wait.

    An operator's symbol puts AMD out; each of the readers hears what befell it within 5 s.
    """
    held = {"TSLA", "MSFT", "NVDA", "IBM", "ORCL"}
    await redis.sadd(KEYS.symbols, *held)
    async with (
        DaemonProcess(shared_server.url, narrow_vendor.url("iex"), symbol_limit=limit) as daemon,
        connect(shared_server.url, reconnect=FAST) as one,
        connect(shared_server.url, reconnect=FAST) as two,
        asyncio.TaskGroup() as group,
    ):
        await narrow_vendor.wait_for(lambda: narrow_vendor.symbols == held, 20)
        stream = one.quotes("AMD")
        reading = group.create_task(_read(aiter(stream), 10_000))
        await narrow_vendor.wait_for(lambda: narrow_vendor.symbols == {*held, "AMD"}, 20)
        late = two.quotes("AAA", "QQQ")
        waiting = group.create_task(_read(aiter(late), 10_000))
        await until(lambda: state_is(redis, "AAA", "waiting"))
        await until(
            lambda: _is_told(caplog, "AAA, QQQ: waiting, no quotes come: waits behind the limit of 6"), 5.0
        )

        async def judged() -> bool:
            found = await two.quality("AMD", "AAA")
            waits = Level.NOT_SUBSCRIBED, "waits behind the limit of 6 symbols"
            return (found["AAA"].level, found["AAA"].reason) == waits and found["AMD"].level is Level.QUIET

        await until(judged)
        assert narrow_vendor.symbols == {*held, "AMD"}

        narrow_vendor.drop(ghost=False)
        await narrow_vendor.wait_for(lambda: narrow_vendor.symbols == {*held, "AMD"}, 20)
        daemon.signal(signal.SIGKILL)
        await daemon.ended()
        daemon.start()
        await narrow_vendor.wait_for(lambda: narrow_vendor.symbols == {*held, "AMD"}, 30)
        await until(lambda: state_is(redis, "AMD", "live"))
        await until(lambda: state_is(redis, "AAA", "waiting"))

        await redis.sadd(KEYS.symbols, "ZZZ")
        await narrow_vendor.wait_for(lambda: narrow_vendor.symbols == {*held, "ZZZ"}, 10)
        await until(
            lambda: _is_told(caplog, "AMD: waiting, no quotes come: put out by an operator's symbol"), 5.0
        )
        assert "put out by an operator's symbol" in ((await one.quality("AMD"))["AMD"].reason or "")
        await redis.srem(KEYS.symbols, "ZZZ")
        await narrow_vendor.wait_for(lambda: narrow_vendor.symbols == {*held, "AMD"}, 10)

        await stream.aclose()
        await reading
        await narrow_vendor.wait_for(lambda: narrow_vendor.symbols == {*held, "AAA"}, 10)
        await late.aclose()
        await waiting


async def test_an_emptied_redis_gives_no_place_to_whoever_writes_first(
    own_server: RedisServer, own_redis: Redis
) -> None:
    """AMD, live by lease when everything is deleted, keeps its place against leases that are written at once."""
    rules = AccountRules(symbol_limit=1, ghost_s=0.0)
    async with (
        AlpacaSimulator(SimulatorSettings(account=rules)) as vendor,
        DaemonProcess(own_server.url, vendor.url("iex"), symbol_limit="1"),
        connect(own_server.url, reconnect=FAST) as bus,
        bus.interest("AMD"),
    ):
        await vendor.wait_for(lambda: vendor.symbols == {"AMD"}, 20)
        seconds, _ = await own_redis.time()
        pipe = own_redis.pipeline(transaction=True)
        pipe.flushall()
        pipe.zadd(KEYS.interest, {"AAA@hasty": (seconds + 60) * 1000})
        await pipe.execute()
        await until(lambda: _leased(own_redis, "AMD"), 3 * BEAT_S)
        await until(lambda: state_is(own_redis, "AMD", "live"))
        await until(lambda: state_is(own_redis, "AAA", "waiting"))
        assert not any(action.kind == "unsubscribe" for action in vendor.actions)


async def test_leases_of_many_strategies_cost_the_daemon_little(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, shared_server: RedisServer
) -> None:
    """Renewals are no changes: the vendor is asked nothing, and no symbol is announced anew."""
    async with connect(shared_server.url, reconnect=FAST) as bus, bus.interest("AAPL", "MSFT"):
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
        (row,) = [m for m in await _members(redis) if m.startswith("AAPL@")]
        first = await redis.zscore(KEYS.interest, row) or 0

        async def renewed() -> bool:
            return (await redis.zscore(KEYS.interest, row) or 0) > first

        await until(renewed, 3 * BEAT_S)
        assert vendor.symbols == {"AAPL", "MSFT"}
        assert daemon.kinds().count("symbols_added") <= 2
        assert "symbols_removed" not in daemon.kinds()


async def _is_told(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.message for record in caplog.records if record.levelname == "WARNING")


async def _members(redis: Redis) -> list[str]:
    rows: Any = await redis.zrange(KEYS.interest, 0, -1)
    return list(rows)


async def _leased(redis: Redis, symbol: str) -> bool:
    try:
        return any(member.startswith(f"{symbol}@") for member in await _members(redis))
    except ConnectionLost:
        return False


async def _read(items: AsyncIterator[Quote | Gap], count: int) -> list[int]:
    """The numbers of the next so many quotes, or of as many as there are until the stream is closed."""
    found: list[int] = []
    async for item in items:
        if isinstance(item, Quote):
            found.append(int(item.bid_size or 0))
            if len(found) == count:
                break
    return found

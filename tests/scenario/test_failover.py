"""Failover by the book: the primary dies, a replica that had not caught up takes its place and its address."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from consumers import Gap, Quote, connect
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.names import Names
from tests.scenario.proxy import Fault, Proxy, Way
from tests.scenario.streams import (
    KEYS,
    cache_is_newest,
    event_exists,
    gaps,
    numbers,
    state_is,
    stored,
    subscribed,
)
from tests.scenario.traffic import Traffic, is_quiet, unready

SYMBOLS = ("AAPL", "MSFT")
LAG_S = 1.0
LATE = Fault(replies=Way(delay_s=LAG_S))
AT_ONCE = ("--repl-diskless-sync-delay", "0")


@dataclass(slots=True)
class Servers:
    """A primary that dies, a replica with a link to it that can be slow, and the address that leads to one of
    them."""

    primary: RedisServer
    replica: RedisServer
    link: Proxy
    way: Proxy
    on_primary: Redis
    on_replica: Redis

    async def fail_over(self) -> None:
        """The primary is gone for good; the replica works, and the address leads there."""
        self.primary.kill()
        self.link.cut()
        await self.on_replica.replicaof("NO", "ONE")
        self.way.target = self.replica.port
        self.way.cut()

    async def lag(self) -> int:
        """How many quotes the primary has that the replica has not."""
        return sum(
            [
                await self.on_primary.xlen(KEYS.stream(s)) - await self.on_replica.xlen(KEYS.stream(s))
                for s in SYMBOLS
            ]
        )


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    """Both servers in sync, and the address that leads to the primary."""
    with RedisServer(options=AT_ONCE) as primary, RedisServer(options=AT_ONCE) as replica:
        async with (
            Redis.from_url(primary.url, decode_responses=True, protocol=2) as on_primary,
            Redis.from_url(replica.url, decode_responses=True, protocol=2) as on_replica,
            Proxy(primary.port) as link,
            Proxy(primary.port) as way,
        ):
            await on_replica.replicaof("127.0.0.1", str(link.port))
            await until(lambda: _is_in_sync(on_replica))
            yield Servers(primary, replica, link, way, on_primary, on_replica)


@contextlib.asynccontextmanager
async def live(servers: Servers, vendor: AlpacaSimulator, **settings: str) -> AsyncIterator[DaemonProcess]:
    """A daemon with both symbols live, and the replica in the know."""
    async with DaemonProcess(servers.way.url, vendor.url("iex"), **settings) as daemon:
        await daemon.until_live()
        await subscribed(servers.on_primary, vendor, *SYMBOLS)
        yield daemon


@pytest.mark.fault("K17")
async def test_what_a_lagging_replica_lacks_is_written_again(
    servers: Servers, vendor: AlpacaSimulator
) -> None:
    """A second behind when it is promoted, amid traffic: nothing is lost, nothing twice, all of it in order."""
    traffic = Traffic(vendor, *SYMBOLS)
    async with live(servers, vendor) as daemon:
        async with traffic.flowing():
            await daemon.until(lambda status: status["stored"] > 1000)
            servers.link.bend(LATE)
            await asyncio.sleep(2 * LAG_S)  # the lag itself, all of it
            await servers.fail_over()
            before = (await daemon.status())["stored"]
            await daemon.until(lambda status: status["stored"] > before + 1000, 15)
        status = await traffic.everything_arrived(daemon, servers.on_replica)
        forgot = await daemon.told("redis_forgot")
        assert forgot["lost_batches"] == forgot["lost_quotes"] == 0
        # Whatever was sent within that second, half of it at the least on a slow machine.
        assert forgot["replayed_quotes"] == status["replayed"] > len(SYMBOLS) * 1000 * LAG_S / 2
        for symbol in SYMBOLS:
            await until(lambda symbol=symbol: cache_is_newest(servers.on_replica, symbol))  # type: ignore[misc]
        await until(lambda: event_exists(servers.on_replica, "redis_forgot"))
        assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K17")
async def test_what_a_lagging_replica_lacks_and_nobody_keeps_is_marked(
    servers: Servers, vendor: AlpacaSimulator
) -> None:
    """Without memory for it, each stream has one marker, exactly where its quotes are missing."""
    traffic = Traffic(vendor, *SYMBOLS)
    async with live(servers, vendor, replay_bytes="0") as daemon:
        traffic.send(1000)
        await traffic.settled(daemon)
        await until(lambda: _is_nothing(servers))
        servers.link.bend(LATE)
        for _ in range(20):
            traffic.send(50)
            await traffic.settled(daemon)
        await servers.fail_over()
        forgot = await daemon.told("redis_forgot")
        await daemon.until(lambda status: status["state"] == "live")
        left = {symbol: await servers.on_replica.xlen(KEYS.stream(symbol)) for symbol in SYMBOLS}
        traffic.send(100)
        status = await traffic.settled(daemon)
        verdict = await traffic.verdict(servers.on_replica)
        assert verdict.is_honest, verdict
        assert verdict.missing_in_gaps == status["lost_by_redis"] == forgot["lost_quotes"] > 0
        for symbol in SYMBOLS:
            (marker,) = await gaps(servers.on_replica, symbol)
            assert marker.reason == "redis_lost"
            found = await numbers(servers.on_replica, symbol)
            assert found[-100:] == list(range(2001, 2101))
            assert (await stored(servers.on_replica, symbol)).index(marker) == len(found) - 100
            assert left[symbol] <= len(found) - 99
            assert await cache_is_newest(servers.on_replica, symbol)


@pytest.mark.fault("K17", "Q01")
async def test_a_slow_reader_behind_the_end_of_a_replica_is_told_what_it_missed(
    servers: Servers, vendor: AlpacaSimulator
) -> None:
    """It stands among what is gone, behind the place of the daemon's marker: the `Gap` is its own, and what it had
    not read is in it."""
    traffic = Traffic(vendor, *SYMBOLS)
    async with live(servers, vendor, replay_bytes="0") as daemon, connect(servers.way.url) as bus:
        traffic.send(1000)
        await traffic.settled(daemon)
        await until(lambda: _is_nothing(servers))
        servers.link.bend(Fault(black_hole=True))
        traffic.send(20_000)
        await traffic.settled(daemon)
        seen: dict[str, list[Quote | Gap]] = {symbol: [] for symbol in SYMBOLS}
        items = aiter(bus.quotes(*SYMBOLS, start="earliest"))
        while min(map(len, seen.values())) < 1500:
            item = await anext(items)
            seen[item.symbol].append(item)
        await servers.fail_over()
        assert (await daemon.told("redis_forgot"))["lost_quotes"] == 20_000 * len(SYMBOLS)
        await daemon.until(lambda status: status["state"] == "live")
        traffic.send(100)
        await traffic.settled(daemon)
        async with asyncio.timeout(20):
            while any(_number(seen[symbol][-1]) != 21_100 for symbol in SYMBOLS):
                item = await anext(items)
                seen[item.symbol].append(item)
    for symbol in SYMBOLS:
        (gap,) = [item for item in seen[symbol] if isinstance(item, Gap)]
        at = seen[symbol].index(gap)
        assert gap.reason == "redis_lost"
        assert [_number(item) for item in seen[symbol][:at]] == list(range(1, at + 1))
        assert 1500 <= at < 20_000
        assert [_number(item) for item in seen[symbol][at + 1 :]] == list(range(21_001, 21_101))


@pytest.mark.fault("K16")
async def test_a_primary_that_is_demoted_under_its_address_is_left_for_the_one_that_takes_it_over(
    servers: Servers, vendor: AlpacaSimulator
) -> None:
    """READONLY amid traffic, for seconds, then the other one answers there: nothing is lost and nothing twice."""
    traffic = Traffic(vendor, *SYMBOLS)
    async with live(servers, vendor) as daemon:
        async with traffic.flowing(500):
            await daemon.until(lambda status: status["stored"] > 500)
            await servers.on_replica.replicaof("NO", "ONE")
            await servers.on_primary.replicaof("127.0.0.1", str(servers.replica.port))
            await unready(daemon, "READONLY")
            accepted, ends_s = servers.way.accepted, time.monotonic() + 2.0
            while time.monotonic() < ends_s:
                assert (await daemon.page("/readyz"))[0] == 503
                await asyncio.sleep(0.05)
            # The pauses grow to a second: a failover takes seconds, and is not helped by hundreds of attempts.
            assert servers.way.accepted - accepted < 10
            servers.way.target = servers.replica.port
            await daemon.until(lambda status: status["state"] == "live")
            # The control plane's connections are good ones to a server that does not take writes any more.
            await until(lambda: _reports(servers.on_replica, daemon))
        await traffic.everything_arrived(daemon, servers.on_replica)
        await servers.on_replica.sadd(KEYS.symbols, "TSLA")
        await vendor.wait_for(lambda: vendor.symbols == {*SYMBOLS, "TSLA"}, 15)
        await until(lambda: state_is(servers.on_replica, "TSLA", "live"))
        for symbol in SYMBOLS:
            await until(lambda symbol=symbol: cache_is_newest(servers.on_replica, symbol))  # type: ignore[misc]
        assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K43")
@pytest.mark.parametrize("old_one", ["gone", "demoted"])
async def test_a_name_that_leads_to_another_address_is_followed(
    servers: Servers, vendor: AlpacaSimulator, tmp_path: Path, old_one: str
) -> None:
    """Each new connection asks the name again; no part of the daemon stays behind, and nothing is lost."""
    names, traffic = Names(tmp_path, "redis.example"), Traffic(vendor, *SYMBOLS)
    async with (
        Proxy(servers.primary.port) as before,
        Proxy(servers.replica.port, at=("127.0.0.2", before.port)) as after,
    ):
        names.lead_to("127.0.0.1")
        daemon = DaemonProcess(f"redis://redis.example:{before.port}/0", vendor.url("iex"))
        async with daemon.with_environment(**names.environment):
            await daemon.until_live()
            await subscribed(servers.on_primary, vendor, *SYMBOLS)
            await daemon.until(lambda status: bool(status["tracking"]))
            async with traffic.flowing(500):
                await daemon.until(lambda status: status["stored"] > 500)
                await servers.on_replica.replicaof("NO", "ONE")
                names.lead_to("127.0.0.2")
                assert not after.passages
                if old_one == "gone":
                    servers.primary.kill()
                else:
                    await servers.on_primary.replicaof("127.0.0.1", str(servers.replica.port))
                stored = (await daemon.status())["stored"]
                # Five seconds, three times generous.
                await daemon.until(lambda s: s["state"] == "live" and s["stored"] > stored + 500, 15)
                await until(lambda: _is_left(before), 20)
            await traffic.everything_arrived(daemon, servers.on_replica)
            await daemon.until(lambda status: bool(status["tracking"]))
            await subscribed(servers.on_replica, vendor, *SYMBOLS, "TSLA")
            assert is_quiet(daemon), daemon.log


def _number(item: Quote | Gap) -> float | None:
    return item.bid_size if isinstance(item, Quote) else None


async def _is_left(way: Proxy) -> bool:
    """Whether nobody uses this way any more; one that lay idle may lie there still."""
    silent_s = asyncio.get_running_loop().time() - 3.0
    return all(passage.name == "quotebus-control" and passage.moved_s < silent_s for passage in way.passages)


async def _reports(redis: Redis, daemon: DaemonProcess) -> bool:
    status = await daemon.status()
    beat = await redis.hget(KEYS.status, "stored")
    return beat is not None and int(beat) > 0 and status["state"] == await redis.hget(KEYS.status, "state")


async def _is_in_sync(redis: Redis) -> bool:
    return bool((await redis.info("replication"))["master_link_status"] == "up")


async def _is_nothing(servers: Servers) -> bool:
    return await servers.lag() == 0

"""A bad wire between daemon and Redis: late, slow, cut anywhere, closed when idle, or bad for one connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from ingestor.publisher.publisher import UNPACKED_BYTES
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Fault, Proxy, Way, named
from tests.scenario.streams import KEYS, ledger_is_even, state_is, subscribed
from tests.scenario.traffic import Traffic, is_quiet, unready

WRITER = named("quotebus-publisher")
CONTROL = named("quotebus-control")
WATCH = named("quotebus-watch")


@pytest.fixture
async def proxy(shared_server: RedisServer) -> AsyncIterator[Proxy]:
    """A wire to the shared server."""
    async with Proxy(shared_server.port, seed=12) as running:
        yield running


@pytest.fixture
async def daemon(proxy: Proxy, redis: Redis, vendor: AlpacaSimulator) -> AsyncIterator[DaemonProcess]:
    """A daemon at the end of the wire, with AAPL and MSFT live."""
    async with DaemonProcess(proxy.url, vendor.url("iex")) as process:
        await process.until_live()
        await subscribed(redis, vendor, "AAPL", "MSFT")
        yield process


@pytest.fixture
def traffic(daemon: DaemonProcess, vendor: AlpacaSimulator) -> Traffic:
    """Quotes of both symbols."""
    return Traffic(vendor, "AAPL", "MSFT")


@pytest.mark.fault("K06")
async def test_replies_that_come_after_they_were_given_up_are_taken_for_no_other(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, traffic: Traffic
) -> None:
    """Each reply comes 2.5 s late, past the bound of 2 s, and belongs to a connection that is gone by then."""
    traffic.send(10)
    await traffic.settled(daemon)
    proxy.bend(Fault(replies=Way(delay_s=2.5)))
    async with traffic.flowing():
        await unready(daemon, "no answer for")
        accepted = proxy.accepted
        await until(lambda: _is_above(lambda: proxy.accepted, accepted))
        proxy.straighten()
    await traffic.everything_arrived(daemon, redis)
    assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K07")
@pytest.mark.parametrize("direction", ["commands", "replies"])
async def test_a_connection_that_is_cut_after_any_number_of_bytes_neither_loses_nor_doubles(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, traffic: Traffic, direction: str
) -> None:
    """Within a command, between two, within a reply: fifteen cuts, each somewhere else."""
    async with traffic.flowing():
        for n in range(15):
            way = Way(cut_after_bytes=1 + n * (797 if direction == "commands" else 9))
            fault = Fault(commands=way) if direction == "commands" else Fault(replies=way)
            resets, stored = proxy.resets, (await daemon.status())["stored"]
            proxy.bend(fault, WRITER)
            await until(lambda resets=resets: _is_above(lambda: proxy.resets, resets))  # type: ignore[misc]
            proxy.straighten()
            await daemon.until(lambda status, stored=stored: status["stored"] > stored)  # type: ignore[misc]
    status = await traffic.everything_arrived(daemon, redis)
    assert status["rejected"] == status["dropped"] == 0
    assert is_quiet(daemon, 120), daemon.log


@pytest.mark.fault("K10")
@pytest.mark.parametrize(("round_trip_ms", "per_s"), [(5, 2000), (50, 2000), (500, 1000)])
async def test_a_long_wire_is_made_up_for_by_larger_batches(
    daemon: DaemonProcess,
    proxy: Proxy,
    redis: Redis,
    traffic: Traffic,
    round_trip_ms: int,
    per_s: int,
) -> None:
    """At each distance the nominal rate is kept: what waits stays below what arrives in a few round trips."""
    proxy.bend(Fault(Way(delay_s=round_trip_ms / 2000), Way(delay_s=round_trip_ms / 2000)))
    async with traffic.flowing(per_s):
        ends_s = time.monotonic() + 2.0
        while time.monotonic() < ends_s:
            status = await daemon.status()
            assert status["queued"] + status["unanswered"] < 2 * per_s * (1 + 4 * round_trip_ms / 1000)
            assert (await daemon.page("/readyz"))[0] == 200
            await asyncio.sleep(0.1)
    await traffic.everything_arrived(daemon, redis)
    assert proxy.resets == 0
    assert "redis_away" not in daemon.kinds()


@pytest.mark.fault("K11")
async def test_on_a_narrow_wire_quotes_wait_and_the_oldest_go_marked(
    proxy: Proxy, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """One Mbit/s carries less than arrives: memory is bounded, and each quote is stored or its hole is marked."""
    settings = {"memory_bytes": "1048576", "spool_dir": "off"}
    async with DaemonProcess(proxy.url, vendor.url("iex"), **settings) as daemon:
        await subscribed(redis, vendor, "AAPL", "MSFT")
        traffic = Traffic(vendor, "AAPL", "MSFT")
        proxy.bend(Fault(Way(bytes_per_s=125_000), Way(bytes_per_s=125_000)))
        async with traffic.flowing(4000):
            status = await daemon.until(lambda s: s["dropped"] > 0, 30)
            # Packed ones, of more than 100 bytes each, and beside them those that wait as they came.
            assert status["queued"] <= 1_048_576 // 100 + 1_048_576 // UNPACKED_BYTES
            assert ledger_is_even(status), status
        proxy.straighten()
        status = await traffic.settled(daemon)
        verdict = await traffic.verdict(redis)
        assert verdict.is_honest, verdict
        assert verdict.missing_in_gaps == status["dropped"] > 0
        assert verdict.arrived == status["stored"] + status["already_stored"]
        assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K12")
async def test_resets_at_random_neither_lose_nor_double(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, traffic: Traffic
) -> None:
    """One command in a hundred and one reply in a hundred is a reset instead, for all connections, for 3 s."""
    proxy.bend(Fault(Way(reset_chance=0.01), Way(reset_chance=0.01)))
    async with traffic.flowing():
        await asyncio.sleep(3.0)
        await until(lambda: _is_above(lambda: proxy.resets, 5))
    proxy.straighten()
    await traffic.everything_arrived(daemon, redis)
    await daemon.until_live()
    assert "Traceback" not in daemon.log


@pytest.mark.fault("K12")
async def test_a_control_connection_that_is_reset_at_any_moment_does_not_end_the_daemon(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, traffic: Traffic
) -> None:
    """Idle, in the middle of a call, or while it opens: reset ten times with replies held back, it comes again."""
    for n in range(10):
        accepted = proxy.accepted
        proxy.bend(Fault(replies=Way(swallow=True)), CONTROL)
        await asyncio.sleep(0.01 * n)
        proxy.cut(CONTROL)
        proxy.straighten()
        await redis.sadd(KEYS.symbols, f"X{'ABCDEFGHIJ'[n]}")
        await until(lambda accepted=accepted: _is_above(lambda: proxy.accepted, accepted))  # type: ignore[misc]
    traffic.send(10)
    await traffic.everything_arrived(daemon, redis)
    await until(lambda: state_is(redis, "XJ", "live"))


@pytest.mark.fault("K42")
async def test_a_wire_that_is_closed_when_idle_loses_no_first_write(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, traffic: Traffic
) -> None:
    """After each silence the next quote is stored, though the connection it would have taken is gone."""
    proxy.bend(Fault(idle_close_s=0.3), WRITER)
    for n in range(4):
        accepted = proxy.accepted
        await until(lambda accepted=accepted: _is_above(lambda: proxy.accepted, accepted))  # type: ignore[misc]
        traffic.send(1)
        if n == 2:
            # In the very moment of the close, too.
            proxy.cut(WRITER)
            traffic.send(1)
    await traffic.everything_arrived(daemon, redis)
    assert is_quiet(daemon), daemon.log


@pytest.mark.fault("C10")
async def test_a_change_in_the_moment_of_a_cut_is_found_when_the_watch_is_back(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The notice is lost with its connection; five times the set is equal a moment later all the same."""
    for symbol in ("TSLA", "NVDA", "AMD", "INTC", "IBM"):
        proxy.cut(WATCH)
        await redis.sadd(KEYS.symbols, symbol)
        await vendor.wait_for(lambda symbol=symbol: symbol in vendor.symbols, 6)  # type: ignore[misc]
        await daemon.until(lambda status: bool(status["tracking"]))


@pytest.mark.fault("C10")
async def test_notices_that_vanish_are_made_up_for_by_the_next_look(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The watch gets nothing any more and cannot know it; the reader's own period finds the change."""
    proxy.bend(Fault(replies=Way(swallow=True)), WATCH)
    await redis.sadd(KEYS.symbols, "TSLA")
    await vendor.wait_for(lambda: "TSLA" in vendor.symbols, 6)


@pytest.mark.fault("C14")
async def test_a_slow_control_connection_does_not_slow_the_quotes(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, traffic: Traffic
) -> None:
    """Reading the set and writing the status take a second each; quotes are stored as fast as before."""
    proxy.bend(Fault(replies=Way(delay_s=1.0)), CONTROL)
    slowest_s = 0.0
    for _ in range(20):
        began_s = time.monotonic()
        traffic.send(5)
        await daemon.until(lambda s: s["stored"] == 2 * traffic.sent)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    assert slowest_s < 0.9
    await traffic.everything_arrived(daemon, redis)
    assert (await daemon.status())["state"] == "live"


async def test_a_control_connection_in_a_black_hole_leaves_the_quotes_alone(
    daemon: DaemonProcess, proxy: Proxy, redis: Redis, vendor: AlpacaSimulator, traffic: Traffic
) -> None:
    """Nothing of the control plane answers; quotes go on, and a change is acted on when it is over."""
    proxy.bend(Fault(black_hole=True), lambda passage: passage.name != "quotebus-publisher")
    traffic.send(100)
    await traffic.everything_arrived(daemon, redis)
    await redis.sadd(KEYS.symbols, "TSLA")
    await daemon.told("symbols_not_read")
    traffic.send(100)
    await traffic.everything_arrived(daemon, redis)
    assert "TSLA" not in vendor.symbols
    proxy.straighten()
    await vendor.wait_for(lambda: "TSLA" in vendor.symbols, 10)


async def _is_above(value: Callable[[], int], bound: int) -> bool:
    return value() > bound

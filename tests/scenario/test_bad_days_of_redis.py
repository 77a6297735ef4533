"""Bad days of Redis: restarts, freezes, foreign writers, keys of the wrong type, a set that vanishes."""

import asyncio
import contextlib
import json
import signal
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import (
    BASE_NS,
    KEYS,
    event_exists,
    gaps,
    numbered,
    numbers,
    state_is,
    stored,
    subscribed,
)
from wire import decode_latest


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.fault("K02")
async def test_redis_restarts_while_quotes_flow_and_nothing_is_missing_or_twice(
    own_server: RedisServer, own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator, how: str
) -> None:
    """Through a restart, in good order or not, every quote is in its stream exactly once, in order."""
    await own_redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    sent = 0
    for step in range(200):
        for symbol in ("AAPL", "MSFT"):
            vendor.send(numbered(symbol, 1 + sent, 20))
        sent += 20
        if step == 80:
            await asyncio.to_thread(own_server.stop if how == "stop" else own_server.kill)
        if step == 130:
            await asyncio.to_thread(own_server.start)
        await asyncio.sleep(0.005)
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == 2 * sent, 15)
    for symbol in ("AAPL", "MSFT"):
        assert await numbers(own_redis, symbol) == list(range(1, sent + 1))
        cached = decode_latest(symbol, await own_redis.hget(KEYS.latest, symbol) or "")
        assert cached == (await stored(own_redis, symbol))[-1]
    assert vendor.closed == type(vendor.closed)()
    await own_daemon.told("redis_away")


@pytest.mark.fault("K08")
async def test_a_frozen_redis_is_outlived_without_loss_and_the_vendor_notices_nothing(
    own_server: RedisServer, own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator
) -> None:
    """While Redis stands still the socket is drained into memory; afterwards all of it is stored once."""
    await own_redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    own_server.pause()
    try:
        vendor.send(numbered("AAPL", 1, 30_000), frame_size=50)
        await own_daemon.until(lambda status: status["state"] == "redis_away", 10)
        assert (await own_daemon.page("/readyz"))[0] == 503
        assert (await own_daemon.page("/livez"))[0] == 200
    finally:
        own_server.resume()
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == 30_000, 15)
    assert await numbers(own_redis, "AAPL") == list(range(1, 30_001))
    assert len(vendor.closed) == 0


@pytest.mark.fault("K08")
async def test_without_a_disk_the_oldest_go_are_counted_and_leave_one_marker(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Past the bound of memory: received = stored + dropped, and one marker per symbol says where and how many."""
    settings = {"memory_bytes": "1048576", "spool_dir": "off"}
    async with DaemonProcess(own_server.url, vendor.url("iex"), **settings) as daemon:
        await subscribed(own_redis, vendor, "AAPL", "MSFT")
        for symbol in ("AAPL", "MSFT"):
            vendor.send(numbered(symbol, 1, 10))
        await daemon.until(lambda status: status["stored"] == 20)
        own_server.pause()
        try:
            for first in range(11, 20_011, 500):
                for symbol in ("AAPL", "MSFT"):
                    vendor.send(numbered(symbol, first, 500), frame_size=50)
            await daemon.until(lambda status: status["received"] == 40_020)
        finally:
            own_server.resume()
        status = await daemon.until(lambda s: s["queued"] == 0 and s["unanswered"] == 0, 15)
        assert status["received"] == status["stored"] + status["already_stored"] + status["dropped"]
        missing = 0
        for symbol in ("AAPL", "MSFT"):
            found, kept = await stored(own_redis, symbol), await numbers(own_redis, symbol)
            assert kept[-1] == 20_010
            ((before, after),) = [(a, b) for a, b in pairwise(kept) if b != a + 1]
            markers = await gaps(own_redis, symbol)
            assert len(markers) == 1, markers
            (marker,) = markers
            place = found.index(marker)
            assert [item.bid_size for item in (found[place - 1], found[place + 1])] == [before, after]  # type: ignore[union-attr]
            assert (marker.reason, marker.missing) == ("queue_full", after - before - 1)
            assert marker.from_ns == BASE_NS + (before + 1) * 1_000_003
            assert marker.to_ns == BASE_NS + (after - 1) * 1_000_003
            missing += after - before - 1
        assert missing == status["dropped"]


@pytest.mark.fault("P04")
async def test_a_killed_daemon_is_followed_by_one_that_doubles_nothing(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """After SIGKILL the next daemon's ids go on above the last stored one, behind a gap marker."""
    await redis.sadd(KEYS.symbols, "AAPL")
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 15)
        vendor.send(numbered("AAPL", 1, 100))
        await daemon.until(lambda status: status["stored"] == 100)
        daemon.signal(signal.SIGKILL)
        await daemon.ended()
        await vendor.wait_for(lambda: len(vendor.closed) == 1)
        daemon.start()
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 30)
        vendor.send(numbered("AAPL", 101, 100))
        await until(lambda: _count_is(redis, "AAPL", 200))
    assert await numbers(redis, "AAPL") == list(range(1, 201))
    assert type((await stored(redis, "AAPL"))[100]).__name__ == "Gap"


@pytest.mark.fault("C06", "K32")
async def test_flushall_neither_unsubscribes_nor_stops_the_daemon(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """An emptied database is told to the operator; the symbols stay subscribed and quotes go on."""
    await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    await redis.flushall()
    await daemon.until(lambda status: "vanished" in status["held"])
    vendor.send(numbered("AAPL", 6, 5))
    await daemon.until(lambda status: status["stored"] == 10)
    assert await numbers(redis, "AAPL") == list(range(1, 11))
    assert vendor.symbols == {"AAPL", "MSFT"}
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    await daemon.until(lambda status: status["held"] == "")


@pytest.mark.fault("C06")
async def test_a_vanished_set_is_let_go_after_the_grace_period(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The grace period is a period: what nobody put back is unsubscribed when it ends."""
    async with DaemonProcess(shared_server.url, vendor.url("iex"), grace_s="1.5"):
        await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"}, 15)
        await redis.delete(KEYS.symbols)
        await vendor.wait_for(lambda: vendor.symbols == frozenset(), 6)


@pytest.mark.fault("C01", "C02", "C03")
async def test_junk_in_the_set_is_refused_with_a_reason_and_harms_nothing(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Misspelt, empty, binary and enormous members are listed with their reason; the good ones are live."""
    await redis.sadd(
        KEYS.symbols,
        "AAPL",
        "msft",
        "",
        "A B",
        b"\xff\xfe",
        "X" * 1_000_000,
        "ТSLA",
        "\u200bIBM",
        "🚀",
        "A\x07B",
    )
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    await until(lambda: state_is(redis, "msft", "refused"))
    states = {k: json.loads(v) for k, v in (await redis.hgetall(KEYS.subscriptions)).items()}
    refused = {name: state["reason"] for name, state in states.items() if state["state"] == "refused"}
    assert len(refused) == 9
    assert refused["msft"] == "lower case; did you mean MSFT?"
    assert max(map(len, states)) < 100
    await daemon.told("refused", count=9)
    assert max(map(len, daemon.log.splitlines())) < 2000
    await until(lambda: event_exists(redis, "refused", subject="msft"))


@pytest.mark.fault("C05")
async def test_a_set_of_the_wrong_type_keeps_the_last_good_one_in_force(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A string where the set should be is told and survived, and the mended set is read at once."""
    await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    await redis.set(KEYS.symbols, "oops")
    await daemon.until(lambda status: "another type" in status["held"])
    assert vendor.symbols == {"AAPL", "MSFT"}
    await redis.delete(KEYS.symbols)
    await redis.sadd(KEYS.symbols, "NVDA")
    await vendor.wait_for(lambda: vendor.symbols == {"NVDA"})


@pytest.mark.fault("K26")
async def test_one_stream_of_the_wrong_type_harms_only_its_own_symbol(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The others are stored; the refused ones are counted by reason; it heals when the key is removed."""
    await redis.set(KEYS.stream("MSFT"), "oops")
    await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"})
    for symbol in ("AAPL", "MSFT"):
        vendor.send(numbered(symbol, 1, 5))
    await daemon.until(lambda status: status["stored"] == 5 and status["rejected"] == 5)
    await redis.delete(KEYS.stream("MSFT"))
    vendor.send(numbered("MSFT", 6, 5))
    await daemon.until(lambda status: status["stored"] == 10)
    assert await numbers(redis, "MSFT") == [6, 7, 8, 9, 10]


@pytest.mark.fault("K28")
async def test_a_foreign_entry_far_in_the_future_is_an_alarm_and_not_a_loss(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Somebody else's XADD poisons the ids of the stream; quotes are stored behind it and the operator is told."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    await redis.xadd(KEYS.stream("AAPL"), {"q": "[1,1,null,2,1,null,null,null,1]"}, id="99999999999999-0")
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 6)
    assert await numbers(redis, "AAPL") == [1, 2, 3, 1, 4, 5, 6]
    await daemon.told("foreign_entries")


@pytest.mark.fault("S31")
async def test_a_quote_dated_next_year_does_not_poison_its_stream(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Its time is stored as received, its id is clamped, and the next quotes are stored behind it."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    ahead_ns = BASE_NS + 400 * 86_400 * 10**9 * 100
    vendor.send([*numbered("AAPL", 1, 1), *numbered("AAPL", 2, 1, ahead_ns), *numbered("AAPL", 3, 1)])
    await daemon.until(lambda status: status["stored"] == 3)
    found = await stored(redis, "AAPL")
    assert [quote.time_ns for quote in found] == [  # type: ignore[union-attr]
        BASE_NS + 1_000_003,
        ahead_ns + 2 * 1_000_003,
        BASE_NS + 3 * 1_000_003,
    ]
    assert int((found[1].id or "").split("-")[0]) * 1_000_000 < ahead_ns


@pytest.mark.fault("P15")
async def test_a_second_daemon_stands_by_and_takes_over_when_the_first_one_stops(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Started by mistake, the second neither writes nor connects; stopped, the first makes room at once."""
    await redis.sadd(KEYS.symbols, "AAPL")
    second = DaemonProcess(shared_server.url, vendor.url("iex"))
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as first, contextlib.aclosing(second):
        await first.until(lambda status: status["live"] == 1, 15)
        second.start()
        await second.until(lambda status: status["state"] == "standby", 10)
        assert (await second.page("/readyz"))[0] == 503
        assert sum(action.kind == "connect" for action in vendor.actions) == 1
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        await second.until(lambda status: status["live"] == 1, 5)
        vendor.send(numbered("AAPL", 1, 5))
        await second.until(lambda status: status["stored"] == 5)
    assert await numbers(redis, "AAPL") == [1, 2, 3, 4, 5]


@pytest.mark.fault("P16")
async def test_a_newer_epoch_fences_a_daemon_off_and_it_ends(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Two cannot both write: whoever holds an older epoch stops, says so, and stores nothing more."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    await redis.hincrby(KEYS.writer, "epoch", 1)
    vendor.send(numbered("AAPL", 1, 5))
    assert await daemon.ended() == 5
    await daemon.told("fenced")
    assert await redis.exists(KEYS.stream("AAPL")) == 0
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.closed[0].clean)


@pytest.mark.fault("C11")
async def test_changes_are_noticed_within_two_seconds_where_tracking_is_not_allowed(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """On a server that refuses CLIENT TRACKING the periodic look is enough."""
    await redis.acl_setuser(
        "plain",
        enabled=True,
        passwords=["+pw"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-client|tracking"],
    )
    url = shared_server.url.replace("redis://", "redis://plain:pw@")
    async with DaemonProcess(url, vendor.url("iex")) as daemon:
        await daemon.until_live()
        await redis.sadd(KEYS.symbols, "AAPL")
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 2.0)
        assert (await daemon.status())["tracking"] is False
        await daemon.told("tracking_not_allowed")


async def _count_is(redis: Redis, symbol: str, count: int) -> bool:
    return len(await numbers(redis, symbol)) == count

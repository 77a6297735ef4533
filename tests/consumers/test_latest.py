"""The newest quote of a symbol, and how the bus tells what is wrong."""

from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from consumers import (
    BadNamespace,
    BadStart,
    BadSymbol,
    BadUrl,
    Bus,
    BusClosed,
    BusUnavailable,
    ContractTooNew,
    EntryId,
    Gap,
    Quote,
    connect,
)
from simulator.redis_server import RedisServer, free_port
from tests.consumers.conftest import KEYS, T0_NS, Writer, numbers
from wire import encode_latest

pytestmark = pytest.mark.both_servers

SECRET = "s3cr3t/pw"


async def test_an_unknown_symbol_has_no_quote(bus: Bus) -> None:
    """None, and absent among many."""
    assert await bus.latest("AAPL") is None
    assert await bus.latest_many("AAPL", "MSFT") == {}


async def test_the_newer_of_stream_and_rest_is_the_latest(bus: Bus, writer: Writer) -> None:
    """By venue time; at the same time the one with an entry id."""
    for symbol in ("OLD", "NEW", "SAME"):
        await writer.quotes(symbol)
    for symbol, offset_ns in (("OLD", -1), ("NEW", 1), ("SAME", 0), ("ONLY", 0)):
        row = (1.5, 1, "V", 0.0, 0, "N", None, "C", T0_NS + offset_ns, None)
        await writer.redis.hset(KEYS.rest, symbol, encode_latest(symbol, None, row))
    quotes = await bus.latest_many("OLD", "NEW", "SAME", "ONLY", "NONE")
    assert {symbol: quote.id is None for symbol, quote in quotes.items()} == {
        "OLD": False,
        "NEW": True,
        "SAME": False,
        "ONLY": True,
    }
    assert quotes["NEW"].ask_price is None


@pytest.mark.parametrize("written", ["1", "0", "soon", ""])
async def test_a_contract_that_this_library_knows_is_no_hindrance(
    server: RedisServer, redis: Redis, written: str
) -> None:
    """Nor is a field that holds no version at all."""
    await redis.hset(KEYS.status, "contract", written)
    async with connect(server.url) as bus:
        assert await bus.latest("AAPL") is None


@pytest.mark.fault("Q07")
async def test_a_later_contract_is_refused_with_the_remedy(server: RedisServer, redis: Redis) -> None:
    """Entries of a later kind might be misread, so nothing is read."""
    await redis.hset(KEYS.status, "contract", "2")
    with pytest.raises(ContractTooNew, match="install a newer quotebus"):
        async with connect(server.url):
            pass


async def test_an_unreadable_cache_value_is_ignored(
    bus: Bus, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """The other hash still answers, and the log says what was wrong."""
    await writer.quotes("AAPL")
    await writer.redis.hset(KEYS.rest, "AAPL", "broken")
    quote = await bus.latest("AAPL")
    assert quote is not None
    assert "AAPL entry of the cache" in caplog.text


async def test_history_is_read_by_venue_time(bus: Bus, writer: Writer) -> None:
    """From the first instant up to, not including, the last, over several pages."""
    await writer.quotes("AAPL", 2_500, step_ns=1_000_000)
    start_ns, end_ns = T0_NS + 100_000_000, T0_NS + 2_300_000_000
    sizes = [item.bid_size async for item in bus.history("AAPL", start_ns, end_ns) if isinstance(item, Quote)]
    assert sizes == list(range(100, 2_300))
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=(T0_NS + 2_490_000_000) // 1000)
    assert len([item async for item in bus.history("AAPL", time)]) == 10
    assert [item async for item in bus.history("AAPL", time, time)] == []
    with pytest.raises(BadStart, match="swap"):
        await anext(bus.history("AAPL", end_ns, start_ns))


async def test_history_from_within_a_hole_begins_with_its_marker(bus: Bus, writer: Writer) -> None:
    """Which stands before the start, behind the last quote before the hole; one whose hole is over is left out."""
    await writer.quotes("AAPL", 1, at=T0_NS)
    await writer.gap("AAPL", "feed_disconnected", to_ns=T0_NS + 5_000)
    await writer.gap("AAPL", "not_subscribed", to_ns=T0_NS + 10)
    await writer.quotes("AAPL", 1, at=T0_NS + 5_000)
    found = [item async for item in bus.history("AAPL", T0_NS + 2_000)]
    assert [item.reason for item in found if isinstance(item, Gap)] == ["feed_disconnected", "not_subscribed"]
    assert [item.time_ns for item in found if isinstance(item, Quote)] == [T0_NS + 5_000]
    within = [item async for item in bus.history("AAPL", T0_NS + 2_000, T0_NS + 3_000)]
    assert within == found[:2]
    assert [item async for item in bus.history("AAPL", T0_NS + 2_000, T0_NS + 2_000)] == []
    behind = [item async for item in bus.history("AAPL", T0_NS + 5_000)]
    assert behind == found[2:]


async def test_history_ends_however_busy_its_stream_is(bus: Bus, writer: Writer) -> None:
    """At the last entry that there was with its first page: a writer who never stops does not keep it going."""
    await writer.quotes("AAPL", 2_500)
    found: list[Quote | Gap] = []
    async for item in bus.history("AAPL", 0):
        found.append(item)
        if len(found) % 500 == 0:
            await writer.quotes("AAPL", 1_000)
        assert len(found) < 10_000
    assert numbers(found) == list(range(2_500))


async def test_history_of_a_stream_emptied_meanwhile_ends_too(bus: Bus, writer: Writer) -> None:
    """What is gone of it is told, and what was written behind its end is no part of it."""
    await writer.quotes("AAPL", 1_500)
    found: list[Quote | Gap] = []
    async for item in bus.history("AAPL", 0):
        found.append(item)
        if len(found) == 700:
            await writer.quotes("AAPL", 2_000, maxlen=10)
    *quotes, gap = found
    assert isinstance(quotes[-1], Quote)
    assert numbers(quotes) == list(range(1_000))
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.from_ns) == ("trimmed", quotes[-1].time_ns)
    assert gap.to_ns == EntryId.parse(writer.ids["AAPL"][1_499]).time_ns


async def test_history_shows_gaps_and_skips_what_it_cannot_read(bus: Bus, writer: Writer) -> None:
    """The same items as a stream."""
    await writer.quotes("AAPL")
    await writer.gap("AAPL", "feed_disconnected")
    await writer.raw("XADD", KEYS.stream("AAPL"), "*", "other", "1")
    items = [item async for item in bus.history("AAPL", 0)]
    assert [type(item) for item in items] == [Quote, Gap]


async def test_a_closed_bus_says_so(server: RedisServer, redis: Redis) -> None:
    """Before it is opened and after it is closed."""
    bus = connect(server.url)
    for _ in range(2):
        with pytest.raises(BusClosed, match="async with"):
            await bus.latest("AAPL")
        with pytest.raises(BusClosed, match="async with"):
            bus.quotes("AAPL")
        async with bus:
            assert await bus.latest("AAPL") is None


async def test_a_bad_symbol_is_refused_before_redis_is_asked(bus: Bus) -> None:
    """With the reason."""
    with pytest.raises(BadSymbol, match="did you mean AAPL"):
        await bus.latest("aapl")


@pytest.mark.parametrize(
    "url",
    [
        f"localhost:6379?password={SECRET}",
        f"http://:{SECRET}@localhost",
        "redis://:s3cr3t/pw@localhost:6379/0",
        f"redis://localhost?db={SECRET}",
        "redis://localhost?colour=red",
        "",
    ],
)
def test_a_bad_url_is_refused_without_repeating_it(url: str) -> None:
    """The message shows how a URL is written, or names the option, and repeats no value that was given."""
    with pytest.raises(BadUrl, match=r"redis://|the Redis URL has the option (db|colour)") as caught:
        connect(url)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_bad_namespace_is_refused() -> None:
    """Before anything is asked."""
    with pytest.raises(BadNamespace):
        connect(namespace="quotes*")


async def test_a_server_that_is_not_there_is_named() -> None:
    """Address, reason and remedy; the password stays hidden, in the repr as well."""
    port = free_port()
    bus = connect(f"redis://user:s3cr3t@127.0.0.1:{port}/3")
    with pytest.raises(
        BusUnavailable, match=rf"redis://127.0.0.1:{port}/3 .*is the server running"
    ) as caught:
        await bus.__aenter__()
    assert "s3cr3t" not in str(caught.value) + repr(caught.value) + repr(bus)
    assert "user" not in repr(bus)


async def test_a_wrong_password_is_told_without_showing_it() -> None:
    """Neither the wrong one, nor the lack of one, is tried for long."""
    with RedisServer(options=("--requirepass", "right")) as guarded:
        for login in ("", ":s3cr3t@"):
            bus = connect(guarded.url.replace("//", f"//{login}"))
            with pytest.raises(BusUnavailable, match="check user and password") as caught:
                await bus.__aenter__()
            assert "s3cr3t" not in str(caught.value)
        async with connect(guarded.url.replace("//", "//:right@")) as opened:
            assert await opened.latest("AAPL") is None
            assert "right" not in repr(opened)


async def test_a_key_of_another_type_is_told(bus: Bus, redis: Redis) -> None:
    """An error of the contract, not of the connection."""
    await redis.set(KEYS.latest, "x")
    with pytest.raises(BusUnavailable, match="contract"):
        await bus.latest("AAPL")
    await redis.delete(KEYS.latest)
    assert await bus.latest("AAPL") is None


@pytest.mark.real_server("fakeredis kills no client by its type")
async def test_an_idle_connection_that_was_cut_is_replaced(bus: Bus, redis: Redis, writer: Writer) -> None:
    """A question after a long silence does not fail because of it."""
    await writer.quotes("AAPL")
    await Writer(redis).raw("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await bus.latest("AAPL") is not None

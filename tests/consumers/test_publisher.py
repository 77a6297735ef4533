"""The publisher for tests writes what the contract asks for, on a real server and on the one in memory."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from consumers import Bus, BusError, BusUnavailable, Gap, Level, Quote
from consumers.testing import MemoryServer, Publisher, a_gap, a_quote, an_old_quote, parse_time, quotes_of
from simulator.redis_server import RedisServer, free_port
from tests.consumers.conftest import KEYS, Writer, blocked, take
from wire import decode_latest

pytestmark = pytest.mark.both_servers

HALF_PAST = parse_time("09:30:00.5")


@pytest.fixture
async def publisher(server: RedisServer | MemoryServer, redis: Redis) -> AsyncIterator[Publisher]:
    """A publisher on the empty server."""
    async with Publisher(server.url) as opened:
        yield opened


async def test_what_is_published_is_read_as_it_was_made(bus: Bus, publisher: Publisher) -> None:
    """Every field of quotes and gaps comes back, with the ids that publishing told."""
    made = a_quote(
        "BRK.B", bid=1.5, ask=None, bid_size=7, at="09:30:00.5", delay_ms=-2, conditions=("R", "4")
    )
    stored = await publisher.publish(made, a_gap("BRK.B", start="09:31", end="09:32", missing=3))
    items = await take(aiter(bus.quotes("BRK.B", start="earliest")), 2)
    assert items == stored
    quote, gap = items
    assert isinstance(quote, Quote)
    assert isinstance(gap, Gap)
    assert (quote.time_ns, quote.ask_price, quote.receive_delay_us) == (HALF_PAST, None, -2000)
    assert quote.id == f"{HALF_PAST // 10**6}-0"
    assert (gap.missing, gap.duration_s, gap.reason) == (3, 60.0, "feed_disconnected")
    assert [item async for item in bus.history("BRK.B", HALF_PAST)] == stored


async def test_a_state_that_no_daemon_writes_is_refused(publisher: Publisher, redis: Redis) -> None:
    """A misspelt one would be read as a daemon that is not live, and a test would pass for it."""
    with pytest.raises(ValueError, match=r"state='conecting': take one of catching_up, connecting, live, "):
        await publisher.daemon("conecting")
    with pytest.raises(ValueError, match=r"state='lives': take one of leaving, live, "):
        await publisher.subscribe("AAPL", state="lives")
    no_states: tuple[object, ...] = (["live"], {}, None)
    for wrong in no_states:
        with pytest.raises(ValueError, match="take one of"):
            await publisher.daemon(wrong)  # type: ignore[arg-type]
    for silent_for_s in (-1, float("nan"), 1e30, "5"):
        with pytest.raises(ValueError, match="silent_for_s="):
            await publisher.daemon(silent_for_s=silent_for_s)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason=5"):
        await publisher.subscribe("AAPL", reason=5)  # type: ignore[arg-type]
    assert await redis.keys("*") == []
    await publisher.quote("AAPL")


async def test_ties_and_times_out_of_order_get_the_ids_of_the_contract(publisher: Publisher) -> None:
    """A tie and an older time stand directly after the entry before."""
    times = (HALF_PAST, HALF_PAST, HALF_PAST - 10**9, HALF_PAST + 1)
    stored = await publisher.publish(*(a_quote(at=time) for time in times))
    ms = HALF_PAST // 10**6
    assert [item.id for item in stored] == [f"{ms}-0", f"{ms}-1", f"{ms}-2", f"{ms}-1000"]


async def test_the_cache_holds_the_newest_entry_and_its_id(
    bus: Bus, publisher: Publisher, redis: Redis
) -> None:
    """Also when one call brings many of several symbols."""
    quotes = [*quotes_of("AAPL", count=700), *quotes_of("MSFT", count=3)]
    stored = await publisher.publish(*quotes)
    assert await bus.latest_many("AAPL", "MSFT") == {"AAPL": stored[699], "MSFT": stored[-1]}
    assert decode_latest("AAPL", (await redis.hget(KEYS.latest, "AAPL")) or "").id == stored[699].id


async def test_a_stream_that_was_there_before_is_continued(publisher: Publisher, writer: Writer) -> None:
    """Its last id is asked for once, and never gone below."""
    await writer.quotes("AAPL", 3)
    (stored,) = await publisher.publish(a_quote("AAPL", at="09:30"))
    assert stored.id is not None
    # The writer's times lie after ours.
    assert stored.id.partition("-")[0] == writer.ids["AAPL"][-1].partition("-")[0]


async def test_another_writer_is_told_of_and_then_followed(publisher: Publisher, redis: Redis) -> None:
    """The refused entry is an error with the key's name, the next publication goes on behind the stranger's."""
    await publisher.publish(a_quote("AAPL", at="09:30"))
    await redis.xadd(KEYS.stream("AAPL"), {"q": "[]"}, id=f"{HALF_PAST // 10**6}-5")
    with pytest.raises(BusError, match=r"quotes:stream:AAPL.*another program"):
        await publisher.publish(a_quote("AAPL", at="09:30:00.1"))
    (stored,) = await publisher.publish(a_quote("AAPL", at="09:30:00.1"))
    assert stored.id == f"{HALF_PAST // 10**6}-6"


async def test_a_published_symbol_is_live(bus: Bus, publisher: Publisher) -> None:
    """Whatever day it was at the venue: it was received now."""
    await publisher.publish(a_quote("AAPL", at="09:30"), a_quote("MSFT"))
    assert {quality.level for quality in (await bus.quality("AAPL", "MSFT")).values()} == {Level.LIVE}


@pytest.mark.parametrize(
    ("state", "silent_for_s", "why"),
    [
        ("live", 9.0, "heartbeat is 9 s old"),
        ("connecting", 0.0, "not connected"),
        ("stopped", 0.0, "was stopped"),
    ],
)
async def test_the_daemon_goes_bad_and_well_on_request(
    bus: Bus, publisher: Publisher, state: str, silent_for_s: float, why: str
) -> None:
    """Publishing does not hide it; saying that it is live again does."""
    await publisher.daemon(state, silent_for_s=silent_for_s)
    await publisher.publish(a_quote("AAPL"))
    quality = (await bus.quality("AAPL"))["AAPL"]
    assert quality.level is Level.STALE
    assert why in (quality.reason or "")
    await publisher.daemon()
    assert (await bus.quality("AAPL"))["AAPL"].is_live


async def test_an_old_quote_is_quiet(bus: Bus, publisher: Publisher) -> None:
    """It was received as long ago as the test says."""
    await publisher.publish(an_old_quote("AAPL", age_s=90))
    quality = (await bus.quality("AAPL"))["AAPL"]
    assert quality.level is Level.QUIET
    assert quality.quote_age_s is not None
    assert 90 <= quality.quote_age_s < 120


async def test_subscriptions_say_what_the_test_wants(bus: Bus, publisher: Publisher) -> None:
    """A state with its reason, and none after unsubscribing."""
    await publisher.subscribe("AAPL", state="waiting", reason="the limit of 30 symbols is reached")
    assert (await bus.quality("AAPL"))["AAPL"].reason == "the limit of 30 symbols is reached"
    await publisher.unsubscribe("AAPL")
    assert (await bus.quality("AAPL"))["AAPL"].level is Level.NOT_SUBSCRIBED


@pytest.mark.fault("Q24")
async def test_trimming_is_told_to_a_reader_that_was_behind(bus: Bus, publisher: Publisher) -> None:
    """As by a server that keeps less than the reader is behind."""
    stored = await publisher.publish(*quotes_of("AAPL", count=10))
    assert await publisher.trim("AAPL", keep=2) == 8
    gap, quote = await take(aiter(bus.quotes("AAPL", start=stored[0].id or "")), 2)
    assert isinstance(gap, Gap)
    assert (gap.reason, quote) == ("trimmed", stored[8])


async def test_a_removed_stream_begins_anew_at_its_own_time(bus: Bus, publisher: Publisher) -> None:
    """A reader is told that it is another stream; the cache goes only when asked."""
    await publisher.publish(*quotes_of("AAPL", count=3, start="10:00"))
    items = aiter(bus.quotes("AAPL", start="earliest"))
    await take(items, 3)
    await publisher.remove_stream("AAPL")
    assert await bus.latest("AAPL") is not None
    stored = await publisher.publish(a_quote("AAPL", at="09:30"))
    gap, quote = await take(items, 2)
    assert isinstance(gap, Gap)
    assert (gap.reason, quote) == ("stream_recreated", stored[0])
    await publisher.remove_stream("AAPL", cache=True)
    assert await bus.latest("AAPL") is None


async def test_streams_stay_within_their_bound(server: RedisServer | MemoryServer, redis: Redis) -> None:
    """Approximately, as the daemon keeps them."""
    async with Publisher(server.url, maxlen=1_000) as publisher:
        await publisher.publish(*quotes_of("AAPL", count=3_000))
    assert 1_000 <= await redis.xlen(KEYS.stream("AAPL")) < 1_300


async def test_the_clock_dates_quotes_until_it_is_freed(publisher: Publisher) -> None:
    """A set clock stands still; one that was not set cannot be moved."""
    with pytest.raises(ValueError, match="set it first"):
        publisher.clock.advance(1)
    publisher.clock.set("09:30:00.5")
    assert (await publisher.quote("AAPL", bid=1.0, ask=1.1)).time_ns == HALF_PAST
    publisher.clock.advance(0.25)
    assert (await publisher.quote("AAPL")).time_ns == HALF_PAST + 250_000_000
    publisher.clock.set(None)
    assert (await publisher.quote("AAPL")).time_ns > HALF_PAST + 10**15


async def test_a_waiting_reader_hears_at_once(bus: Bus, publisher: Publisher, redis: Redis) -> None:
    """A quote reaches it while it waits, and not only when its wait is over."""
    first = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 1))  # noqa: TID251
    await blocked(redis)
    stored = await publisher.publish(a_quote("AAPL"))
    async with asyncio.timeout(0.4):
        assert await first == stored


async def test_a_server_that_is_not_there_is_named() -> None:
    """With the same words as by the bus."""
    port = free_port()
    with pytest.raises(BusUnavailable, match=rf"127.0.0.1:{port}.*is the server running"):
        await Publisher(f"redis://127.0.0.1:{port}").publish(a_quote())


def test_a_bound_that_keeps_nothing_is_refused() -> None:
    """Zero would be read as everything by one server and nothing by another."""
    with pytest.raises(ValueError, match="maxlen=0"):
        Publisher("redis://127.0.0.1", maxlen=0)

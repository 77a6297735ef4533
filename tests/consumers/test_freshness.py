"""The limit to a quote's age: nothing older is handed over, and the account of what was withheld adds up."""

import asyncio
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumers import Bus, Gap, Newest, Quote, StaleQuote
from consumers.arguments import check_max_age_s
from consumers.reading.freshness import AgeGuard, ServerClock
from tests.consumers.conftest import KEYS, Writer, take
from wire import encode_latest, encode_quote

pytestmark = pytest.mark.both_servers

S = 1_000_000_000


def quote_at(time_ns: int, symbol: str = "A", delay_us: int | None = 0) -> Quote:
    """A quote of this venue time and receive delay."""
    return Quote(symbol, "1-1", 1.0, 1, "V", 2.0, 1, "N", None, "C", time_ns, delay_us)


async def now_ns(redis: Redis) -> int:
    """The server's time."""
    seconds, microseconds = await redis.time()
    return (int(seconds) * 1_000_000 + int(microseconds)) * 1_000


async def append(writer: Writer, symbol: str, received_ns: int, number: int = 0) -> None:
    """A quote that was received then, in stream and cache."""
    writer.sent.setdefault(symbol, []).append(number)
    entry_id = f"{1 + len(writer.sent[symbol])}-0"
    row = (1.5, number, "V", 2.5, 1, "N", None, "C", received_ns - 2_000, 2)
    await writer.raw("XADD", KEYS.stream(symbol), entry_id, "q", encode_quote(row))
    await writer.raw("HSET", KEYS.latest, symbol, encode_latest(symbol, entry_id, row))


@given(
    ages_s=st.lists(st.tuples(st.sampled_from("AB"), st.floats(0, 20), st.floats(0, 3)), max_size=60),
    limit_s=st.floats(0.1, 10),
)
def test_nothing_older_is_handed_over_and_the_counts_add_up(
    ages_s: list[tuple[str, float, float]], limit_s: float
) -> None:
    """Whatever the ages and however time passes: each is handed over fresh, or counted in a gap before the next."""
    guard = AgeGuard(limit_s)
    now, handed, told = 10**18, 0, 0
    for symbol, age_s, passes_s in ages_s:
        now += int(passes_s * S)
        quote = quote_at(now - int(age_s * S), symbol)
        if not guard.is_fresh(quote, now):
            assert now - quote.time_ns > limit_s * S - 1
            guard.withhold(quote, "0-0")
            continue
        assert now - quote.time_ns <= limit_s * S
        if guard.owes(symbol):
            gap = guard.settle(symbol)
            assert gap.from_ns <= gap.to_ns
            told += gap.missing or 0
        assert not guard.owes(symbol)
        handed += 1
    told += sum(guard.settle(symbol).missing or 0 for symbol in guard.owing)
    assert handed + told == len(ages_s)
    assert guard.positions == {}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30 * S),
            st.integers(0, S),
            st.floats(0, 1),
            st.sampled_from([0, 0, 0, 3600 * S, -3600 * S]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_clock_is_never_behind_the_servers(steps: list[tuple[int, int, float, int]]) -> None:
    """However long answers take, wherever within the wait they were made, and if the server's clock is set."""
    clock = ServerClock()
    here, ahead = 5 * S, 10**18
    for pause_ns, trip_ns, part, is_set_by in steps:
        here += pause_ns
        ahead += is_set_by
        answered = here + trip_ns
        clock.learn(here + int(trip_ns * part) + ahead, here, answered)
        here = answered
        # A clock set by an hour is only recognised by an answer that came in less.
        assert clock.now_ns(here) >= here + ahead
        assert clock.now_ns(here) - (here + ahead) <= S
        assert not clock.is_due(here)


def test_a_delay_that_is_not_known_counts_from_the_venues_time() -> None:
    """As with a quote that REST brought."""
    assert AgeGuard(1).is_fresh(quote_at(5 * S, delay_us=None), 6 * S)
    assert not AgeGuard(1).is_fresh(quote_at(5 * S, delay_us=None), 6 * S + 1)
    assert AgeGuard(1).is_fresh(quote_at(5 * S, delay_us=500_000), 6 * S + 1)


@pytest.mark.parametrize("limit_s", [0, -1, float("nan")])
async def test_a_limit_must_be_positive(bus: Bus, limit_s: float) -> None:
    """Refused by the call."""
    with pytest.raises(ValueError, match="max_age_s"):
        check_max_age_s(limit_s)
    with pytest.raises(ValueError, match="max_age_s"):
        bus.quotes("AAPL", max_age_s=limit_s)
    with pytest.raises(ValueError, match="max_age_s"):
        await bus.latest("AAPL", max_age_s=limit_s)


async def test_a_stale_cache_is_refused_with_its_age(bus: Bus, writer: Writer) -> None:
    """By one symbol; of many, it is absent."""
    now = await now_ns(writer.redis)
    await append(writer, "OLD", now - 30 * S)
    await append(writer, "NEW", now)
    with pytest.raises(StaleQuote, match="OLD") as caught:
        await bus.latest("OLD", max_age_s=10)
    assert 30 <= caught.value.age_s < 60
    assert caught.value.max_age_s == 10
    assert caught.value.quote == await bus.latest("OLD") == await bus.latest("OLD", max_age_s=3_600)
    assert set(await bus.latest_many("OLD", "NEW", "NONE", max_age_s=20)) == {"NEW"}
    assert set(await bus.latest_many("OLD", "NEW", "NONE")) == {"OLD", "NEW"}
    assert await bus.latest("NONE", max_age_s=1) is None


async def test_a_gap_stands_for_what_was_too_old(bus: Bus, writer: Writer) -> None:
    """Before the next quote of the symbol, with their number and times; the others are handed over."""
    now = await now_ns(writer.redis)
    for k in range(7):
        await append(writer, "AAPL", now - (100 - k) * S, k)
    await append(writer, "AAPL", now, 7)
    await append(writer, "MSFT", now, 8)
    found = await take(aiter(bus.quotes("AAPL", "MSFT", start="earliest", max_age_s=50)), 3)
    (gap,) = (item for item in found if isinstance(item, Gap))
    assert (gap.symbol, gap.reason, gap.missing, gap.id) == ("AAPL", "too_old", 7, None)
    assert (gap.from_ns, gap.to_ns) == (now - 100 * S - 2_000, now - 94 * S - 2_000)
    assert [item.bid_size for item in found if isinstance(item, Quote)] == [7, 8]
    async for batch in bus.quotes("AAPL", "MSFT", start="earliest", max_age_s=50).batches():
        assert batch == found
        break


async def test_it_is_told_although_nothing_follows(bus: Bus, writer: Writer) -> None:
    """And positions lead to what was withheld until then."""
    now = await now_ns(writer.redis)
    await append(writer, "OLD", now - 100 * S)
    await append(writer, "NEW", now)
    stream = bus.quotes("NEW", "OLD", start="earliest", max_age_s=50)
    items = aiter(stream)
    found = await take(items, 1)
    assert isinstance(found[0], Quote)
    found = await take(items, 1)
    assert isinstance(found[0], Gap)
    assert found[0].missing == 1
    assert stream.positions["OLD"] == "2-0"


async def test_positions_lead_to_what_was_withheld_and_not_told(bus: Bus, writer: Writer) -> None:
    """A strategy that is killed before it hears of it hears of it the next time."""
    now = await now_ns(writer.redis)
    await append(writer, "A", now - 100 * S)
    await append(writer, "B", now - 100 * S)
    stream = bus.quotes("A", "B", start="earliest", max_age_s=50)
    (gap,) = await take(aiter(stream), 1)
    assert isinstance(gap, Gap)
    other = "B" if gap.symbol == "A" else "A"
    assert stream.positions == {gap.symbol: "2-0", other: "0-0"}
    for again in (stream, bus.quotes("A", "B", start=stream.positions, max_age_s=50)):
        (told,) = await take(aiter(again), 1)
        assert isinstance(told, Gap)
        assert (told.symbol, told.missing) == (other, 1)


async def test_a_slow_strategy_is_not_given_what_became_old_meanwhile(bus: Bus, writer: Writer) -> None:
    """Though it was fresh when it was read."""
    now = await now_ns(writer.redis)
    for k in range(5):
        await append(writer, "AAPL", now, k)
    stream = bus.quotes("AAPL", start="earliest", max_age_s=2)
    items = aiter(stream)
    assert isinstance((await take(items, 1))[0], Quote)
    await asyncio.sleep(2.1)
    (gap,) = await take(items, 1)
    assert isinstance(gap, Gap)
    assert gap.missing == 4
    await append(writer, "AAPL", await now_ns(writer.redis), 5)
    (quote,) = await take(items, 1)
    assert isinstance(quote, Quote)
    assert quote.bid_size == 5


async def test_the_newest_may_be_too_old_as_well(bus: Bus, writer: Writer) -> None:
    """Then the gap counts it and those it stood for."""
    now = await now_ns(writer.redis)
    for k in range(5):
        await append(writer, "AAPL", now - 100 * S, k)
    items = aiter(bus.newest("AAPL", start="earliest", max_age_s=50))
    async with asyncio.timeout(20):
        gap = await anext(items)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.missing) == ("too_old", 5)
        await append(writer, "AAPL", await now_ns(writer.redis), 5)
        newest = await anext(items)
    assert isinstance(newest, Newest)
    assert (newest.quote.bid_size, newest.conflated) == (5, 0)


@pytest.mark.parametrize("mode", ["quotes", "batches", "newest"])
@pytest.mark.real_server(
    "it needs quotes that grow old, and in memory they come no faster than they are read"
)
async def test_no_strategy_however_slow_is_given_an_old_quote(bus: Bus, writer: Writer, mode: str) -> None:
    """Each item is checked by the clock as it comes, and every quote written is handed over or counted."""
    chance = random.Random(mode)
    symbols, total, limit_s = ("A", "B", "C"), 400, 0.05
    handed = told = late = 0

    async def write() -> None:
        for _ in range(total):
            age_ns = chance.choice((0, 0, 0, 20_000_000, 45_000_000, 90_000_000))
            await append(writer, chance.choice(symbols), time.time_ns() - age_ns)

    def note(item: Quote | Newest | Gap) -> None:
        nonlocal handed, told, late
        if isinstance(item, Gap):
            assert item.reason == "too_old"
            told += item.missing or 0
            return
        quote = item.quote if isinstance(item, Newest) else item
        handed += 1 + (item.conflated if isinstance(item, Newest) else 0)
        # The tolerance is for what passes between the verdict and this line.
        late += time.time_ns() - (quote.received_ns or 0) > (limit_s + 0.02) * S

    async def read() -> None:
        start = "earliest"
        if mode == "batches":
            async for batch in bus.quotes(*symbols, start=start, max_age_s=limit_s).batches():
                for item in batch:
                    note(item)
                if handed + told == total:
                    return
                await asyncio.sleep(chance.choice((0, 0.01, 0.07)))
            return
        source = bus.quotes if mode == "quotes" else bus.newest
        async for one in source(*symbols, start=start, max_age_s=limit_s):
            note(one)
            if handed + told == total:
                return
            if chance.random() < 0.1:
                await asyncio.sleep(chance.choice((0.01, 0.07)))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(read())
        group.create_task(write())
    assert told > 0
    assert handed > 0
    # A process that was not scheduled for that long has neighbours to blame, but not for all of them.
    assert late <= handed // 50

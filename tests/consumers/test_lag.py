"""How far behind: right while reading, after trimming, deletion, recreation, and without any bookkeeping."""

import asyncio
import random

import pytest

from consumers import Bus, Lag, QuoteStream
from consumers.reading.gaps import Anchor, read_facts
from consumers.reading.lag import COUNT_MAX, assess
from consumers.reading.track import Track
from tests.consumers.conftest import KEYS, T0_NS, Writer, take
from wire import EntryId

pytestmark = pytest.mark.both_servers

STEP_NS = 1_000_003


async def behind(stream: QuoteStream, symbol: str = "AAPL") -> tuple[int, bool]:
    """Entries, and whether that is all."""
    lag = (await stream.lag(symbol))[symbol]
    return lag.entries, lag.is_exact


async def test_it_is_what_has_not_been_handed_out(bus: Bus, writer: Writer) -> None:
    """In the middle of a read as at its end, in entries and in venue time."""
    await writer.quotes("AAPL", 2_500)
    stream = bus.quotes("AAPL", start="earliest")
    assert await behind(stream) == (2_500, True)
    items = aiter(stream)
    for taken in (1, 999, 1_000, 1_500, 2_499):
        await take(items, taken - 2_500 + (await behind(stream))[0])
        lag = (await stream.lag())["AAPL"]
        assert (lag.entries, lag.is_exact) == (2_500 - taken, True)
        assert lag.ms == pytest.approx((2_500 - taken) * STEP_NS / 1e6, abs=0.01)
    await take(items, 1)
    assert await stream.lag() == {"AAPL": Lag("AAPL", 0, True, 0.0)}
    await writer.quotes("AAPL", 70)
    assert await behind(stream) == (70, True)


async def test_trimming_leaves_what_can_still_be_read(bus: Bus, writer: Writer) -> None:
    """Also when it reaches behind the position."""
    await writer.quotes("AAPL", 100)
    stream = bus.quotes("AAPL", start="earliest")
    items = aiter(stream)
    await take(items, 60)
    await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", 50)
    assert await behind(stream) == (40, True)
    await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", 10)
    assert await behind(stream) == (10, True)
    await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", 0)
    assert await stream.lag() == {"AAPL": Lag("AAPL", 0, True, 0.0)}
    await writer.quotes("AAPL", 3)
    assert await behind(stream) == (3, True)


async def test_deleted_entries_do_not_count(bus: Bus, writer: Writer) -> None:
    """Wherever they stood."""
    await writer.quotes("AAPL", 100)
    stream = bus.quotes("AAPL", start="earliest")
    items = aiter(stream)
    await take(items, 100)
    await writer.quotes("AAPL", 50)
    await writer.raw("XDEL", KEYS.stream("AAPL"), *writer.ids["AAPL"][110:115], writer.ids["AAPL"][50])
    assert await behind(stream) == (45, True)


async def test_a_stream_begun_anew_is_unread(bus: Bus, writer: Writer) -> None:
    """Whether its ids are lower or higher; and one that is gone has nothing to read."""
    await writer.quotes("AAPL", 100)
    stream = bus.quotes("AAPL", start="earliest")
    items = aiter(stream)
    await take(items, 100)
    for at in (T0_NS - 10**12, T0_NS + 10**15):
        await writer.rewind("AAPL")
        assert await behind(stream) == (0, True)
        await writer.quotes("AAPL", 7, at=at)
        assert await behind(stream) == (7, True)


async def test_a_saved_position_is_counted_up_to_a_bound(bus: Bus, writer: Writer) -> None:
    """Beyond it the number is a lower one, and says so."""
    await writer.quotes("AAPL", COUNT_MAX + 3_000)
    near = bus.quotes("AAPL", start=writer.ids["AAPL"][5_000])
    assert await behind(near) == (COUNT_MAX + 3_000 - 5_001, True)
    far = bus.quotes("AAPL", start=writer.ids["AAPL"][10])
    assert await behind(far) == (COUNT_MAX, False)


async def test_what_has_not_begun_is_absent(bus: Bus, writer: Writer) -> None:
    """As in the positions; a missing stream has no entries."""
    stream = bus.quotes("AAPL", "GONE", start={"AAPL": "now", "GONE": "earliest"})
    assert await stream.lag() == {"GONE": Lag("GONE", 0, True, 0.0)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.real_server("its many entries take some 50 us each in memory")
async def test_it_agrees_with_counting(bus: Bus, writer: Writer, seed: int) -> None:
    """After any mixture of writing, reading, trimming and deleting."""
    chance = random.Random(seed)
    stream = bus.quotes("AAPL", start="earliest")
    items = aiter(stream)
    await writer.quotes("AAPL", 10)
    await take(items, 1)
    for _ in range(40):
        match chance.randrange(4):
            case 0:
                await writer.quotes("AAPL", chance.randint(1, 700))
            case 1:
                await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", chance.randint(0, 800))
                # Longer than an answer is trusted: a stream that turns over in less is out of the question.
                await asyncio.sleep(0.3)
            case 2:
                await writer.raw("XDEL", KEYS.stream("AAPL"), chance.choice(writer.ids["AAPL"][-100:]))
            case _:
                left = chance.randint(1, 900)
                while left and (await behind(stream))[0]:
                    await take(items, 1)
                    left -= 1
        after = f"({stream.positions['AAPL']}"
        there = await writer.raw("XRANGE", KEYS.stream("AAPL"), after, "+")
        assert await behind(stream) == (len(there), True)


def test_a_server_before_7_is_counted() -> None:
    """It keeps no book."""
    track = Track("A", b"", "5-0", Anchor.SEEN, read_to="5-0", number=5)
    facts = read_facts([b"length", 9, b"last-generated-id", b"9-0", b"first-entry", [b"1-0", []]])
    lag, span = assess(track, EntryId(5, 0), facts)
    assert (lag.entries, span) == (0, (EntryId(5, 0), EntryId(9, 0)))

"""What a reader says when its stream has lost entries, or is not the stream it was."""

import asyncio
from itertools import pairwise

import pytest

from consumers import Bus, EntryId, Gap
from consumers.reading.pursuit import REWIND_HOLDS_S
from tests.consumers.conftest import KEYS, T0_NS, Writer, blocked, numbers, take

pytestmark = pytest.mark.both_servers


@pytest.mark.fault("Q01")
async def test_a_reader_slower_than_trimming_is_told_what_it_missed(bus: Bus, writer: Writer) -> None:
    """Between what it read and what is left stands a gap with both times."""
    await writer.quotes("AAPL", 100)
    stream = bus.quotes("AAPL", start="earliest")
    items = aiter(stream)
    assert numbers(await take(items, 100)) == list(range(100))
    await writer.quotes("AAPL", 300, maxlen=50)
    # A strategy that computes for longer than an answer may be trusted.
    await asyncio.sleep(0.3)
    found = await take(items, 51)
    gap = found[0]
    assert isinstance(gap, Gap)
    assert gap.reason == "trimmed"
    assert gap.id is None
    assert gap.from_ns == EntryId.parse(writer.ids["AAPL"][99]).time_ns
    assert gap.to_ns == EntryId.parse(writer.ids["AAPL"][350]).time_ns
    assert gap.missing == 250
    assert numbers(found) == list(range(350, 400))


@pytest.mark.fault("Q01")
async def test_a_reader_that_cannot_keep_up_is_told_each_time(bus: Bus, writer: Writer) -> None:
    """However writing, trimming and reading interleave, holes and gaps agree."""
    items = aiter(bus.quotes("AAPL", start="earliest"))
    await writer.quotes("AAPL", 3_000, maxlen=1_500)
    found = await take(items, 1)
    for _ in range(6):
        await writer.quotes("AAPL", 900, maxlen=1_500)
        found += await take(items, 400)
    while numbers(found)[-1] != len(writer.sent["AAPL"]) - 1:
        found += await take(items, 1)
    for before, after in pairwise(found):
        if not isinstance(before, Gap) and not isinstance(after, Gap):
            assert after.bid_size == (before.bid_size or 0) + 1
    assert sum(isinstance(item, Gap) for item in found) >= 1
    # Every hole is as large as it is said to be.
    for before, gap, after in zip(found, found[1:], found[2:], strict=False):
        if isinstance(gap, Gap):
            assert not isinstance(before, Gap)
            assert not isinstance(after, Gap)
            assert gap.missing == (after.bid_size or 0) - (before.bid_size or 0) - 1


@pytest.mark.fault("Q01")
async def test_what_cannot_be_known_of_a_hole_is_not_guessed(bus: Bus, writer: Writer) -> None:
    """A position from an earlier run has no number, until the reader has once come to the end of the stream."""
    await writer.quotes("AAPL", 500, maxlen=50)
    items = aiter(bus.quotes("AAPL", start=writer.ids["AAPL"][10]))
    found = await take(items, 51)
    assert isinstance(found[0], Gap)
    assert found[0].missing is None
    await writer.quotes("AAPL", 80, maxlen=50)
    await asyncio.sleep(0.3)
    (gap,) = await take(items, 1)
    assert isinstance(gap, Gap)
    assert gap.missing == 30


@pytest.mark.fault("Q01")
async def test_a_hole_is_told_once_even_if_the_loop_is_left_at_it(bus: Bus, writer: Writer) -> None:
    """Neither the next loop nor a resume from the saved position tells it again."""
    await writer.quotes("AAPL", 10)
    stream = bus.quotes("AAPL", start="earliest")
    await take(aiter(stream), 10)
    await writer.quotes("AAPL", 100, maxlen=20)
    (gap,) = await take(aiter(stream), 1)
    assert isinstance(gap, Gap)
    assert gap.missing == 80
    for again in (stream, bus.quotes("AAPL", start=stream.positions)):
        assert numbers(await take(aiter(again), 20)) == list(range(90, 110))


@pytest.mark.fault("Q02", "Q22")
async def test_a_stream_renamed_away_and_back_costs_nothing(bus: Bus, writer: Writer) -> None:
    """It is the same stream: what was appended under the other name comes, without a gap."""
    await writer.quotes("AAPL", 5)
    items = aiter(bus.quotes("AAPL", start="earliest"))
    await take(items, 5)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(take(items, 3))
        await blocked(writer.redis)
        await writer.redis.rename(KEYS.stream("AAPL"), "elsewhere")
        # Long enough for a look to find nothing there.
        await asyncio.sleep(1.5)
        assert not following.done()
        await writer.redis.rename("elsewhere", KEYS.stream("AAPL"))
        await writer.quotes("AAPL", 3)
    assert numbers(following.result()) == [5, 6, 7]


@pytest.mark.fault("Q02")
@pytest.mark.parametrize("offset_ns", [-(10**12), 10**12])
async def test_another_stream_renamed_into_the_place_is_told(
    bus: Bus, writer: Writer, offset_ns: int
) -> None:
    """With lower ids as with higher, which a plain XREAD would stall on, or follow without a word."""
    await writer.quotes("AAPL", 5)
    await writer.quotes("OTHER", 3, at=T0_NS + offset_ns)
    items = aiter(bus.quotes("AAPL", start="earliest"))
    await take(items, 5)
    await writer.redis.rename(KEYS.stream("OTHER"), KEYS.stream("AAPL"))
    await asyncio.sleep(0.3)
    found = await take(items, 4)
    assert isinstance(found[0], Gap)
    assert found[0].reason == "stream_recreated"
    assert numbers(found) == [0, 1, 2]


@pytest.mark.fault("Q01")
async def test_a_saved_position_that_was_trimmed_is_told(bus: Bus, writer: Writer) -> None:
    """A strategy that comes back too late learns it before the first quote."""
    await writer.quotes("AAPL", 500, maxlen=50)
    items = await take(aiter(bus.quotes("AAPL", start=writer.ids["AAPL"][10])), 2)
    assert isinstance(items[0], Gap)
    assert numbers(items) == [450]


async def test_a_saved_position_that_is_still_covered_has_no_gap(bus: Bus, writer: Writer) -> None:
    """Trimming of older entries is none of its business."""
    await writer.quotes("AAPL", 500, maxlen=50)
    items = await take(aiter(bus.quotes("AAPL", start=writer.ids["AAPL"][470])), 1)
    assert numbers(items) == [471]


@pytest.mark.fault("Q01")
async def test_a_stream_that_was_emptied_is_told_once(bus: Bus, writer: Writer) -> None:
    """With nothing left to read the gap comes all the same, and not again with the next quote."""
    await writer.quotes("AAPL", 10)
    stream = bus.quotes("AAPL", start=writer.ids["AAPL"][4])
    await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", 0)
    items = aiter(stream)
    assert isinstance((await take(items, 1))[0], Gap)
    await writer.quotes("AAPL")
    assert numbers(await take(items, 1)) == [10]


@pytest.mark.fault("Q02")
async def test_a_stream_begun_anew_with_smaller_ids_is_noticed(bus: Bus, writer: Writer) -> None:
    """A plain XREAD would wait for ever; here a gap comes, then the new stream from its start."""
    await writer.quotes("AAPL", 10)
    items = aiter(bus.quotes("AAPL", "BUSY", start={"AAPL": "earliest", "BUSY": "earliest"}))
    await take(items, 10)
    await writer.rewind("AAPL")
    await writer.quotes("AAPL", 3, at=T0_NS - 10**12)
    found = await take(items, 4)
    gap = found[0]
    assert isinstance(gap, Gap)
    assert gap.reason == "stream_recreated"
    assert numbers(found) == [10, 11, 12]
    await writer.quotes("AAPL", 1, at=T0_NS - 10**11)
    assert numbers(await take(items, 1)) == [13]


@pytest.mark.fault("Q02")
async def test_a_stream_begun_anew_is_noticed_beside_a_busy_one(bus: Bus, writer: Writer) -> None:
    """Silence is judged per symbol, not by the whole."""
    await writer.quotes("AAPL", 10)
    items = aiter(bus.quotes("AAPL", "BUSY", start="earliest"))
    await take(items, 10)
    await writer.rewind("AAPL")
    await writer.quotes("AAPL", 1, at=T0_NS - 10**12)

    over = asyncio.Event()

    async def keep_busy() -> None:
        # Not ended by cancellation: redis-py may swallow one until Python 3.12.
        while not over.is_set():
            await writer.quotes("BUSY", 1)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        group.create_task(keep_busy())
        async for item in items:
            if isinstance(item, Gap):
                assert (item.symbol, item.reason) == ("AAPL", "stream_recreated")
                break
        assert numbers([await anext(items) for _ in range(3)], "AAPL")[:1] in ([10], [])
        over.set()


async def test_a_stream_begun_anew_with_larger_ids_is_told(bus: Bus, writer: Writer) -> None:
    """What the old one may have held after the position is gone."""
    await writer.quotes("AAPL", 10)
    items = aiter(bus.quotes("AAPL", start="earliest"))
    await take(items, 10)
    await writer.rewind("AAPL")
    # Longer than an answer may be trusted, so that the next read looks first.
    await asyncio.sleep(0.3)
    await writer.quotes("AAPL", 2)
    found = await take(items, 3)
    assert isinstance(found[0], Gap)
    assert found[0].reason == "stream_recreated"
    assert numbers(found) == [10, 11]


async def test_a_key_that_is_no_stream_does_not_stop_the_others(
    bus: Bus, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, named in the log, and read once it has become a stream."""
    await writer.redis.set(KEYS.stream("BAD"), "x")
    items = aiter(bus.quotes("GOOD", "BAD", start="earliest"))
    await writer.quotes("GOOD", 3)
    assert numbers(await take(items, 3), "GOOD") == [0, 1, 2]
    assert "quotes:stream:BAD" in caplog.text
    await writer.redis.delete(KEYS.stream("BAD"))
    await writer.quotes("BAD", 2)
    assert numbers(await take(items, 2), "BAD") == [0, 1]


@pytest.mark.fault("Q04")
async def test_a_key_that_becomes_no_stream_while_waiting_is_survived(bus: Bus, writer: Writer) -> None:
    """The same, in the middle of a blocking read."""
    items = aiter(bus.quotes("GOOD", "BAD"))
    first = asyncio.create_task(take(items, 1))  # noqa: TID251
    await blocked(writer.redis)
    await writer.redis.set(KEYS.stream("BAD"), "x")
    await blocked(writer.redis)
    await writer.quotes("GOOD")
    assert numbers(await first) == [0]


async def test_a_stream_that_lost_its_tail_is_followed_without_a_repeat(bus: Bus, writer: Writer) -> None:
    """A server restarted from a truncated file has less than the reader: that comes neither twice nor as a gap."""
    await writer.quotes("AAPL", 100)
    items = aiter(bus.quotes("AAPL", start="earliest"))
    assert numbers(await take(items, 100)) == list(range(100))
    shorter = await writer.raw("DUMP", KEYS.stream("AAPL"))
    await writer.quotes("AAPL", 5)
    assert numbers(await take(items, 5)) == list(range(100, 105))
    await writer.raw("RESTORE", KEYS.stream("AAPL"), 0, shorter, "REPLACE")
    async with asyncio.TaskGroup() as group:
        following = group.create_task(take(items, 1))
        # Longer than a rewind must hold before it is believed.
        await asyncio.sleep(3 * REWIND_HOLDS_S)
        assert not following.done()
        await writer.quotes("AAPL", 1)
        assert numbers(await following) == [105]


@pytest.mark.fault("Q01", "Q09")
@pytest.mark.parametrize("is_resumed", [False, True])
async def test_a_position_within_what_a_failover_lost_is_told(
    bus: Bus, writer: Writer, is_resumed: bool
) -> None:
    """The daemon's marker stands before it, where the loss begins: only the reader itself can tell."""
    await writer.quotes("AAPL", 100)
    shorter = await writer.raw("DUMP", KEYS.stream("AAPL"))
    await writer.quotes("AAPL", 2_000)
    stream = bus.quotes("AAPL", start="earliest")
    assert numbers(await take(aiter(stream), 228))[-1] == 227
    await writer.raw("RESTORE", KEYS.stream("AAPL"), 0, shorter, "REPLACE")
    await writer.quotes("AAPL", 3)
    found = await take(aiter(bus.quotes("AAPL", start=stream.positions) if is_resumed else stream), 4)
    assert isinstance(found[0], Gap)
    assert (found[0].reason, found[0].from_ns) == (
        "redis_lost",
        EntryId.parse(writer.ids["AAPL"][227]).time_ns,
    )
    assert numbers(found) == [2100, 2101, 2102]


@pytest.mark.fault("Q01", "Q09")
async def test_a_failover_seen_before_the_daemon_goes_on_is_told_with_its_first_quote(
    bus: Bus, writer: Writer
) -> None:
    """The stream ends before the position then, and a reader that was away cannot know what it missed."""
    await writer.quotes("AAPL", 100)
    shorter = await writer.raw("DUMP", KEYS.stream("AAPL"))
    await writer.quotes("AAPL", 10)
    stream = bus.quotes("AAPL", start="earliest")
    assert numbers(await take(aiter(stream), 105))[-1] == 104
    await writer.raw("RESTORE", KEYS.stream("AAPL"), 0, shorter, "REPLACE")
    async with asyncio.TaskGroup() as group:
        following = group.create_task(take(aiter(stream), 2))
        await blocked(writer.redis)
        # Longer than a rewind must hold, and than a stream goes without a look.
        await asyncio.sleep(2 * REWIND_HOLDS_S)
        assert not following.done()
        await writer.quotes("AAPL", 1)
    gap = following.result()[0]
    assert isinstance(gap, Gap)
    assert gap.reason == "redis_lost"
    assert numbers(following.result()) == [110]


@pytest.mark.fault("Q01", "Q09")
@pytest.mark.parametrize("keep", [0, 1])
async def test_what_is_trimmed_while_a_strategy_thinks_is_told_without_a_wait(
    bus: Bus, writer: Writer, keep: int
) -> None:
    """However short its thought: no time must pass, and the number is known."""
    items = aiter(bus.quotes("AAPL", start="earliest"))
    await writer.quotes("AAPL", 3)
    assert numbers(await take(items, 3)) == [0, 1, 2]
    await writer.quotes("AAPL", 5)
    await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", keep)
    await writer.quotes("AAPL", 1)
    found = await take(items, 2)
    assert isinstance(found[0], Gap)
    assert (found[0].reason, found[0].missing) == ("trimmed", 5 - keep)


@pytest.mark.fault("Q01")
async def test_what_is_trimmed_when_all_was_read_is_no_gap(bus: Bus, writer: Writer) -> None:
    """The running numbers fit, although nothing stands at the position any more."""
    items = aiter(bus.quotes("AAPL", start="earliest"))
    await writer.quotes("AAPL", 3)
    assert numbers(await take(items, 3)) == [0, 1, 2]
    await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", 0)
    await writer.quotes("AAPL", 2)
    assert numbers(await take(items, 2)) == [3, 4]


@pytest.mark.fault("Q01", "Q09")
async def test_entries_deleted_by_hand_between_others_are_told(bus: Bus, writer: Writer) -> None:
    """At the next look at the stream, so behind the quotes that followed them, with their number and time."""
    await writer.quotes("AAPL", 3)
    items = aiter(bus.quotes("AAPL", start="earliest"))
    assert numbers(await take(items, 3)) == [0, 1, 2]
    await writer.quotes("AAPL", 5)
    await writer.raw("XDEL", KEYS.stream("AAPL"), *writer.ids["AAPL"][4:6])
    found = await take(items, 4)
    (gap,) = [item for item in found if isinstance(item, Gap)]
    assert (gap.reason, gap.missing) == ("trimmed", 2)
    assert gap.from_ns <= EntryId.parse(writer.ids["AAPL"][4]).time_ns
    assert gap.to_ns >= EntryId.parse(writer.ids["AAPL"][5]).time_ns
    assert set(numbers(found)) <= {3, 6, 7}


@pytest.mark.fault("Q01")
async def test_a_reader_that_began_where_nothing_was_is_told_of_what_went_before_it_read(
    bus: Bus, writer: Writer
) -> None:
    """Whatever comes has come since, so what is gone is a hole."""
    stream = bus.quotes("AAPL")
    assert await stream.get(timeout_s=0) is None
    await writer.quotes("AAPL", 5)
    await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", 1)
    gap = await stream.get(timeout_s=5)
    assert isinstance(gap, Gap)
    assert gap.missing == 4
    await stream.aclose()

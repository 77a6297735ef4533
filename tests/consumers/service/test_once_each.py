"""A callback of the service gets each quote once, whatever its streams follow, leave, pass over and begin again."""

import asyncio
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import MarketDataService, Quote
from consumers.service import ServiceStream
from consumers.service.book import OnceEach
from tests.consumers.conftest import KEYS, Writer, blocked
from tests.consumers.service.conftest import read, sizes, so, spawn
from wire import EntryId

STREAMS: Final = 3


def leave(stream: ServiceStream, way: str) -> None:
    """Follow AAPL no more, through the stream of the service or through the native one."""
    if way == "stream":
        stream.remove_symbols("AAPL")
    else:
        assert stream.source is not None
        stream.source.remove("AAPL")


def come_back(stream: ServiceStream, way: str, start: str) -> None:
    """Follow AAPL again."""
    if way == "stream":
        stream.add_symbols("AAPL", start=start)
    else:
        assert stream.source is not None
        stream.source.add("AAPL", start=start)


@pytest.mark.parametrize("way", ["stream", "source"])
@pytest.mark.parametrize("who", ["its own", "the service's"])
async def test_what_a_stream_did_not_follow_another_may_tell(
    service: MarketDataService, writer: Writer, way: str, who: str
) -> None:
    """Also where a callback left the symbol and came back to it further on, before the next quote."""
    await writer.quotes("AAPL", 15)
    told: list[int | float | None] = []
    own: list[int | float | None] = []
    jumper = service.stream_quotes("AAPL", lambda quote: own.append(quote.bid_size), start="earliest")

    def jump(quote: Quote) -> None:
        if quote.bid_size == 2 and 13 not in own:
            leave(jumper, way)
            come_back(jumper, way, writer.ids["AAPL"][12])

    if who == "its own":
        jumper.add_callback("AAPL", jump)
    service.add_callback("AAPL", lambda quote: told.append(quote.bid_size))
    if who == "the service's":
        service.add_callback("AAPL", jump)
    task = spawn(jumper.run())
    await so(lambda: own == [0, 1, 2, 13, 14] and told == own)
    assert sizes(await read(service.stream_quotes("AAPL", start="earliest"), 15)) == list(range(15))
    assert told == [0, 1, 2, 13, 14, *range(3, 13)]
    await jumper.aclose()
    await task


@pytest.mark.parametrize("way", ["stream", "source"])
async def test_what_was_written_while_nobody_followed_is_told_when_a_stream_catches_up(
    service: MarketDataService, writer: Writer, way: str
) -> None:
    """A stream left the symbol in its own callback, and much later follows it again from now."""
    told: list[int | float | None] = []
    service.add_callback("AAPL", lambda quote: told.append(quote.bid_size))
    await writer.quotes("AAPL", 3)
    left = service.stream_quotes("AAPL", start="earliest")
    left.add_callback("AAPL", lambda quote: leave(left, way) if quote.bid_size == 2 else None)
    task = spawn(left.run())
    await so(lambda: told == [0, 1, 2])
    await writer.quotes("AAPL", 10)
    come_back(left, way, "now")
    await so(lambda: "AAPL" in left.positions)
    await writer.quotes("AAPL", 2)
    await so(lambda: told == [0, 1, 2, 13, 14])
    await read(service.stream_quotes("AAPL", start="earliest"), 15)
    assert told == [0, 1, 2, 13, 14, *range(3, 13)]
    await left.aclose()
    await task


async def test_a_stream_begun_anew_is_told_once_though_one_reader_notices_long_after_another(
    service: MarketDataService, writer: Writer
) -> None:
    """Also by one that had brought nothing of the stream that was there before."""
    told: list[int | float | None] = []
    brought: list[int | float | None] = []
    waits, gate = asyncio.Event(), asyncio.Event()

    async def wait(_: Quote) -> None:
        waits.set()
        await gate.wait()

    service.add_callback("AAPL", lambda quote: told.append(quote.bid_size))
    await writer.quotes("AAPL", 5)
    late = service.stream_quotes(["AAPL", "MSFT"])
    late.add_callback("MSFT", wait)
    late.add_callback("AAPL", lambda quote: brought.append(quote.bid_size))
    other = service.stream_quotes("AAPL")
    tasks = [spawn(late.run()), spawn(other.run())]
    await blocked(writer.redis, 2)
    await writer.quotes("MSFT", 1)
    await waits.wait()
    await writer.redis.delete(KEYS.stream("AAPL"))
    for number in range(3):
        row = f'[1.0,{100 + number},"V",2.0,1,"V",null,"C",{5_000_000 + number},0]'
        await writer.raw("XADD", KEYS.stream("AAPL"), f"5-{number + 1}", "q", row)
    await so(lambda: told == [100, 101, 102])
    gate.set()
    await so(lambda: brought == [100, 101, 102])
    # A quote goes to the shared callback after its own, and the end waits for that.
    await asyncio.gather(late.aclose(), other.aclose(), *tasks)
    assert told == [100, 101, 102]


async def test_a_callback_that_is_cut_off_has_had_its_quote(
    service: MarketDataService, writer: Writer
) -> None:
    """Another stream does not call it for that one again: it may have acted already."""
    told: list[int | float | None] = []
    gate = asyncio.Event()

    async def waits(quote: Quote) -> None:
        told.append(quote.bid_size)
        await gate.wait()

    service.add_callback("AAPL", waits)
    await writer.quotes("AAPL", 3)
    task = spawn(service.stream_quotes("AAPL", start="earliest").run())
    await so(lambda: told == [0])
    task.cancel()
    await asyncio.wait([task])
    gate.set()
    await read(service.stream_quotes("AAPL", start="earliest"), 3)
    assert told == [0, 1, 2]


def test_an_entry_passes_once() -> None:
    """Whoever brings it: what nobody has brought is news, also when later ones have passed."""
    once = OnceEach()

    def passes(reader: str, *numbers: int) -> list[bool]:
        return [once.lets_pass(reader, "first", EntryId(number, 0)) for number in numbers]

    assert passes("live", 90, 91, 92) == [True, True, True]
    assert passes("late", 10, 11, 90, 91, 92, 93) == [True, True, False, False, False, True]
    assert passes("live", 93, 94) == [False, True]
    assert passes("third", 10, 11, 50, 94) == [False] * 4
    # Whoever passes something over says so, and another may bring it.
    assert passes("live", 95) == [True]
    once.skipped("live")
    assert passes("live", 99) == [True]
    assert passes("late", 94, 95, 97, 99) == [False, False, True, False]


def test_between_two_followings_nothing_has_passed() -> None:
    """Nobody needs to say that one has ended, nor when."""
    once = OnceEach()
    assert once.lets_pass("a", "first", EntryId(5, 0))
    assert once.lets_pass("a", "second", EntryId(16, 0))
    assert once.lets_pass("a", "second", EntryId(18, 0))
    assert once.lets_pass("b", "first", EntryId(6, 0))
    assert once.lets_pass("b", "first", EntryId(15, 0))
    assert not once.lets_pass("b", "first", EntryId(17, 0))


def test_a_stream_begun_anew_is_news_once() -> None:
    """For the reader that notices it, and for another that does not, each entry passes once all the same."""
    once = OnceEach()
    assert all(once.lets_pass(reader, 0, EntryId(9, 0)) is (reader == "a") for reader in "ab")
    once.begin_anew("a", 0)
    assert once.lets_pass("a", 0, EntryId(9, 0))
    assert once.lets_pass("a", 0, EntryId(20, 0))
    assert not once.lets_pass("b", 0, EntryId(20, 0))
    assert once.lets_pass("b", 0, EntryId(21, 0))
    assert not once.lets_pass("a", 0, EntryId(21, 0))
    once.begin_anew("b", 0)
    assert not once.lets_pass("b", 0, EntryId(9, 0))
    once.forget("a")
    assert not once.lets_pass("c", 0, EntryId(21, 0))


def test_from_the_end_of_one_stream_to_the_beginning_of_the_next_nothing_has_passed() -> None:
    """The new one may begin behind where the old one was left."""
    once = OnceEach()
    assert once.lets_pass("a", 0, EntryId(9, 0))
    once.begin_anew("a", 0)
    assert once.lets_pass("a", 0, EntryId(20, 0))
    assert once.lets_pass("b", 0, EntryId(15, 0))


def test_who_follows_anew_reads_the_stream_that_there_is() -> None:
    """A reader that left before it could notice is none of those who have yet to."""
    once = OnceEach()
    assert once.lets_pass("a", 0, EntryId(9, 0))
    once.begin_anew("b", 0)
    assert once.lets_pass("b", 0, EntryId(2, 0))
    assert once.lets_pass("a", 1, EntryId(9, 0))
    once.begin_anew("c", 0, [("a", 1), ("b", 0)])
    assert once.lets_pass("c", 0, EntryId(9, 0))


class Reader:
    """A stream of the service over one symbol, as far as `OnceEach` hears of it."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.following: int | None = None
        self.at = 0
        self.has_noticed = 0
        """Which of the streams that stood there in turn it reads."""


class World:
    """A stream whose entries are 1, 2, 3…, its readers, and what one callback was told."""

    def __init__(self) -> None:
        self.once = OnceEach()
        self.last = 0
        self.stream = 0
        self.names = 0
        self.told: set[tuple[int, int]] = set()
        self.readers = [self.another() for _ in range(STREAMS)]
        for reader in self.readers:
            self.follow(reader, 0)

    def another(self) -> Reader:
        self.names += 1
        return Reader(self.names)

    def follow(self, reader: Reader, start: int) -> None:
        self.names += 1
        reader.following, reader.at, reader.has_noticed = self.names, start, self.stream

    def notice(self, reader: Reader) -> None:
        """As a reader does before it hands out anything of a stream that was replaced."""
        if reader.following is not None and reader.has_noticed != self.stream:
            others = [(r.name, r.following) for r in self.readers if r is not reader and r.following]
            self.once.begin_anew(reader.name, reader.following, others)
            reader.at, reader.has_noticed = 0, self.stream

    def bring(self, reader: Reader, *, jump_to: int | None = None) -> None:
        """Hand out the next entry; with `jump_to` a callback leaves the symbol and follows it again from there."""
        self.notice(reader)
        following = reader.following
        if following is None or reader.at >= self.last:
            return
        reader.at += 1
        entry = reader.at
        if jump_to is not None:
            self.follow(reader, min(jump_to, self.last))
        is_new = (self.stream, entry) not in self.told
        assert self.once.lets_pass(reader.name, following, EntryId(entry, 0)) is is_new
        self.told.add((self.stream, entry))

    def replace(self, by: Reader) -> None:
        """Another stream stands there now; one reader notices at once, the others with what they bring next."""
        if by.following is not None and by.has_noticed == self.stream:
            self.stream += 1
            self.last = 0
            self.notice(by)


DEEDS: Final = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "follow", "leave", "bring", "bring", "bring", "jump", "skip", "close", "replace"]
        ),
        st.integers(0, STREAMS - 1),
        st.integers(0, 12),
    ),
    min_size=5,
    max_size=50,
)


@settings(max_examples=300)
@given(DEEDS)
def test_whatever_streams_do_each_quote_that_any_of_them_brings_is_told_exactly_once(
    deeds: list[tuple[str, int, int]],
) -> None:
    """They follow from anywhere, leave, jump within a callback, pass over, end, and find the stream replaced."""
    world = World()
    world.last = 40
    for deed, which, number in deeds:
        reader = world.readers[which]
        match deed:
            case "write":
                world.last += number
            case "follow" if reader.following is None:
                world.follow(reader, min(number * 2, world.last))
            case "leave":
                reader.following = None
            case "bring":
                for _ in range(1 + number % 3):
                    world.bring(reader)
            case "jump":
                world.bring(reader, jump_to=reader.at + number)
            case "skip" if reader.has_noticed == world.stream:
                world.once.skipped(reader.name)
                reader.at = min(reader.at + number, world.last)
            case "close":
                world.once.forget(reader.name)
                world.readers[which] = world.another()
                world.follow(world.readers[which], number)
            case "replace":
                world.replace(reader)
            case _:
                pass
    # Whatever nobody has brought is told to one that catches up, and nothing else.
    late = world.another()
    world.follow(late, 0)
    while late.at < world.last:
        world.bring(late)


def test_what_has_passed_is_bounded_and_rather_told_twice_than_not_at_all() -> None:
    """Of stretches without end the earliest are forgotten."""
    once = OnceEach()
    for number in range(1_000):
        assert once.lets_pass("a", number, EntryId(10 * number, 0))
    assert not once.lets_pass("b", 0, EntryId(9_990, 0))
    assert once.lets_pass("b", 0, EntryId(5, 0))
    assert once.lets_pass("c", 0, EntryId(0, 0))

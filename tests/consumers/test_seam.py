"""History joined from REST and stream: each quote once, none missing, whatever is trimmed and when."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import Bus, Gap, Quote
from consumers.reading import history as history_module
from consumers.reading.history import History
from consumers.reading.seam import MEMORY, Seam, Stretch
from consumers.rest import AlpacaRest
from simulator import AlpacaSimulator, SimQuote
from tests.consumers.conftest import KEYS, Writer
from wire import QUOTE_FIELD, ZERO_ID, EntryId, encode_quote, place

BASE_NS = 1_763_000_000_000_000_000


def quote(time_ns: int, number: int, entry_id: str | None = None) -> Quote:
    """A quote whose content is a number."""
    return Quote("AAPL", entry_id, 1.0, number, "V", 2.0, 1, "V", ("R",), "C", time_ns, None)


class Memory:
    """A stream that is trimmed while it is read, and a REST service that knows everything."""

    def __init__(self, truth: list[tuple[int, int]], cuts: list[int]) -> None:
        self.rest = sorted((quote(time_ns, number) for time_ns, number in truth), key=lambda q: q.time_ns)
        self.entries: list[tuple[EntryId, Quote]] = []
        self.asked: list[Stretch] = []
        last = ZERO_ID
        for time_ns, number in truth:
            last, _ = place(time_ns, last, BASE_NS * 2)
            self.entries.append((last, quote(time_ns, number)))
        self.cuts = cuts
        self.cut()

    def cut(self) -> None:
        """Trim as much as the next cut says."""
        if self.cuts:
            del self.entries[: self.cuts.pop(0)]

    async def ask(self, page: Any, *ends: Any) -> list[Any]:
        """A page and then the ends of the stream, between which it may be trimmed."""
        if page[0] == "XREVRANGE":
            return [[]]  # No marker stands before the start.
        _, _, low, high, _, count = page
        after = low.startswith("(")
        start = EntryId.parse(low.lstrip("("))
        end = None if high == "+" else EntryId.parse(high)
        found = [
            (str(entry_id).encode(), [b"q", encode_quote(row(item))])
            for entry_id, item in self.entries
            if (entry_id > start if after else entry_id >= start) and (end is None or entry_id <= end)
        ]
        self.cut()
        at = {"XRANGE": 0, "XREVRANGE": -1}
        there: list[Any] = [
            [(str(self.entries[at[name]][0]).encode(), [])] if self.entries else [] for name, *_ in ends
        ]
        return [found[:count], *there]

    async def quotes(self, symbol: str, start: int, end: int) -> AsyncGenerator[Quote, None]:
        """REST's part; the stream goes on being trimmed meanwhile."""
        self.asked.append(Stretch(start, end))
        self.cut()
        for item in self.rest:
            if start <= item.time_ns < end:
                yield item


def row(q: Quote) -> Any:
    """The array of a stream entry."""
    return (
        *(q.bid_price, q.bid_size, q.bid_exchange, q.ask_price, q.ask_size, q.ask_exchange),
        *(list(q.conditions or ()), q.tape, q.time_ns, 5),
    )


steps = st.lists(
    st.sampled_from([0, 0, 1, 999, 1_000_000, 3_000_000_000, -1, -500_000]), min_size=1, max_size=60
)


@settings(max_examples=400, deadline=None)
@given(
    steps=steps,
    cuts=st.lists(st.integers(0, 25), max_size=8),
    page=st.integers(1, 20),
    start=st.integers(0, 12),
    end=st.none() | st.integers(0, 70),
)
def test_the_joined_history_has_each_quote_once(
    steps: list[int], cuts: list[int], page: int, start: int, end: int | None
) -> None:
    """Ties, disorder and trimming at any moment neither lose a quote nor bring one twice."""
    times = [BASE_NS]
    for step in steps:
        times.append(times[-1] + step)
    truth = [(time_ns, number) for number, time_ns in enumerate(times)]
    memory = Memory(truth, cuts)
    start_ns = min(times) if start >= len(times) else min(times[start:])
    end_ns = None if end is None else max(start_ns + 1, times[min(end, len(times) - 1)])

    async def read() -> list[Quote | Gap]:
        past = History(memory.ask, "AAPL", "key", start_ns, end_ns, memory)
        return [item async for item in past.items()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_module, "PAGE", page)
        with asyncio.Runner() as runner:
            found = runner.run(read())
    # By id the stream knows only when a quote came: what is dated before the start or after the end, and came
    # within the range, is its own business.
    numbers = [item.bid_size for item in found if isinstance(item, Quote)]
    assert len(numbers) == len(found)
    assert len(set(numbers)) == len(numbers)
    expected = {n for time_ns, n in truth if start_ns <= time_ns and (end_ns is None or time_ns < end_ns)}
    late = {n for time_ns, n in truth if n and time_ns < max(times[:n])}
    assert expected - late <= set(numbers)
    if end_ns is None:
        assert expected <= set(numbers)


@pytest.mark.fault("Q30")
@pytest.mark.parametrize("end", [None, 900])
@pytest.mark.parametrize("pace", [1, 3, 50])
def test_a_stream_that_is_trimmed_faster_than_rest_answers_costs_a_call_a_page(
    pace: int, end: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast: what one look has brought is handed out, whatever has gone meanwhile; nothing is missing."""
    page = 100
    monkeypatch.setattr(history_module, "PAGE", page)
    truth = [(BASE_NS + number * 1_000_000, number) for number in range(1_000)]
    memory = Memory(truth, [pace] * 10_000)
    end_ns = None if end is None else BASE_NS + end * 1_000_000

    async def read() -> list[Quote | Gap]:
        past = History(memory.ask, "AAPL", "key", BASE_NS, end_ns, memory)
        return [item async for item in past.items()]

    with asyncio.Runner() as runner:
        found = runner.run(read())
    assert [item.bid_size for item in found if isinstance(item, Quote)] == list(range(end or 1_000))
    assert len(memory.asked) <= len(truth) / page + 1


@given(st.lists(st.integers(0, 30), max_size=30))
def test_rest_is_asked_for_no_moment_twice_while_nothing_is_read(firsts: list[int]) -> None:
    """However often the first entry moves before the stream is reached."""
    seam = Seam(BASE_NS, None)
    asked: list[Stretch] = []
    for first in sorted(firsts):
        stretch = seam.lacking(None, EntryId((BASE_NS + first * 1_000_000) // 1_000_000, 0), 0)
        if stretch is not None:
            asked.append(stretch)
            seam.filled(stretch)
    assert all(one.end_ns == two.start_ns for one, two in pairwise(asked))


def test_memory_is_bounded() -> None:
    """What was handed out long ago is forgotten, and then not asked for again."""
    seam = Seam(BASE_NS, None)
    for number in range(MEMORY + 500):
        assert seam.lets_pass(quote(BASE_NS + number, number), is_rest=False)
    assert len(seam._known) == len(seam._order) == MEMORY
    seam.passed(EntryId(BASE_NS // 1_000_000, 1_000 * (MEMORY + 500)))
    stretch = seam.lacking(None, EntryId(BASE_NS // 1_000_000 + 5, 0), 0)
    assert stretch is not None
    assert stretch.start_ns == BASE_NS + 501


def test_equal_quotes_behind_the_seam_are_two() -> None:
    """The stream says so, and REST has no word there."""
    seam = Seam(BASE_NS, None)
    assert seam.lets_pass(quote(BASE_NS, 1), is_rest=False)
    assert seam.lets_pass(quote(BASE_NS, 1), is_rest=False)
    assert not seam.lets_pass(quote(BASE_NS, 1), is_rest=True)


# --- real Redis, real REST client, the double of Alpaca ---------------------------------------------------------


@pytest.fixture
async def alpaca() -> AsyncIterator[AlpacaSimulator]:
    """A double of Alpaca that answers REST."""
    async with AlpacaSimulator() as sim:
        yield sim


@pytest.fixture
async def rest(alpaca: AlpacaSimulator) -> AsyncIterator[AlpacaRest]:
    """Its client."""
    async with AlpacaRest("key", "secret", data_url=alpaca.rest_url, trading_url=alpaca.rest_url) as client:
        yield client


async def store(writer: Writer, quotes: list[SimQuote], *, keep: int | None = None) -> None:
    """Append what the vendor sent to its stream as the daemon does, and trim to the newest so many."""
    last = ZERO_ID
    for sent in quotes:
        last, _ = place(sent.t_ns, last, sent.t_ns)
        cells = (
            sent.bid_price,
            sent.bid_size,
            sent.bid_exchange,
            sent.ask_price,
            sent.ask_size,
            sent.ask_exchange,
        )
        value = encode_quote((*cells, list(sent.conditions), sent.tape, sent.t_ns, 100))
        await writer.raw("XADD", KEYS.stream("AAPL"), str(last), QUOTE_FIELD, value)
    if keep is not None:
        await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", keep)


def told(quotes: int, *, start_ns: int = BASE_NS) -> list[SimQuote]:
    """So many quotes of the vendor, ties among them."""
    return [
        SimQuote(
            "AAPL",
            start_ns + n // 3 * 1_000_007,
            100 + n / 100,
            n + 1,
            101 + n / 100,
            2,
            "V",
            "Q",
            ("R",),
            "C",
        )
        for n in range(quotes)
    ]


def bare(item: Quote | Gap) -> Quote:
    """A quote without what only one of the sources knows."""
    assert isinstance(item, Quote)
    return msgspec.structs.replace(item, id=None, receive_delay_us=None)


async def test_history_is_joined_with_rest_at_a_tie(
    bus: Bus, writer: Writer, alpaca: AlpacaSimulator, rest: AlpacaRest
) -> None:
    """The stream begins in the middle of three quotes of one nanosecond; all is there once, oldest first."""
    sent = told(300)
    alpaca.send(sent)
    await store(writer, sent, keep=100)
    alone = [item async for item in bus.history("AAPL", BASE_NS)]
    assert len(alone) == 100
    joined = [item async for item in bus.history("AAPL", BASE_NS, rest=rest)]
    assert [bare(item).bid_size for item in joined] == [n + 1 for n in range(300)]
    assert [item.id is None for item in joined] == [True] * 201 + [False] * 99
    direct = [item async for item in rest.quotes("AAPL", BASE_NS)]
    assert [bare(item) for item in joined] == [bare(item) for item in direct]


async def test_history_needs_no_rest_where_the_stream_reaches(
    bus: Bus, writer: Writer, alpaca: AlpacaSimulator, rest: AlpacaRest
) -> None:
    """Not one call."""
    sent = told(90)
    await store(writer, sent)
    start_ns = sent[30].t_ns
    joined = [item async for item in bus.history("AAPL", start_ns, sent[60].t_ns, rest=rest)]
    assert [bare(item).bid_size for item in joined] == [n + 1 for n in range(30, 60)]
    assert rest.calls == 0


async def test_history_without_a_stream_is_rest_alone(
    bus: Bus, writer: Writer, alpaca: AlpacaSimulator, rest: AlpacaRest
) -> None:
    """Up to the end, or up to now."""
    alpaca.send(told(30))
    for end in (None, BASE_NS + 1_000_000_000):
        joined = [item async for item in bus.history("AAPL", BASE_NS, end, rest=rest)]
        assert [bare(item).bid_size for item in joined] == [n + 1 for n in range(30)]


@pytest.mark.fault("Q30")
async def test_history_trimmed_while_it_is_read(
    bus: Bus, writer: Writer, alpaca: AlpacaSimulator, rest: AlpacaRest
) -> None:
    """With REST nothing is missing; without it, the hole is told."""
    sent = told(6_000)
    alpaca.send(sent)
    for client in (rest, None):
        await writer.redis.delete(KEYS.stream("AAPL"))
        await store(writer, sent)
        found: list[Quote | Gap] = []
        async for item in bus.history("AAPL", BASE_NS, rest=client):
            found.append(item)
            if len(found) == 10:
                await writer.raw("XTRIM", KEYS.stream("AAPL"), "MAXLEN", 1_500)
        numbers = [item.bid_size for item in found if isinstance(item, Quote)]
        gaps = [item.reason for item in found if isinstance(item, Gap)]
        if client is None:
            assert gaps == ["trimmed"]
            assert numbers == [*range(1, 1_001), *range(4_501, 6_001)]
        else:
            assert gaps == []
            assert numbers == list(range(1, 6_001))


async def test_history_keeps_the_gaps_that_the_stream_tells(
    bus: Bus, writer: Writer, alpaca: AlpacaSimulator, rest: AlpacaRest
) -> None:
    """What a marker says is missing stays missing."""
    await writer.quotes("AAPL", 2)
    await writer.gap("AAPL", "feed_disconnected")
    await writer.quotes("AAPL", 2)
    joined = [item async for item in bus.history("AAPL", BASE_NS, rest=rest)]
    assert [type(item).__name__ for item in joined] == ["Quote", "Quote", "Gap", "Quote", "Quote"]

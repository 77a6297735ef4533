"""Entries that go in the moment between a worker's answer and its next read, which is too short for a look."""

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import Bus, Delivery, Gap, GroupStream
from consumers.groups import membership
from consumers.groups.standing import GroupFacts, Tally, passed_over, take_tally
from consumers.reading.gaps import StreamFacts
from tests.consumers.conftest import KEYS, Writer
from tests.consumers.groups.test_heal import gaps
from tests.consumers.groups.test_work import numbers
from wire import EntryId

STREAM = KEYS.stream("AAPL")


@pytest.fixture(autouse=True)
def _always_in_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment is as long as a test likes."""
    monkeypatch.setattr(membership, "trust_s", lambda _: 60.0)


async def burst(writer: Writer, count: int, kept: int) -> None:
    """So many quotes, of which so many are left, before anybody can read."""
    await writer.quotes("AAPL", count)
    await writer.redis.xtrim(STREAM, maxlen=kept, approximate=False)


async def got(stream: GroupStream, for_s: float) -> list[Delivery]:
    """What comes within so many seconds, acknowledged, in one loop that never ends."""
    found: list[Delivery] = []
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        delivery = await stream.get(timeout_s=0.1)
        if delivery is not None:
            await stream.ack(delivery)
            found.append(delivery)
    return found


@pytest.mark.parametrize("before", [0, 3])
async def test_what_was_trimmed_before_the_next_read_is_told_with_how_many(
    bus: Bus, writer: Writer, before: int
) -> None:
    """Late, by the next look, and once; to who is alone in the group."""
    await writer.quotes("AAPL", 3)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=2)
    found = await got(stream, 0.5)
    await writer.quotes("AAPL", before)
    found += await got(stream, 0.2 if before else 0)
    await burst(writer, 20, 10)
    found += await got(stream, 3.0)
    await writer.quotes("AAPL", 2)
    found += await got(stream, 3.0)
    (gap,) = gaps(found)
    assert (gap.reason, gap.missing) == ("trimmed", 10)
    ids = [EntryId.parse(entry_id) for entry_id in writer.ids["AAPL"]]
    assert gap.from_ns <= ids[3 + before].time_ns
    assert gap.to_ns >= ids[12 + before].time_ns
    assert numbers(found) == [*range(3 + before), *range(13 + before, 25 + before)]
    await stream.aclose()


async def test_a_worker_that_keeps_up_with_a_short_stream_is_told_nothing(bus: Bus, writer: Writer) -> None:
    """Though it turns over completely between two looks."""
    await writer.quotes("AAPL", 3)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=2)
    found = await got(stream, 0.3)
    for _ in range(20):
        await writer.quotes("AAPL", 4)
        found += await got(stream, 0.15)
        await writer.redis.xtrim(STREAM, maxlen=1, approximate=False)
    found += await got(stream, 3.0)
    assert gaps(found) == []
    assert len(numbers(found)) == 83
    await stream.aclose()


def test_with_several_workers_nobody_knows_how_many_the_others_were_given() -> None:
    """So what each was given says nothing."""
    stream = StreamFacts(first=entry(14), last=entry(23), length=10, added=23)
    alone, beside = (Tally(entry(3), 0, 3, 3, members) for members in (1, 2))
    gap = passed_over("AAPL", GroupFacts(entry(23), 1, 23), stream, alone, 10)
    assert gap is not None
    assert (gap.missing, gap.from_ns, gap.to_ns) == (10, entry(3).time_ns, entry(14).time_ns)
    assert passed_over("AAPL", GroupFacts(entry(23), 2, 23), stream, alone, 10) is None
    assert passed_over("AAPL", GroupFacts(entry(23), 1, 23), stream, beside, 10) is None
    deleted = replace(stream, deleted=entry(5))
    assert passed_over("AAPL", GroupFacts(entry(23), 1, 23), deleted, alone, 10) is None


class Model:
    """One stream with one group, as Redis counts."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.added = self.last = self.given = 0
        self.lost: list[int] = []
        self.tally: Tally | None = None

    def facts(self) -> tuple[GroupFacts, StreamFacts]:
        """What a look brings."""
        first = entry(self.held[0]) if self.held else None
        stream = StreamFacts(length=len(self.held), added=self.added, first=first, last=entry(self.added))
        return GroupFacts(entry(self.last), 1, None), stream

    def trim(self, kept: int) -> None:
        """The oldest go."""
        gone = self.held[: max(0, len(self.held) - kept)]
        del self.held[: len(gone)]
        self.lost += [number for number in gone if number > self.last]

    def read(self) -> None:
        """All that is there is given to the one worker."""
        new = [number for number in self.held if number > self.last]
        self.given += len(new)
        self.last = max([self.last, *new])

    def look(self) -> Gap | None:
        """What it tells; and the next tally, if the number can be told."""
        group, stream = self.facts()
        gap = passed_over("AAPL", group, stream, self.tally, self.given)
        if (tally := take_tally(group, stream)) is not None:
            self.tally, self.given = tally, 0
        return gap


def entry(number: int) -> EntryId:
    """The id of the entry with this running number."""
    return EntryId(1_000 + number, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 9), st.booleans()), max_size=40))
@settings(max_examples=300)
def test_of_one_worker_all_that_was_passed_over_is_told_and_nothing_else(
    steps: list[tuple[int, int | None, bool]],
) -> None:
    """Exactly how many, whenever it is looked, for as long as it catches up between."""
    model = Model()
    model.look()
    for count, kept, looks in steps:
        model.held += range(model.added + 1, model.added + 1 + count)
        model.added += count
        if kept is not None:
            model.trim(kept)
        model.read()
        if looks and model.held and model.last == model.added:
            lost, model.lost = model.lost, []
            gap = model.look()
            assert (0 if gap is None else gap.missing) == len(lost)

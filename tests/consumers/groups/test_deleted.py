"""Entries that somebody deletes by hand from within a stream, before the group was given them or after."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumers import Bus, Delivery, EntryId, Gap
from consumers.groups.inherit import reborn, renamed, together
from consumers.groups.ledger import Ledger
from consumers.groups.record import Record, decode_record, encode_record
from consumers.groups.standing import GroupFacts, Loss, deleted_behind, lost, stand, take_tally, trimmed
from consumers.groups.track import Track
from consumers.reading.gaps import Anchor, StreamFacts
from consumers.reading.start import Place
from tests.consumers.conftest import KEYS, Writer
from tests.consumers.groups.test_heal import gaps
from tests.consumers.groups.test_work import deliver, numbers
from wire import ZERO_ID, Keyspace

STREAM = KEYS.stream("AAPL")


def encloses(gap: Gap, writer: Writer, which: range) -> bool:
    """Whether all these entries lie within it."""
    times = [EntryId.parse(writer.ids["AAPL"][number]).time_ns for number in which]
    return gap.from_ns <= min(times) and max(times) <= gap.to_ns


async def known(redis: Redis) -> str | None:
    """Up to where the record knows of deletions."""
    _, record = decode_record(await redis.zrange(KEYS.group("g", "AAPL"), 0, 0))
    return None if record is None else record.deleted


async def test_unread_entries_deleted_from_the_middle_are_told(bus: Bus, writer: Writer) -> None:
    """XREADGROUP alone would go on behind them in silence; they are told once, and what is left comes."""
    await writer.quotes("AAPL", 20)
    stream = bus.group("g", "AAPL", start="earliest", prefetch=1)
    found = await deliver(stream, 5)
    await writer.raw("XDEL", STREAM, *writer.ids["AAPL"][10:15])
    found += await deliver(stream, 11)
    await writer.quotes("AAPL", 3)
    found += await deliver(stream, 3)
    (gap,) = gaps(found)
    assert (gap.reason, gap.missing) == ("trimmed", None)
    assert encloses(gap, writer, range(10, 15))
    assert numbers(found) == [*range(10), *range(15, 23)]


async def test_unread_entries_deleted_behind_trimmed_ones_are_told_too(bus: Bus, writer: Writer) -> None:
    """One gap over both; how many are gone between the two is not known for long."""
    await writer.quotes("AAPL", 30)
    stream = bus.group("g", "AAPL", start="earliest", prefetch=1)
    found = await deliver(stream, 5)
    await writer.raw("XTRIM", STREAM, "MINID", writer.ids["AAPL"][12])
    await writer.raw("XDEL", STREAM, *writer.ids["AAPL"][16:18])
    found += await deliver(stream, 17)
    (gap,) = gaps(found)
    assert gap.missing is None
    assert encloses(gap, writer, range(5, 18))
    assert numbers(found) == [*range(5), *range(12, 16), *range(18, 30)]


async def test_entries_deleted_while_nobody_works_are_told_to_who_comes_next(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """The record knows what had been deleted before; the second to come is told nothing."""
    await writer.quotes("AAPL", 10)
    async with bus.group("g", "AAPL", start="earliest", consumer="a") as first:
        await deliver(first, 10)
    await writer.quotes("AAPL", 10)
    await writer.raw("XDEL", STREAM, writer.ids["AAPL"][15])
    async with bus.group("g", "AAPL", consumer="b", prefetch=1) as second:
        found = await deliver(second, 5)
    (gap,) = gaps(found)
    assert encloses(gap, writer, range(15, 16))
    assert await known(redis) == writer.ids["AAPL"][15]
    async with bus.group("g", "AAPL", consumer="c", prefetch=1) as third:
        assert gaps(await deliver(third, 5)) == []


async def test_of_several_workers_one_is_told(bus: Bus, writer: Writer) -> None:
    """Whoever writes it down first, however many have seen it."""
    await writer.quotes("AAPL", 200)
    workers = [bus.group("g", "AAPL", start="earliest", consumer=name, prefetch=2) for name in "abc"]
    for worker in workers:
        await deliver(worker, 2)
    await writer.raw("XDEL", STREAM, *writer.ids["AAPL"][100:110])
    found: list[Delivery] = []

    async def work(worker: Any) -> None:
        while len(found) < 185:
            delivery = await worker.get(timeout_s=0.2)
            if delivery is not None:
                found.append(delivery)
                await worker.ack(delivery)

    async with asyncio.timeout(30):
        await asyncio.gather(*map(work, workers))
    (gap,) = gaps(found)
    assert encloses(gap, writer, range(100, 110))
    for worker in workers:
        await worker.aclose()


async def test_who_deletes_what_is_handled_is_told_nothing(bus: Bus, writer: Writer) -> None:
    """As a strategy does that uses the stream as a queue, however far it is behind, and when it is restarted."""
    await writer.quotes("AAPL", 60)
    found: list[Delivery] = []
    for name, prefetch in (("a", 1), ("b", 7), ("b", 500)):
        async with bus.group(
            "g", "AAPL", start="earliest", consumer=name, prefetch=prefetch, claim_after_s=0.3
        ) as at:
            for _ in range(20):
                found += await deliver(at, 1)
                if len(found) > 1:
                    await writer.raw("XDEL", STREAM, str(found[-1].id))
    assert (gaps(found), numbers(found)) == ([], list(range(60)))


async def test_what_was_deleted_before_there_was_a_group_is_not_its_loss(bus: Bus, writer: Writer) -> None:
    """A group that begins at the start of the stream begins with what is there."""
    await writer.quotes("AAPL", 10)
    await writer.raw("XDEL", STREAM, *writer.ids["AAPL"][4:6])
    found = await deliver(bus.group("g", "AAPL", start="earliest", prefetch=1), 8)
    assert (gaps(found), numbers(found)) == ([], [0, 1, 2, 3, 6, 7, 8, 9])


@pytest.mark.parametrize("how", ["destroyed", "made further on"])
async def test_entries_deleted_while_the_group_is_gone_are_told(bus: Bus, writer: Writer, how: str) -> None:
    """Made anew by its workers, or by another hand behind what was deleted."""
    await writer.quotes("AAPL", 10)
    async with bus.group("g", "AAPL", start="earliest") as first:
        await deliver(first, 10)
    await writer.quotes("AAPL", 10)
    await writer.raw("XDEL", STREAM, *writer.ids["AAPL"][13:15])
    await writer.raw("XGROUP", "DESTROY", STREAM, "g")
    if how == "made further on":
        await writer.raw("XGROUP", "CREATE", STREAM, "g", writer.ids["AAPL"][18])
    found = await deliver(bus.group("g", "AAPL"), 9)
    (gap,) = gaps(found)
    assert encloses(gap, writer, range(13, 15))
    assert set(numbers(found)) == set(range(10, 20)) - {13, 14}


# The rules, with plain calls.


def at(number: int) -> EntryId:
    """An entry id by its number."""
    return EntryId(number, 0)


DEEDS = st.lists(st.sampled_from(["add", "add", "add", "read", "trim", "round", "shed", "cut"]), max_size=80)


@settings(max_examples=400)
@given(DEEDS, st.randoms(use_true_random=False))
def test_what_is_deleted_is_told_exactly_when_it_was_unread(deeds: list[str], chance: Any) -> None:
    """With a look before each read: all unread entries that went lie in gaps, and no gap is told for others."""
    entries = [2]
    last = read = 2
    added, deleted = 1, 0
    unread: set[int] = set()
    told: list[tuple[int, int]] = []
    record = Record("1", "0-0", "0-0", "0-0", deleted="0-0")
    tally = None
    for deed in [*deeds, "read"]:
        ahead, behind = [e for e in entries if e > read], [e for e in entries if e <= read]
        group = GroupFacts(at(read), 1, None)
        facts = StreamFacts(at(entries[0]) if entries else None, at(last), len(entries), added, at(deleted))
        match deed:
            case "add":
                last, added = last + 2, added + 1
                entries.append(last)
            case "trim" if entries:
                unread.update({entries.pop(0)} & set(ahead))
            case "cut" | "shed" if ahead if deed == "cut" else behind:
                gone = chance.choice(ahead if deed == "cut" else behind)
                entries.remove(gone)
                deleted = max(deleted, gone)
                unread.update({gone} & set(ahead))
            case "round":
                record = record.seeing(facts.deleted, group.last)
            case "read":
                gap = trimmed("A", group, facts, tally)
                loss = lost("A", group, facts, gap, deleted_behind(group.last, facts, record.deleted_to))
                tally = None if loss else take_tally(group, facts) or tally
                for each in (loss.trimmed, loss.deleted) if loss else ():
                    if loss and each is not None:
                        told.append((each.from_ns // 1_000_000, each.to_ns // 1_000_000))
                        # Of what was only trimmed nobody can always say whether it had been read.
                        assert not loss.upto or any(told[-1][0] < e <= told[-1][1] for e in unread)
                if loss and loss.upto:
                    record = record.knowing(loss.upto)
                assert all(any(since < e <= to for since, to in told) for e in unread)
                read = ahead[0] if ahead else read


def test_a_deletion_that_another_worker_has_written_down_is_not_told_again() -> None:
    """This worker had seen it, too, and finds the other's record in the place of its own."""
    ledger = Ledger(Keyspace(), "g", "me", 30)
    track = Track("A", b"quotes:stream:A", Place(ZERO_ID, Anchor.CHOSEN), joined=True)
    track.memory = Record("1", "0-0", "5-0", "5-0", deleted="0-0")
    track.raw, track.written_at = encode_record(track.memory), 0.0
    facts = StreamFacts(at(1), at(20), 19, 20, at(9))
    ledger.lose(track, lost("A", GroupFacts(at(5), 2, None), facts, None, at(9)) or Loss(None, None, None))
    due, _ = ledger.due([track], 0.0)
    assert [debt.upto for debt in due[0][1].debts] == ["9-0"]
    other = Record("1", "0-0", "6-0", "6-0", deleted="9-0")
    assert ledger.digest(due, [encode_record(other)], 0.0) == []
    assert ledger.due([track], 0.0) == ([], [])
    assert (track.memory, track.urgent) == (other, False)


def test_what_is_deleted_behind_a_gap_that_was_told_is_told_by_itself() -> None:
    """The group stands where it stood, and the entry that was the first one then is gone, too."""
    group, facts = GroupFacts(at(5), 1, None), StreamFacts(at(30), at(60), 5, 60, at(20))
    gap = trimmed("A", group, facts, None)
    for told, missing in ((gap, "trimmed"), (None, "deleted")):
        loss = lost("A", group, facts, told, at(20))
        assert loss is not None
        found = getattr(loss, missing)
        assert (found.from_ns, found.to_ns, loss.upto) == (at(5).time_ns, at(30).time_ns, at(20))
    assert lost("A", group, facts, None, None) is None


RECORD = Record("1", "0-0", "10-0", "10-0", seen=True, first="1-0", deleted="4-0")
FACTS = StreamFacts(at(1), at(60), 50, 60, at(20))


def test_who_remembers_a_group_owes_what_was_deleted_from_what_was_skipped() -> None:
    """Nobody can fetch it any more; what had been deleted before is no news."""
    for deleted, reasons in (("4-0", ["trimmed", None]), ("20-0", [None]), (None, [None])):
        memory = RECORD.knowing(None if deleted is None else EntryId.parse(deleted))
        begun = Record("2", "50-0", "60-0", "60-0", deleted="20-0")
        merged = together("A", begun, memory, FACTS, "me")
        assert merged is not None
        assert [debt.reason for debt in merged.debts] == reasons
        group = GroupFacts(at(50), 1, None)
        now = stand(group, FACTS, None)
        kept = renamed("A", memory, memory.standing, group, FACTS, now, set(), "3", "me")
        assert [debt.reason for debt in kept.debts] == reasons


def test_another_stream_is_told_up_to_what_it_has_lost_itself() -> None:
    """From then on only what is deleted later is news; a smaller id of a copy that was put back is none."""
    facts = StreamFacts(at(30), at(60), 5, 5, at(40))
    heir = reborn("A", RECORD, RECORD.standing, facts, [], "2", "me").record
    assert [(debt.reason, debt.upto) for debt in heir.debts] == [("stream_recreated", "40-0")]
    assert heir.deleted_to == at(40)
    assert RECORD.seeing(at(2), at(1)).deleted_to == at(2)
    assert RECORD.seeing(at(20), at(19)) is RECORD


async def test_each_emptying_behind_the_same_place_is_told(bus: Bus, writer: Writer) -> None:
    """The place of the group does not move where nothing is left to be read, and yet more may come and go."""
    await writer.quotes("AAPL", 1)
    stream = bus.group("g", "AAPL", start="earliest")
    found = await deliver(stream, 1)
    for kept in (0, 0, 1):
        await writer.quotes("AAPL", 5)
        await writer.raw("XTRIM", STREAM, "MAXLEN", kept)
        found += await deliver(stream, 1 + kept)
    assert [gap.missing for gap in gaps(found)] == [5, 5, 4]
    assert numbers(found) == [0, 15]


async def test_a_look_is_no_older_than_the_strategy_s_question(bus: Bus, writer: Writer) -> None:
    """Whoever asks without waiting, and again much later, is told of what came and went in between."""
    await writer.quotes("AAPL", 1)
    stream = bus.group("g", "AAPL", start="earliest")
    await deliver(stream, 1)
    for _ in range(2):
        # The first may have been in the midst of a read.
        await asyncio.sleep(0.05)
        assert await stream.get(timeout_s=0) is None
    await writer.quotes("AAPL", 5)
    await writer.raw("XTRIM", STREAM, "MAXLEN", 0)
    await writer.quotes("AAPL", 1)
    await asyncio.sleep(0.1)
    found = await deliver(stream, 2)
    assert [gap.missing for gap in gaps(found)] == [5]


async def test_pending_entries_that_go_while_a_gap_is_handled_are_told(bus: Bus, writer: Writer) -> None:
    """What was found before the strategy had its turn is looked for again after it."""
    await writer.quotes("AAPL", 30)
    stream = bus.group("g", "AAPL", start="earliest", consumer="w")
    await deliver(stream, 30, ack=False)
    await stream.aclose()
    await writer.raw("XTRIM", STREAM, "MAXLEN", 25)
    stream = bus.group("g", "AAPL", consumer="w")
    found = await deliver(stream, 1)
    await writer.raw("XTRIM", STREAM, "MAXLEN", 5)
    found += await deliver(stream, 6)
    assert [gap.missing for gap in gaps(found)] == [5, 20]
    assert set(numbers(found)) == set(range(25, 30))


SKIPPED = 250


async def behind_skipped(bus: Bus, writer: Writer, redis: Redis) -> None:
    """A group that another hand made at the end, behind entries that it was never given."""
    await writer.quotes("AAPL", 3)
    async with bus.group("g", "AAPL", start="earliest", consumer="w") as stream:
        await deliver(stream, 3)
    await redis.xgroup_destroy(STREAM, "g")
    await writer.quotes("AAPL", SKIPPED)
    await redis.xgroup_create(STREAM, "g", "$")


@pytest.mark.parametrize("how", ["trim", "delete", "trim what was handled"])
async def test_what_goes_of_skipped_entries_before_they_are_fetched_is_told(
    bus: Bus, writer: Writer, redis: Redis, how: str
) -> None:
    """They lie behind the group's place, page for page, where no look at the stream compares anything."""
    await behind_skipped(bus, writer, redis)
    async with bus.group("g", "AAPL", consumer="w") as stream:
        found = await deliver(stream, 20)
        ids = writer.ids["AAPL"]
        if how == "trim":
            await writer.raw("XTRIM", STREAM, "MINID", ids[200])
        elif how == "delete":
            await writer.raw("XDEL", STREAM, *ids[200:210])
        else:
            found += await deliver(stream, 80)
            await writer.raw("XTRIM", STREAM, "MINID", ids[103])
        await writer.quotes("AAPL", 1)
        while (delivery := await stream.get(timeout_s=2.5)) is not None:
            await stream.ack(delivery)
            found.append(delivery)
    lost = set(range(3, SKIPPED + 4)) - set(numbers(found))
    assert all(
        any(encloses(gap, writer, range(number, number + 1)) for gap in gaps(found)) for number in lost
    )
    assert bool(lost) == (how != "trim what was handled")
    assert bool(gaps(found)) == bool(lost)

"""Between memory and disk, one transition at a time: each of these once lost, doubled or disordered a quote."""

import asyncio
import dataclasses
import errno
import shutil
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from ingestor.publisher import inventory
from ingestor.publisher.backlog import Backlog
from ingestor.publisher.batch import Batch, digest, to_record
from ingestor.publisher.calls import Calls
from ingestor.publisher.claims import claim
from ingestor.publisher.intake import Hole, Intake, Received
from ingestor.publisher.publisher import MAX_BATCH_QUOTES, UNPACKED_BYTES
from ingestor.publisher.spooling import Spooling
from ingestor.publisher.stamper import Stamper
from ingestor.redis_link import RedisLink
from ingestor.spool import Record
from tests.ingestor.disk_model import KEYS, Life, Link, Server, found, settle
from tests.ingestor.spooled import item, names, opened, segment_files
from tests.ingestor.test_outbox import batch, outbox_of
from tests.ingestor.vendor import T0_NS, message

LONG_AGO_NS = time.time_ns() - 10_000_000_000


async def life_over(folder: Path, server: Server) -> Life:
    """A daemon that has begun."""
    life = Life(folder, server)
    await life.begin(time.time_ns())
    return life


async def next_life(folder: Path, server: Server) -> Life:
    """One that begins and comes to rest."""
    life = await life_over(folder, server)
    await life.rest()
    await life.close()
    return life


async def test_nothing_passes_the_disk_while_copies_are_written(tmp_path: Path) -> None:
    """What left memory in that moment had no copy, got one behind later quotes, and with it those were given up."""
    server = Server()
    life = await life_over(tmp_path, server)
    await life.connect()
    for ordinal in range(3):
        await life.receive(ordinal, "A", LONG_AGO_NS)
    for ordinal in range(3, 6):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await life.publisher._stamp_rest()
    await life.begin_step()
    await life.arrive(1)
    await life.hear(1)
    await life.disk_does()
    outbox = life.publisher._outbox
    while life.disk.asked:
        await life.disk_does()
    assert [b.position for b in outbox.unsettled if b.position is None] == []
    await life.arrive(1)
    await life.hear(1)
    await life.kill()
    await next_life(tmp_path, server)
    assert found(server, "A") == [0, 1, 2, 3, 4, 5]


def test_what_is_unsettled_is_in_order_while_answers_are_still_to_come() -> None:
    """The first of three was refused; the two behind it are still in flight, and not before it."""
    outbox = outbox_of()
    outbox.resume(0, 0.0)
    made = [batch(ordinal) for ordinal in range(1, 4)]
    for one in made:
        outbox.add(one)
        outbox.next()
    outbox.refused()
    assert outbox.unsettled == made


def test_the_time_in_which_a_server_was_away_does_not_count_for_what_is_kept() -> None:
    """It comes back after an outage of minutes with all that it had, and fails over to a replica that has less."""
    outbox = outbox_of(replay_s=30.0)
    outbox.resume(0, 0.0)
    made = [batch(ordinal) for ordinal in range(1, 4)]
    for one in made:
        outbox.add(one)
        outbox.next()
    outbox.stored(1.0)
    outbox.stored(1.0)
    outbox.lost()
    assert outbox.resume(3, 300.0).settled == made[2:]
    outbox.lost()
    resumed = outbox.resume(0, 301.0)
    assert (resumed.replayed, resumed.lost_batches) == (made, 0)


async def test_a_loss_is_told_once_however_many_connections_it_takes() -> None:
    """The server's count stays behind until what it forgot is sent again; that is no new loss."""
    server = Server()
    outbox, stamper, calls = outbox_of(), Stamper(), Calls(KEYS, "token", 0)
    link = cast("RedisLink", Link(server))
    await claim(link, calls, outbox, stamper, "test", 0.0)
    outbox.add(Batch([], b"\x90", 0, 0, 0))
    outbox.next()
    outbox.stored(0.0)
    outbox.lost()
    assert (await claim(link, calls, outbox, stamper, "test", 0.0)).forgot
    outbox.lost()
    assert not (await claim(link, calls, outbox, stamper, "test", 0.0)).forgot


def test_a_night_of_lost_connections_takes_no_memory() -> None:
    """Holes in which no quote came are one hole per symbol."""
    intake = Intake()
    symbols = frozenset({"A", "B"})
    for at_ns in range(1, 1000):
        intake.put_hole(at_ns, Hole(symbols, "feed_disconnected"))
        intake.put_hole(at_ns, Hole(symbols - {"B"}, "not_subscribed"))
    assert intake.take(10) == [(1, Hole(symbols, "feed_disconnected"))]
    intake.put_hole(1, Hole(frozenset({"A"}), "feed_disconnected"))
    intake.put_hole(2, Hole(symbols, "not_subscribed"))
    assert intake.take(10) == [
        (1, Hole(frozenset({"A"}), "feed_disconnected")),
        (2, Hole(frozenset({"B"}), "not_subscribed")),
    ]


async def test_a_claim_that_is_answered_during_the_save_sends_nothing(tmp_path: Path) -> None:
    """Redis comes back in the moment in which the daemon stops; what is being written down is not sent as well."""
    server = Server()
    life = await life_over(tmp_path, server)
    link = Link(server)
    link.may_answer.clear()

    async def open_link(_name: str) -> RedisLink:
        return cast("RedisLink", link)

    life.publisher._address.open = open_link  # type: ignore[method-assign, assignment]
    await life.connect()
    for ordinal in range(4):
        await life.receive(ordinal, "A", LONG_AGO_NS)
    await life.cut()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(life.publisher.run("test"))
        await settle()
        saved = group.create_task(life.publisher.save(5.0))
        await settle()
        link.may_answer.set()
        await settle()
        while not saved.done():
            await life.disk_does()
        assert await saved
        running.cancel()
    assert not link.sent
    assert not life.publisher.spooling._copies.missing
    await life.close()
    await next_life(tmp_path, server)
    assert found(server, "A") == [0, 1, 2, 3]


@pytest.mark.parametrize("has_later_on_disk", [True, False])
async def test_what_the_server_forgot_is_saved_at_a_stop(tmp_path: Path, has_later_on_disk: bool) -> None:
    """A stop in the middle of a replay; what is sent again comes before what waits on disk."""
    server = Server()
    life = await life_over(tmp_path, server)
    await life.connect()
    for ordinal in range(3):
        await life.receive(ordinal, "A", time.time_ns())
        await life.arrive(1)
        await life.hear(1)
    await life.cut()
    server.forget(2)
    if has_later_on_disk:
        await life.receive(3, "A", LONG_AGO_NS)
        await life.begin_step()
        for _ in range(2):
            await life.disk_does()
    await life.connect()
    assert life.publisher.holdings.replaying == 2
    assert await life.stop()
    await next_life(tmp_path, server)
    assert [entry for entry in found(server, "A") if entry != "daemon_stopped"] == [0, 1, 2] + [
        3
    ] * has_later_on_disk


async def test_nothing_is_left_on_disk_when_all_is_stored(tmp_path: Path) -> None:
    """The last word of the server comes just before the stop, and is not forgotten over it."""
    life = await life_over(tmp_path, Server())
    await life.receive(1, "A", LONG_AGO_NS)
    await life.begin_step()
    while life.disk.asked:
        await life.disk_does()
    await life.connect()
    await life.begin_step()
    while life.disk.asked:
        await life.disk_does()
    await life.arrive(1)
    await life.hear(1)
    assert not life.publisher.holdings.total
    await life.close()
    assert life.spool.segments == 0


async def test_a_copy_of_what_was_stored_meanwhile_is_given_up(tmp_path: Path) -> None:
    """The answer comes while the disk writes the copy."""
    life = await life_over(tmp_path, Server())
    await life.connect()
    await life.receive(1, "A", LONG_AGO_NS)
    await life.begin_step()
    await life.arrive(1)
    await life.hear(1)
    while life.disk.asked:
        await life.disk_does()
    assert life.spool.is_empty
    await life.kill()


async def test_markers_on_their_way_to_the_disk_are_not_passed(tmp_path: Path) -> None:
    """A batch that holds no quote holds back what comes behind it all the same."""
    life = await life_over(tmp_path, Server())
    spooling: Spooling = life.publisher.spooling
    backlog: Backlog = life.publisher._backlog
    await life.connect()
    backlog.put(Batch(["A"], b"\x90", 0, 1, LONG_AGO_NS))
    await life.begin_step()
    assert life.disk.asked
    assert spooling.holds_back
    await life.kill()


def test_a_record_of_another_kind_does_not_keep_the_spool_from_shedding() -> None:
    """Its quotes are counted by its head; what else goes still has its markers."""
    quotes, at_ns, body = to_record(Batch(["A"], b"\x90", 1, 0, 7))
    records = [Record(0, 1, 7, b"\xc1"), Record(1, quotes, at_ns, body)]
    assert digest(records)[0] == 0


def test_what_is_put_before_all_others_comes_first_after_a_restart(tmp_path: Path) -> None:
    """Also twice, and before a file that could not be deleted; it is not read in this life."""
    queue = opened(tmp_path, segment_bytes=700)
    queue.append([item(n, 255) for n in (5, 6)])
    middle = queue.prepend([item(n) for n in (3, 4)])
    first = queue.prepend([item(n) for n in (1, 2)])
    assert first < middle < [0]
    assert names(queue.read(1 << 20)) == [5, 6]
    queue.settle(first[0])
    assert queue.records_held == 5
    queue.close()
    again = opened(tmp_path)
    assert names(again.read(1 << 20)) == [1, 2, 3, 4, 5, 6]
    again.settle(5)
    assert again.is_empty


def test_a_copy_is_not_read_back(tmp_path: Path) -> None:
    """It is in the caller's hands, and on disk until it is settled."""
    queue = opened(tmp_path, segment_bytes=700)
    positions = queue.append([item(n, 255) for n in (1, 2, 3)], is_copy=True)
    queue.append([item(4)])
    assert names(queue.read(1 << 20)) == [4]
    queue.settle(positions[-1])
    assert queue.records_held == 1
    queue.settle(positions[-1] + 1)
    assert queue.is_empty
    assert queue.segments == 0


async def test_a_disk_that_fails_while_memory_fills_leaves_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher wakes the spool, whose round ends at once and wakes the publisher: others still run."""
    life = Life(tmp_path, Server(), memory_bytes=1500)
    await life.begin(time.time_ns())
    life.disk.is_prompt = True
    life.disk.failure = OSError(errno.ENOSPC, "No space left on device")
    spooling = life.publisher.spooling
    rounds = turns = 0
    round_of_spooling = spooling._round

    async def counted() -> bool:
        nonlocal rounds
        rounds += 1
        assert rounds < 100 + 10 * turns
        return await round_of_spooling()

    monkeypatch.setattr(spooling, "_round", counted)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(spooling.run())
        for ordinal in range(200):
            await life.receive(ordinal, "AB", time.time_ns())
            await life.publisher._stamp_rest()
            life.publisher._pump()
            turns += 1
        running.cancel()
    assert life.publisher.counts.dropped["queue_full"] > 100
    await life.close()


async def test_the_server_does_not_wait_while_quotes_are_packed_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More wait than may wait as they came: what is ready is sent first, and little is packed for each answer."""
    life = await life_over(tmp_path, Server())
    await life.connect()
    publisher, link = life.publisher, life.link
    assert link is not None
    publisher._most_unpacked = MAX_BATCH_QUOTES
    did: list[str] = []
    stamp, send = publisher.stamper.stamp, link.send

    def stamped(frames: Iterable[Received], now_ns: int) -> Batch | None:
        did.append("packs")
        return stamp(frames, now_ns)

    def sent(command: bytes) -> None:
        did.append("sends")
        send(command)

    monkeypatch.setattr(publisher.stamper, "stamp", stamped)
    monkeypatch.setattr(link, "send", sent)
    frame = [message("A", T0_NS + n * 1000) for n in range(MAX_BATCH_QUOTES)]
    for _ in range(20):
        publisher.receive(time.time_ns(), frame)
    publisher._pump()
    assert publisher._intake.depth > 8 * MAX_BATCH_QUOTES
    while not publisher._backlog:
        publisher._pump()
    while publisher._intake.depth >= MAX_BATCH_QUOTES:
        did.clear()
        await life.arrive(1)
        link.hear()
        assert did[0] == "sends"
        assert did.count("packs") <= 2
    await life.rest()
    await life.close()


async def test_memory_has_its_bound_while_answers_come_slower_than_quotes(tmp_path: Path) -> None:
    """However many a frame holds, no more wait packed, nor as they came, than may; what is too much is counted."""
    memory_bytes = 1 << 20
    life = Life(tmp_path, Server(), memory_bytes=memory_bytes)
    await life.begin(time.time_ns())
    await life.connect()
    publisher, ordinal = life.publisher, 0
    for size in (1, 50, 700, 1023, 1024, 3000, 9000, 50, 2047) * 4:
        frame = [message("A", T0_NS + (ordinal + n) * 1000) for n in range(size)]
        ordinal += size
        publisher.receive(time.time_ns(), frame)
        await settle()
        assert not publisher._scheduled
        assert publisher._intake.depth * UNPACKED_BYTES <= memory_bytes
        assert publisher._backlog.bytes <= memory_bytes
        await life.arrive(1)
        await life.hear(1)
    assert publisher.counts.dropped["queue_full"] > 0
    await life.close()


@pytest.mark.parametrize("disk", ["none", "refuses"])
async def test_the_markers_of_a_loss_leave_only_with_what_they_precede(tmp_path: Path, disk: str) -> None:
    """Sent alone, they would be followed by those of the next loss, two for one hole; also where the disk was to
    have them, and had no room."""
    life = Life(tmp_path, Server(), memory_bytes=1 << 20)
    await life.begin(time.time_ns())
    await life.connect()
    publisher, ordinal = life.publisher, 0

    async def flood(frames: int) -> None:
        nonlocal ordinal
        for _ in range(frames):
            frame = [message("A", T0_NS + (ordinal + n) * 1000) for n in range(MAX_BATCH_QUOTES)]
            ordinal += len(frame)
            publisher.receive(time.time_ns(), frame)
            await settle()

    for _ in range(3):
        await flood(20)
        assert publisher._backlog.begins_with_markers
        if disk == "refuses":
            publisher.spooling._put_back(publisher.spooling._take())
        await life.arrive(1)
        await life.hear(1)
    await flood(20)
    await life.rest()
    entries = found(life.server, "A")
    assert entries.count("queue_full") > 1
    assert all(pair != ("queue_full", "queue_full") for pair in pairwise(entries))
    await life.close()


def vanish(folder: Path) -> None:
    """Somebody deletes it, with all that is in it."""
    shutil.rmtree(folder)


def replace(folder: Path) -> None:
    """Somebody moves it away, and makes an empty one."""
    folder.rename(folder.with_name("moved away"))
    folder.mkdir(mode=0o700)


def tidy(folder: Path) -> None:
    """Somebody deletes the files, and not the folder."""
    for path in segment_files(folder):
        path.unlink()


def cut_short(folder: Path) -> None:
    """Nothing but the names is left."""
    for path in segment_files(folder):
        path.write_bytes(b"")


MISHAPS = [vanish, replace, tidy, cut_short]


async def let_the_disk_write(life: Life) -> None:
    """One round to its end."""
    await life.begin_step()
    while life.disk.asked:
        await life.disk_does()


async def life_in_an_outage(folder: Path, server: Server) -> Life:
    """Of what it received, 0 to 2 are on their way, with copies on disk; 3 and 4 are on disk only."""
    life = await life_over(folder, server)
    await life.connect()
    for ordinal in range(3):
        await life.receive(ordinal, "A", LONG_AGO_NS)
    await life.cut()
    await let_the_disk_write(life)
    for ordinal in (3, 4):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    assert (life.publisher.holdings.unanswered, life.publisher.holdings.spooled) == (3, 2)
    return life


async def stored_by_the_next_life(folder: Path, server: Server) -> list[int | str]:
    """What there is in the end of the quotes of A, and of the lives before."""
    await next_life(folder, server)
    return [entry for entry in found(server, "A") if entry != "daemon_stopped"]


@pytest.mark.fault("P33")
@pytest.mark.parametrize("mishap", MISHAPS)
async def test_a_stop_writes_again_what_the_disk_has_lost(
    tmp_path: Path, mishap: Callable[[Path], None]
) -> None:
    """What is in hand goes into a folder that is made anew, in order, with a marker for what was on disk only."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_in_an_outage(folder, server)
    mishap(folder)
    await life.receive(5, "A", LONG_AGO_NS)
    assert await life.stop()
    assert life.publisher.holdings.total == 4
    assert life.publisher.counts.dropped["spool_damaged"] == 2
    assert life.imbalance == 0
    assert await stored_by_the_next_life(folder, server) == [0, 1, 2, "spool_damaged", 5]


@pytest.mark.fault("P33")
async def test_a_stop_marks_every_stream_where_nobody_knows_whose_quotes_are_gone(tmp_path: Path) -> None:
    """There was more on disk than is remembered: no quote comes any more that a marker could stand before."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_over(folder, server)
    life.publisher.spooling._back._inventory._max_bytes = 0
    for ordinal in range(3):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    vanish(folder)
    await life.receive(3, "A", LONG_AGO_NS)
    assert await life.stop()
    assert (life.publisher.holdings.total, life.imbalance) == (1, 0)
    assert await stored_by_the_next_life(folder, server) == [3, "spool_damaged"]


@pytest.mark.fault("P33")
async def test_a_stop_marks_each_file_that_is_gone_in_its_place(tmp_path: Path) -> None:
    """Of several files one was deleted; those before and behind it are as they were."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_over(folder, server)
    life.spool._shelf._segment_bytes = 100
    for ordinal in range(4):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    segment_files(folder)[1].unlink()
    assert await life.stop()
    assert (life.publisher.holdings.total, life.imbalance) == (3, 0)
    assert await stored_by_the_next_life(folder, server) == [0, "spool_damaged", 2, 3]


@pytest.mark.fault("P33")
async def test_the_ledger_is_even_in_the_moment_in_which_a_file_is_found_gone(tmp_path: Path) -> None:
    """However long the next operation of the disk takes."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_over(folder, server)
    for ordinal in range(3):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    vanish(folder)
    life.publisher.spooling._next_check_s = life.publisher.spooling._next_sync_s = 0.0
    await life.receive(3, "A", LONG_AGO_NS)
    await life.connect()
    await life.begin_step()
    while life.disk.asked:
        await life.disk_does()
        assert life.imbalance == 0
    assert life.publisher.counts.dropped["spool_damaged"] == 3
    await life.rest()
    await life.close()


@pytest.mark.fault("P33")
@pytest.mark.parametrize("mishap", MISHAPS)
async def test_a_stop_writes_again_what_was_read_back(tmp_path: Path, mishap: Callable[[Path], None]) -> None:
    """Redis took some of what was on disk, and is away again; memory has the rest, and the disk nothing."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_over(folder, server)
    for ordinal in range(8):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    await life.connect()
    await let_the_disk_write(life)
    await life.arrive(2)
    await life.hear(2)
    await life.cut()
    assert life.publisher.spooling.ahead_quotes
    mishap(folder)
    assert await life.stop()
    assert life.publisher.holdings.total == 6
    assert await stored_by_the_next_life(folder, server) == list(range(8))


@pytest.mark.fault("P10")
async def test_a_hole_that_begins_with_what_is_stored_is_marked_where_it_ends(tmp_path: Path) -> None:
    """The answer to the first was not heard, so a later life has it on disk as well; when all goes that is there, a
    marker in the place of the first would be refused, and nothing would tell of the others."""
    server, folder = Server(), tmp_path / "spool"
    life = Life(folder, server, segment_bytes=400)
    await life.begin(time.time_ns())
    await life.connect()
    await life.receive(1, "A", LONG_AGO_NS)
    await life.arrive(1)
    await life.cut()
    for ordinal in range(2, 9):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await life.publisher._stamp_rest()
    assert await life.stop()
    life = Life(folder, server, spool_bytes=800, segment_bytes=400)
    await life.begin(time.time_ns())
    await life.rest()
    stored = found(server, "A")
    first_kept = stored[2]
    assert isinstance(first_kept, int)
    assert stored == [1, "spool_full", *range(first_kept, 9)]
    assert first_kept > 2
    await life.close()


@pytest.mark.fault("P10")
async def test_a_disk_that_takes_no_marker_loses_none_of_them_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in memory, and comes before what was behind it on disk."""
    server = Server()
    life = Life(tmp_path, server, spool_bytes=800, segment_bytes=400)
    await life.begin(time.time_ns())

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(life.spool._folder, "put", refuse)
    for ordinal in range(1, 9):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    assert life.spool.has_digests_to_put
    assert "Read-only" in str(life.publisher.spooling.problem)
    await life.rest()
    stored = found(server, "A")
    assert stored[0] == "spool_full"
    assert stored[1:] == list(range(9 - len(stored[1:]), 9))
    await life.close()


@pytest.mark.fault("P32")
@pytest.mark.parametrize("is_stopped", [False, True])
async def test_others_have_their_turn_while_much_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    """What came later waits behind the markers meanwhile; a stop in the middle loses none of them."""
    monkeypatch.setattr(inventory, "STEP_BYTES", 1)
    server = Server()
    life = await life_over(tmp_path, server)
    for ordinal in range(1, 9):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    await life.connect()
    spooling = life.publisher.spooling
    going = asyncio.get_running_loop().create_task(spooling._go_around("spool_hung"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not going.done()
    assert spooling.holds_back
    assert life.imbalance == 0
    await life.receive(9, "A", LONG_AGO_NS)
    assert not life.publisher._outbox.quotes
    if is_stopped:
        going.cancel()
    await asyncio.wait([going])
    await life.rest()
    assert found(server, "A") == ["spool_hung", 9]
    await life.close()


@pytest.mark.fault("P32")
async def test_going_around_while_a_round_packs_loses_nothing(tmp_path: Path) -> None:
    """Reading fails, and what is packed for the disk just then is taken when the disk is void already."""
    server = Server()
    life = await life_over(tmp_path, server)
    await life.receive(1, "A", LONG_AGO_NS)
    await let_the_disk_write(life)
    for ordinal in range(2, 8):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await life.publisher._stamp_rest()
    await life.receive(8, "A", LONG_AGO_NS)
    spooling, publisher = life.publisher.spooling, life.publisher
    stamp_rest = publisher._stamp_rest

    async def in_the_midst_of_it() -> None:
        await stamp_rest()
        await spooling._go_around("spool_damaged")

    spooling.stamp_rest = in_the_midst_of_it
    await let_the_disk_write(life)
    spooling.stamp_rest = stamp_rest
    assert life.imbalance == 0
    await life.rest()
    assert found(server, "A") == ["spool_damaged", *range(2, 9)]
    await life.close()


@pytest.mark.fault("P32")
async def test_a_void_file_that_cannot_be_deleted_keeps_nothing_from_being_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and deleted by whoever can; what is in memory goes to disk all the same."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_over(folder, server)
    await life.receive(1, "A", LONG_AGO_NS)
    await let_the_disk_write(life)
    await life.publisher.spooling._go_around("spool_hung")
    await life.receive(2, "A", LONG_AGO_NS)

    def refuse(_number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(life.spool._folder, "delete", refuse)
        assert await life.stop()
    assert 2 in await stored_by_the_next_life(folder, server)


@pytest.mark.parametrize("is_broken_off", [False, True])
async def test_the_ledger_is_even_while_what_was_read_back_is_gone_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_broken_off: bool
) -> None:
    """Also where a record is none of ours, and where it is broken off."""
    server = Server()
    life = await life_over(tmp_path, server)
    for ordinal in range(1, 4):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    await life.connect()
    spooling = life.publisher.spooling
    monkeypatch.setattr(inventory, "STEP_BYTES", 1)
    read = life.spool.read

    def with_a_stranger(max_bytes: int) -> list[Record]:
        first, second, *others = read(max_bytes)
        return [first, dataclasses.replace(second, body=b"\xc1"), *others]

    monkeypatch.setattr(life.spool, "read", with_a_stranger)
    step = asyncio.get_running_loop().create_task(spooling._round())
    is_under_way = False
    while not step.done():
        await asyncio.sleep(0)
        assert life.imbalance == 0
        is_under_way = is_under_way or not spooling._back.has_all.is_set()
        if is_under_way and is_broken_off:
            step.cancel()
            await asyncio.wait([step])
        elif life.disk.asked:
            life.disk.do()
    assert is_under_way
    assert life.imbalance == 0
    await life.rest()
    assert found(server, "A")[:2] == [1, "spool_damaged"]
    await life.close()


@pytest.mark.fault("P33")
async def test_a_stop_behind_a_disk_that_was_gone_around_saves_what_was_read_back(tmp_path: Path) -> None:
    """All on disk is void; what was read back before is in memory only, and is written anew."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_over(folder, server)
    for ordinal in range(8):
        await life.receive(ordinal, "A", LONG_AGO_NS)
        await let_the_disk_write(life)
    await life.connect()
    await let_the_disk_write(life)
    await life.cut()
    await life.publisher.spooling._go_around("spool_hung")
    assert await life.stop()
    assert life.publisher.holdings.total == 8
    assert await stored_by_the_next_life(folder, server) == list(range(8))


@pytest.mark.fault("P33")
@pytest.mark.parametrize("mishap", MISHAPS)
async def test_copies_that_are_gone_are_written_again_long_before_a_stop(
    tmp_path: Path, mishap: Callable[[Path], None]
) -> None:
    """A daemon that is killed in a long outage loses what was on disk only, and nothing that it had in hand."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_in_an_outage(folder, server)
    mishap(folder)
    life.publisher.spooling._next_check_s = 0.0
    await let_the_disk_write(life)
    await life.receive(5, "A", LONG_AGO_NS)
    await let_the_disk_write(life)
    await life.kill()
    assert await stored_by_the_next_life(folder, server) == [0, 1, 2, 5]


@pytest.mark.fault("P33")
async def test_a_stop_whose_disk_does_not_say_what_is_there_does_not_claim_it(tmp_path: Path) -> None:
    """The folder cannot even be looked at: what is on it may be there, and is not promised."""
    server, folder = Server(), tmp_path / "spool"
    life = await life_in_an_outage(folder, server)
    life.disk.failure = OSError(errno.EIO, "Input/output error")
    assert not await life.stop()
    assert life.publisher.counts.spool_errors

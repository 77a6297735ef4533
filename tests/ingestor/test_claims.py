"""Claims over the real connection: what a server that forgot something means, and who may write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from ingestor.publisher.claims import Claimed, Fenced
from ingestor.redis_link import LinkFailure, RedisAddress, RedisLink
from simulator.redis_server import RedisServer
from tests.ingestor.sequencer import Sequencer
from tests.ingestor.vendor import T0_NS, message
from tests.ingestor.writer import KEYS, counts_additions
from wire import EntryId, Gap, decode_gap


@asynccontextmanager
async def link_to(server: RedisServer) -> AsyncIterator[RedisLink]:
    """A connection of the daemon's own kind."""
    link = await RedisAddress(server.url).open("quotebus-test")
    try:
        yield link
    finally:
        link.abort("done")


async def claimed(made: Sequencer, server: RedisServer) -> Claimed:
    """What a new connection brings."""
    if made.is_connected:
        made.cut()
    async with link_to(server) as link:
        return await made.claim(link)


def write(made: Sequencer, first: int, last: int, symbols: str = "A") -> None:
    """Quotes of these ordinals, each in a batch of its own, stored; a second apart."""
    for ordinal in range(first, last + 1):
        for symbol in symbols:
            made.receive(message(symbol, T0_NS + ordinal * 10**9, bs=ordinal))
        made.pump()
        while made.on_the_wire:
            made.arrive()
            made.hear()


def found(redis: Redis, symbol: str = "A") -> list[int | Gap]:
    """Ordinals and markers of a stream."""
    entries: Any = redis.xrange(KEYS.stream(symbol))
    return [
        int(fields[b"q"].split(b",")[1])
        if b"q" in fields
        else decode_gap(symbol, entry_id.decode(), fields[b"gap"])
        for entry_id, fields in entries
    ]


def image_of(redis: Redis) -> dict[bytes, Any]:
    """All that the server holds."""
    keys: Any = redis.keys("*")
    return {key: redis.dump(key) for key in keys}


def restore(redis: Redis, image: dict[bytes, Any]) -> None:
    """The server comes back with that, and nothing else."""
    redis.flushall()
    for key, dump in image.items():
        redis.restore(key, 0, dump)


async def test_the_first_claim_begins_an_epoch(redis: Redis, server: RedisServer) -> None:
    """There is nothing to forget yet."""
    made = Sequencer(redis, "A")
    assert await claimed(made, server) == Claimed([], False, 0, 0, 0, 0)
    assert made.stamper.epoch == 1
    write(made, 1, 2)
    again = Sequencer(redis, "A", token="other")
    await claimed(again, server)
    assert again.stamper.epoch == 2


@pytest.mark.fault("K05")
async def test_a_batch_whose_answer_was_lost_is_settled_by_the_claim(
    redis: Redis, server: RedisServer
) -> None:
    """The server's count proves it; the one behind it is sent again."""
    made = Sequencer(redis, "A", at_once=1)
    await claimed(made, server)
    made.receive(message("A", T0_NS, bs=1), message("A", T0_NS + 1, bs=2))
    made.pump()
    made.arrive()
    resumed = await claimed(made, server)
    assert [(batch.number, notes) for batch, notes in resumed.settled] == [(1, [])]
    assert (resumed.forgot, made.counts.stored) == (False, 1)
    made.settle_all()
    assert (found(redis), made.counts.stored) == ([1, 2], 2)


@pytest.mark.fault("K05", "K26", "K28")
@pytest.mark.parametrize("trouble", ["wrong_type", "foreign", "gone"])
async def test_an_entry_whose_refusal_was_not_heard_is_not_taken_for_stored(
    redis: Redis, server: RedisServer, trouble: str
) -> None:
    """The batch was applied, and the answer with its notes was lost: what is not in its stream is found out."""
    made = Sequencer(redis, "A", "B")
    await claimed(made, server)
    if trouble == "wrong_type":
        redis.set(KEYS.stream("A"), "x")
    elif trouble == "foreign":
        redis.xadd(KEYS.stream("A"), {"q": "[0,0,0]"}, "1900000000000-0")
    made.receive(message("A", T0_NS, bs=1), message("B", T0_NS, bs=1))
    made.pump()
    made.arrive()
    made.cut()
    if trouble == "gone":
        redis.delete(KEYS.stream("A"))
    await claimed(made, server)
    made.settle_all()
    if trouble == "wrong_type":
        assert (made.counts.stored, made.counts.rejected) == (1, {"wrong_type": 1})
        redis.delete(KEYS.stream("A"))
        made.receive(message("A", T0_NS + 10**9, bs=2))
        made.settle_all()
        gap, two = found(redis)
        assert isinstance(gap, Gap)
        assert (gap.reason, two) == ("refused_by_redis", 2)
    elif trouble == "foreign" and not counts_additions(redis):
        # Redis 6.2 cannot tell a foreign entry in front of ours from ours, trimmed: then it is taken for trimmed.
        assert (made.counts.stored, made.counts.already_stored) == (1, 1)
    else:
        assert (made.counts.stored, made.counts.already_stored) == (2, 0)
        assert found(redis)[-1] == 1
    assert found(redis, "B") == [1]


@pytest.mark.fault("K04", "K17")
async def test_a_lost_tail_is_sent_again_whole(redis: Redis, server: RedisServer) -> None:
    """A failover to a replica that lagged: same ids, same entries, no marker, stored once in the accounts."""
    made = Sequencer(redis, "A", "B")
    await claimed(made, server)
    write(made, 1, 3, "AB")
    image = image_of(redis)
    write(made, 4, 7, "AB")
    before = image_of(redis)
    restore(redis, image)
    resumed = await claimed(made, server)
    assert resumed == Claimed([], True, 4, 8, 0, 0)
    made.settle_all()
    assert {s: found(redis, s) for s in "AB"} == {s: list(range(1, 8)) for s in "AB"}
    assert redis.hgetall(KEYS.latest) == _hash(redis, before)
    assert (made.counts.stored, made.counts.replayed, made.settled) == (14, 8, 14)
    assert made.counts.streams_vanished == 0


def _hash(redis: Redis, image: dict[bytes, Any]) -> Any:
    redis.restore("probe", 0, image[KEYS.latest.encode()])
    value = redis.hgetall("probe")
    redis.delete("probe")
    return value


@pytest.mark.fault("K04")
async def test_what_is_not_kept_any_more_is_marked_before_what_is_sent_again(
    redis: Redis, server: RedisServer
) -> None:
    """The window was too small: the hole is told in its place, from the last quote left to the first sent again."""
    made = Sequencer(redis, "A", "B", replay_s=10.0)
    await claimed(made, server)
    write(made, 1, 1, "AB")
    image = image_of(redis)
    write(made, 2, 4)
    made.now_s = 9.0
    write(made, 5, 6)
    made.now_s = 11.0
    made.outbox.forget(made.now_s)
    restore(redis, image)
    resumed = await claimed(made, server)
    assert (resumed.replayed_batches, resumed.lost_batches, resumed.lost_quotes) == (2, 3, 3)
    first = made.outbox.next()
    assert first is not None
    assert (first.quotes, first.markers) == (0, 1)
    made.on_the_wire.append(first)
    made.settle_all()
    one, gap, *rest = found(redis)
    assert (one, rest) == (1, [5, 6])
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.epoch) == ("redis_lost", 1)
    assert gap.from_ns - T0_NS == 10**9
    assert gap.to_ns - T0_NS == 5 * 10**9
    assert found(redis, "B") == [1]
    assert (made.counts.lost_by_redis, made.counts.stored, made.settled) == (3, 7, 7)


@pytest.mark.fault("K03", "K32")
async def test_an_emptied_database_gets_back_what_is_kept(redis: Redis, server: RedisServer) -> None:
    """All of it, where the daemon is young; and new entries go on behind."""
    made = Sequencer(redis, "A")
    await claimed(made, server)
    write(made, 1, 5)
    redis.flushall()
    resumed = await claimed(made, server)
    assert resumed == Claimed([], True, 5, 5, 0, 0)
    write(made, 6, 6)
    made.settle_all()
    assert found(redis) == [1, 2, 3, 4, 5, 6]
    assert (made.counts.streams_vanished, made.counts.stored) == (0, 6)


@pytest.mark.fault("K32")
async def test_an_emptied_database_that_had_more_is_marked_from_the_beginning(
    redis: Redis, server: RedisServer
) -> None:
    """Nothing of the stream is left, so the marker is its first entry."""
    made = Sequencer(redis, "A", replay_s=10.0)
    await claimed(made, server)
    write(made, 1, 4)
    made.now_s = 11.0
    made.outbox.forget(made.now_s)
    write(made, 5, 5)
    redis.flushall()
    await claimed(made, server)
    made.settle_all()
    gap, *rest = found(redis)
    assert rest == [5]
    assert isinstance(gap, Gap)
    assert (gap.from_ns - T0_NS, gap.to_ns - T0_NS) == (10**9, 5 * 10**9)
    assert made.counts.streams_vanished == 0


@pytest.mark.fault("K32")
async def test_a_stream_of_an_earlier_life_that_was_lost_is_told(redis: Redis, server: RedisServer) -> None:
    """All that this daemon wrote is sent again, but the stream had begun before it: the next quote's marker says
    so."""
    earlier = Sequencer(redis, "A")
    await claimed(earlier, server)
    write(earlier, 1, 3)
    last, _, last_time_ns = earlier.stamper.end_of("A")
    made = Sequencer(redis, "A", token="other")
    made.stamper.load("A", last, last_time_ns)
    made.stamper.load("B", EntryId(0, 0), None)
    await claimed(made, server)
    write(made, 4, 5, "AB")
    redis.flushall()
    await claimed(made, server)
    made.settle_all()
    write(made, 6, 6, "AB")
    four, five, gap, six = found(redis)
    assert (four, five, six) == (4, 5, 6)
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.from_ns - T0_NS) == ("stream_lost", 3 * 10**9)
    assert found(redis, "B") == [4, 5, 6]
    assert made.counts.streams_vanished == 1


@pytest.mark.fault("K12")
async def test_a_claim_that_is_cut_short_is_made_again_and_changes_nothing(
    redis: Redis, server: RedisServer
) -> None:
    """The markers that go first are still to be sent, once."""
    made = Sequencer(redis, "A", replay_s=10.0)
    await claimed(made, server)
    write(made, 1, 1)
    image = image_of(redis)
    write(made, 2, 4)
    made.now_s = 11.0
    made.outbox.forget(made.now_s)
    write(made, 5, 6)
    restore(redis, image)
    for _ in range(3):
        await claimed(made, server)
    for _ in range(2):
        restore(redis, image)
        await claimed(made, server)
    made.settle_all()
    kinds = [type(entry) for entry in found(redis)]
    assert kinds == [int, Gap, int, int]
    assert made.counts.lost_by_redis == 3


@pytest.mark.fault("P16")
async def test_who_has_been_overtaken_may_not_write(redis: Redis, server: RedisServer) -> None:
    """The claim says by which epoch, and neither the server nor the outbox has changed."""
    old, new = Sequencer(redis, "A"), Sequencer(redis, "A", token="other")
    await claimed(old, server)
    write(old, 1, 2)
    await claimed(new, server)
    before = image_of(redis)
    with pytest.raises(Fenced, match=r"epoch 2 writes this namespace, this daemon holds 1"):
        await claimed(old, server)
    assert image_of(redis) == before
    assert old.outbox.is_stopped


@pytest.mark.fault("K13", "K23")
async def test_a_server_that_refuses_the_claim_is_no_server_yet(redis: Redis, server: RedisServer) -> None:
    """With its own words; nothing is taken for stored or forgotten by it."""
    made = Sequencer(redis, "A")
    await claimed(made, server)
    write(made, 1, 2)
    redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(LinkFailure, match="maxmemory"):
            await claimed(made, server)
    finally:
        redis.config_set("maxmemory", 0)
    assert (made.outbox.is_stopped, made.outbox.replaying) == (True, 0)
    assert await claimed(made, server) == Claimed([], False, 0, 0, 0, 0)


async def test_the_ends_of_many_streams_are_asked_for_in_one_call(redis: Redis, server: RedisServer) -> None:
    """Of ten thousand as of ten; a key of another type has none."""
    symbols = [f"S{n}" for n in range(10_000)]
    made = Sequencer(redis, *symbols, replay_bytes=0)
    await claimed(made, server)
    for symbol in symbols:
        made.receive(message(symbol, T0_NS, bs=1))
        made.receive(message(symbol, T0_NS + 10**9, bs=2))
    made.settle_all()
    redis.hset(KEYS.writer, "batch", 0)
    redis.delete(KEYS.stream("S3"))
    redis.set(KEYS.stream("S4"), "x")
    redis.xtrim(KEYS.stream("S5"), maxlen=0)
    assert (await claimed(made, server)).lost_batches > 0
    marked = made.outbox.next()
    assert marked is not None
    assert marked.symbols == ["S3", "S4"]


async def test_a_stream_that_may_not_be_looked_at_is_not_taken_for_gone(
    redis: Redis, server: RedisServer
) -> None:
    """The claim is refused and made again; no marker tells of a loss that nobody has seen."""
    made = Sequencer(redis, "A", replay_bytes=0)
    await claimed(made, server)
    write(made, 1, 3)
    redis.hset(KEYS.writer, "batch", 0)
    redis.execute_command("ACL", "SETUSER", "default", "-xinfo")  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(LinkFailure, match=r"xinfo|can't run this command"):
            await claimed(made, server)
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]
    await claimed(made, server)
    made.settle_all()
    assert found(redis) == [1, 2, 3]


@pytest.mark.fault("K51")
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("touch", ["epoch down", "deleted", "batch back", "no number"])
async def test_a_position_that_is_set_back_is_no_loss_where_the_streams_are_whole(
    redis: Redis, server: RedisServer, touch: str, kept: bool
) -> None:
    """Nothing is counted as lost and nothing marked; it is told that somebody wrote there, and quotes go on."""
    made = Sequencer(redis, "A", "B", replay_s=10.0)
    await claimed(made, server)
    write(made, 1, 3, "AB")
    made.now_s = 11.0
    write(made, 4, 5 if kept else 4, "AB")
    made.now_s = 20.0 if kept else 30.0
    made.outbox.forget(made.now_s)
    match touch:
        case "epoch down":
            redis.hincrby(KEYS.writer, "epoch", -1)
        case "deleted":
            redis.delete(KEYS.writer)
        case "batch back":
            redis.hset(KEYS.writer, "batch", 1)
        case _:
            redis.hset(KEYS.writer, "epoch", "abc")
    resumed = await claimed(made, server)
    assert resumed.unbelievable is not None
    assert (resumed.lost_batches, resumed.lost_quotes) == (0, 0)
    made.settle_all()
    write(made, 6, 7, "AB")
    last = 5 if kept else 4
    for symbol in "AB":
        assert found(redis, symbol) == [*range(1, last + 1), 6, 7]
    assert made.counts.lost_by_redis == 0

"""The scripts on real servers: all of a batch or nothing, once, in order, by one writer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis, ResponseError

from ingestor.publisher.batch import Batch
from ingestor.publisher.calls import kind_of
from ingestor.publisher.restamping import Restamper
from tests.ingestor.vendor import T0_NS
from tests.ingestor.writer import KEYS, Writer, counts_additions
from wire import EntryId, decode_gap, decode_latest, decode_quote

LAST_OF_ALL = f"{2**64 - 1}-{2**64 - 1}"


def fields(entry: Any) -> dict[str, bytes]:
    """The fields of an entry, in whichever form the client gives them."""
    pairs = entry[1]
    if isinstance(pairs, dict):
        return {name.decode(): value for name, value in pairs.items()}
    return {name.decode(): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


def cached(redis: Redis, symbol: str) -> Any:
    """The cache's quote of this symbol, or None."""
    value: Any = redis.hget(KEYS.latest, symbol)
    return None if value is None else decode_latest(symbol, value)


def stored(writer: Writer, symbol: str) -> list[Any]:
    """The quotes of a stream."""
    entries = writer.raw("XRANGE", KEYS.stream(symbol), "-", "+")
    return [decode_quote(symbol, e[0].decode(), fields(e)["q"]) for e in entries if "q" in fields(e)]


def created(*rows: int) -> list[Any]:
    """What is noted of streams that were not there."""
    return [part for row in rows for part in (row, 0, b"created", b"")]


def notes(reply: Any) -> list[tuple[int, int, bytes]]:
    """Row, entry and why of each note of an applied batch."""
    assert reply[0] == b"applied"
    return list(zip(reply[3::4], reply[4::4], reply[5::4], strict=True))


def position(redis: Redis) -> tuple[int, int]:
    """Epoch and batch as the server holds them."""
    epoch, batch = redis.hmget(KEYS.writer, ["epoch", "batch"])
    return int(epoch or 0), int(batch or 0)


def test_a_batch_is_stored_with_its_cache(redis: Redis) -> None:
    """Every entry in its stream, the newest of each symbol in the hash, the position moved by one."""
    writer = Writer(redis, "A", "B")
    assert writer.append(writer.batch("A", "B", "A")) == [b"applied", 3, 0, *created(1, 2)]
    assert [q.bid_size for q in stored(writer, "A")] == [0, 2]
    assert [q.bid_size for q in stored(writer, "B")] == [1]
    assert cached(redis, "A") == stored(writer, "A")[-1]
    assert cached(redis, "B") == stored(writer, "B")[-1]
    assert position(redis) == (1, 1)


def test_a_marker_has_a_field_of_its_own(redis: Redis) -> None:
    """And no place in the cache."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    writer.stamper.open_gap("A", T0_NS, "restart")
    assert writer.append(writer.batch("A"))[:2] == [b"applied", 2]
    first, marker, last = writer.raw("XRANGE", KEYS.stream("A"), "-", "+")
    assert [set(fields(entry)) for entry in (first, marker, last)] == [{"q"}, {"gap"}, {"q"}]
    assert decode_gap("A", marker[0].decode(), fields(marker)["gap"]).epoch == 1
    assert cached(redis, "A").id == last[0].decode()


def test_the_same_batch_again_changes_nothing(redis: Redis) -> None:
    """It is answered at once."""
    writer = Writer(redis, "A")
    batches = [writer.batch("A", "A") for _ in range(3)]
    for batch in batches:
        writer.append(batch)
    before = writer.everything()
    assert [writer.append(batch) for batch in batches] == [[b"seen"]] * 3
    assert writer.everything() == before


def test_a_batch_that_does_not_follow_is_refused_whole(redis: Redis) -> None:
    """And applied when its turn has come."""
    writer = Writer(redis, "A")
    first, second, third = (writer.batch("A") for _ in range(3))
    writer.append(first)
    before = writer.everything()
    assert writer.append(third) == [b"behind", 1]
    assert writer.everything() == before
    assert writer.append(second)[0] == b"applied"
    assert writer.append(third)[0] == b"applied"
    assert [q.bid_size for q in stored(writer, "A")] == [0, 1, 2]


def test_an_older_epoch_is_fenced_off(redis: Redis) -> None:
    """From the moment of the newer claim."""
    old = Writer(redis, "A")
    old.append(old.batch("A"))
    new = Writer(redis, "A")
    before = new.everything()
    assert old.append(old.batch("A")) == [b"fenced", 2]
    assert old.claim(1, 1) == [b"fenced", 2, 0]
    assert new.everything() == before


def test_two_writers_of_the_same_epoch_are_told_apart(redis: Redis) -> None:
    """In an emptied database a new writer begins at the epoch that an older one still holds: only one may write."""
    old = Writer(redis, "A")
    old.append(old.batch("A"))
    redis.flushall()
    new = Writer(redis, "A")
    assert new.epoch == old.epoch
    before = new.everything()
    assert old.append(old.batch("A")) == [b"fenced", 1]
    assert old.claim(1, 1) == [b"fenced", 1, 0]
    assert new.everything() == before


def test_a_server_that_lost_the_claim_wants_a_new_one(redis: Redis) -> None:
    """An epoch that it does not know writes nothing, not even a batch number that would fit."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    redis.flushall()
    batch = writer.batch("A")
    assert writer.append(batch) == [b"behind", -1]
    assert writer.everything() == {}
    assert writer.claim(1, 1) == [b"held", 1, 0]
    assert position(redis) == (1, 1)
    assert writer.append(batch) == [b"applied", 1, 0, *created(1)]


def test_a_new_connection_is_told_what_was_applied(redis: Redis) -> None:
    """Where the answer to the last batch was lost, that is one more than we know of."""
    writer = Writer(redis, "A")
    for _ in range(3):
        writer.append(writer.batch("A"))
    before = writer.everything()
    assert writer.claim(1, 2) == [b"held", 1, 3]
    assert writer.claim(1, 3) == [b"held", 1, 3]
    assert writer.everything() == before


def test_a_server_that_fell_back_is_told_where_we_stand(redis: Redis) -> None:
    """After a failover to a replica that lagged: the count goes on, and says what is missing."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    for _ in range(4):
        writer.batch("A")
    assert writer.claim(1, 5) == [b"held", 1, 1]
    assert position(redis) == (1, 5)
    assert writer.append(writer.batch("A"))[0] == b"applied"


def test_a_count_from_another_epoch_proves_nothing(redis: Redis) -> None:
    """A database restored from before our claim holds a number that another writer left."""
    writer = Writer(redis, "A", claim=False)
    redis.hset(KEYS.writer, mapping={"epoch": 2, "batch": 40})
    assert writer.claim(3, 5) == [b"held", 3, 0]
    assert position(redis) == (3, 5)


def test_each_new_writer_gets_a_new_epoch_and_begins_at_one(redis: Redis) -> None:
    """And leaves its name."""
    for epoch in (1, 2, 3):
        writer = Writer(redis, "A")
        assert writer.epoch == epoch
        assert position(redis) == (epoch, 0)
    assert redis.hget(KEYS.writer, "instance") == b"me"


def test_entries_that_are_there_already_bounce_off(redis: Redis) -> None:
    """A position that was lost makes the same batches be sent again: not one entry is added."""
    writer = Writer(redis, "A", "B")
    batches = [writer.batch("A", "B", "A") for _ in range(3)]
    for batch in batches:
        writer.append(batch)
    before = {key: value for key, value in writer.everything().items() if key != KEYS.writer.encode()}
    redis.delete(KEYS.writer)
    writer.claim(1, 0)
    for batch in batches:
        status, accepted, errors, *refused = writer.append(batch)
        assert (status, accepted, errors) == (b"applied", 0, 0)
        assert refused[2::4] == [b"present"] * 3
    assert {k: v for k, v in writer.everything().items() if k != KEYS.writer.encode()} == before


def test_a_refused_entry_is_named_with_the_streams_last_id(redis: Redis) -> None:
    """Its row, its place in the row, why; of its stream the entries behind it are refused with it, so that they can
    be moved in their order, and of other streams none. Redis 6.2 cannot tell, and takes them."""
    writer = Writer(redis, "A", "B")
    batch = writer.batch("A", "B", "B", "B")
    between = EntryId.parse(str(batch.rows()[1][4])).successor()
    writer.raw("XADD", KEYS.stream("B"), str(between), "x", "y")
    can_tell = counts_additions(redis)
    notes = [(2, n, b"too_small" if can_tell else b"trimmed") for n in ((1, 2, 3) if can_tell else (1, 2))]
    assert writer.append(batch) == [
        *(b"applied", 4 - len(notes), 0),
        *created(1),
        *(part for note in notes for part in (*note, str(between).encode())),
    ]
    assert (cached(redis, "B") is None) == can_tell


def test_the_cache_stays_where_the_newest_entry_was_refused(redis: Redis) -> None:
    """It never shows what the stream does not hold."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    writer.raw("XADD", KEYS.stream("A"), f"{T0_NS}-0", "x", "y")
    assert writer.append(writer.batch("A"))[:3] == [b"applied", 0, 0]
    assert cached(redis, "A").bid_size == 0


def test_the_cache_stays_where_only_older_entries_were_accepted(redis: Redis) -> None:
    """The value is the newest entry's, and that one is not in the stream."""
    writer = Writer(redis, "A")
    batch = writer.batch("A", "A")
    rows = batch.rows()
    rows[0][4] = "1-1"
    batch.blob = msgspec.msgpack.encode(rows)
    assert writer.append(batch)[:2] == [b"applied", 1]
    assert cached(redis, "A") is None


def test_entries_stamped_again_are_accepted(redis: Redis) -> None:
    """After the last id that the refusal named."""
    writer = Writer(redis, "A")
    writer.raw("XADD", KEYS.stream("A"), "1900000000000-7", "x", "y")
    batch = writer.batch("A", "A")
    *_, last_id = writer.append(batch)
    payloads = [str(part) for part in batch.rows()[0][3::2]]
    again = writer.numbered(Restamper(writer.stamper).restamp("A", payloads, EntryId.parse(last_id), T0_NS))
    assert writer.append(again) == [b"applied", 2, 0]
    assert [q.bid_size for q in stored(writer, "A")] == [0, 1]
    assert writer.append(writer.batch("A"))[:2] == [b"applied", 1]


def test_a_stream_key_of_another_type_costs_no_other_symbol(redis: Redis) -> None:
    """It is named, keeps its value, and works again when it is gone."""
    writer = Writer(redis, "A", "B")
    redis.set(KEYS.stream("A"), "x")
    assert writer.append(writer.batch("A", "B")) == [
        *(b"applied", 1, 0),
        *(1, 1, b"wrong_type", b""),
        *created(2),
    ]
    assert len(stored(writer, "B")) == 1
    assert cached(redis, "A") is None
    assert redis.get(KEYS.stream("A")) == b"x"
    redis.delete(KEYS.stream("A"))
    assert writer.append(writer.batch("A")) == [b"applied", 1, 0, *created(1)]


def test_a_cache_key_of_another_type_costs_no_stream(redis: Redis) -> None:
    """Each symbol's failure is counted; the cache is right again with the next batch after it is mended."""
    writer = Writer(redis, "A", "B")
    redis.set(KEYS.latest, "x")
    assert writer.append(writer.batch("A", "B", "B")) == [b"applied", 3, 2, *created(1, 2)]
    redis.delete(KEYS.latest)
    writer.append(writer.batch("A", "B"))
    assert [cached(redis, s) for s in "AB"] == [stored(writer, s)[-1] for s in "AB"]


def test_a_position_key_of_another_type_refuses_everything(redis: Redis) -> None:
    """Loudly, with nothing done."""
    writer = Writer(redis, "A")
    redis.set(KEYS.writer, "x")
    before = writer.everything()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        writer.append(writer.batch("A"))
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        writer.claim(0, 0)
    assert writer.everything() == before


@pytest.mark.fault("K29")
def test_an_exhausted_stream_is_named(redis: Redis) -> None:
    """And costs no other symbol."""
    writer = Writer(redis, "A", "B")
    writer.raw("XADD", KEYS.stream("A"), LAST_OF_ALL, "x", "y")
    assert writer.append(writer.batch("A", "B")) == [
        *(b"applied", 1, 0),
        *(1, 1, b"exhausted", b""),
        *created(2),
    ]


def out_of_memory(redis: Redis) -> Callable[[], Any]:
    """Every write that needs memory is refused; the relief is returned."""
    redis.config_set("maxmemory", 1)
    return lambda: redis.config_set("maxmemory", 0)


def no_replicas(redis: Redis) -> Callable[[], Any]:
    """Writes want a replica that is not there."""
    redis.config_set("min-replicas-to-write", 1)
    return lambda: redis.config_set("min-replicas-to-write", 0)


def read_only(redis: Redis) -> Callable[[], Any]:
    """The server becomes a replica of nobody."""
    redis.replicaof("127.0.0.1", "1")
    return lambda: redis.replicaof("NO", "ONE")


@pytest.mark.fault("K14", "K23")
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (out_of_memory, "used memory > 'maxmemory'"),
        (no_replicas, "NOREPLICAS"),
        (read_only, "read only replica"),
    ],
)
def test_a_refusal_comes_before_the_first_write(
    redis: Redis, trouble: Callable[[Redis], Callable[[], Any]], words: str
) -> None:
    """Nothing of any batch in flight is done, the position included; afterwards all go in without a hole."""
    writer = Writer(redis, "A", "B")
    writer.append(writer.batch("A", "B"))
    for _ in range(3):
        batches = [writer.batch(*"AB" * 100) for _ in range(3)]
        before = writer.everything()
        relieve = trouble(redis)
        try:
            with pytest.raises(ResponseError, match=words):
                writer.append(batches[0])
            assert writer.everything() == before
        finally:
            relieve()
        assert [writer.append(batch)[0] for batch in batches[1:]] == [b"behind"] * 2
        assert writer.everything() == before
        for batch in batches:
            assert writer.append(batch) == [b"applied", 200, 0]
    for symbol, first in (("A", 0), ("B", 1)):
        assert [q.bid_size for q in stored(writer, symbol)] == list(range(first, writer.count, 2))


@contextmanager
def without(redis: Redis, *commands: str) -> Iterator[None]:
    """The writer's own user has lost the right to these commands, while its connection stands."""
    rules = [f"-{command}" for command in commands]
    redis.execute_command("ACL", "SETUSER", "default", *rules)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]


@pytest.mark.fault("K53")
@pytest.mark.parametrize("command", ["xadd", "hset", "hmget"])
def test_a_right_that_is_taken_away_refuses_the_whole_batch(redis: Redis, command: str) -> None:
    """It says nothing of any entry: nothing is done, and with the right back all go in without a hole."""
    writer = Writer(redis, "A", "B", "C")
    redis.set(KEYS.stream("C"), "x")
    writer.append(writer.batch("A"))
    batches = [writer.batch(*symbols) for symbols in ("AB", "CBA", "BA")]
    before = writer.everything()
    with without(redis, command):
        for _ in range(2):
            with pytest.raises(ResponseError) as refused:
                writer.append(batches[0], maxlen=1000)
            assert kind_of(str(refused.value)) == "NOPERM"
            assert writer.append(batches[1])[0] == b"behind" if command != "hmget" else True
        assert writer.everything() == before
    assert writer.append(batches[0]) == [b"applied", 2, 0, *created(2)]
    assert writer.append(batches[1]) == [b"applied", 2, 0, 1, 1, b"wrong_type", b""]
    assert writer.append(batches[2]) == [b"applied", 2, 0]
    assert [[q.bid_size for q in stored(writer, symbol)] for symbol in "AB"] == [[0, 1, 5, 7], [2, 4, 6]]


@pytest.mark.fault("K53")
@pytest.mark.parametrize("command", ["xrange", "xinfo"])
def test_what_cannot_be_looked_up_is_not_taken_for_missing(redis: Redis, command: str) -> None:
    """Neither by a batch that comes again nor by one whose place is taken: both wait until they can be told."""
    writer = Writer(redis, "A")
    first, second = writer.batch("A"), writer.batch("A", "A")
    writer.append(first)
    writer.raw("XADD", KEYS.stream("A"), "1900000000000-7", "x", "y")
    before = writer.everything()
    with without(redis, command):
        for batch in (first, second):
            with pytest.raises(ResponseError) as refused:
                writer.append(batch)
            assert kind_of(str(refused.value)) == "NOPERM"
    assert writer.everything() == before
    assert writer.append(first) == [b"seen"]
    assert {why for _, _, why in notes(writer.append(second))} == {b"too_small"}


def test_a_place_that_cannot_be_looked_up_amid_a_batch_is_a_new_place(redis: Redis) -> None:
    """What is stored before it stays, and the position with it."""
    writer = Writer(redis, "A", "B")
    writer.append(writer.batch("A", "B"))
    writer.raw("XADD", KEYS.stream("B"), "1900000000000-7", "x", "y")
    batch = writer.batch("A", "B")
    with without(redis, "xrange"):
        assert writer.append(batch) == [b"applied", 1, 0, 2, 1, b"too_small", b""]
    assert position(redis) == (1, 2)


def test_a_stream_is_kept_to_about_its_bound(redis: Redis) -> None:
    """Whole nodes go at a time, so that it costs next to nothing; no bound keeps all."""
    writer = Writer(redis, "A", "B")
    found: Any = redis.config_get("stream-node-max-entries")
    node = int(found["stream-node-max-entries"])
    for _ in range(30):
        writer.append(writer.batch(*"A" * 50), maxlen=200)
        writer.append(writer.batch(*"B" * 50))
    assert 200 <= len(stored(writer, "A")) <= 200 + node
    assert len(stored(writer, "B")) == 1500
    assert stored(writer, "A")[-1] == cached(redis, "A")


@pytest.mark.fault("K30")
def test_a_deleted_stream_begins_again(redis: Redis) -> None:
    """The next entries go in with larger ids, and it is told once that it was not there."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    redis.delete(KEYS.stream("A"))
    assert writer.append(writer.batch("A")) == [b"applied", 1, 0, *created(1)]
    assert [q.bid_size for q in stored(writer, "A")] == [1]
    assert writer.append(writer.batch("A")) == [b"applied", 1, 0]


def test_a_symbol_cannot_reach_another_key(redis: Redis) -> None:
    """What stands in a row is data; the keys are those that were named."""
    writer = Writer(redis)
    odd = "x'; redis.call('FLUSHALL')--"
    writer.stamper.load(odd, EntryId(0, 0), None)
    assert writer.append(writer.batch(odd)) == [b"applied", 1, 0, *created(1)]
    assert set(redis.keys()) == {KEYS.writer.encode(), KEYS.latest.encode(), KEYS.stream(odd).encode()}


def test_a_stream_that_is_begun_is_told_apart_from_one_that_refuses(redis: Redis) -> None:
    """Entry 0 of its row, however many entries follow and whether or not the stream is bounded."""
    for maxlen in (0, 1000):
        redis.flushall()
        writer = Writer(redis, "A", "B", "C")
        assert writer.append(writer.batch("A", "B", "B"), maxlen=maxlen) == [b"applied", 3, 0, *created(1, 2)]
        reply = writer.append(writer.batch("A", "C", "B", "C"), maxlen=maxlen)
        assert reply == [b"applied", 4, 0, *created(2)]
        assert [len(writer.ids(symbol)) for symbol in "ABC"] == [2, 3, 2]


def test_an_empty_stream_is_still_there(redis: Redis) -> None:
    """Trimmed to nothing it keeps its last id, so nothing is begun."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    writer.raw("XTRIM", KEYS.stream("A"), "MAXLEN", 0)
    assert writer.append(writer.batch("A")) == [b"applied", 1, 0]


@pytest.mark.fault("K04", "K17")
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_lost_tail_is_restored_exactly(redis: Redis, kept: int) -> None:
    """Sent again under their old numbers, entries take their old places, and the cache is as it was."""
    writer = Writer(redis, "A", "B")
    batches = [writer.batch("A", "B", "A") for _ in range(5)]
    for batch in batches[:kept]:
        writer.append(batch)
    image = {key: redis.dump(key) for key in writer.raw("KEYS", "*")}
    for batch in batches[kept:]:
        writer.append(batch)
    before = {symbol: stored(writer, symbol) for symbol in "AB"}
    caches = redis.hgetall(KEYS.latest)
    redis.flushall()
    for key, dump in image.items():
        assert isinstance(dump, bytes)
        redis.restore(key, 0, dump)
    assert writer.claim(1, 0) == [b"held", 1, kept]
    replies = [writer.append(batch) for batch in batches]
    assert replies[:kept] == [[b"seen"]] * kept
    assert [reply[1] for reply in replies[kept:]] == [3] * (5 - kept)
    assert [notes(reply) for reply in replies[kept + 1 :]] == [[]] * (4 - kept)
    assert {symbol: stored(writer, symbol) for symbol in "AB"} == before
    assert redis.hgetall(KEYS.latest) == caches


def test_what_was_trimmed_and_is_sent_again_is_not_taken_for_a_foreign_entry(redis: Redis) -> None:
    """It is older than all that the stream holds, and the stream has had more than that."""
    writer = Writer(redis, "A")
    batches = [writer.batch(*"A" * 50) for _ in range(12)]
    for batch in batches:
        writer.append(batch, maxlen=100)
    held = set(writer.ids("A"))
    redis.delete(KEYS.writer)
    writer.claim(1, 0)
    for batch in batches:
        ids = [EntryId.parse(str(part)) for part in batch.rows()[0][2::2]]
        reply = writer.append(batch, maxlen=100)
        assert reply[1] == 0
        assert notes(reply) == [
            (1, entry, b"present" if entry_id in held else b"trimmed")
            for entry, entry_id in enumerate(ids, 1)
        ]
    assert set(writer.ids("A")) == held


def test_what_was_trimmed_from_a_stream_that_is_empty_now_is_told_as_such(redis: Redis) -> None:
    """Nothing is left to compare with, but the stream has had entries."""
    writer = Writer(redis, "A")
    batch = writer.batch("A")
    writer.append(batch)
    writer.raw("XTRIM", KEYS.stream("A"), "MAXLEN", 0)
    redis.delete(KEYS.writer)
    writer.claim(1, 0)
    assert notes(writer.append(batch)) == [(1, 1, b"trimmed")]


@pytest.mark.fault("K28")
def test_a_foreign_entry_of_the_far_future_takes_a_place_and_says_so(redis: Redis) -> None:
    """Entries behind ours are not ours to be found: too small, and the id to go on after."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    writer.raw("XADD", KEYS.stream("A"), "1900000000000-7", "x", "y")
    assert writer.append(writer.batch("A", "A")) == [
        *(b"applied", 0, 0),
        *(1, 1, b"too_small", b"1900000000000-7"),
        *(1, 2, b"too_small", b"1900000000000-7"),
    ]


def test_another_entry_under_the_same_id_is_foreign(redis: Redis) -> None:
    """Only the very payload makes an entry ours."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    batch = writer.batch("A")
    entry_id = str(batch.rows()[0][2])
    writer.raw("XADD", KEYS.stream("A"), entry_id, "q", "[0]")
    assert writer.append(batch) == [b"applied", 0, 0, 1, 1, b"too_small", entry_id.encode()]


def test_a_probe_answers_and_writes_nothing(redis: Redis) -> None:
    """Whether the position stands, is lost, or is somebody else's."""
    writer = Writer(redis, "A")
    writer.append(writer.batch("A"))
    before = writer.everything()
    assert writer.probe() == [b"seen"]
    assert writer.everything() == before
    redis.flushall()
    assert writer.probe() == [b"behind", -1]
    assert writer.everything() == {}
    Writer(redis, "A")
    newest = Writer(redis, "A")
    before = newest.everything()
    assert writer.probe() == [b"fenced", 2]
    assert newest.everything() == before


def test_a_batch_that_comes_again_says_what_is_not_in_its_stream(redis: Redis) -> None:
    """Its refusals may not have been heard; the words are those of the first answer where they can be, and nothing
    is written."""
    writer = Writer(redis, "A", "B", "C", "D")
    redis.set(KEYS.stream("B"), "x")
    writer.raw("XADD", KEYS.stream("C"), "1900000000000-7", "x", "y")
    batch = writer.batch("A", "B", "C", "A", "D")
    first = notes(writer.append(batch))
    redis.delete(KEYS.stream("D"))
    before = writer.everything()
    reply = writer.append(batch)
    assert reply[0] == b"seen"
    why = b"too_small" if counts_additions(redis) else b"trimmed"
    assert reply[1:] == [
        *(2, 1, b"wrong_type", b""),
        *(3, 1, why, b"1900000000000-7"),
        *(4, 1, b"too_small", b""),
    ]
    assert {(2, 1, b"wrong_type"), (3, 1, why)} <= set(first)
    assert writer.everything() == before


def test_a_batch_without_rows_moves_the_position(redis: Redis) -> None:
    """A number that has nothing to store leaves no hole in the count."""
    writer = Writer(redis, "A")
    assert writer.append(writer.numbered(Batch([], msgspec.msgpack.encode([]), 0, 0, 0))) == [
        b"applied",
        0,
        0,
    ]
    assert position(redis) == (1, 1)


STEPS = st.lists(
    st.tuples(st.just("append"), st.text("AB", min_size=1, max_size=6))
    | st.tuples(st.sampled_from(["again", "skip", "reclaim", "forget"]), st.just("")),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_each_quote_is_stored_once_and_the_cache_equals_the_stream(
    redis: Redis, steps: list[tuple[str, str]]
) -> None:
    """However often batches are sent again, out of turn, or after the position was lost."""
    redis.flushall()
    writer = Writer(redis, "A", "B")
    sent = []
    expected: dict[str, list[int]] = {"A": [], "B": []}
    for step, symbols in steps:
        if step == "append":
            for number, symbol in enumerate(symbols, writer.count):
                expected[symbol].append(number)
            sent.append(writer.batch(*symbols))
            assert writer.append(sent[-1])[:2] == [b"applied", len(symbols)]
        elif step == "again" and sent:
            assert writer.append(sent[0]) == [b"seen"]
        elif step == "skip" and sent:
            batch = sent[-1]
            batch.number += 2
            assert writer.append(batch)[0] == b"behind"
            batch.number -= 2
        elif step == "reclaim":
            assert writer.claim(1, max(0, len(sent) - 1)) == [b"held", 1, len(sent)]
        elif step == "forget":
            redis.delete(KEYS.writer)
            writer.claim(1, 0)
            assert [writer.append(batch)[1] for batch in sent] == [0] * len(sent)
    for symbol, numbers in expected.items():
        found = stored(writer, symbol)
        assert [q.bid_size for q in found] == numbers
        assert cached(redis, symbol) == (found[-1] if found else None)

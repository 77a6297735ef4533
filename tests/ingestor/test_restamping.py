"""Entries whose place is taken, and those behind them: new ids, the old order."""

from ingestor.publisher.batch import Batch, batch_of
from ingestor.publisher.restamping import Restamper
from ingestor.publisher.stamper import Stamper
from tests.ingestor.test_stamper import (
    LAST_OF_ALL,
    NOW_NS,
    RECEIVED_NS,
    entries,
    ids,
    stamp,
    stamper,
)
from tests.ingestor.vendor import message
from wire import EntryId, decode_latest, encode_quote


def payload(size: int) -> str:
    """An entry as it was sent before, with this bid size."""
    return encode_quote((1.5, size, None, 1.6, 1, None, None, None, NOW_NS, 0)).decode()


def test_entries_refused_for_good_are_stamped_again_after_the_servers_last_id() -> None:
    """In their order, in a batch of its own, the newest in the cache under its new id; later quotes follow them."""
    made = stamper()
    made.open_gap("AAPL", NOW_NS, "x")
    batch = stamp(made, message(bs=1), message(bs=2))
    payloads = [text for _, text in entries(batch)]
    foreign = EntryId(NOW_NS // 10**6 + 10_000, 5)
    again = Restamper(made).restamp("AAPL", payloads, foreign, RECEIVED_NS)
    assert again.number == 0
    assert entries(again) == [(EntryId(foreign.ms, 6 + i), p) for i, p in enumerate(payloads)]
    cached = decode_latest("AAPL", str(again.rows()[0][1]))
    assert (cached.id, cached.bid_size) == (f"{foreign.ms}-8", 2)
    assert (again.quotes, again.markers) == (2, 1)
    assert again.symbols == ["AAPL"]
    assert ids(stamp(made, message(time_ns=NOW_NS + 1)))[0] == EntryId(foreign.ms, 9)


def test_entries_stamped_again_go_after_our_own_last_id_too() -> None:
    """The server's answer may be older than what is in flight."""
    made = stamper()
    own = ids(stamp(made, message()))[-1]
    assert ids(Restamper(made).restamp("AAPL", [payload(1)], EntryId(5, 5), 1)) == [own.successor()]


def test_entries_for_which_no_id_is_left_are_rejected() -> None:
    """The batch holds those that fit, perhaps none; a symbol forgotten meanwhile is no error."""
    made = stamper("A")
    some = Restamper(made).restamp("A", [payload(1), payload(2), "{}"], EntryId(2**64 - 1, 2**64 - 2), 1)
    assert [text for _, text in entries(some, "A")] == [payload(1)]
    assert (some.quotes, some.markers) == (1, 0)
    assert made.counts.rejected == {"stream_exhausted": 1}
    made.forget("A")
    none = Restamper(made).restamp("A", [payload(3)], LAST_OF_ALL, 1)
    assert (none.entries, none.rows()) == (0, [])
    assert made.counts.rejected == {"stream_exhausted": 2}


def waiting(made: Stamper, *sizes: int) -> Batch:
    """A batch that was stamped and not sent."""
    return stamp(made, *(message(bs=size) for size in sizes))


def test_what_waits_behind_entries_that_moved_moves_too() -> None:
    """Batch after batch, with the cache's id, until nothing older waits."""
    made = stamper()
    first, second = waiting(made, 1), waiting(made, 2, 3)
    restamper = Restamper(made)
    foreign = EntryId(NOW_NS // 10**6 + 10_000, 0)
    restamper.restamp("AAPL", [text for _, text in entries(first)], foreign, RECEIVED_NS)
    third = waiting(made, 4)
    moved = restamper.follow(second)
    assert [text for _, text in entries(moved)] == [text for _, text in entries(second)]
    assert ids(moved) == [EntryId(foreign.ms, 2), EntryId(foreign.ms, 3)]
    assert decode_latest("AAPL", str(moved.rows()[0][1])).id == f"{foreign.ms}-3"
    assert ids(restamper.follow(third)) == [EntryId(foreign.ms, 4)]
    restamper.nothing_waits()
    assert ids(restamper.follow(waiting(made, 5))) == [EntryId(foreign.ms, 5)]


def test_other_symbols_keep_their_ids() -> None:
    """Only streams in which somebody else wrote are touched."""
    made = stamper("A", "B")
    restamper = Restamper(made)
    batch = stamp(made, message("A"), message("B"))
    before = {row[0]: list(row) for row in batch.rows()}
    restamper.restamp("A", [payload(9)], EntryId(NOW_NS // 10**6 + 10_000, 0), RECEIVED_NS)
    after = {row[0]: row for row in restamper.follow(batch).rows()}
    assert after["B"] == before["B"]
    assert after["A"][2] != before["A"][2]


def test_a_batch_for_which_no_id_is_left_is_empty() -> None:
    """Its quotes are counted as rejected, and it can be sent all the same."""
    made = stamper("A")
    batch = stamp(made, message("A"), message("A"))
    restamper = Restamper(made)
    restamper.restamp("A", [], LAST_OF_ALL, 1)
    moved = restamper.follow(batch)
    assert (moved.quotes, moved.markers, moved.symbols, moved.rows()) == (0, 0, [], [])
    assert made.counts.rejected == {"stream_exhausted": 2}
    assert batch_of([], 0, 0, 1).blob == moved.blob

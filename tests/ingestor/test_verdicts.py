"""The server's words and what follows from them: accounts that add up, new places, holes, streams that refuse."""

from typing import Any

import pytest

from ingestor.journal import Journal
from ingestor.publisher.batch import Batch
from ingestor.publisher.displaced import Displaced
from ingestor.publisher.ledger import PublishCounts
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.second_looks import Sight
from ingestor.publisher.stamper import Stamper
from ingestor.publisher.verdicts import Verdicts
from tests.ingestor.entries import batch_with, entries_of, gap, marker, quote
from tests.ingestor.vendor import T0_NS, message
from wire import EntryId, Keyspace, entry_id_at

KEYS = Keyspace()
FOREIGN = b"1900000000000-7"


class Desk:
    """Verdicts with all that they need, for streams that have had three quotes."""

    def __init__(self, *symbols: str) -> None:
        self.stamper = Stamper()
        self.stamper.epoch = 7
        for symbol in symbols or ("A", "B"):
            self.stamper.load(symbol, entry_id_at(T0_NS + 3000), T0_NS + 3000)
        self.displaced = Displaced()
        self.counts = PublishCounts()
        self.journal = Journal()
        self.outbox = Outbox(3, replay_s=30.0, replay_bytes=2**20)
        self.verdicts = Verdicts(KEYS, self.stamper, self.displaced, self.outbox, self.counts, self.journal)

    @property
    def told(self) -> list[str]:
        """The kinds of all notes."""
        return [note.kind for note in self.journal.queue]

    @property
    def settled(self) -> int:
        """Quotes that have found their account."""
        counts = self.counts
        return (
            counts.stored
            + counts.already_stored
            + sum(counts.rejected.values())
            + counts.dropped_total
            + self.displaced.quotes
        )

    def next_gap(self, symbol: str) -> Any:
        """The marker before the next quote of this symbol, or None."""
        batch = self.stamper.stamp([(T0_NS, [message(symbol, T0_NS + 10**9)])], T0_NS + 10**9)
        assert batch is not None
        first, *_ = entries_of([batch])
        return None if batch.markers == 0 else gap(first)


def three(**flags: bool) -> Batch:
    """Quotes 4 to 6: two of A with a marker between them, one of B."""
    batch = batch_with(quote("A", 4), marker("A", 5), quote("A", 6), quote("B", 4))
    for name, value in flags.items():
        setattr(batch, name, value)
    return batch


ALL_NOTES = (
    *(1, 1, b"present", b""),
    *(1, 2, b"trimmed", FOREIGN),
    *(1, 3, b"too_small", FOREIGN),
    *(2, 1, b"wrong_type", b""),
)


def test_entries_that_went_with_their_stream_are_marked_counted_and_told() -> None:
    """The next quote stands behind a marker with their number; a marker that tells of more has none."""
    desk = Desk()
    _lose(desk, batch_with(quote("A", 4)), batch_with(marker("A", 5), quote("A", 6)))
    assert desk.told == ["marker_lost"]
    assert desk.counts.lost_by_redis == 1
    found = desk.next_gap("A")
    assert (found.reason, found.from_ns, found.missing) == ("stream_lost", T0_NS + 4000, None)
    _lose(desk, batch_with(quote("A", 7)), batch_with(marker("A", 8, "queue_full", missing=2), quote("A", 9)))
    assert desk.next_gap("A").missing == 3
    assert desk.counts.lost_by_redis == 2
    _lose(desk, batch_with(quote("A", 10)), batch_with(marker("A", 11, "queue_full", missing=2)))
    desk.stamper.open_gap("A", T0_NS, "feed_disconnected")
    found = desk.next_gap("A")
    assert (found.reason, found.missing) == ("queue_full", None)


def _lose(desk: Desk, kept: Batch, gone: Batch) -> None:
    for batch in (kept, gone):
        desk.outbox.resume(desk.outbox.answered, 0.0)
        desk.outbox.add(batch)
        desk.outbox.next()
        desk.outbox.stored(0.0)
        desk.verdicts.on_stored(batch)
    looks = desk.verdicts.second_looks
    looks.question(0.0)
    question = looks.question(1.0)
    last = EntryId.parse(str(kept.rows()[0][2]))
    reckoning = looks.reckon(question, {"A": [Sight(last, None)]}, 1.0)
    for batch in reckoning.batches:
        reckoning.add(batch)
    desk.verdicts.on_gone(reckoning)


def test_a_batch_that_is_stored_is_counted() -> None:
    """Quotes and markers apart; not once more when it had been stored before."""
    desk = Desk()
    desk.verdicts.on_stored(three())
    desk.verdicts.on_stored(three(accounted=True, sent_before=True))
    assert (desk.counts.stored, desk.counts.markers_stored, desk.settled) == (3, 1, 3)
    assert desk.told == []


def test_a_stream_that_was_begun_as_expected_is_nothing_to_tell() -> None:
    """The first quote of a new symbol; all are stored."""
    desk = Desk()
    desk.stamper.forget("A")
    desk.stamper.load("A", EntryId(0, 0), None)
    desk.verdicts.on_noted(three(), [1, 0, b"created", b""])
    assert (desk.counts.stored, desk.counts.markers_stored, desk.counts.streams_vanished) == (3, 1, 0)
    assert desk.told == []
    assert desk.next_gap("A") is None


def test_a_stream_that_had_vanished_is_told_once_and_marked() -> None:
    """All of the batch is stored; what had been before it is lost, and the next quote stands behind a marker."""
    desk = Desk()
    desk.verdicts.on_noted(three(), [1, 0, b"created", b""])
    desk.verdicts.on_noted(three(), [1, 0, b"created", b""])
    assert (desk.counts.stored, desk.counts.streams_vanished) == (6, 2)
    assert desk.told == ["stream_vanished"]
    said = desk.next_gap("A")
    assert (said.reason, said.from_ns) == ("stream_lost", T0_NS + 3000)
    assert desk.next_gap("B") is None


def test_an_entry_that_is_there_already_is_counted_as_such() -> None:
    """Whether or not we remember having sent it."""
    for flags in ({}, {"sent_before": True}, {"recovered": True}):
        desk = Desk()
        desk.verdicts.on_noted(three(**flags), [1, 1, b"present", b"", 1, 2, b"present", b""])
        assert (desk.counts.stored, desk.counts.already_stored, desk.counts.markers_stored) == (2, 1, 0)
        assert (desk.settled, desk.told) == (3, [])


@pytest.mark.parametrize("flags", [{"sent_before": True}, {"recovered": True}])
def test_an_entry_that_may_have_been_trimmed_is_taken_for_ours_if_it_was_sent(flags: dict[str, bool]) -> None:
    """It is older than all that the stream holds now."""
    desk = Desk()
    desk.verdicts.on_noted(three(**flags), [1, 1, b"trimmed", FOREIGN])
    assert (desk.counts.stored, desk.counts.already_stored, desk.settled) == (2, 1, 3)
    assert not desk.displaced


@pytest.mark.parametrize("why", [b"too_small", b"trimmed"])
def test_an_entry_whose_place_is_taken_gets_another(why: bytes) -> None:
    """In its order, after the id that the server named; it is not stored until then."""
    desk = Desk()
    batch = three()
    notes = [part for entry in (1, 2, 3) for part in (1, entry, why, FOREIGN)]
    desk.verdicts.on_noted(batch, notes)
    assert (desk.counts.stored, desk.displaced.quotes, desk.settled) == (1, 2, 3)
    assert desk.counts.markers_stored == 0
    ((symbol, payloads, last, received_ns),) = desk.displaced.take()
    assert (symbol, last, received_ns) == ("A", EntryId.parse(FOREIGN), T0_NS)
    assert payloads == [entry[2] for entry in entries_of([batch])[:3]]
    assert desk.told == ["foreign_entries"]


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (b"wrong_type", "wrong_type"),
        (b"exhausted", "stream_exhausted"),
        (b"ERR it is no good day", "refused_by_redis"),
        (b"\xff\xfe", "refused_by_redis"),
    ],
)
def test_a_stream_that_refuses_costs_its_own_quotes_and_says_why(why: bytes, reason: str) -> None:
    """Counted by reason, told once, marked from the first of them on, and in `refusing` until it takes one."""
    desk = Desk()
    for _ in range(2):
        desk.verdicts.on_noted(three(), [part for n in (1, 2, 3) for part in (1, n, why, b"")])
    assert desk.counts.rejected == {reason: 4}
    assert (desk.counts.stored, desk.counts.markers_stored, desk.settled) == (2, 0, 6)
    assert list(desk.verdicts.refusing) == ["A"]
    assert desk.told == ["stream_refuses"]
    desk.verdicts.on_stored(batch_with(quote("B", 7)))
    assert list(desk.verdicts.refusing) == ["A"]
    said = desk.next_gap("A")
    assert (said.from_ns, said.reason) == (T0_NS + 4000, "refused_by_redis")


@pytest.mark.parametrize("notes", [[], [2, 0, b"created", b""]])
def test_a_stream_heals_with_the_first_entry_that_it_takes(notes: list[Any]) -> None:
    """And that is told; another that refuses meanwhile goes on refusing."""
    desk = Desk()
    both = [1, 1, b"wrong_type", b"", 2, 1, b"wrong_type", b""]
    desk.verdicts.on_noted(batch_with(quote("A", 4), quote("B", 4)), both)
    assert sorted(desk.verdicts.refusing) == ["A", "B"]
    desk.verdicts.on_noted(batch_with(quote("A", 5), quote("B", 5)), [*both[:4]])
    assert list(desk.verdicts.refusing) == ["A"]
    healed = batch_with(quote("B", 6), quote("A", 6))
    if notes:
        desk.verdicts.on_noted(healed, notes)
    else:
        desk.verdicts.on_stored(healed)
    assert desk.verdicts.refusing == {}
    assert desk.told.count("stream_accepts") == 2


def test_a_row_that_was_stored_in_part_goes_on_refusing() -> None:
    """It refused in this very batch; the next tells more."""
    desk = Desk()
    desk.verdicts.on_noted(three(), [1, 1, b"wrong_type", b""])
    assert list(desk.verdicts.refusing) == ["A"]
    assert (desk.counts.stored, desk.counts.rejected) == (2, {"wrong_type": 1})


def test_what_an_earlier_life_left_and_another_daemon_overtook_is_dropped() -> None:
    """It would stand behind what came after it; that other daemon has marked where it began."""
    desk = Desk()
    notes = [part for n in (1, 2, 3) for part in (1, n, b"too_small", FOREIGN)]
    desk.verdicts.on_noted(three(recovered=True), notes)
    assert desk.counts.dropped == {"superseded": 2}
    assert (desk.counts.stored, desk.settled, bool(desk.displaced)) == (1, 3, False)
    assert desk.told == ["spool_superseded"]


@pytest.mark.parametrize("why", [b"too_small", b"wrong_type", b"exhausted"])
def test_what_was_stored_before_and_finds_no_place_again_is_lost_by_the_server(why: bytes) -> None:
    """It stays stored in the accounts, is counted once more as forgotten, and the hole is marked."""
    desk = Desk()
    batch = three(accounted=True, sent_before=True)
    desk.verdicts.on_noted(batch, [part for n in (1, 2, 3) for part in (1, n, why, FOREIGN)])
    assert desk.counts.lost_by_redis == 2
    assert (desk.settled, desk.counts.markers_stored, desk.counts.rejected) == (0, 0, {})
    assert not desk.displaced
    assert desk.next_gap("A").from_ns == T0_NS + 4000


def test_what_was_stored_before_and_is_there_still_counts_for_nothing() -> None:
    """Present, or trimmed meanwhile."""
    desk = Desk()
    batch = three(accounted=True, sent_before=True)
    desk.verdicts.on_noted(batch, [1, 1, b"present", b"", 1, 3, b"trimmed", FOREIGN])
    assert (desk.settled, desk.counts.lost_by_redis, desk.told) == (0, 0, [])


def test_a_marker_that_found_no_place_opens_its_hole_again() -> None:
    """With its own beginning and reason."""
    desk = Desk()
    desk.verdicts.on_noted(batch_with(marker("A", 4, "restart")), [1, 1, b"wrong_type", b""])
    said = desk.next_gap("A")
    assert (said.reason, said.from_ns) == ("restart", T0_NS + 3000)
    assert (desk.settled, desk.counts.rejected) == (0, {})


FLAGS: tuple[dict[str, bool], ...] = (
    {},
    {"sent_before": True},
    {"recovered": True},
    {"recovered": True, "sent_before": True},
    {"accounted": True, "sent_before": True},
)
"""All that a batch may be."""


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("count", range(5))
def test_accounts_add_up_whatever_is_said(flags: dict[str, bool], count: int) -> None:
    """Every quote of a batch is in one account afterwards; one that was stored before is in none anew."""
    desk = Desk()
    batch = three(**flags)
    notes = list(ALL_NOTES[: 4 * count])
    if notes:
        desk.verdicts.on_noted(batch, notes)
    else:
        desk.verdicts.on_stored(batch)
    assert desk.settled == (0 if batch.accounted else 3)


def test_a_symbol_that_was_forgotten_meanwhile_is_no_error() -> None:
    """Its stream expired while the batch was on its way."""
    desk = Desk("B")
    desk.verdicts.on_noted(
        three(), [1, 0, b"created", b"", 1, 1, b"wrong_type", b"", 1, 2, b"too_small", b""]
    )
    assert desk.settled == 3

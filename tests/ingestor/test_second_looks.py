"""Entries that are looked for again: for how long, what is missing where one is gone, what is not told twice."""

from itertools import accumulate

from ingestor.publisher.batch import Batch
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.second_looks import LOOKS_AFTER_S, MAX_DOUBTS, Lost, SecondLooks, Sight
from tests.ingestor.entries import Entry, batch_with, marker, quote
from tests.ingestor.vendor import T0_NS
from wire import EntryId, decode_gap, entry_id_at

END_S = sum(LOOKS_AFTER_S)


class Desk:
    """A stream of A on a server, which may be replaced, and the looks at it."""

    def __init__(self, *, replay_bytes: int = 2**20) -> None:
        self.outbox = Outbox(3, replay_s=30.0, replay_bytes=replay_bytes)
        self.outbox.resume(0, 0.0)
        self.looks = SecondLooks(self.outbox)
        self.stream: list[Entry] = []
        self.since_ns: int | None = None
        self.now_s = 0.0

    def store(self, *entries: Entry, begun: bool = False) -> Batch:
        """One batch, sent and stored."""
        batch = self.send(*entries)
        self.answer(batch, begun=begun)
        return batch

    def send(self, *entries: Entry) -> Batch:
        """One batch, stored on the server, and not answered."""
        batch = batch_with(*entries)
        self.outbox.add(batch)
        self.outbox.next()
        self.stream += entries
        return batch

    def answer(self, batch: Batch, *, begun: bool = False) -> None:
        """The server's word on the oldest batch that has none."""
        assert self.outbox.stored(0.0) is batch
        self.looks.stored(batch, begun={1} if begun else set())

    def look(self, after_s: float) -> Lost | None:
        """What a look finds, so many seconds after the last."""
        self.now_s += after_s
        question = self.looks.question(self.now_s)
        sights = {symbol: [self.sight(e) for e in entries] for symbol, entries in question.entries.items()}
        reckoning = self.looks.reckon(question, sights, self.now_s)
        for batch in reckoning.batches:
            reckoning.add(batch)
        return self.looks.settle(reckoning, {"A": self.since_ns}).get("A")

    def sight(self, entry_id: EntryId) -> Sight:
        """What the server would say."""
        before = max((e[1] for e in self.stream if e[1] <= entry_id), default=None)
        after = min((e for e in self.stream if e[1] > entry_id), key=lambda e: e[1], default=None)
        told = after is not None and after[2].startswith("{")
        return Sight(
            before,
            after and after[1],
            decode_gap("A", str(after[1]), after[2]).from_ns if told and after else None,
        )


def at_ns(ordinal: int) -> int:
    """The time of the entry with this ordinal."""
    return T0_NS + 1000 * ordinal


def renamed_back(*behind: Entry) -> Desk:
    """Quotes 1 and 2; 3 to 6 went into an interim stream, with the marker of the loss; the old one is back."""
    desk = Desk()
    desk.since_ns = at_ns(1)
    desk.store(quote("A", 1), quote("A", 2))
    old = list(desk.stream)
    desk.stream = []
    desk.store(quote("A", 3), begun=True)
    lost = decode_gap("A", "1-1", marker("A", 2, "stream_lost")[2])
    assert lost.from_ns == desk.since_ns
    desk.store((*marker("A", 4)[:2], marker("A", 2, "stream_lost")[2]), quote("A", 5), quote("A", 6))
    desk.look(0)
    desk.stream = old
    if behind:
        desk.store(*behind)
    return desk


def test_a_marker_that_stands_is_looked_for_with_growing_pauses_and_then_let_go() -> None:
    """Six looks in a minute."""
    desk = Desk()
    desk.store(quote("A", 1))
    assert len(desk.looks) == 0
    desk.store(marker("A", 2), quote("A", 3))
    desk.look(0)
    asked = []
    for tenth in range(int(END_S * 10) + 10):
        question = desk.looks.question(tenth / 10)
        if question.entries:
            asked.append(tenth / 10)
            desk.looks.reckon(question, {"A": [desk.sight(entry_id_at(at_ns(2)))]}, tenth / 10)
    assert asked == list(accumulate(LOOKS_AFTER_S))
    assert len(desk.looks) == 0


def test_what_was_stored_between_what_stands_is_counted_and_spanned() -> None:
    """From the last entry of the old stream to the first that came after it was back."""
    assert renamed_back(quote("A", 7)).look(1.0) == Lost(at_ns(2), "stream_lost", 3, 3)
    assert renamed_back().look(1.0) == Lost(at_ns(2), "stream_lost", 3, 3)


def test_what_was_told_is_not_told_again_at_the_next_look() -> None:
    """The marker that tells it is looked for instead."""
    desk = renamed_back(quote("A", 7))
    assert desk.look(1.0) is not None
    assert desk.look(END_S) is None
    assert len(desk.looks) == 0


def test_a_marker_that_was_stored_since_does_not_stand_for_one_that_is_gone() -> None:
    """A lost feed, told in the old stream before the look: the interim is missed all the same."""
    desk = renamed_back(quote("A", 7), marker("A", 8), quote("A", 9))
    assert desk.look(1.0) == Lost(at_ns(2), "stream_lost", 3, 3)
    assert desk.look(0.3) is None
    assert len(desk.looks) == 1


def test_what_a_marker_next_to_it_tells_already_is_not_told_again() -> None:
    """The one that says that all is gone came into the old stream, when that was back already."""
    all_of_it = (*marker("A", 8)[:2], marker("A", 2, "stream_lost")[2])
    assert renamed_back(all_of_it, quote("A", 9)).look(1.0) is None


def test_what_is_trimmed_is_not_missed() -> None:
    """Nothing stands before the place; whoever reads finds out."""
    desk = Desk()
    desk.store(quote("A", 1), marker("A", 2), quote("A", 3))
    desk.look(0)
    desk.stream = [quote("A", 3)]
    assert desk.look(1.0) is None
    assert not desk.looks.question(desk.now_s).entries
    desk.stream = []
    assert desk.look(2.0) is None


def test_a_marker_that_alone_is_gone_is_told_with_its_own_words() -> None:
    """Somebody deleted it: its reason, its span and its number."""
    desk = Desk()
    desk.store(quote("A", 1), marker("A", 2, "queue_full", missing=7), quote("A", 3))
    desk.look(0)
    del desk.stream[1]
    assert desk.look(1.0) == Lost(at_ns(1), "queue_full", 7, 0)


def test_a_number_is_told_only_where_all_that_was_stored_is_known() -> None:
    """Not where the last entry that stands is older than what is kept."""
    desk = Desk(replay_bytes=0)
    desk.store(quote("A", 1))
    desk.store(marker("A", 2), quote("A", 3))
    desk.look(0)
    del desk.stream[1:]
    assert desk.look(1.0) == Lost(at_ns(1), "stream_lost", None, 0)


def test_the_next_look_decides_where_an_answer_is_still_to_come() -> None:
    """What is on its way may have gone into either stream; after some looks it is told without a number."""
    desk = renamed_back()
    batch = desk.send(quote("A", 7))
    desk.stream.pop()
    assert desk.look(1.0) is None
    desk.stream.append(quote("A", 7))
    desk.answer(batch)
    assert desk.look(0.3) == Lost(at_ns(2), "stream_lost", 3, 3)
    desk = renamed_back()
    desk.send(quote("A", 7))
    assert [desk.look(1.0) for _ in range(MAX_DOUBTS)] == [None] * MAX_DOUBTS
    assert desk.look(1.0) == Lost(at_ns(2), "stream_lost", None, 3)


def test_of_a_server_that_forgot_the_claim_tells() -> None:
    """What was stored before is looked for no more; what is stored after it is."""
    desk = renamed_back(quote("A", 7))
    desk.outbox.lost()
    desk.outbox.resume(0, 1.0)
    assert desk.look(1.0) is None
    assert len(desk.looks) == 0


def test_a_refused_marker_is_not_looked_for() -> None:
    """It is not there, and gets another place."""
    desk = Desk()
    batch = desk.send(quote("A", 1), marker("A", 2))
    desk.outbox.stored(0.0)
    desk.looks.stored(batch, refused={(1, 2)})
    assert len(desk.looks) == 0

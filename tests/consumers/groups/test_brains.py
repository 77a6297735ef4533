"""The rules of a worker, with plain calls: where groups begin, what is told, what is sent again, and when."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from consumers.groups.book import Book
from consumers.groups.looks import NEWCOMER_WAITS_S
from consumers.groups.membership import BLOCK_S, LOOK_TAKES_S, TRUST_MIN_S, Membership
from consumers.groups.pending import Step
from consumers.groups.record import Debt, Record, encode_record, read_record
from consumers.groups.rounds import pause_s
from consumers.groups.standing import (
    GroupFacts,
    Standing,
    begin,
    begin_again,
    gone,
    having_seen,
    is_rewound,
    stand,
    take_tally,
    trimmed,
)
from consumers.reading.gaps import Anchor, StreamFacts
from consumers.reading.start import Place, before
from wire import ZERO_ID, EntryId, Keyspace


def at(number: int) -> EntryId:
    """An entry id by its number."""
    return EntryId(number, 0)


@dataclass
class Model:
    """A stream with one group, as Redis would have it; entries are numbered from 1."""

    entries: list[int] = field(default_factory=list)
    added: int = 0
    last: int = 0
    delivered: int = 0
    read: int = 0
    pending: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)
    standing: Standing | None = None
    seen: int | None = None
    trimmed: set[int] = field(default_factory=set)

    def add(self) -> None:
        self.last += 1
        self.added += 1
        self.entries.append(self.last)

    def deliver(self, mine: bool) -> None:
        ahead = [entry for entry in self.entries if entry > self.delivered]
        if ahead:
            self.delivered = ahead[0]
            self.read += 1
            self.pending.add(ahead[0])
            self.seen = ahead[0] if mine else self.seen

    def ack(self, which: int) -> None:
        if self.pending:
            entry = sorted(self.pending)[which % len(self.pending)]
            self.pending.discard(entry)
            self.acked.add(entry)

    def trim(self) -> None:
        if self.entries:
            self.trimmed.add(self.entries.pop(0))

    @property
    def facts(self) -> StreamFacts:
        first = at(self.entries[0]) if self.entries else None
        return StreamFacts(first, at(self.last), len(self.entries), self.added)

    @property
    def group(self) -> GroupFacts:
        return GroupFacts(at(self.delivered), 1, self.read)

    def look(self) -> None:
        oldest = at(min(self.pending)) if self.pending else None
        self.standing = stand(self.group, self.facts, oldest)


DEEDS = st.lists(
    st.sampled_from(["add", "add", "add", "mine", "mine", "other", "other", "trim", "look", 0, 3]),
    max_size=60,
)
"""A number acknowledges one of the pending entries."""


def lived(deeds: list[str | int]) -> Model:
    """A model after these deeds, looked at once before them."""
    model = Model()
    model.look()
    for deed in deeds:
        match deed:
            case int():
                model.ack(deed)
            case "add":
                model.add()
            case "trim":
                model.trim()
            case "look":
                model.look()
            case _:
                model.deliver(deed == "mine")
    return model


@settings(max_examples=400)
@given(DEEDS)
def test_a_group_made_anew_never_begins_behind_an_entry_that_was_not_acknowledged(
    deeds: list[str | int],
) -> None:
    """Whatever happened since the last look, and no gap is told that there is not."""
    model = lived(deeds)
    assert model.standing is not None
    standing = having_seen(model.standing, None if model.seen is None else at(model.seen))
    assert not is_rewound(standing, model.facts)
    beginning = begin_again("A", standing, model.facts)
    assert beginning.gap is None
    not_done = [entry for entry in range(1, model.last + 1) if entry not in model.acked]
    assert all(at(entry) > beginning.after or entry in model.trimmed for entry in not_done)


@settings(max_examples=400)
@given(DEEDS)
def test_a_group_made_anew_shows_what_was_trimmed_before_it_was_handled(deeds: list[str | int]) -> None:
    """Whoever joins it finds the gap by the group's place alone."""
    model = lived(deeds)
    assert model.standing is not None
    beginning = begin_again("A", model.standing, model.facts)
    told = trimmed("A", GroupFacts(beginning.after, 0, None), model.facts, None)
    lost = [entry for entry in model.trimmed if entry not in model.acked and at(entry) > beginning.after]
    if lost and beginning.after != ZERO_ID:
        assert told is not None


@settings(max_examples=400)
@given(DEEDS)
def test_a_stream_begun_anew_is_seen_by_its_ids(deeds: list[str | int]) -> None:
    """Smaller or larger: once this worker had an entry of the old one, the new one is read from its start."""
    model = lived(deeds)
    assert model.standing is not None
    if model.seen is None:
        return
    standing = having_seen(model.standing, at(model.seen))
    for first in (EntryId(0, 1), at(model.last + 5)):
        facts = StreamFacts(first, first, 1, 1)
        assert is_rewound(standing, facts) == (first.ms == 0)
        beginning = begin_again("A", standing, facts)
        assert (beginning.after, beginning.read) == (ZERO_ID, 0)
        # A server that does not count entries, as Redis 6.2, refuses to be told how many were read.
        assert begin_again("A", standing, replace(facts, added=None)).read is None
        assert beginning.gap is not None
        assert beginning.gap.reason == "stream_recreated"


@settings(max_examples=400)
@given(DEEDS, st.integers(1, 30), st.integers(0, 30))
def test_the_number_of_missing_entries_is_exact(deeds: list[str | int], more: int, left: int) -> None:
    """From a tally on, whatever one member was given since."""
    model = lived([deed for deed in deeds if deed != "trim"])
    tally = take_tally(model.group, model.facts)
    for _ in range(more):
        model.add()
    while len(model.entries) > left:
        model.trim()
    gap = trimmed("A", model.group, model.facts, tally)
    lost = [entry for entry in model.trimmed if entry > model.delivered]
    if model.delivered == 0:
        # From the very start on, nothing that went before can be told from what never was.
        assert gap is None
    elif lost:
        assert gap is not None
        assert gap.missing == (None if tally is None else len(lost))
    elif tally is not None:
        assert gap is None


@given(st.lists(st.tuples(st.sampled_from(["hand", "done", "send", "lose", "settle"]), st.integers(0, 9))))
def test_every_acknowledgement_is_sent_until_it_is_answered(deeds: list[tuple[str, int]]) -> None:
    """None is forgotten with a connection, none stays after its answer."""
    book = Book(Keyspace(), "g")
    held: set[str] = set()
    waiting: set[str] = set()
    under_way: list[tuple[str, str]] = []
    for deed, number in deeds:
        entry_id = f"{number}-0"
        if deed == "hand":
            book.hand("A", entry_id)
            held.add(entry_id)
        elif deed == "done":
            book.done("A", entry_id)
            held.discard(entry_id)
            waiting.add(entry_id)
        elif deed == "send":
            commands, under_way = book.sending()
            assert {entry for command in commands for entry in command[3:]} == waiting
        elif deed == "lose":
            under_way = []
        else:
            book.settle(under_way)
            waiting -= {entry for _, entry in under_way}
            under_way = []
        assert (book.held, book.waiting) == (len(held), len(waiting))
        assert all(book.holds("A", entry) for entry in held | waiting)


@given(st.floats(0.001, 1e6), st.integers(0, 1_000), st.floats(0, 0.999))
def test_rounds_are_rare_and_soon_enough(claim_after_s: float, members: int, chance: float) -> None:
    """Never more often than twenty times a second, and within the time after which entries are claimed."""
    pause = pause_s(claim_after_s, members, chance)
    assert 0.05 <= pause <= max(claim_after_s, 0.3) * 1.0001


def test_twenty_workers_do_not_scan_all_streams_every_second() -> None:
    """With the defaults, 500 streams and 20 workers, it is some hundred looks a second in all."""
    assert sum(500 / pause_s(30.0, 20, chance / 20) for chance in range(20)) < 500


def test_a_group_begins_where_it_was_wished() -> None:
    """With the number that lets Redis tell a lag from the first entry on, where it is known."""
    facts = StreamFacts(at(3), at(9), 7, 12)
    assert begin(Place(at(9), Anchor.SEEN), facts) == (at(9), 12, None)
    assert begin(Place(ZERO_ID, Anchor.CHOSEN), facts) == (ZERO_ID, 5, None)
    assert begin(Place(at(5), Anchor.CHOSEN), facts) == (at(5), None, None)
    assert begin(Place(at(5), Anchor.CHOSEN), StreamFacts(at(3), at(9), 7, None)) == (at(5), None, None)


def test_entries_that_are_gone_make_one_gap() -> None:
    """From the first to the last of them, in the order of their ids."""
    gap = gone("A", ["10-0", "9-0"])
    assert (gap.from_ns, gap.to_ns, gap.missing) == (9_000_000, 10_000_000, 2)


KEY = b"quotes:stream:A"


def info(first: int, last: int) -> list[Any]:
    """A reply of XINFO STREAM."""
    fields = [b"length", 5, b"last-generated-id", f"{last}-0".encode(), b"entries-added", 9]
    return [*fields, b"first-entry", [f"{first}-0".encode(), [b"q", b"[]"]]]


def groups(last: int) -> list[Any]:
    """A reply of XINFO GROUPS."""
    return [
        [b"name", b"g", b"consumers", 2, b"last-delivered-id", f"{last}-0".encode(), b"entries-read", None]
    ]


def members(*names: str) -> list[Any]:
    """A reply of XINFO CONSUMERS."""
    return [[b"name", name.encode(), b"pending", 0, b"idle", 1] for name in names]


def stored(generation: str, floor: int = 40, **more: Any) -> bytes:
    """A record as it stands in Redis."""
    return encode_record(Record(generation, "0-0", f"{floor}-0", f"{floor}-0", **more))


ROUND = ["MULTI", "XINFO", "XINFO", "XPENDING", "XINFO", "ZRANGE", "XRANGE", "EXEC"]
"""A look of a worker that is not in the group."""
LOOK_AND_READ = ["MULTI", "XINFO", "XINFO", "XREADGROUP", "EXEC"]


def member() -> Membership:
    """A worker of one symbol, which begins now."""
    membership = Membership(
        Keyspace(), "g", "me", claim_after_s=30, prefetch=10, holds=lambda *_: False, chance=lambda: 0.5
    )
    membership.follow("A", Place(at(50), Anchor.SEEN))
    return membership


def names(step: Step) -> list[Any]:
    """The names of the commands."""
    return [command[0] for command in step.commands]


def joined(membership: Membership, now_s: float = 0.0) -> None:
    """Let the group be there, with nothing pending."""
    step = membership.next_step(now_s)
    assert names(step) == ROUND
    answers = [info(10, 50), groups(50), [0, None, None, None], members("generation:1"), [stored("1")], []]
    step.digest([answers], now_s)
    step = membership.next_step(now_s)
    assert names(step) == ["EVAL", "XPENDING"]
    step.digest([None, []], now_s)
    step = membership.next_step(now_s)
    assert names(step)[0] == "XREADGROUP"
    step.digest([None], now_s)


def test_a_worker_joins_asks_for_its_own_and_then_reads() -> None:
    """One that keeps up waits in one plain command, of a bounded count."""
    membership = member()
    joined(membership)
    (command,) = membership.next_step(0.005).commands
    assert command[:7] == ("XREADGROUP", "GROUP", "g", "me", "COUNT", 10, "BLOCK")


def test_a_pause_of_the_strategy_ends_the_trust() -> None:
    """Meanwhile anything may have been trimmed."""
    membership = member()
    joined(membership)
    step = membership.next_step(TRUST_MIN_S + 0.01)
    assert names(step) == LOOK_AND_READ
    step.digest([[info(10, 50), groups(50), None]], TRUST_MIN_S + 0.01)
    assert names(membership.next_step(TRUST_MIN_S + 0.01)) == ["XREADGROUP"]


def test_an_answer_that_waited_for_the_worker_is_not_trusted() -> None:
    """It came while the process stood still, and what was trimmed since then would not show."""
    membership = member()
    joined(membership)
    step = membership.next_step(0.005)
    found = [[b"51-0", [b"q", b"[]"]]]
    step.digest([[[KEY, found]]], 3.0)
    assert names(membership.next_step(3.0)) == LOOK_AND_READ


def test_a_read_that_ran_out_is_trusted_from_its_end_on() -> None:
    """Until then Redis would have answered at once."""
    membership = member()
    joined(membership)
    membership.next_step(0.005).digest([None], 0.005 + BLOCK_S)
    assert names(membership.next_step(0.010 + BLOCK_S)) == ["XREADGROUP"]
    membership.next_step(0.010 + BLOCK_S).digest([None], 3.0)
    assert names(membership.next_step(3.0)) == LOOK_AND_READ


def test_a_look_that_takes_longer_than_its_trust_is_followed_by_a_read_that_waits() -> None:
    """Once; where all streams are as they were and nothing was there to be read, a worker must come to rest."""
    membership = member()
    joined(membership)
    step = membership.next_step(1.0)
    step.digest([[info(10, 50), groups(50), None]], 1.0 + LOOK_TAKES_S / 2)
    step = membership.next_step(1.0 + LOOK_TAKES_S / 2)
    assert names(step) == ["XREADGROUP"]
    step.digest([[[KEY, [[b"51-0", [b"q", b"[]"]]]]]], 1.0 + LOOK_TAKES_S)
    assert names(membership.next_step(1.0 + LOOK_TAKES_S)) == LOOK_AND_READ


@pytest.mark.parametrize(
    ("after", "first", "told"),
    [
        ("20-0", 20, []),
        (str(before(at(21))), 21, []),
        ("20-0", 26, [("trimmed", "20-0", "26-0")]),
        ("20-0", None, [("trimmed", "20-0", "30-0")]),
    ],
)
def test_what_is_trimmed_of_entries_that_were_skipped_is_told(
    after: str, first: int | None, told: list[tuple[str, str, str]]
) -> None:
    """They were owed, and lie behind the group's place, where no look compares anything."""
    membership, debt = member(), Debt("me", after, "30-0")
    raw = stored("1", debts=(debt,))
    answers = [info(10, 50), groups(50), [0, None, None, None], members("generation:1"), [raw], []]
    membership.next_step(0.0).digest([answers], 0.0)
    membership.next_step(0.0).digest([None, []], 0.0)
    step = membership.next_step(0.0)
    assert names(step) == ["XINFO", "XRANGE"]
    stream = info(10 if first is None else first, 50)
    if first is None:
        stream[-1] = None
    step.digest([stream, [] if first is None else [[b"28-0", [b"q", b"[]"]]]], 0.0)
    words = [word for command in membership.next_step(0.0).commands for word in command]
    records = [read_record(word) for word in words if isinstance(word, bytes) and word.startswith(b"{")]
    debts = {debt for record in records if record is not None for debt in record.debts}
    found = [(debt.reason, debt.after, debt.upto) for debt in debts if debt.reason]
    assert found == told


def test_a_full_answer_ends_the_trust() -> None:
    """The group is behind, and may be overtaken."""
    membership = member()
    joined(membership)
    step = membership.next_step(0.005)
    found = [[f"{ms}-0".encode(), [b"q", b"[]"]] for ms in range(51, 61)]
    (run,) = step.digest([[[KEY, found]]], 0.005)
    assert run.entries == found
    assert names(membership.next_step(0.005)) == LOOK_AND_READ


@pytest.mark.parametrize(
    "words",
    [
        "NOGROUP No such key or group",
        "UNBLOCKED the stream key no longer exists",
        "WRONGTYPE Operation against",
    ],
)
def test_a_group_that_went_away_is_looked_for(words: str) -> None:
    """Whatever the server calls it; and the look finds that it is to be made where all was acknowledged."""
    membership = member()
    joined(membership)
    step = membership.next_step(0.005)
    assert step.digest([ResponseError(words)], 0.005) == []
    no_group = ResponseError("NOGROUP No such key or group")
    step = membership.next_step(0.005)
    step.digest([[info(10, 50), []]], 0.005)
    step = membership.next_step(0.005)
    assert names(step) == ROUND
    step.digest([[info(10, 50), [], no_group, no_group, [stored("1", 50)], []]], 0.005)
    step = membership.next_step(0.005)
    assert names(step) == ["EVAL"]
    step.digest([None], 0.005)
    (command,) = membership.next_step(0.005).commands
    assert command == ("XGROUP", "CREATE", KEY, "g", "50-0")


def test_another_error_is_not_taken_for_one_of_the_group() -> None:
    """It goes to whoever decides about the connection."""
    membership = member()
    joined(membership)
    step = membership.next_step(0.1)
    with pytest.raises(ResponseError, match="READONLY"):
        step.digest([ResponseError("READONLY You can't write")], 0.1)


def test_a_group_that_another_worker_made_first_is_joined() -> None:
    """BUSYGROUP is good news."""
    membership = member()
    no_group = ResponseError("NOGROUP No such key or group")
    for now_s in (0.0, NEWCOMER_WAITS_S):
        step = membership.next_step(now_s)
        assert names(step) == ROUND
        step.digest([[info(10, 50), [], no_group, no_group, [], []]], now_s)
    step = membership.next_step(now_s)
    assert names(step) == ["EVAL"]
    step.digest([None], now_s)
    step = membership.next_step(now_s)
    assert names(step) == ["XGROUP"]
    assert step.digest([ResponseError("BUSYGROUP Consumer Group name already exists")], now_s) == []
    joined(membership, now_s)

"""Batches until they are stored, and stored for good: in order, none lost, none in two places."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingestor.publisher.batch import Batch
from ingestor.publisher.outbox import Outbox

WINDOW = 3


def batch(ordinal: int) -> Batch:
    """A batch of one quote, received at ten times its ordinal."""
    return Batch(["A"], b"", 1, 0, 10 * ordinal)


def outbox_of(window: int = WINDOW, replay_s: float = 1e9, replay_bytes: int = 10**9) -> Outbox:
    """An outbox that keeps stored batches for ever, if nothing else is said."""
    return Outbox(window, replay_s=replay_s, replay_bytes=replay_bytes)


def room(outbox: Outbox) -> bool:
    """Whether a new batch would go at once, asked anew."""
    return outbox.room > 0


class Server(RuleBasedStateMachine):
    """An outbox against a model of the server: it applies a batch only after the one before.

    Batches travel to the server, answers travel back; a loss of the connection may come between any two steps, so
    that what was sent may or may not have arrived, and what was answered may or may not have been heard. And a
    server may come back with less than it had applied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outbox = outbox_of()
        self.outbox.resume(0, 0.0)
        self.made = 0
        self.applied = 0
        self.is_refusing = False
        self.on_the_wire: list[Batch] = []
        self.answers: list[str] = []
        self.settled: list[int] = []
        self.unheard: list[int] = []
        self.ever_lost: set[int] = set()
        self.is_connected = True

    @rule()
    def add(self) -> None:
        """A new batch was stamped."""
        self.made += 1
        self.outbox.add(batch(self.made))

    @precondition(lambda self: self.is_connected)
    @rule(most=st.integers(1, 5))
    def send(self, most: int) -> None:
        """Send what may be sent."""
        for _ in range(most):
            sent = self.outbox.next()
            if sent is None:
                return
            # A batch whose answer was never heard says so: it may be stored already. A refused one is not.
            assert sent.sent_before == (sent.number in self.ever_lost)
            assert 10 * sent.number == sent.first_received_ns
            if self.on_the_wire:
                assert sent.number == self.on_the_wire[-1].number + 1
            self.unheard.append(sent.number)
            self.on_the_wire.append(sent)

    @precondition(lambda self: self.on_the_wire)
    @rule()
    def arrive(self) -> None:
        """The server reads the next batch."""
        number = self.on_the_wire.pop(0).number
        if self.is_refusing:
            self.answers.append("refused")
        elif number <= self.applied:
            self.answers.append("stored")
        elif number == self.applied + 1:
            self.applied = number
            self.answers.append("stored")
        else:
            self.answers.append("refused")

    @precondition(lambda self: self.is_connected and self.answers)
    @rule()
    def hear(self) -> None:
        """The next answer is heard."""
        self.unheard.pop(0)
        if self.answers.pop(0) == "stored":
            self.settle(self.outbox.stored(0.0))
        else:
            self.outbox.refused()

    @precondition(lambda self: self.is_connected)
    @rule()
    def go_on(self) -> None:
        """After a refusal, once every answer has been heard."""
        if self.outbox.is_refused_whole:
            self.outbox.go_on()

    @rule()
    def change_temper(self) -> None:
        """The server begins or ends refusing everything."""
        self.is_refusing = not self.is_refusing

    @precondition(lambda self: self.is_connected)
    @rule()
    def lose(self) -> None:
        """The connection is gone, with the answers on it; what was sent may still arrive."""
        self.outbox.lost()
        self.ever_lost |= set(self.unheard)
        self.unheard.clear()
        self.answers.clear()
        self.is_connected = False

    @precondition(lambda self: not self.is_connected)
    @rule()
    def resume(self) -> None:
        """A new connection: what had not arrived by now never will."""
        self.on_the_wire.clear()
        self.answers.clear()
        resumed = self.outbox.resume(self.applied, 0.0)
        for found in resumed.settled:
            self.settle(found)
        replayed = [b.number for b in resumed.replayed]
        assert replayed == sorted(replayed)
        assert all(number > self.applied for number in replayed)
        assert (resumed.lost_batches, resumed.lost_quotes) == (0, 0)
        self.ever_lost |= set(replayed)
        self.is_connected = True

    @precondition(lambda self: not self.is_connected)
    @rule(kept=st.integers(0, 20))
    def forget(self, kept: int) -> None:
        """The server restarts with a part of what it had."""
        self.applied = min(self.applied, kept)
        self.on_the_wire.clear()

    def settle(self, stored: Batch) -> None:
        """One batch is known to be stored; one that was stored before is not counted again."""
        if stored.accounted:
            assert stored.number in self.settled
        else:
            self.settled.append(stored.number)

    @invariant()
    def nothing_is_lost_or_in_two_places(self) -> None:
        """Settled, in flight and waiting add up; settled ones come in order and are stored."""
        assert self.settled == list(range(1, len(self.settled) + 1))
        assert self.outbox.quotes == self.made - len(self.settled)
        held = self.outbox.in_flight + self.outbox.waiting
        assert len(self.settled) + held == self.made + self.outbox.replaying
        assert self.outbox.in_flight <= WINDOW
        assert self.outbox.answered == len(self.settled)
        if self.is_connected:
            # What the server has not is on its way.
            assert held >= self.made - self.applied
        oldest = self.outbox.oldest_received_ns
        assert oldest is None if held == 0 else oldest is not None

    def teardown(self) -> None:
        """When the trouble is over, everything is stored."""
        self.is_refusing = False
        if not self.is_connected:
            self.resume()
        for _ in range(10 * self.made + 10):
            self.send(5)
            while self.on_the_wire:
                self.arrive()
            while self.answers:
                self.hear()
            self.go_on()
        assert self.settled == list(range(1, self.made + 1))
        assert self.applied == self.made


TestOutbox = Server.TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_nothing_is_sent_before_the_first_claim() -> None:
    """The server has to say first where the count stands."""
    outbox = outbox_of()
    outbox.add(batch(1))
    assert outbox.next() is None
    assert not room(outbox)
    assert outbox.resume(0, 0.0).settled == []
    assert outbox.next() is not None


def test_there_is_room_only_when_a_new_batch_would_go_at_once() -> None:
    """Otherwise quotes had better gather."""
    outbox = outbox_of(2)
    outbox.resume(0, 0.0)
    assert room(outbox)
    outbox.add(batch(1))
    assert not room(outbox)
    outbox.next()
    assert room(outbox)
    outbox.add(batch(2))
    outbox.next()
    assert not room(outbox)
    outbox.stored(0.0)
    assert room(outbox)
    outbox.refused()
    assert not room(outbox)


def test_a_batch_that_was_never_sent_is_not_settled_by_a_number() -> None:
    """A count from another life proves nothing about it."""
    outbox = outbox_of()
    outbox.add(batch(1))
    assert outbox.resume(5, 0.0).settled == []
    assert outbox.waiting == 1


def sent_and_stored(outbox: Outbox, count: int, now_s: float = 0.0) -> None:
    """So many batches go through."""
    for n in range(count):
        outbox.add(batch(n + 1))
        outbox.next()
        outbox.stored(now_s)


def test_what_a_server_forgot_is_sent_again_before_what_is_new() -> None:
    """Under the old numbers, in order, and not counted as stored twice."""
    outbox = outbox_of()
    outbox.resume(0, 0.0)
    sent_and_stored(outbox, 5)
    outbox.add(batch(6))
    outbox.lost()
    resumed = outbox.resume(2, 0.0)
    assert [b.number for b in resumed.replayed] == [3, 4, 5]
    assert (outbox.replaying, outbox.quotes) == (3, 1)
    sent = [outbox.next(), outbox.next(), outbox.next()]
    assert [(b.number, b.accounted) for b in sent if b] == [(3, True), (4, True), (5, True)]
    for _ in range(3):
        outbox.stored(0.0)
    last = outbox.next()
    assert last is not None
    assert (last.number, last.accounted) == (6, False)


def test_what_is_too_old_to_be_sent_again_is_counted() -> None:
    """Kept for a time and up to a size; a server that forgot more is told apart from one that did not."""
    outbox = outbox_of(replay_s=10.0)
    outbox.resume(0, 0.0)
    sent_and_stored(outbox, 4, now_s=0.0)
    sent_and_stored(outbox, 2, now_s=9.0)
    outbox.forget(11.0)
    assert outbox.first_number == 5
    outbox.lost()
    resumed = outbox.resume(1, 11.0)
    assert [b.number for b in resumed.replayed] == [5, 6]
    assert (resumed.lost_batches, resumed.lost_quotes) == (3, 3)


def test_what_a_server_forgets_again_is_told_once() -> None:
    """Lost quotes stay lost; those that had been sent again meanwhile are lost for the first time."""
    outbox = outbox_of(replay_s=10.0)
    outbox.resume(0, 0.0)
    sent_and_stored(outbox, 6, now_s=0.0)
    sent_and_stored(outbox, 2, now_s=9.0)
    outbox.forget(11.0)
    outbox.lost()
    first = outbox.first_number
    resumed = outbox.resume(1, 11.0)
    assert (resumed.lost_batches, resumed.lost_quotes) == (5, 5)
    outbox.put_first(Batch([], b"", 0, 0, 0), first - 1)
    while outbox.next() is not None:
        outbox.stored(11.0)
    outbox.forget(99.0)
    outbox.lost()
    resumed = outbox.resume(5, 99.0)
    assert (resumed.lost_batches, resumed.lost_quotes) == (3, 2)
    resumed = outbox.resume(0, 99.0)
    assert resumed.lost_quotes == 1


def test_a_batch_of_markers_alone_has_waited_for_nobody() -> None:
    """It does not hide since when quotes wait."""
    outbox = outbox_of()
    outbox.resume(0, 0.0)
    outbox.add(batch(5))
    outbox.put_first(Batch(["A"], b"", 0, 1, 0), 1)
    assert outbox.oldest_received_ns == 50


def test_memory_for_what_is_kept_is_bounded() -> None:
    """The oldest are let go first."""
    size = batch(1).size_bytes
    outbox = outbox_of(replay_bytes=3 * size)
    outbox.resume(0, 0.0)
    sent_and_stored(outbox, 10)
    assert outbox.kept_bytes == 3 * size
    assert outbox.first_number == 8

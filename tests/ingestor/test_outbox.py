"""Batches until they are stored: in order, none lost, none in two places."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingestor.publisher.outbox import Outbox
from ingestor.publisher.stamper import Batch

WINDOW = 3


def batch(number: int) -> Batch:
    """A batch of one quote, received at ten times its number."""
    return Batch(number, ["A"], [], 1, 0, 10 * number)


def room(outbox: Outbox) -> bool:
    """Whether a new batch would go at once, asked anew."""
    return outbox.has_room


class Server(RuleBasedStateMachine):
    """An outbox against a model of the server: it applies a batch only after the one before.

    Batches travel to the server, answers travel back; a loss of the connection may come between any two steps, so
    that what was sent may or may not have arrived, and what was answered may or may not have been heard.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(WINDOW)
        self.outbox.resume(0)
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
            self.settled.append(self.outbox.stored().number)
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
        self.settled += [b.number for b in self.outbox.resume(self.applied)]
        self.is_connected = True

    @invariant()
    def nothing_is_lost_or_in_two_places(self) -> None:
        """Settled, in flight and waiting add up; settled ones come in order and are stored."""
        assert self.settled == list(range(1, len(self.settled) + 1))
        assert len(self.settled) <= self.applied
        assert len(self.settled) + self.outbox.in_flight + self.outbox.waiting == self.made
        assert self.outbox.quotes == self.made - len(self.settled)
        assert self.outbox.in_flight <= WINDOW
        assert self.outbox.answered == len(self.settled)
        oldest = self.outbox.oldest_received_ns
        assert oldest == (None if len(self.settled) == self.made else 10 * (len(self.settled) + 1))

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


TestOutbox = Server.TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_nothing_is_sent_before_the_first_claim() -> None:
    """The server has to say first where the count stands."""
    outbox = Outbox(WINDOW)
    outbox.add(batch(1))
    assert outbox.next() is None
    assert not room(outbox)
    assert outbox.resume(0) == []
    assert outbox.next() is not None


def test_there_is_room_only_when_a_new_batch_would_go_at_once() -> None:
    """Otherwise quotes had better gather."""
    outbox = Outbox(2)
    outbox.resume(0)
    assert room(outbox)
    outbox.add(batch(1))
    assert not room(outbox)
    outbox.next()
    assert room(outbox)
    outbox.add(batch(2))
    outbox.next()
    assert not room(outbox)
    outbox.stored()
    assert room(outbox)
    outbox.refused()
    assert not room(outbox)


def test_a_batch_that_was_never_sent_is_not_settled_by_a_number() -> None:
    """A count from another life proves nothing about it."""
    outbox = Outbox(WINDOW)
    outbox.add(batch(1))
    assert outbox.resume(5) == []
    assert outbox.waiting == 1

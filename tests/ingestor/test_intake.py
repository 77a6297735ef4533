"""The queue between feed and publisher: nothing twice, nothing lost unseen, the oldest first to go."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.publisher.intake import Intake, Received
from tests.ingestor.vendor import message


def numbered(first: int, count: int) -> Received:
    """A frame whose quotes bear their numbers as bid size."""
    return (first, [message(bs=first + i) for i in range(count)])


def numbers(frames: list[Received]) -> list[int | None]:
    """The numbers of these frames' quotes, in order."""
    return [quote.bs for frame in frames for quote in frame[1]]


def waiting_since(intake: Intake) -> int | None:
    """When the front was received, asked anew."""
    return intake.oldest_received_ns


STEPS = st.lists(
    st.tuples(st.just("put"), st.integers(0, 30)) | st.tuples(st.just("take"), st.integers(0, 30)),
    max_size=60,
)


@given(st.integers(1, 40), STEPS)
def test_every_quote_is_taken_or_shed_exactly_once_and_in_order(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    """Whatever the sizes; the queue never holds more than its bound, and sheds no more than it must."""
    intake = Intake(capacity)
    put = 0
    gone: list[int | None] = []
    for step, size in [*steps, ("take", 10**6)]:
        if step == "put":
            excess = max(0, intake.depth + size - capacity)
            shed = intake.put(*numbered(put, size))
            assert sum(len(frame[1]) for frame in shed) == excess
            put += size
            gone += numbers(shed)
        else:
            depth = intake.depth
            taken = intake.take(size)
            assert sum(len(frame[1]) for frame in taken) == min(size, depth)
            gone += numbers(taken)
        assert intake.depth == put - len(gone)
        assert intake.depth <= capacity
    # Both ways out are at the front, so one list has them all in order.
    assert gone == list(range(put))
    assert waiting_since(intake) is None


def test_a_large_frame_is_divided_and_keeps_its_time() -> None:
    """Each part was received when the whole was."""
    intake = Intake(10_000)
    intake.put(*numbered(7, 1000))
    parts = [intake.take(400) for _ in range(3)]
    assert [len(frames[0][1]) for frames in parts] == [400, 400, 200]
    assert all(frame[0] == 7 for frames in parts for frame in frames)


def test_a_frame_larger_than_the_bound_keeps_its_newest() -> None:
    """The front of it goes."""
    intake = Intake(10)
    assert numbers(intake.put(*numbered(0, 25))) == list(range(15))
    assert numbers(intake.take(100)) == list(range(15, 25))


def test_it_knows_since_when_the_front_waits() -> None:
    """And that nothing waits; a frame without quotes is nothing."""
    intake = Intake(10)
    assert intake.put(1, []) == []
    assert waiting_since(intake) is None
    intake.put(*numbered(5, 2))
    intake.put(*numbered(9, 1))
    assert waiting_since(intake) == 5
    intake.take(1)
    assert waiting_since(intake) == 5
    intake.take(1)
    assert waiting_since(intake) == 9

"""The queue between feed and publisher: nothing twice, nothing lost unseen, the oldest first to go."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.feed.messages import QuoteMessage
from ingestor.publisher.intake import Hole, Intake, Received
from tests.ingestor.vendor import message


def numbered(first: int, count: int) -> tuple[int, list[QuoteMessage]]:
    """A frame whose quotes bear their numbers as bid size."""
    return (first, [message(bs=first + i) for i in range(count)])


def numbers(frames: list[Received]) -> list[int | None]:
    """The numbers of these frames' quotes, in order."""
    return [quote.bs for _, quotes in frames if isinstance(quotes, list) for quote in quotes]


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
            assert len(numbers(shed)) == excess
            put += size
            gone += numbers(shed)
        else:
            depth = intake.depth
            taken = intake.take(size)
            assert len(numbers(taken)) == min(size, depth)
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
    assert [len(numbers(frames)) for frames in parts] == [400, 400, 200]
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


def test_a_hole_keeps_its_place_among_the_quotes() -> None:
    """What was received before it comes out before it, and it costs no room."""
    intake = Intake(4)
    intake.put(*numbered(0, 2))
    intake.put_hole(50, Hole(frozenset({"A"}), "feed_disconnected"))
    intake.put_hole(60, Hole(frozenset({"B"}), "feed_disconnected"))
    assert intake.put(*numbered(2, 2)) == []
    both = Hole(frozenset({"A", "B"}), "feed_disconnected")
    taken = intake.take(100)
    assert [element[1] if isinstance(element[1], Hole) else numbers([element]) for element in taken] == [
        [0, 1],
        both,
        [2, 3],
    ]


def test_a_hole_behind_quotes_that_had_to_go_is_handed_back_with_them() -> None:
    """It must not be lost with the quotes around it."""
    intake = Intake(2)
    intake.put(*numbered(0, 2))
    hole = Hole(frozenset({"A"}), "feed_disconnected")
    intake.put_hole(50, hole)
    gone = intake.put(*numbered(2, 4))
    assert numbers(gone) == [0, 1, 2, 3]
    assert (50, hole) in gone

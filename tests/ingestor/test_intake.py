"""The queue between feed and stamper: nothing twice, nothing lost, in order."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.feed.messages import QuoteMessage
from ingestor.publisher.intake import Hole, Intake, Received
from tests.ingestor.vendor import message


def numbered(first: int, count: int) -> tuple[int, list[QuoteMessage]]:
    """A frame whose quotes bear their numbers as bid size."""
    return (first, [message(bs=first + i) for i in range(count)])


def numbers(frames: list[Received]) -> list[int | float | None]:
    """The numbers of these frames' quotes, in order."""
    return [quote.bs for _, quotes in frames if isinstance(quotes, list) for quote in quotes]


def waiting_since(intake: Intake) -> int | None:
    """When the front was received, asked anew."""
    return intake.oldest_received_ns


STEPS = st.lists(
    st.tuples(st.just("put"), st.integers(0, 30)) | st.tuples(st.just("take"), st.integers(0, 30)),
    max_size=60,
)


@given(STEPS)
def test_every_quote_is_taken_exactly_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """Whatever the sizes of frames and takings; each taking is as large as it may be."""
    intake = Intake()
    put = 0
    gone: list[int | float | None] = []
    for step, size in [*steps, ("take", 10**6)]:
        if step == "put":
            intake.put(*numbered(put, size))
            put += size
        else:
            depth = intake.depth
            taken = intake.take(size)
            assert len(numbers(taken)) == min(size, depth)
            gone += numbers(taken)
        assert intake.depth == put - len(gone)
    assert gone == list(range(put))
    assert waiting_since(intake) is None


def test_a_large_frame_is_divided_and_keeps_its_time() -> None:
    """Each part was received when the whole was."""
    intake = Intake()
    intake.put(*numbered(7, 1000))
    parts = [intake.take(400) for _ in range(3)]
    assert [len(numbers(frames)) for frames in parts] == [400, 400, 200]
    assert all(frame[0] == 7 for frames in parts for frame in frames)


def test_it_knows_since_when_the_front_waits() -> None:
    """And that nothing waits; a frame without quotes is nothing."""
    intake = Intake()
    intake.put(1, [])
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
    intake = Intake()
    intake.put(*numbered(0, 2))
    intake.put_hole(50, Hole(frozenset({"A"}), "feed_disconnected"))
    intake.put_hole(60, Hole(frozenset({"B"}), "feed_disconnected"))
    assert intake.depth == 2
    intake.put(*numbered(2, 2))
    both = Hole(frozenset({"A", "B"}), "feed_disconnected")
    assert [
        element[1] if isinstance(element[1], Hole) else numbers([element]) for element in intake.take(4)
    ] == [
        [0, 1],
        both,
        [2, 3],
    ]


def test_holes_of_different_reasons_stay_apart() -> None:
    """A marker names one reason and one beginning; a symbol whose hole is open is not noted again."""
    intake = Intake()
    for at_ns, symbols, reason in (
        (5, "A", "x"),
        (6, "B", "x"),
        (7, "AC", "y"),
        (8, "AB", "x"),
        (9, "D", "x"),
    ):
        intake.put_hole(at_ns, Hole(frozenset(symbols), reason))
    assert intake.take(1) == [
        (5, Hole(frozenset("AB"), "x")),
        (7, Hole(frozenset("C"), "y")),
        (9, Hole(frozenset("D"), "x")),
    ]


def test_a_hole_at_the_end_of_a_full_taking_waits_for_the_next() -> None:
    """It belongs to the quotes behind it, and is not forgotten where there are none."""
    intake = Intake()
    intake.put(*numbered(0, 3))
    hole = Hole(frozenset("A"), "x")
    intake.put_hole(50, hole)
    assert numbers(intake.take(3)) == [0, 1, 2]
    assert waiting_since(intake) is None
    assert intake.take(3) == [(50, hole)]

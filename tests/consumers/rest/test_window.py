"""The count of calls in one process."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.rest.window import Window

LIMIT, WINDOW_S, HOLD_S = 3, 10.0, 2.0


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, HOLD_S), st.floats(0, 1), st.booleans()), max_size=60)
)
def test_the_service_never_sees_more_calls_than_the_limit(
    steps: list[tuple[float, float, float, bool]],
) -> None:
    """Whenever calls arrive between their start and their end, no window holds more of them, wherever it begins."""
    window, now_s, arrivals = Window(LIMIT, WINDOW_S), 0.0, []
    ends: list[tuple[float, str]] = []
    for number, (later_s, lasts_s, arrives, is_settled) in enumerate(steps):
        now_s += later_s
        for end_s, call in [end for end in ends if end[0] <= now_s]:
            window.settle(call, end_s)
        ends = [end for end in ends if end[0] > now_s]
        call = str(number)
        wait_s = window.take(call, now_s, HOLD_S)
        assert wait_s >= 0
        if wait_s == 0:
            arrivals.append(now_s + lasts_s * arrives)
            # Of one that was cancelled nobody tells the end.
            if is_settled:
                ends.append((now_s + lasts_s, call))
    for begin_s in arrivals:
        # A hair less than the window, because the sums of floats differ in their last digit.
        assert sum(begin_s <= at_s < begin_s + WINDOW_S - 1e-6 for at_s in arrivals) <= LIMIT


def test_a_place_is_free_when_the_wait_is_over() -> None:
    """The wait it names is neither too long nor too short once the calls have ended."""
    window = Window(2, 10)
    for call, at_s in (("a", 0.0), ("b", 1.0)):
        assert window.take(call, at_s, 5) == 0
        window.settle(call, at_s + 0.5)
    assert window.take("c", 2.0, 5) == 8.5
    assert window.take("c", 10.4, 5) > 0
    assert window.take("c", 10.5, 5) == 0


def test_a_stop_holds_everybody_until_its_end() -> None:
    """A shorter one behind it changes nothing."""
    window = Window(5, 10)
    window.stop(7.0)
    window.stop(3.0)
    assert window.take("a", 4.0, 1) == 3
    assert window.take("a", 7.0, 1) == 0


def test_calls_that_others_allowed_count_too() -> None:
    """So that a process which loses Redis does not begin its minute anew; and memory stays bounded."""
    window = Window(2, 10)
    for call in "abcdef":
        window.note(call, 0.0, 1)
    assert window.take("g", 0.0, 1) > 0
    assert len(window._calls) == 2

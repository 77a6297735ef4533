"""When a daemon at work keeps off the vendor for the sake of one that stands by."""

import pytest

from ingestor.tenure import GIVE_WAY_AFTER_S, GONE_AFTER_S, HELD_FOR_S, Tenure
from ingestor.turn import KEEP_EVERY_S, SILENT_AFTER_S

LATER_S = 1000.0
CLOSING_TAKES_S = 1.0


@pytest.fixture
def accompanied() -> Tenure:
    """Told at 0 and 1 s, by its own heartbeats, of another that gives signs of life."""
    tenure = Tenure()
    tenure.beaten(0.0, "b:2", "10")
    tenure.beaten(1.0, "b:2", "14")
    return tenure


@pytest.mark.fault("P17")
def test_it_gives_way_before_the_other_begins(accompanied: Tenure) -> None:
    """With the time that a closing handshake takes to spare, and with the name and the silence as the reason."""
    assert accompanied.off_because(1.0 + GIVE_WAY_AFTER_S, held_s=0.5) is None
    reason = accompanied.off_because(1.1 + GIVE_WAY_AFTER_S, held_s=0.5)
    assert reason == "gave way to b:2, which stands by: no heartbeat written for 2.1 s"
    assert GIVE_WAY_AFTER_S + 1.0 <= SILENT_AFTER_S


@pytest.mark.fault("P17")
@pytest.mark.parametrize("phase_s", [n / 10 for n in range(10)])
@pytest.mark.parametrize("cut_s", [n / 10 for n in range(3, 40)])
def test_whenever_it_loses_redis_it_gives_way_to_one_that_has_just_begun_to_wait(
    phase_s: float, cut_s: float
) -> None:
    """The other begins at 0 s and shows itself four times a second; the cut comes at any time after a look, in any
    phase of the heartbeat. It is off before the other, which waits for 3 s of silence, begins."""
    tenure = Tenure()
    for tick in range(-100, round(cut_s * 100)):
        now_s = tick / 100
        sign = None if tick < 0 else str(tick // 25)
        if round((now_s - phase_s) * 100) % 100 == 0:
            tenure.beaten(now_s, "b:2" if sign else None, sign)
        if tick % 25 == 0:
            tenure.heard(now_s, "b:2" if sign else None, sign)
    last_beat_s = phase_s + int(cut_s - phase_s - 1e-9) - (cut_s < phase_s)
    begins_s = max(last_beat_s, 0.0) + SILENT_AFTER_S
    off_s = next(
        (
            n / 10
            for n in range(round(cut_s * 10), 200)
            if tenure.off_because(n / 10, held_s=cut_s) is not None
        ),
        None,
    )
    assert off_s is not None
    assert off_s + CLOSING_TAKES_S <= begins_s + KEEP_EVERY_S + 1e-9


@pytest.mark.fault("P17")
def test_a_name_that_was_seen_once_counts() -> None:
    """A daemon that waits may be seen by one heartbeat before Redis is lost."""
    tenure = Tenure()
    tenure.beaten(0.0, None, None)
    tenure.beaten(1.0, "b:2", "10")
    assert tenure.off_because(1.1 + GIVE_WAY_AFTER_S, held_s=1.0) is not None


@pytest.mark.fault("P17")
def test_alone_it_never_gives_way() -> None:
    """Nobody would take over: quotes that go to the spool are worth more than none."""
    tenure = Tenure()
    tenure.beaten(0.0, None, None)
    tenure.beaten(1.0, None, None)
    assert tenure.off_because(LATER_S, held_s=1.0) is None


def test_a_name_that_was_left_by_a_dead_one_counts_for_nothing() -> None:
    """One that is killed while it waits leaves its last sign for ever; only one that changes is believed."""
    tenure = Tenure()
    for second in range(10):
        tenure.beaten(float(second), "b:2", "10")
    assert tenure.off_because(LATER_S, held_s=9.0) is None


def test_one_that_dies_while_it_waits_counts_for_a_while(accompanied: Tenure) -> None:
    """A sign may be late, so the first that is missing proves nothing."""
    accompanied.beaten(1.0 + GONE_AFTER_S, "b:2", "14")
    assert accompanied.off_because(LATER_S, held_s=0.0) is not None


def test_one_that_died_while_it_waited_is_forgotten(accompanied: Tenure) -> None:
    """Without a sign for three seconds there is nobody to give way to."""
    accompanied.beaten(1.1 + GONE_AFTER_S, "b:2", "14")
    assert accompanied.off_because(LATER_S, held_s=0.0) is None


def test_one_that_left_is_forgotten_at_once(accompanied: Tenure) -> None:
    """It took its name away."""
    accompanied.beaten(2.0, None, None)
    assert accompanied.off_because(LATER_S, held_s=0.0) is None


def test_either_way_to_redis_is_enough(accompanied: Tenure) -> None:
    """Where batches are answered a takeover would be known, and where heartbeats arrive there will be none."""
    assert accompanied.off_because(10.0, held_s=10.0 - HELD_FOR_S) is None
    accompanied.beaten(11.0, "b:2", "15")
    assert accompanied.off_because(11.0 + GIVE_WAY_AFTER_S, held_s=9.0) is None


@pytest.mark.fault("P17")
def test_the_time_of_the_last_heartbeat_counts_and_not_that_of_the_last_batch(accompanied: Tenure) -> None:
    """The other goes by heartbeats; when both ways end at once, the last one may be a second old already."""
    assert accompanied.off_because(1.1 + GIVE_WAY_AFTER_S, held_s=2.0) is not None


def test_only_a_position_that_is_held_ends_it(accompanied: Tenure) -> None:
    """Heartbeats get through again before it is known who has the position; the reason stays as it was."""
    reason = accompanied.off_because(4.0, held_s=1.0)
    accompanied.beaten(5.0, "b:2", "20")
    assert accompanied.off_because(5.0, held_s=1.0) == reason
    # Sent before it gave way, and answered late: the other may have come in between.
    assert accompanied.off_because(5.0, held_s=3.9) == reason
    assert accompanied.off_because(5.2, held_s=5.1) is None


def test_an_older_heartbeat_that_is_answered_late_takes_nothing_back(accompanied: Tenure) -> None:
    """The latest one counts."""
    accompanied.beaten(0.5, "b:2", "15")
    assert accompanied.off_because(1.0 + GIVE_WAY_AFTER_S, held_s=0.0) is None

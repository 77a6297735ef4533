"""The same seed is the same bad day, and no lane is struck twice at once."""

import pytest

from tests.soak.run import DEEDS
from tests.soak.schedule import HARMED_SHARE, KINDS, scale_of, schedule


def test_a_seed_is_a_schedule() -> None:
    """Twice the same from one seed, and another one from another."""
    assert schedule(7, 600.0) == schedule(7, 600.0)
    assert schedule(7, 600.0) != schedule(8, 600.0)


def test_faults_of_one_lane_never_overlap_and_others_do() -> None:
    """In order of time, each one over and settled before the next of its lane, some beside those of others."""
    strikes = schedule(3, 3600.0)
    assert [strike.number for strike in strikes] == list(range(1, len(strikes) + 1))
    assert [strike.at_s for strike in strikes] == sorted(strike.at_s for strike in strikes)
    ends_s: dict[str, float] = {}
    overlaps = 0
    for strike in strikes:
        assert strike.at_s >= ends_s.get(strike.lane, 0.0)
        overlaps += any(strike.at_s < end_s for lane, end_s in ends_s.items() if lane != strike.lane)
        ends_s[strike.lane] = strike.at_s + strike.lasts_s + KINDS[strike.kind].settles_s
    assert overlaps > 100


@pytest.mark.parametrize("length_s", [20.0, 300.0, 1800.0])
def test_everything_is_over_before_the_end(length_s: float) -> None:
    """No fault outlasts the run, and a short run has some as well."""
    for seed in range(20):
        strikes = schedule(seed, length_s)
        assert len(strikes) >= 5
        assert max(strike.at_s + strike.lasts_s for strike in strikes) < length_s


def test_half_an_hour_knows_every_kind_and_spares_the_last_daemon() -> None:
    """All kinds come, and those that end the daemon come in the first part alone."""
    strikes = schedule(1, 1800.0)
    assert {strike.kind for strike in strikes} == set(KINDS)
    ends_s = [strike.at_s for strike in strikes if KINDS[strike.kind].ends_the_daemon]
    assert max(ends_s) <= 1800.0 * HARMED_SHARE


def test_every_kind_can_be_brought_about() -> None:
    """The schedule names nothing that nobody does, and nothing is done that it never names."""
    assert set(DEEDS) == set(KINDS)


def test_one_kind_alone_may_be_asked_for() -> None:
    """Also to the very end; a kind that there is not is named."""
    assert {strike.kind for strike in schedule(1, 60.0, ["daemon_killed"])} == {"daemon_killed"}
    with pytest.raises(ValueError, match="there is no fault 'flood'"):
        schedule(1, 60.0, ["flood"])


def test_a_short_run_is_dense_and_a_day_is_not() -> None:
    """Some minutes are the measure."""
    assert scale_of(10.0) < scale_of(300.0) == 1.0 < scale_of(86_400.0)

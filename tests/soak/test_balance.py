"""A balance that is not right says so; one that cannot fail would prove nothing."""

from typing import Any

import pytest

from tests.scenario.checker import Verdict
from tests.soak.balance import BIN_S, HOUR_S, MIB, Balance, Size

EVEN: dict[str, Any] = {
    **dict.fromkeys(("recovered", "already_stored", "rejected", "dropped", "queued", "unanswered"), 0),
    **dict.fromkeys(("spooled", "replayed", "replaying"), 0),
    "received": 100,
    "stored": 100,
    "state": "live",
}
SIZE = Size(50 * MIB, 20, 5)


@pytest.fixture
def balance() -> Balance:
    """One daemon, seen once, well."""
    found = Balance()
    found.begin_life(0.0)
    found.see_status(0.0, EVEN)
    found.see_size(0.0, SIZE)
    return found


def test_a_good_run_has_no_problem(balance: Balance) -> None:
    """Holes inside of markers are none either."""
    assert balance.problems(Verdict(arrived=90, missing_in_gaps=10, markers=1)) == []


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(lost=1),
        Verdict(duplicated=1),
        Verdict(out_of_order=1),
        Verdict(bad_ids=1),
        Verdict(foreign=1),
        Verdict(unmarked_breaks=1),
        Verdict(outstanding=1),
    ],
    ids=str,
)
def test_each_fault_of_the_streams_is_a_problem(balance: Balance, verdict: Verdict) -> None:
    """With its count in front."""
    assert balance.problems(verdict)[0].startswith("1 ")


def test_a_marker_without_a_cause_is_a_problem(balance: Balance) -> None:
    """What Redis forgets is sent again, so there is nothing to mark."""
    found = balance.problems(Verdict(markers=2), ["daemon_stopped", "redis_lost"])
    assert found == ["a marker 'redis_lost', for which there was no cause"]


def test_a_ledger_that_is_not_even_is_a_problem(balance: Balance) -> None:
    """At any look, with its books."""
    balance.see_status(5.0, {**EVEN, "received": 101})
    (problem,) = balance.problems(Verdict())
    assert problem.startswith("at 5.0 s the ledger is not even: ")


def test_books_of_all_lives_are_added_up(balance: Balance) -> None:
    """Each daemon counts from zero."""
    balance.begin_life(10.0)
    balance.see_status(11.0, {**EVEN, "received": 50, "recovered": 10, "stored": 60})
    assert (balance.totals["received"], balance.totals["stored"], balance.totals["recovered"]) == (
        150,
        160,
        10,
    )


def test_the_longest_time_without_being_live_is_kept(balance: Balance) -> None:
    """From the first look that was not live to the last."""
    for at_s, state in (
        (1.0, "live"),
        (2.0, "redis_away"),
        (4.5, "redis_away"),
        (5.0, "live"),
        (6.0, "connecting"),
    ):
        balance.see_state(at_s, state)
    assert (balance.longest_outage_s, balance.longest_ended_s) == (2.5, 4.5)


def test_growth_is_a_slope_and_a_peak_is_none(balance: Balance) -> None:
    """One MiB an hour is found beneath faults that take 30 MiB for a moment."""
    for n in range(1, 360):
        at_s = n * BIN_S
        calm = 50 * MIB + int(at_s / HOUR_S * MIB)
        balance.see_size(at_s, Size(calm + 30 * MIB, 20, 5))
        balance.see_size(at_s + 1, Size(calm, 20, 5))
    slope = balance.lives[-1].slope_bytes_per_h
    assert slope == pytest.approx(MIB, rel=0.01)
    assert balance.peak_rss_bytes > 79 * MIB


def test_the_report_names_what_was_counted(balance: Balance) -> None:
    """Every reason with its number, and the size at the start and at the end."""
    balance.see_state(0.0, "live")
    balance.see_size(2.0, SIZE)
    report = balance.report(
        Verdict(markers=3), {"daemon_stopped": 2, "feed_disconnected": 1}, {"daemon_stopped": 7}
    )
    assert "daemon_stopped 2, feed_disconnected 1" in report
    assert "daemon_stopped 7" in report
    assert "20, 5 at the start, 20, 5 at the end" in report
    assert "too short a life" in report

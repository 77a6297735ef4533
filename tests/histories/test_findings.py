"""What is wrong with a history is named; a judge that cannot find anything would prove nothing."""

import pytest

from tests.histories import findings as words
from tests.histories.design import KINDS, coverage, histories
from tests.histories.findings import CAUSES, of_markers, of_streams, of_times
from tests.histories.livez import Probe
from tests.histories.report import table, told
from tests.histories.run import Outcome
from tests.scenario.checker import Verdict


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (Verdict(lost=3), words.LOST),
        (Verdict(duplicated=1), words.TWICE),
        (Verdict(out_of_order=1), words.DISORDER),
        (Verdict(bad_ids=1), words.DISORDER),
        (Verdict(unmarked_breaks=1), words.UNMARKED),
        (Verdict(foreign=1), words.FOREIGN),
        (Verdict(outstanding=1), words.UNSETTLED),
    ],
    ids=str,
)
def test_what_the_entries_show_has_a_name(verdict: Verdict, kind: str) -> None:
    """Each fault its own."""
    assert [finding.kind for finding in of_streams(verdict)] == [kind]


def test_holes_within_markers_are_right() -> None:
    """Whatever their number."""
    assert of_streams(Verdict(arrived=5, missing_in_gaps=95, markers=2, late_markers=1)) == []


def test_a_marker_needs_a_cause_among_the_faults() -> None:
    """A full spool needs a disk that had something, or bounds that an outage fills; age is never a reason."""
    assert of_markers({"spool_full": 2}, ["disk_full"], is_small=False) == []
    assert of_markers({"spool_full": 2}, ["redis_killed"], is_small=True) == []
    assert of_markers({"stream_lost": 2}, ["redis_emptied", "daemon_killed"], is_small=False) == []
    for reason, kinds in (
        ("spool_full", ["redis_killed"]),
        ("feed_disconnected", ["redis_frozen", "clock_jumped"]),
        ("redis_lost", ["redis_killed"]),
        ("stream_lost", ["redis_emptied"]),
        ("stream_lost", ["daemon_killed"]),
    ):
        (finding,) = of_markers({reason: 2}, kinds, is_small=False)
        assert (finding.kind, finding.detail) == (words.UNTRUE, f"2 with '{reason}'")
    assert of_markers({"spool_too_old": 1}, list(KINDS), is_small=True)


def test_every_cause_is_a_kind_of_fault() -> None:
    """No typing error excuses anything."""
    assert set(CAUSES) <= set(KINDS)


def test_times_have_bounds() -> None:
    """A second for /livez, and a bounded stop."""
    assert of_times(0.99, [0.1, words.STOP_S]) == []
    assert [finding.kind for finding in of_times(1.5, [0.1, 25.0])] == [words.SPIN, words.STOP]


def test_what_the_daemon_could_not_help_is_no_slowness() -> None:
    """Answers that touch a stretch in which it stood still do not count."""
    probe = Probe()
    probe.answers = [(10.0, 3.0), (20.0, 0.4), (30.0, 0.1)]
    assert probe.slowest_s([]) == 3.0
    assert probe.slowest_s([(12.0, 14.0)]) == 0.4
    assert probe.slowest_s([(9.0, 40.0)]) == 0.0


def test_the_table_counts_and_names_what_repeats_a_finding() -> None:
    """Sums, the slowest with its number, each kind of finding once per history."""
    designed = histories(4, 3)
    outcomes = [
        Outcome(
            1,
            [],
            sent=10,
            stored=8,
            in_markers=2,
            markers={"spool_full": 1},
            late_markers=2,
            slowest_livez_s=0.2,
        ),
        Outcome(2, [(words.WEDGED, "x"), (words.LOST, "3"), (words.LOST, "4")], sent=5, stored=1, lost=4),
        Outcome(3, [], sent=1, stored=1, slowest_stop_s=1.5),
    ]
    text = table(designed, outcomes)
    for row in (
        "histories              3",
        "not right              1",
        "quotes sent            16",
        "in markers             2  spool_full 1",
        "lost                   4",
        "late markers           2",
        "slowest /livez         0.20 s (ONLY=1)",
        "slowest stop           1.50 s (ONLY=3)",
        "wedges                 1",
        f"least pair of kinds    {min(coverage(designed).values())} histories",
        f"{words.LOST}: 1 (2)",
    ):
        assert row in text
    assert "make histories SEED=4 ONLY=2" in told(designed[1], outcomes[1])

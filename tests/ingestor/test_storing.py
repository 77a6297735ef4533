"""Whether what arrives is stored, look by look: what is said, how soon, of whom, and when it is over."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.watching.storing import (
    CATCHING_UP,
    FEED_REASONS,
    FLOWED_S,
    FORGET_AFTER_S,
    NOT_STORING,
    STUCK_AFTER_S,
    WINDOW_S,
    Counted,
    Storing,
    Verdict,
)

STEP_S = 0.25
READY_WITHIN_S = 4.0
"""A look and a beat away from what is promised."""


class Daemon:
    """Counters that a test turns, looked at four times a second."""

    def __init__(self) -> None:
        self.storing = Storing()
        self.now_s = 1000.0
        self.stored = self.waiting = 0
        self.oldest_s: float | None = None
        self.lost: dict[str, int] = {}
        self.other: dict[str, Any] = {}

    def look(self) -> Verdict:
        """The verdict, a quarter of a second later."""
        self.now_s += STEP_S
        counted = Counted(self.now_s, self.stored, self.waiting, self.oldest_s, self.lost, **self.other)
        return self.storing.look(counted)

    def flow(self, for_s: float, *, stored: int = 0, **lost: int) -> Verdict:
        """So many are stored and lost with each look."""
        verdict = Verdict()
        for _ in range(int(for_s / STEP_S)):
            self.stored += stored
            for reason, count in lost.items():
                self.lost[reason] = self.lost.get(reason, 0) + count
            verdict = self.look()
        return verdict


@pytest.fixture
def daemon() -> Daemon:
    """One that has stored for a while."""
    made = Daemon()
    assert made.flow(10, stored=5) == Verdict()
    return made


def test_quotes_that_wait_while_none_is_stored_are_a_problem_of_every_symbol(daemon: Daemon) -> None:
    """Within seconds, with the disk's words where it has any; it is over with the next quote stored."""
    daemon.waiting, daemon.oldest_s = 7, 0.1
    assert daemon.flow(STUCK_AFTER_S).state is None
    daemon.other["spool_problem"] = "OSError: no room"
    verdict = daemon.flow(READY_WITHIN_S - STUCK_AFTER_S)
    assert verdict.state == NOT_STORING
    assert "7 quotes wait; the disk: OSError: no room" in (verdict.reason or "")
    assert verdict.all_symbols == "quotes wait, and none is stored; the disk: OSError: no room"
    assert daemon.flow(STEP_S, stored=1).state is None


def test_a_redis_that_is_away_is_told_elsewhere_and_changes_no_symbol(daemon: Daemon) -> None:
    """Ten thousand states need not be written anew for each restart of a server."""
    daemon.waiting = 7
    daemon.other["is_away"] = True
    verdict = daemon.flow(READY_WITHIN_S)
    assert (verdict.state, verdict.all_symbols) == (NOT_STORING, None)


def test_one_quote_that_is_never_answered_is_enough() -> None:
    """On a quiet evening, before anything was stored."""
    quiet = Daemon()
    quiet.look()
    quiet.waiting, quiet.oldest_s = 1, 0.0
    assert quiet.flow(READY_WITHIN_S).state == NOT_STORING


def test_what_is_stored_late_is_catching_up_and_not_once_for_a_moment(daemon: Daemon) -> None:
    """A clock that is set, or quotes that are sent again, pass within a look."""
    daemon.waiting, daemon.oldest_s = 1000, 172_800.0
    assert daemon.flow(STEP_S, stored=10).state is None
    daemon.oldest_s = 0.1
    assert daemon.flow(STEP_S, stored=10).state is None
    daemon.oldest_s = 30.0
    verdict = daemon.flow(2, stored=10)
    assert verdict.state == CATCHING_UP
    assert "30 s ago" in (verdict.reason or "")
    daemon.oldest_s = 0.2
    assert daemon.flow(STEP_S, stored=10).state is None


@pytest.mark.parametrize("reason", [*sorted(FEED_REASONS), "wrong_type", "queue_full"])
def test_a_flow_of_which_nothing_is_kept_is_no_health(daemon: Daemon, reason: str) -> None:
    """Whatever it is lost to; the words have the reason and the count, and seconds of good quotes end it."""
    verdict = daemon.flow(READY_WITHIN_S, **{reason: 3})
    assert verdict.state == NOT_STORING
    assert f"{reason} {int(READY_WITHIN_S / STEP_S) * 3}" in (verdict.reason or "")
    is_anybodys = reason in ("bad_symbol", "not_subscribed", "unreadable", "queue_full")
    assert (verdict.all_symbols is not None) == is_anybodys
    assert daemon.flow(WINDOW_S, stored=1).state is None


def test_junk_in_a_silent_session_is_no_quote_that_was_lost(daemon: Daemon) -> None:
    """However often it comes, before the first quote and when the last is long ago."""
    for made in (Daemon(), daemon):
        made.other |= {"received": 0, "unclear": 0}
        assert made.flow(FLOWED_S + STEP_S).state is None
        for pause_s in (STEP_S, 2.0, 30.0):
            for _ in range(20):
                made.other["unclear"] += 3
                assert made.flow(pause_s) == Verdict()


def test_a_flow_that_becomes_junk_is_no_health_for_as_long_as_it_comes(daemon: Daemon) -> None:
    """Behind quotes that came, what nobody can read may be the next ones; it ends with a good quote."""
    daemon.other |= {"received": 1, "unclear": 0}
    daemon.flow(STEP_S, stored=1)
    for second in range(120):
        daemon.other["unclear"] += 2
        verdict = daemon.flow(1.0)
        assert second < 3 or verdict.state == NOT_STORING
    assert "unreadable" in (verdict.reason or "")
    daemon.other["received"] += 1
    assert daemon.flow(WINDOW_S, stored=1).state is None


def test_one_odd_quote_at_night_is_no_fault(daemon: Daemon) -> None:
    """However long nothing else comes."""
    assert daemon.flow(STEP_S, bad_price=1).state is None
    assert daemon.flow(3600) == Verdict()


def test_what_was_rejected_is_forgotten_when_nothing_comes_any_more(daemon: Daemon) -> None:
    """After the close nobody knows whether it is still so."""
    assert daemon.flow(5, bad_time=1).state == NOT_STORING
    assert daemon.flow(FORGET_AFTER_S - 10).state == NOT_STORING
    assert daemon.flow(20).state is None


def test_most_of_the_flow_counts_like_all_of_it(daemon: Daemon) -> None:
    """A few that are stored do not make it well, and a few that are rejected do no harm."""
    assert daemon.flow(10, stored=9, bad_price=1).state is None
    verdict = daemon.flow(5, stored=1, bad_price=9)
    assert verdict.state == NOT_STORING
    assert "bad_price" in (verdict.reason or "")
    assert daemon.flow(5, stored=9).state is None


def test_streams_that_refuse_are_their_symbols_problem_and_not_the_daemons(daemon: Daemon) -> None:
    """As long as anything is stored; at once, for any number of them, and no longer than it lasts."""
    daemon.other["refusing"] = {f"S{n}": "wrong_type" for n in range(1000)}
    verdict = daemon.flow(STEP_S, stored=1, wrong_type=9)
    assert (verdict.state, len(verdict.symbols)) == (None, 1000)
    assert verdict.symbols["S7"] == "Redis takes no entry of its stream: wrong_type"
    assert daemon.flow(10, stored=1, wrong_type=9).state is None
    daemon.other["refusing"] = {}
    assert not daemon.look().symbols


def test_a_symbol_is_not_stored_while_its_last_quote_was_rejected(daemon: Daemon) -> None:
    """For a second at least, in one episode: a good quote now and then is enough."""
    for episode in range(20):
        daemon.other["rejected"] = {"A": (episode, "bp is below zero")}
        assert not daemon.flow(0.75, stored=1, bad_price=1).symbols
    verdict = daemon.flow(1.5, stored=1)
    assert verdict.symbols == {"A": "its last quote was rejected: bp is below zero"}
    daemon.other["rejected"] = {}
    assert not daemon.flow(STEP_S, stored=1).symbols


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 5),
            st.none() | st.floats(-10, 1e6),
            st.dictionaries(st.sampled_from([*FEED_REASONS, "wrong_type", "queue_full"]), st.integers(0, 3)),
        ),
        max_size=60,
    )
)
def test_it_always_has_words_and_ends_when_all_is_stored(
    history: list[tuple[int, int, float | None, Mapping[str, int]]],
) -> None:
    """Whatever was counted: a state never comes without a reason, and a few seconds of health end it."""
    made = Daemon()
    for stored, waiting, oldest_s, lost in history:
        made.waiting, made.oldest_s = waiting, oldest_s
        verdict = made.flow(STEP_S, stored=stored, **lost)
        assert (verdict.state is None) == (verdict.reason is None)
        assert verdict.state is not None or verdict.all_symbols is None
    made.waiting, made.oldest_s = 0, None
    assert made.flow(WINDOW_S + STEP_S, stored=9) == Verdict()

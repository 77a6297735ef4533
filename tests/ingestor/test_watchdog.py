"""What is wrong with a feed that looks connected: faults found, and faults that are none."""

import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.feed.findings import Finding, Kind, Limits, Observation, Report
from ingestor.feed.mute import LONGEST_WAIT_S, mute_limit_s
from ingestor.feed.watchdog import Watchdog

NOW_NS = 1_800_000_000_000_000_000


class Rehearsal:
    """A feed told second by second; each reconnection that is advised takes effect two seconds later."""

    def __init__(self, limits: Limits | None = None, **seen: Any) -> None:
        self.dog = Watchdog(limits or Limits())
        self.seen = replace(Observation(1000.0, True, True, 1, True, 3, 0), **seen)
        self.reconnects: list[tuple[float, Finding]] = []
        self.begun: list[Finding] = []
        self.over: list[Finding] = []
        self.report = Report({})
        self._back_at_s: float | None = None

    def second(self, quotes: int = 0, **changed: Any) -> Report:
        """One more second, in which so many quotes came."""
        now_s = self.seen.now_s + 1
        if self._back_at_s is not None and now_s >= self._back_at_s:
            self._back_at_s = None
            changed = {"is_connected": True, "live": 3, "session": self.seen.session + 1, **changed}
        self.seen = replace(self.seen, now_s=now_s, quotes=self.seen.quotes + quotes, **changed)
        self.report = self.dog.observe(self.seen)
        self.begun += self.report.begun
        self.over += self.report.over
        if self.report.reconnect is not None:
            assert self.seen.is_connected
            self.reconnects.append((now_s, self.report.reconnect))
            self.seen = replace(self.seen, is_connected=False, live=0)
            self._back_at_s = now_s + 2
        return self.report

    def seconds(self, count: int, quotes: int = 0, **changed: Any) -> Report:
        """Several like that."""
        for _ in range(count):
            self.second(quotes, **changed)
        return self.report

    def late(self, count: int, lag_s: float) -> Report:
        """Several in each of which one frame comes, that late."""
        for _ in range(count):
            received_ns = NOW_NS + int(self.seen.now_s * 1e9)
            self.second(1, frame=(received_ns, received_ns - int(lag_s * 1e9)))
        return self.report

    @property
    def active(self) -> set[Kind]:
        """What is wrong now."""
        return set(self.report.active)


def kinds(findings: Iterable[Finding]) -> list[Kind]:
    """Their kinds, in order."""
    return [finding.kind for finding in findings]


@pytest.mark.fault("S05")
def test_a_mute_feed_is_found_after_thirty_seconds_and_reconnected() -> None:
    """One finding with value, limit and reason, one reconnection; the next quote ends it."""
    feed = Rehearsal()
    feed.seconds(60, quotes=20)
    feed.seconds(30)
    assert feed.active == set()
    feed.seconds(2)
    (finding,) = feed.begun
    assert (finding.kind, finding.limit) == (Kind.MUTE, 30.0)
    assert 30 <= finding.value <= 32
    assert "3 live symbols" in finding.reason
    assert kinds(found for _, found in feed.reconnects) == [Kind.MUTE]
    feed.seconds(5)
    assert feed.active == {Kind.MUTE}
    assert feed.report.silence_s > 30
    feed.second(1)
    assert feed.active == set()
    assert kinds(feed.over) == [Kind.MUTE]
    assert feed.report.silence_s == 0


@pytest.mark.fault("S05")
def test_a_reconnection_that_brings_nothing_doubles_the_wait_up_to_a_quarter_of_an_hour() -> None:
    """30 s, 60 s, 2, 4, 8, 15, 15 minutes: five hours of a feed that is dead at the source cost 25 connections."""
    feed = Rehearsal()
    feed.seconds(5 * 3600)
    times = [at_s for at_s, _ in feed.reconnects]
    waits = [after - before for before, after in pairwise(times)]
    assert [round(wait / 60) for wait in waits[:6]] == [1, 2, 4, 8, 15, 15]
    assert len(times) <= 25
    assert kinds(feed.begun) == [Kind.MUTE]


@pytest.mark.fault("S05")
def test_a_connection_that_was_cut_again_and_again_does_not_pass_for_an_illiquid_set() -> None:
    """While nothing could come no pause is learnt: muteness after fifty cuts is found as fast as any."""
    feed = Rehearsal()
    feed.seconds(60, quotes=20)
    for _ in range(50):
        feed.seconds(5, is_connected=False, live=0)
        feed.seconds(2, quotes=20, is_connected=True, live=3)
    feed.seconds(32)
    (finding,) = feed.begun
    assert (finding.kind, finding.limit) == (Kind.MUTE, 30.0)


def test_data_resets_the_doubling() -> None:
    """After a recovery the next silence is found as fast as the first."""
    feed = Rehearsal()
    feed.seconds(60, quotes=20)
    feed.seconds(400)
    assert len(feed.reconnects) > 2
    feed.seconds(60, quotes=20)
    before = len(feed.reconnects)
    feed.seconds(33)
    assert len(feed.reconnects) == before + 1


@pytest.mark.fault("S05", "C15")
@pytest.mark.parametrize("mean_s", [5.0, 20.0, 60.0, 240.0])
def test_an_illiquid_set_costs_a_handful_of_connections_a_day(mean_s: float) -> None:
    """Quotes at random times with such a mean interval: what was learnt about the pauses ends the doubt."""
    rng = random.Random(7)
    feed = Rehearsal()
    due_s = 0.0
    for second in range(8 * 3600):
        quotes = 0
        while due_s <= second:
            due_s += rng.expovariate(1 / mean_s)
            quotes += 1
        feed.second(quotes)
    assert len(feed.reconnects) <= 8


def test_a_busy_set_that_turns_quiet_after_the_close_is_not_reconnected_for_an_hour() -> None:
    """100 quotes/s until 16:00, then one in twenty seconds: at most two mistakes, and no alarm for the rate."""
    rng = random.Random(3)
    feed = Rehearsal()
    feed.seconds(1800, quotes=100)
    for _ in range(3600):
        feed.second(int(rng.random() < 0.05), is_regular=False)
    assert len(feed.reconnects) <= 2
    assert Kind.SLOW_RATE not in kinds(feed.begun)


@pytest.mark.fault("S45")
def test_sixteen_hours_of_closed_market_are_silent_without_fault() -> None:
    """No finding, no reconnection, and the opening begins with a fresh count."""
    feed = Rehearsal()
    feed.seconds(300, quotes=50)
    feed.seconds(16 * 3600, is_open=False)
    assert (feed.begun, feed.reconnects) == ([], [])
    feed.seconds(25, is_open=True)
    assert (feed.begun, feed.reconnects) == ([], [])


def test_the_close_ends_what_was_found() -> None:
    """A mute feed is over, as far as anybody can tell, when nothing is expected any more."""
    feed = Rehearsal()
    feed.seconds(40)
    assert feed.active == {Kind.MUTE}
    feed.second(is_open=False)
    assert feed.active == set()
    assert kinds(feed.over) == [Kind.MUTE]
    assert feed.report.silence_s == 0


def test_nobody_is_mute_without_symbols_or_without_a_connection() -> None:
    """Nothing subscribed: nothing to hear. Not connected: another fault, told elsewhere."""
    feed = Rehearsal(live=0)
    feed.seconds(600)
    feed.seconds(600, is_connected=False)
    assert (feed.begun, feed.reconnects) == ([], [])
    feed.seconds(29, is_connected=True, live=5)
    assert feed.begun == []
    feed.seconds(3)
    assert kinds(feed.begun) == [Kind.MUTE]
    # The reconnection above empties the set for a moment, which ends nothing; an operator who empties it does.
    feed.seconds(20, is_connected=True, live=0)
    assert feed.active == set()


def test_a_time_without_symbols_is_no_pause_between_quotes() -> None:
    """Ten minutes with nothing subscribed do not make a busy set look illiquid."""
    feed = Rehearsal()
    feed.seconds(60, quotes=20)
    feed.seconds(600, live=0)
    feed.seconds(3, quotes=20, live=3)
    feed.seconds(33)
    assert feed.active == {Kind.MUTE}


def test_a_daemon_that_stood_still_does_not_blame_the_feed() -> None:
    """After a stop of its own the silence is counted anew."""
    feed = Rehearsal()
    feed.seconds(60, quotes=20)
    feed.seen = replace(feed.seen, now_s=feed.seen.now_s + 120)
    feed.seconds(20)
    assert (feed.begun, feed.reconnects) == ([], [])


def test_a_switch_at_zero_finds_nothing() -> None:
    """Each of the three can be switched off."""
    feed = Rehearsal(Limits(mute_after_s=0, quiet_after_s=0, vendor_lag_limit_s=0))
    feed.late(60, 20)
    feed.dog.hear(feed.seen.now_s, {"AAPL": 1})
    feed.seconds(3600)
    feed.dog.hear(feed.seen.now_s, {"AAPL": 1})
    feed.seconds(10)
    assert (feed.begun, feed.reconnects) == ([], [])


def test_a_rate_that_collapses_is_told_and_costs_no_connection() -> None:
    """Below a tenth of the minutes before, for half a minute; half of it is nothing."""
    feed = Rehearsal()
    feed.seconds(300, quotes=100)
    feed.seconds(120, quotes=50)
    assert feed.begun == []
    feed.seconds(45, quotes=3)
    assert feed.active == {Kind.SLOW_RATE}
    assert feed.reconnects == []
    feed.seconds(10, quotes=100)
    assert feed.active == set()


def test_a_low_rate_becomes_the_normal_one() -> None:
    """After a quarter of an hour the baseline is learnt anew."""
    feed = Rehearsal()
    feed.seconds(300, quotes=100)
    feed.seconds(1000, quotes=3)
    assert feed.active == set()
    assert kinds(feed.over) == [Kind.SLOW_RATE]


def test_a_session_that_begins_slow_is_its_own_measure() -> None:
    """A tenth of yesterday's rate from the first minute on is no finding; the runbook says what sees it."""
    made = Rehearsal()
    made.seconds(600, 100)
    made.seconds(60, 0, is_open=False)
    made.seconds(1200, 10, is_open=True)
    assert Kind.SLOW_RATE not in {finding.kind for finding in made.begun}


def test_a_rate_that_stays_low_counts_as_normal_after_a_quarter_of_an_hour() -> None:
    """The finding begins within a minute and is over then, whether or not anything is mended."""
    made = Rehearsal()
    made.seconds(600, 100)
    made.seconds(60, 5)
    assert [finding.kind for finding in made.begun] == [Kind.SLOW_RATE]
    made.seconds(800, 5)
    assert made.over == []
    made.seconds(120, 5)
    assert [finding.kind for finding in made.over] == [Kind.SLOW_RATE]
    made.seconds(900, 5)
    assert len(made.begun) == 1


def test_a_slow_set_has_no_rate_to_lose() -> None:
    """Under five quotes a second the rate says nothing."""
    feed = Rehearsal()
    feed.seconds(600, quotes=4)
    for _ in range(300):
        feed.seconds(9)
        feed.second(1)
    assert Kind.SLOW_RATE not in kinds(feed.begun)


def test_a_vendor_that_lags_gets_one_reconnection_and_then_pauses() -> None:
    """Found after 15 s, reconnected at once, again not before five minutes, then ten."""
    feed = Rehearsal()
    feed.late(60, 0.02)
    assert abs(feed.report.lag_s - 0.02) < 1e-6
    feed.late(35, 12)
    assert feed.active == {Kind.VENDOR_LAG}
    assert len(feed.reconnects) == 1
    feed.late(1500, 12)
    times = [at_s for at_s, _ in feed.reconnects]
    assert [round((b - a) / 60) for a, b in pairwise(times)] == [5, 10]
    feed.late(40, 0.02)
    assert feed.active == set()
    assert kinds(feed.over) == [Kind.VENDOR_LAG]


def test_a_delayed_feed_is_late_on_purpose() -> None:
    """A quarter of an hour is none; twenty seconds more are."""
    feed = Rehearsal(Limits(delay_s=900))
    feed.late(60, 900.5)
    assert feed.begun == []
    feed.late(60, 920)
    assert kinds(feed.begun) == [Kind.VENDOR_LAG]
    assert 19 < feed.report.lag_s < 21


def test_an_old_tape_is_shown_and_not_acted_upon() -> None:
    """Above an hour it is a replay."""
    feed = Rehearsal()
    feed.late(600, 3 * 86_400)
    assert (feed.begun, feed.reconnects) == ([], [])
    assert feed.report.lag_s == 3 * 86_400


@pytest.mark.fault("S32")
def test_a_clock_behind_the_venue_s_is_told_only() -> None:
    """More than a second ahead of us; a reconnection would not mend it."""
    feed = Rehearsal()
    feed.late(60, -0.8)
    assert feed.begun == []
    feed.late(60, -600)
    assert feed.active == {Kind.CLOCK_SKEW}
    assert feed.reconnects == []
    feed.late(60, 0)
    assert feed.active == set()


def test_one_odd_time_among_the_quotes_says_nothing() -> None:
    """The median decides."""
    feed = Rehearsal()
    for _ in range(50):
        feed.late(4, 0.01)
        feed.late(1, 500)
        feed.late(1, -500)
    assert (feed.begun, feed.reconnects) == ([], [])


@pytest.mark.fault("C15")
def test_symbols_without_a_quote_are_named() -> None:
    """Each from its own last quote, or from when it became live; a quote takes it off the list."""
    feed = Rehearsal()
    marks: dict[str, int | None] = {"AAPL": 1, "DEAD": None}
    for second in range(1000):
        marks["AAPL"] = second
        if second == 500:
            marks["LATE"] = 7
        if second % 5 == 0:
            feed.dog.hear(feed.seen.now_s, dict(marks))
        feed.second(1)
    assert feed.dog.silent.quiet == {"DEAD"}
    assert feed.active == {Kind.SYMBOLS_SILENT}
    assert (
        feed.report.active[Kind.SYMBOLS_SILENT].reason
        == "1 live symbols without a quote for 15 min or longer"
    )
    assert feed.reconnects == []
    feed.dog.hear(feed.seen.now_s, {**marks, "DEAD": 3})
    feed.second(1)
    assert feed.active == set()


def test_symbols_are_not_quiet_while_nobody_can_tell() -> None:
    """Marks that cannot be had, or a closed market, begin the count anew."""
    feed = Rehearsal(Limits(quiet_after_s=60))
    for _ in range(3):
        feed.dog.hear(feed.seen.now_s, {"AAPL": 1})
        feed.seconds(50, quotes=1)
        feed.dog.hear(feed.seen.now_s, None)
    for _ in range(3):
        feed.dog.hear(feed.seen.now_s, {"AAPL": 1})
        feed.seconds(50, quotes=1)
        feed.second(is_open=False)
        feed.second(is_open=True)
    assert feed.begun == []


@pytest.mark.fault("S33", "S36")
def test_a_set_that_stays_different_gets_one_reconnection() -> None:
    """After 30 s, and not again until it has been equal in between."""
    feed = Rehearsal()
    for age_s in range(300):
        feed.second(1, adrift_s=float(age_s))
    assert kinds(found for _, found in feed.reconnects) == [Kind.ACKNOWLEDGEMENT_DRIFT]
    assert feed.active == {Kind.ACKNOWLEDGEMENT_DRIFT}
    feed.second(1, adrift_s=0.0)
    assert feed.active == set()
    feed.second(1, adrift_s=31.0)
    assert len(feed.reconnects) == 1 or feed.seen.is_connected is False
    feed.seconds(3, quotes=1)
    assert len(feed.reconnects) == 2


@given(
    after_s=st.floats(0.1, 3600),
    interval_s=st.none() | st.floats(0, 300),
    more_s=st.floats(0, 300),
    strikes=st.integers(0, 200),
)
def test_the_threshold_only_grows(
    after_s: float, interval_s: float | None, more_s: float, strikes: int
) -> None:
    """With the setting, with the usual interval and with each fruitless try; and doubling ends at 15 min."""
    limit_s = mute_limit_s(after_s, interval_s, strikes)
    assert limit_s >= after_s
    assert limit_s <= mute_limit_s(after_s, (interval_s or 0) + more_s, strikes)
    assert limit_s <= mute_limit_s(after_s, interval_s, strikes + 1)
    assert limit_s <= mute_limit_s(after_s + more_s, interval_s, strikes)
    assert limit_s <= max(LONGEST_WAIT_S, mute_limit_s(after_s, interval_s, 0))


SECONDS = st.tuples(
    st.integers(1, 400),  # for so many seconds
    st.sampled_from([0, 0, 1, 3, 200]),  # quotes in each
    st.sampled_from([0.0, 15.0, -9.0, 7200.0]),  # their lag
    st.integers(0, 3),  # live symbols
    st.booleans(),  # whether asked and confirmed differ
    st.booleans(),  # whether it is the regular session
)


@given(course=st.lists(SECONDS, min_size=1, max_size=12), mute_after_s=st.sampled_from([5.0, 30.0]))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_reconnections_keep_their_distance(
    course: list[tuple[int, int, float, int, bool, bool]], mute_after_s: float
) -> None:
    """Between two for silence lies the threshold, between two for lag five minutes; and each has its finding."""
    feed = Rehearsal(Limits(mute_after_s=mute_after_s))
    for seconds, quotes, lag_s, live, drifts, is_regular in course:
        for second in range(seconds):
            received_ns = NOW_NS + int(feed.seen.now_s * 1e9)
            frame = (received_ns, received_ns - int(lag_s * 1e9)) if quotes else feed.seen.frame
            alive = {"live": live} if feed.seen.is_connected else {}
            report = feed.second(
                quotes, frame=frame, adrift_s=second * drifts, is_regular=is_regular, **alive
            )
            if report.reconnect is not None:
                assert report.reconnect.kind in report.active
    for kind, pause_s in ((Kind.MUTE, mute_after_s), (Kind.VENDOR_LAG, 300.0)):
        times = [at_s for at_s, finding in feed.reconnects if finding.kind is kind]
        assert all(after - before >= pause_s for before, after in pairwise(times))
    assert len(feed.begun) == len(feed.over) + len(feed.active)


@given(course=st.lists(SECONDS, min_size=1, max_size=8), was_open_s=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_nothing_is_found_outside_of_the_market_s_hours(
    course: list[tuple[int, int, float, int, bool, bool]], was_open_s: int
) -> None:
    """Whatever comes or does not come."""
    feed = Rehearsal()
    feed.seconds(was_open_s)
    feed.second(is_open=False)
    begun, reconnects = list(feed.begun), list(feed.reconnects)
    for seconds, quotes, lag_s, live, drifts, is_regular in course:
        for second in range(seconds):
            frame = (second + 1, second + 1 - int(lag_s * 1e9))
            feed.dog.hear(feed.seen.now_s, {"AAPL": None})
            feed.second(quotes, frame=frame, live=live, adrift_s=second * drifts, is_regular=is_regular)
            assert not feed.active
    assert (feed.begun, feed.reconnects) == (begun, reconnects)

"""How far a cached quote can be trusted: what stands on Redis, row by row."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import HEARTBEAT_LIMIT_S, STATUS_FIELDS, Level, Quality, QualityJudge

NOW_NS = 1_763_000_000_000_000_000
S = 1_000_000_000


def iso(seconds_ago: float) -> str:
    """A time so long before now, as the daemon writes it."""
    moment = datetime.fromtimestamp(NOW_NS / S - seconds_ago, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status(**changed: str | None) -> dict[str, str | bytes | None]:
    """The status of a daemon that is well, a second after its last beat."""
    return {"heartbeat": iso(1), "state": "live", "standby": None, "connected_since": iso(3600), **changed}


def state(name: str = "live", reason: str | None = None, age_s: float = 600) -> bytes:
    """A field of `quotes:subscriptions`."""
    return json.dumps({"state": name, "reason": reason, "since": iso(age_s)}).encode()


def judged(
    fields: dict[str, str | bytes | None], subscription: bytes | str | None, age_s: float | None = 1.0
) -> Quality:
    """The verdict on a quote of this age."""
    received_ns = None if age_s is None else NOW_NS - int(age_s * S)
    return QualityJudge(NOW_NS, fields).judge("AAPL", subscription, received_ns)


def test_a_quote_of_a_moment_ago_is_live() -> None:
    """No reason is needed, and it holds since the subscription does."""
    found = judged(status(), state())
    assert (found.level, found.reason, found.quote_age_s) == (Level.LIVE, None, 1.0)
    assert found.is_live
    assert found.since == datetime.fromtimestamp(NOW_NS / S - 600, UTC)


@pytest.mark.parametrize(
    ("age_s", "reason", "since_s"),
    [
        (61.0, "no quote for 61 s", 61),
        (None, "no quote yet", 600),
        (-3600.0, "the newest quote is dated 3600 s ahead", -3600),
    ],
)
def test_without_a_quote_of_late_it_is_quiet(age_s: float | None, reason: str, since_s: int) -> None:
    """Connected and subscribed, and nothing to hear; a quote from the future is none of late."""
    found = judged(status(), state(), age_s)
    assert (found.level, found.reason, found.since_ns) == (Level.QUIET, reason, NOW_NS - since_s * S)
    assert not found.is_live


def test_how_long_quiet_takes_is_the_callers_choice() -> None:
    """A strategy knows how often its symbol is quoted."""
    judge = QualityJudge(NOW_NS, status(), quiet_after_s=5)
    assert judge.judge("AAPL", state(), NOW_NS - 4 * S).level is Level.LIVE
    assert judge.judge("AAPL", state(), NOW_NS - 6 * S).level is Level.QUIET


def test_a_quote_from_before_the_connection_is_not_live() -> None:
    """What happened while the feed was away was missed, and nothing has told since."""
    found = judged(status(connected_since=iso(2)), state(), 3)
    assert (found.level, found.reason) == (Level.QUIET, "no quote since the feed came back")


@pytest.mark.parametrize(
    ("changed", "subscription", "reason", "since_s"),
    [
        ({"heartbeat": iso(30)}, state(), "the daemon's last heartbeat is 30 s old", 30),
        ({"heartbeat": iso(30)}, None, "the daemon's last heartbeat is 30 s old", 30),
        ({"heartbeat": iso(30), "standby": "b:2"}, state(), "30 s old; b:2 stands by", 30),
        ({"heartbeat": iso(-30)}, state(), "lies 30 s ahead of the server's clock", -30),
        ({"heartbeat": "soon"}, state(), "heartbeat is not readable", None),
        ({"heartbeat": None}, state(), "heartbeat is not readable", None),
        ({"heartbeat": "2025-11-13T02:13:20"}, state(), "heartbeat is not readable", None),
        ({"state": "stopped"}, state(), "the daemon was stopped", 1),
        ({"state": "stopping"}, state(), "the daemon was stopped", 1),
        ({"state": "redis_away"}, state(), "cannot write quotes to Redis", 1),
        ({"state": "connecting"}, state("requested", "not connected"), "not connected to its feed", 600),
        ({"state": "connecting"}, state(), "not connected to its feed", 1),
        ({"state": "starting"}, state(), "only just started", 1),
        ({"state": "standby"}, state(), "only stands by", 1),
        ({"state": "dancing"}, state(), "in state 'dancing'", 1),
        ({"state": None}, state(), "in state ''", 1),
        (dict.fromkeys(STATUS_FIELDS), state(), "no daemon has written here", None),
    ],
)
def test_without_a_daemon_that_is_well_it_is_stale(
    changed: dict[str, Any], subscription: bytes | None, reason: str, since_s: int | None
) -> None:
    """Gone, waiting, or cut off from either side: with the reason, and since when as far as it is known."""
    found = judged(status(**changed), subscription)
    assert found.level is Level.STALE
    assert reason in (found.reason or "")
    assert found.since_ns == (None if since_s is None else NOW_NS - since_s * S)


def test_a_remark_of_the_daemon_counts_from_its_time_on() -> None:
    """A quote of half a minute ago is no live one when the daemon has said since why there is none behind it."""
    remark = state("live", "not an active asset", 10)
    found = judged(status(), remark, 30)
    assert (found.level, found.reason) == (Level.QUIET, "not an active asset")
    assert found.since_ns == NOW_NS - 10 * S
    assert judged(status(), remark, 5).is_live


@pytest.mark.parametrize(
    ("subscription", "reason"),
    [
        (None, "not desired, or not looked at yet"),
        (state("waiting", "the limit of 30 symbols is reached"), "the limit of 30 symbols is reached"),
        (state("waiting"), "waiting for room under the limit of symbols"),
        (state("refused", "lower case; did you mean MSFT?"), "lower case; did you mean MSFT?"),
        (state("requested"), "asked for, not confirmed yet"),
        (state("leaving", "no longer desired"), "no longer desired"),
        (state("unheard_of"), "in state 'unheard_of'"),
        (b"", "its state is not readable"),
        (b"\xff{", "its state is not readable"),
        (b"[]", "its state is not readable"),
        (b'{"state": 7}', "its state is not readable"),
    ],
)
def test_without_a_subscription_it_says_why(subscription: bytes | None, reason: str) -> None:
    """Whatever is cached, no newer quote will come."""
    found = judged(status(), subscription)
    assert (found.level, found.reason) == (Level.NOT_SUBSCRIBED, reason)


TEXTS = st.one_of(
    st.none(), st.text(max_size=20), st.binary(max_size=20), st.floats(-9e9, 9e9).map(lambda s: iso(s / 10))
)
STATES = st.sampled_from(["live", "connecting", "starting", "redis_away", "stopped", "stopping", "x", ""])


@given(
    age_s=st.floats(-1e6, 1e6) | st.floats(-20, 20),
    daemon=STATES,
    symbol=st.sampled_from(["live", "requested", "waiting", "refused", "leaving", "x"]),
    connected_s=st.floats(-1e6, 1e6),
    quote_s=st.none() | st.floats(-1e6, 1e6) | st.floats(-100, 100),
    quiet_s=st.floats(0, 1e6),
)
def test_live_is_only_what_every_link_of_the_chain_vouches_for(
    age_s: float, daemon: str, symbol: str, connected_s: float, quote_s: float | None, quiet_s: float
) -> None:
    """A fresh heartbeat, a connected feed, a live subscription, a quote of late on this connection."""
    fields = status(heartbeat=iso(age_s), state=daemon, connected_since=iso(connected_s))
    received_ns = None if quote_s is None else NOW_NS - int(quote_s * S)
    found = QualityJudge(NOW_NS, fields, quiet_after_s=quiet_s).judge("AAPL", state(symbol), received_ns)
    if found.is_live:
        assert abs(age_s) <= HEARTBEAT_LIMIT_S + 0.001
        assert daemon == symbol == "live"
        assert quote_s is not None
        assert quote_s <= min(quiet_s, connected_s + 0.001) + 1e-6
    elif abs(age_s) < HEARTBEAT_LIMIT_S - 0.001 and daemon == symbol == "live":
        assert found.level is Level.QUIET
    assert found.is_live == (found.reason is None)


@given(
    fields=st.fixed_dictionaries({}, optional=dict.fromkeys(STATUS_FIELDS, TEXTS)),
    subscription=st.none() | st.binary(max_size=60) | st.text(max_size=60),
    received_ns=st.none() | st.integers(-(2**63), 2**63),
)
def test_nothing_on_redis_can_make_it_raise_or_say_live(
    fields: dict[str, str | bytes | None], subscription: str | bytes | None, received_ns: int | None
) -> None:
    """Fields that are missing, or that somebody else wrote, count against the quote."""
    assert not QualityJudge(NOW_NS, fields).judge("AAPL", subscription, received_ns).is_live

"""A loop that waits because of its symbol's state says so."""

import asyncio
import itertools
import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumers import Bus
from consumers.reading.telling import GRACE_S, TOLD_EVERY_S, Told
from consumers.reading.unserved import REQUEST_GRACE_S, Answers, Lookout, Unserved
from tests.consumers.conftest import KEYS, Writer, blocked, numbers, take, until

BEHIND = "waits behind the limit of 30 symbols"
PUT_OUT = f"put out by an operator's symbol; {BEHIND}"
LOOKED_AGAIN_S = 5.0


def state(name: str, reason: str | None = None) -> bytes:
    """A field of `quotes:subscriptions`."""
    return json.dumps({"state": name, "reason": reason, "since": "2026-01-01T00:00:00.000Z"}).encode()


NOW_NS = 1_800_000_000_000_000_000


def iso(seconds_ago: float) -> str:
    """A time as the daemon writes it."""
    return datetime.fromtimestamp(NOW_NS / 1e9 - seconds_ago, UTC).isoformat()


def status(state: str = "live", beat_s: float = 0.5, **fields: str) -> dict[str, bytes | None]:
    """What stands in `quotes:status`, with a heartbeat that is so old."""
    values = {"state": state, "heartbeat": iso(beat_s), "connected_since": iso(9_999), **fields}
    return {name: text.encode() for name, text in values.items()}


def looked(
    watch: Lookout,
    now_s: float,
    *,
    daemon: dict[str, bytes | None] | None = None,
    quote_age_s: float | None = 0.1,
    **states: bytes | None,
) -> list[Told]:
    """What is told of these at this time, while the daemon is well unless something else is said."""
    watch.drop(set(watch._symbols) - states.keys())
    watch.follow(states.keys() - watch._symbols.keys(), now_s)
    _, due = watch.questions(now_s)
    received_ns = None if quote_age_s is None else NOW_NS - int(quote_age_s * 1e9)
    found = status() if daemon is None else daemon
    return watch.digest(Answers(NOW_NS, found, states, dict.fromkeys(due, received_ns)), now_s)


def texts(watch: Lookout, now_s: float, **states: Any) -> list[str]:
    """The lines alone."""
    return [told.text for told in looked(watch, now_s, **states)]


def test_who_waits_is_told_once_with_state_and_reason() -> None:
    """And nothing more for as long as nothing changes, however often it is looked."""
    watch = Lookout()
    assert texts(watch, 0.0, AMD=state("waiting", BEHIND)) == [f"AMD: waiting, no quotes come: {BEHIND}"]
    assert watch.unserved == {"AMD": Unserved("AMD", "waiting", BEHIND)}
    assert all(texts(watch, now_s, AMD=state("waiting", BEHIND)) == [] for now_s in (2.0, 100.0, 1e6))


def test_a_change_is_told_again_but_at_most_once_a_minute() -> None:
    """What it is by then: what was in between is not told, but is there as data at once."""
    watch = Lookout()
    texts(watch, 0.0, AMD=state("waiting", BEHIND))
    assert texts(watch, 2.0, AMD=state("waiting", PUT_OUT)) == []
    assert watch.unserved["AMD"].reason == PUT_OUT
    assert texts(watch, 30.0, AMD=state("refused", "no")) == []
    (text,) = texts(watch, TOLD_EVERY_S, AMD=state("waiting", PUT_OUT))
    assert PUT_OUT in text
    assert texts(watch, TOLD_EVERY_S + 10, AMD=state("live")) == []
    assert watch.unserved == {}
    assert watch.subscribed == frozenset({"AMD"})
    (told,) = looked(watch, 2 * TOLD_EVERY_S, AMD=state("live"))
    assert (told.is_warning, told.text) == (False, "AMD: live, quotes come again")
    assert texts(watch, 9 * TOLD_EVERY_S, AMD=state("live")) == []


def test_symbols_with_the_same_reason_share_a_line_of_bounded_length() -> None:
    """The first twenty by name, and how many more."""
    states: dict[str, Any] = {f"S{n:02}": state("waiting", BEHIND) for n in range(45)}
    (text,) = texts(Lookout(), 0.0, **states, LIVE=state("live"))
    assert text.startswith("S00, S01, ")
    assert "S19 and 25 more: waiting, no quotes come: " in text
    (text,) = texts(Lookout(), 0.0, AMD=state("refused", "x" * 10_000))
    assert len(text) < 400


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "not_subscribed"),
        (b"", "unreadable"),
        (b"{}", "unreadable"),
        (b"\xff", "unreadable"),
        (b"[" * 99_999, "unreadable"),
        (state("requested"), "requested"),
        (state("leaving"), "leaving"),
        (state("?"), "?"),
    ],
)
def test_what_may_pass_by_itself_is_told_when_it_lasts(value: bytes | None, told: str) -> None:
    """Not at once, and not when it was over before."""
    watch = Lookout()
    assert texts(watch, 0.0, AMD=value) == texts(watch, 1.0, AMD=value) == []
    assert texts(watch, 2.0, AMD=state("live")) == texts(watch, 3.0, AMD=value) == []
    (text,) = texts(watch, 3.0 + REQUEST_GRACE_S, AMD=value)
    assert text.startswith(f"AMD: {told}, no quotes come: ")


@pytest.mark.parametrize(
    ("daemon", "told", "by_s"),
    [
        ({}, "no_daemon, no quotes come: no daemon has written here", GRACE_S),
        (status(beat_s=6), "no_daemon, no quotes come: the daemon's last heartbeat is 6 s old", 0.0),
        (status("stopped"), "no_daemon, no quotes come: the daemon was stopped", 0.0),
        (
            status("stopped", standby="b"),
            "no_daemon, no quotes come: the daemon was stopped; b stands by",
            0.0,
        ),
        (
            status("connecting"),
            "connecting, no quotes come: the daemon is not connected to its feed",
            GRACE_S,
        ),
        (
            status("redis_away"),
            "redis_away, no quotes come: the daemon cannot write quotes to Redis",
            GRACE_S,
        ),
        (status("catching_up"), "catching_up, no quotes come: the daemon stores quotes late", GRACE_S),
    ],
)
def test_a_daemon_that_is_away_or_without_its_feed_is_told(
    daemon: dict[str, bytes | None], told: str, by_s: float
) -> None:
    """For all symbols in one line, once, however old the heartbeat gets; and when all is well again."""
    watch = Lookout()
    lines: list[str] = []
    for tenth in range(round(GRACE_S * 10) + 11):
        found = texts(watch, tenth / 10, daemon=daemon, AMD=state("live"), MSFT=state("live"))
        assert not found or tenth / 10 >= by_s
        lines += found
    assert lines == [f"AMD, MSFT: {told}"]
    assert set(watch.unserved) == {"AMD", "MSFT"}
    older = {**daemon, "heartbeat": iso(99).encode()} if "6 s old" in told else daemon
    assert texts(watch, 99.0, daemon=older, AMD=state("live"), MSFT=state("live")) == []
    assert texts(watch, 200.0, AMD=state("live"), MSFT=state("live")) == [
        "AMD, MSFT: live, quotes come again"
    ]


def test_a_symbol_that_is_subscribed_and_gets_nothing_is_told_with_what_the_daemon_remarks() -> None:
    """Misspelt, not tradable, without a quote for long: the daemon's remark; else that it is quiet."""
    remark = "not an active asset at Alpaca; did you mean AAPL?"
    times_s = (0.0, 1.5, 2.5, 4.9, 70.0)
    watch = Lookout()
    found = [texts(watch, s, quote_age_s=None, APPL=state("live", remark)) for s in times_s]
    assert found == [[f"APPL: live, no quotes come: {remark}"], [], [], [], []]
    watch = Lookout()
    found = [texts(watch, s, quote_age_s=600, HALT=state("live")) for s in times_s]
    assert found == [
        ["HALT: quiet, no quotes come: no quote for 600 s; a halt looks the same"],
        [],
        [],
        [],
        [],
    ]
    assert watch.unserved["HALT"].state == "quiet"
    # Not of one that has quotes, nor, as a warning, while the market is closed.
    watch = Lookout()
    assert [texts(watch, s, AMD=state("live", remark)) for s in times_s] == [[]] * 5
    watch = Lookout()
    closed = status(market="closed")
    told = [looked(watch, s, daemon=closed, quote_age_s=600, AMD=state("live")) for s in times_s]
    assert told == [[Told(False, "AMD: quiet, no quotes come: the market is closed")], [], [], [], []]


def test_a_remark_that_is_newer_than_the_last_quote_is_told_at_once() -> None:
    """Not only when the last quote has grown old; and it holds no longer than until the next one."""
    remark = "no quote for 5 s"
    value = json.dumps({"state": "live", "reason": remark, "since": iso(2)}).encode()
    watch = Lookout()
    assert texts(watch, 0.0, quote_age_s=7, AMD=state("live")) == []
    # Whether another quote has come since is looked at before anything is said.
    assert watch.digest(Answers(NOW_NS, status(), {"AMD": value}, {}), 8.0) == []
    assert watch.questions(9.0)[1] == ["AMD"]
    assert texts(watch, 9.0, quote_age_s=7, AMD=value) == []
    assert watch.unserved == {}
    (text,) = texts(watch, 11.0, quote_age_s=7, AMD=value)
    assert text == f"AMD: live, no quotes come: {remark}"
    assert watch.unserved == {"AMD": Unserved("AMD", "live", remark)}
    assert watch.questions(12.0)[1] == []
    assert texts(watch, 30.0, quote_age_s=1, AMD=value) == []
    assert watch.unserved == {}


def test_a_symbol_that_has_only_just_become_live_is_given_its_time() -> None:
    """And what was true of its quotes some seconds ago is not told as the present."""
    watch = Lookout()
    just = json.dumps({"state": "live", "since": iso(1)}).encode()
    assert texts(watch, 0.0, quote_age_s=None, AMD=just) == []
    assert watch.questions(0.5)[1] == ["AMD"]
    # By now it is old enough, and its quotes have come.
    assert texts(watch, 1.0, AMD=state("live")) == []
    assert watch.questions(2.0)[1] == []
    old = NOW_NS + 70 * 10**9
    beats = {**status(), "heartbeat": datetime.fromtimestamp(old / 1e9, UTC).isoformat().encode()}
    assert watch.digest(Answers(old, beats, {"AMD": state("live")}, {}), 5.0) == []
    assert watch.questions(5.5)[1] == ["AMD"]


@pytest.mark.parametrize(
    ("soft", "age_s"), [(state("requested", "asked for"), None), (state("live"), 600), (None, None)]
)
def test_what_was_on_the_way_does_not_keep_back_the_last_word(
    soft: bytes | None, age_s: float | None
) -> None:
    """A symbol that was requested or quiet, and is refused or put out some seconds later."""
    watch = Lookout()
    for second in range(5):
        texts(watch, float(second), quote_age_s=age_s, AMD=soft)
    assert texts(watch, 6.0, AMD=state("refused", "no")) == ["AMD: refused, no quotes come: no"]
    assert texts(watch, 30.0, AMD=state("waiting", BEHIND)) == []
    assert texts(watch, 66.0, AMD=state("waiting", BEHIND)) != []


def test_symbols_that_fall_quiet_now_and_then_have_one_line_a_minute_together() -> None:
    """An illiquid set must not flood the log."""
    watch = Lookout()
    symbols = [f"S{n}" for n in range(30)]
    count = 0
    for second in range(600):
        states = dict.fromkeys(symbols, state("live"))
        watch.follow(states.keys() - watch._symbols.keys(), second)
        _, due = watch.questions(second)
        ages = {symbol: 1 if (second // 20 + n) % 3 else 90 for n, symbol in enumerate(symbols)}
        received = {symbol: NOW_NS - ages[symbol] * 10**9 for symbol in due}
        count += len(watch.digest(Answers(NOW_NS, status(), states, received), second))
    assert 1 <= count <= 12


def test_a_daemon_whose_clock_is_behind_is_not_called_gone_while_its_heart_beats() -> None:
    """Up to the 5 s that `quality` allows; when the beats end, it is missed as soon as any other."""
    watch = Lookout()
    for second in range(30):
        beat_s = 4.0 + second % 2 / 10
        assert texts(watch, float(second), daemon=status(beat_s=beat_s), AMD=state("live")) == []
    found = {
        second: texts(watch, float(second), daemon=status(beat_s=4.1), AMD=state("live"))
        for second in range(30, 35)
    }
    told = [second for second, lines in found.items() if lines]
    assert told == [32]
    assert found[32] == ["AMD: no_daemon, no quotes come: the daemon's last heartbeat is 4 s old"]


@pytest.mark.parametrize(
    "causes",
    [
        [{"daemon": status(name)} for name in ("connecting", "starting", "redis_away", "catching_up")],
        [{"AMD": state(name)} for name in ("requested", "leaving", "live_soon")],
        [{"AMD": state("requested", f"attempt {n}")} for n in range(4)],
        [{"daemon": status("connecting"), "quote_age_s": None}, {"quote_age_s": None}],
    ],
    ids=["the daemon's", "the symbol's", "its reason", "connected for a moment"],
)
def test_causes_that_follow_each_other_quickly_have_their_time_together(causes: list[dict[str, Any]]) -> None:
    """Each would pass by itself; no quote comes all the same, which is told within 5 s, and stays so as data."""
    watch = Lookout()
    told: list[tuple[float, str]] = []
    for second in range(30):
        words = {"AMD": state("live"), **causes[second % len(causes)]}
        told += [(second, text) for text in texts(watch, float(second), **words)]
    warnings = [(second, text) for second, text in told if "no quotes come" in text]
    assert warnings
    assert warnings[0][0] <= 5


def test_a_quote_ends_the_trouble_before_it() -> None:
    """What comes later has its whole time to pass by itself."""
    watch = Lookout()
    for second in range(0, 40, 4):
        assert texts(watch, second, daemon=status("connecting"), AMD=state("live")) == []
        assert texts(watch, second + 1, daemon=status("connecting"), AMD=state("live")) == []
        assert texts(watch, second + 2, AMD=state("live")) == []


def test_a_daemon_that_could_not_beat_while_redis_was_away_is_not_called_gone() -> None:
    """Its heartbeat is as old as the outage; only when none comes for a while is it missed."""
    watch = Lookout()
    texts(watch, 0.0, AMD=state("live"))
    for now_s in range(1, 15):
        watch.away("connection refused", float(now_s))
    assert texts(watch, 15.0, daemon=status(beat_s=14.0), AMD=state("live")) == []
    assert texts(watch, 16.0, daemon=status(beat_s=15.0), AMD=state("live")) == []
    assert watch.unserved == {}
    assert texts(watch, 17.0, daemon=status(beat_s=16.0), AMD=state("live")) == []
    (text,) = texts(watch, 18.0, daemon=status(beat_s=17.0), AMD=state("live"))
    assert "no_daemon, no quotes come: the daemon's last heartbeat is 17 s old" in text
    # Whoever is known to be gone is told at once again, without an outage before it.
    assert texts(watch, 100.0, AMD=state("live")) != []
    assert texts(watch, 200.0, daemon=status(beat_s=6.0), AMD=state("live")) != []


def test_nothing_is_known_of_a_symbol_that_nobody_follows() -> None:
    """Whoever follows it again later does not get what was true then."""
    watch = Lookout()
    texts(watch, 0.0, AMD=state("waiting", BEHIND), AAPL=state("live"))
    watch.drop(["AMD", "AAPL"])
    assert (watch.unserved, watch.subscribed) == ({}, frozenset())


def test_redis_that_is_away_is_told_for_all_when_it_lasts() -> None:
    """At once when it has been waited for already."""
    watch = Lookout()
    watch.follow(["AMD", "MSFT"], 0.0)
    assert watch.away("connection refused", 0.0) == []
    (told,) = watch.away("connection refused", GRACE_S)
    assert told == Told(True, "AMD, MSFT: no_redis, no quotes come: connection refused")
    assert watch.unserved["AMD"] == Unserved("AMD", "no_redis", "connection refused")
    watch = Lookout()
    watch.follow(["AMD"], 0.0)
    assert watch.away("no answer for 2.5 s", 0.0, for_long=True) != []


def test_what_cannot_be_read_is_not_told() -> None:
    """A user without the right to one of the keys is told of the others."""
    watch = Lookout()
    watch.follow(["AMD"], 0.0)
    assert watch.digest(Answers(None, None, {}, {}), 9.0) == []
    (told,) = watch.digest(Answers(None, None, {"AMD": state("waiting", BEHIND)}, {}), 10.0)
    assert BEHIND in told.text
    assert watch.digest(Answers(NOW_NS, status(), {"AMD": state("waiting", BEHIND)}, {}), 20.0) == []


def test_of_very_many_symbols_each_has_its_turn() -> None:
    """A look is bounded, and new symbols come first."""
    watch = Lookout()
    watch.follow([f"S{n}" for n in range(5_000)], 0.0)
    seen: set[str] = set()
    for second in range(3):
        states_of, quotes_of = watch.questions(float(second))
        assert len(states_of) <= 2_000
        assert len(quotes_of) <= 500
        seen.update(states_of)
        watch.digest(Answers(NOW_NS, status(), dict.fromkeys(states_of, state("live")), {}), float(second))
    assert len(seen) == 5_000
    watch.follow(["NEW"], 5.0)
    assert "NEW" in watch.questions(5.0)[0]


def test_a_loop_that_begins_again_within_the_minute_is_not_told_anew() -> None:
    """And what nobody follows is forgotten."""
    watch = Lookout()
    texts(watch, 0.0, AMD=state("waiting", BEHIND))
    assert texts(watch, 10.0) == []
    assert texts(watch, 20.0, AMD=state("waiting", BEHIND)) == []
    assert texts(watch, TOLD_EVERY_S) == []
    assert len(texts(watch, TOLD_EVERY_S + 1, AMD=state("waiting", BEHIND))) == 1


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 40),
            st.sampled_from(
                [state("live"), state("waiting", "a"), state("waiting", "b"), state("refused", "c")]
            ),
        ),
        max_size=40,
    )
)
def test_however_states_flap_a_symbol_has_one_line_a_minute(steps: list[tuple[float, bytes]]) -> None:
    """And the last word is right a minute after things have come to rest."""
    watch, now_s, told_at = Lookout(), 0.0, []
    last: bytes = state("live")
    words = ""
    for pause_s, value in steps:
        now_s += pause_s
        last = value
        for text in texts(watch, now_s, AMD=value):
            told_at.append(now_s)
            words = text
    assert all(b - a >= TOLD_EVERY_S for a, b in itertools.pairwise(told_at))
    words = next(iter(texts(watch, now_s + TOLD_EVERY_S, AMD=last)), words)
    reason = json.loads(last)["reason"]
    assert (reason in words) if reason else ("waiting" not in words and "refused" not in words)


@pytest.mark.parametrize("lease", [True, False])
async def test_a_loop_is_told_within_seconds_and_reads_on(
    bus: Bus, redis: Redis, writer: Writer, caplog: pytest.LogCaptureFixture, lease: bool
) -> None:
    """When it begins on a symbol that waits, and when one that it reads is put out; with a lease or without."""
    caplog.set_level(logging.INFO, logger="consumers")
    await redis.hset(KEYS.subscriptions, mapping={"AMD": state("waiting", BEHIND), "MSFT": state("live")})

    async def told(text: str) -> None:
        async def is_so() -> bool:
            return any(
                text in record.message for record in caplog.records if record.levelno == logging.WARNING
            )

        await until(is_so, LOOKED_AGAIN_S)

    async with asyncio.TaskGroup() as group:
        stream = bus.quotes("AMD", "MSFT", lease=lease)
        loop = group.create_task(take(aiter(stream), 2))
        await told(f"AMD: waiting, no quotes come: {BEHIND}")
        await redis.hset(KEYS.subscriptions, "MSFT", state("waiting", PUT_OUT))
        await told(f"MSFT: waiting, no quotes come: {PUT_OUT}")
        await blocked(redis)
        await writer.quotes("MSFT", 2)
        assert numbers(await loop) == [0, 1]
    await stream.aclose()


async def test_every_way_of_following_is_told_of(
    bus: Bus, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Newest quotes, groups, and a symbol that is added while a loop runs."""
    for symbol in ("ONE", "TWO", "LATER"):
        await redis.hset(KEYS.subscriptions, symbol, state("refused", "no such thing"))
    newest, workers = bus.newest("ONE"), bus.group("g", "TWO")
    async with asyncio.TaskGroup() as group:
        loops = [
            group.create_task(newest.get(timeout_s=20)),
            group.create_task(workers.get(timeout_s=20)),
        ]

        async def both() -> bool:
            return {"ONE", "TWO"} <= {
                r.message.partition(":")[0].partition(",")[0] for r in caplog.records
            } or any(r.message.startswith("ONE, TWO: refused") for r in caplog.records)

        await until(both, LOOKED_AGAIN_S)
        newest.add("LATER")

        async def later() -> bool:
            return any(r.message.startswith("LATER: refused") for r in caplog.records)

        await until(later, LOOKED_AGAIN_S)
        for loop in loops:
            loop.cancel()
    await newest.aclose()
    await workers.aclose()

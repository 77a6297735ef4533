"""When to try again, by the table."""

import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions
from redis.asyncio import Redis

from consumers import MarketDataService, Reconnect, connect
from consumers.reconnect import Loudness, is_passing, reason
from consumers.rest import AlpacaRest


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ConnectionResetError("reset"), True),
        (OSError(113, "no route"), True),
        (exceptions.ConnectionError("refused"), True),
        (exceptions.TimeoutError("slow"), True),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), True),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), True),
        (exceptions.MasterDownError("Link with MASTER is down"), True),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), True),
        (exceptions.ResponseError("UNBLOCKED client unblocked via CLIENT UNBLOCK"), True),
        (exceptions.AuthenticationError("invalid username-password pair"), False),
        (exceptions.NoPermissionError("this user has no permissions"), False),
        (exceptions.ResponseError("unknown command 'XREAD'"), False),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), False),
        (ValueError("ours"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, passing: bool) -> None:
    """A wrong password does not become right by asking often."""
    assert is_passing(error) is passing
    assert reason(error)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_the_wait_is_bounded_whatever_the_attempt(attempt: int, chance: float) -> None:
    """Neither a night of attempts nor a wild chance leads out of the bounds."""
    policy = Reconnect(first_delay_s=0.1, max_delay_s=5, jitter=0.5)
    assert 0.05 <= policy.delay_s(attempt, chance) <= 5


def test_without_jitter_the_waits_double() -> None:
    """2, 4, 8, 16, 32 seconds can be had."""
    policy = Reconnect(first_delay_s=2, max_delay_s=32, jitter=0)
    assert [policy.delay_s(k, 0.7) for k in range(1, 7)] == [2, 4, 8, 16, 32, 32]


@pytest.mark.parametrize(
    ("attempts", "failures", "gives_up"), [(None, 10**9, False), (0, 1, True), (5, 5, False), (5, 6, True)]
)
def test_attempts_are_counted_in_a_row(attempts: int | None, failures: int, gives_up: bool) -> None:
    """The first failure is not an attempt to come back."""
    assert Reconnect(attempts=attempts).gives_up(failures) is gives_up


@pytest.mark.parametrize(
    "setting",
    [
        {"first_delay_s": 0},
        {"first_delay_s": 9.0, "max_delay_s": 1.0},
        {"max_delay_s": float("inf")},
        {"factor": 0.5},
        {"jitter": 2.0},
        {"attempts": -1},
    ],
)
def test_a_policy_out_of_range_is_refused(setting: dict[str, Any]) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=next(iter(setting))):
        Reconnect(**setting)


def test_a_policy_that_is_none_is_refused_before_there_is_an_outage() -> None:
    """By whoever takes one; it would end the strategy when Redis goes away."""
    wrong: Any = 5
    with pytest.raises(TypeError, match=r"reconnect=5: pass a Reconnect"):
        connect(reconnect=wrong)
    with pytest.raises(TypeError, match="reconnect=5"):
        MarketDataService(reconnect=wrong)
    with pytest.raises(TypeError, match=r"retry=5: pass a Retry"):
        AlpacaRest("key", "secret", retry=wrong)


def test_one_attempt_a_minute_is_a_warning() -> None:
    """The first, and the first a minute after that; each of two who try has its own."""
    one, other = Loudness(), Loudness()
    times_s = (0.0, 0.1, 59.9, 60.0, 61.0, 119.9, 500.0)
    loud = [one.level(now_s) == logging.WARNING for now_s in times_s]
    assert loud == [True, False, False, True, False, False, True]
    assert one.level(501.0) == logging.INFO
    assert other.level(501.0) == logging.WARNING


async def test_a_connection_that_fails_is_told_in_the_system_s_words(unused_tcp_port: int) -> None:
    """Without the address, which stands before them; with the remedy."""
    remedy = "; is the server running, and are host and port right?"
    told = {
        f"redis://127.0.0.1:{unused_tcp_port}": f"Connection refused{remedy}",
        "unix:///nowhere/redis.sock": f"No such file or directory{remedy}",
        "redis://nowhere.invalid": remedy,
    }
    for url, words in told.items():
        async with Redis.from_url(url, retry=None) as client:
            with pytest.raises(exceptions.ConnectionError) as caught:
                await client.ping()
        assert reason(caught.value).endswith(words)
        assert not re.search(r"connecting to|call failed|\d", reason(caught.value))


def test_a_name_with_several_addresses_is_told_once() -> None:
    """Where all fail alike, and else each with its own words."""
    both = (
        "Multiple exceptions: [Errno 111] Connect call failed ('::1', 6379), [Errno {}] Connect call failed"
    )
    assert reason(OSError(both.format(111))).startswith("Connection refused;")
    assert reason(OSError(both.format(113))).startswith("Multiple exceptions:")
    assert reason(exceptions.ConnectionError("Connection closed by server.")).startswith(
        "Connection closed by server;"
    )

"""What a failed call means, and when it is made again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rest import RestLimited, RestRefused, RestUnavailable, Retry
from consumers.rest.retry import LONGEST_PAUSE_S, SHORTEST_PAUSE_S, Failure, Kind, explain, judge, pause_s

NOW_S = 1_763_000_000.5


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (429, Kind.LIMITED, RestLimited),
        *((status, Kind.UNAVAILABLE, RestUnavailable) for status in (408, 500, 502, 503, 504)),
        *((status, Kind.REFUSED, RestRefused) for status in (400, 401, 403, 404, 422)),
    ],
)
def test_a_status_has_its_kind_and_its_error(status: int, kind: Kind, error: type[Exception]) -> None:
    """A strategy can tell what to wait for from what to mend."""
    failure = judge(status, {}, "why", NOW_S)
    assert failure.kind is kind
    raised = failure.error(", after 2 attempts")
    assert type(raised) is error
    assert "why" in str(raised)
    assert str(raised).endswith(", after 2 attempts")
    if isinstance(raised, RestRefused):
        assert raised.status == status


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"Retry-After": "7"}, 7),
        ({"X-RateLimit-Reset": "1763000010"}, 9.5),
        ({"x-ratelimit-reset": "1763000010", "date": "Thu, 13 Nov 2025 02:13:21 GMT"}, 9),
        ({"Retry-After": "Thu, 13 Nov 2025 02:13:25 GMT"}, 4.5),
        ({"X-RateLimit-Reset": "1762999000"}, SHORTEST_PAUSE_S),
        ({"X-RateLimit-Reset": "99999999999"}, LONGEST_PAUSE_S),
        ({"X-RateLimit-Reset": "soon", "Retry-After": "-1"}, 1),
        ({}, 1),
    ],
)
def test_a_429_holds_as_long_as_it_says(headers: dict[str, str], expected_s: float) -> None:
    """Either header is understood, by the service's own clock where it tells it, within bounds."""
    assert pause_s(headers, NOW_S) == pytest.approx(expected_s)


@given(
    st.dictionaries(st.sampled_from(["Retry-After", "X-RateLimit-Reset", "Date"]), st.text()),
    st.floats(0, 1e11),
)
def test_no_header_makes_a_pause_without_bounds(headers: dict[str, str], now_s: float) -> None:
    """Whatever a proxy writes there."""
    assert SHORTEST_PAUSE_S <= pause_s(headers, now_s) <= LONGEST_PAUSE_S


@given(
    st.sampled_from(Kind),
    st.floats(SHORTEST_PAUSE_S, 200),
    st.integers(1, 50),
    st.floats(0, 100),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_ends_behind_the_deadline(
    kind: Kind, pause: float, attempt: int, elapsed_s: float, chance: float
) -> None:
    """Attempts are bounded in number and in time, a refusal is final, and a 429's time is waited out."""
    retry = Retry(attempts=5, deadline_s=30)
    wait_s = retry.delay_s(Failure(kind, "", 0, pause), attempt, elapsed_s, chance)
    if wait_s is None:
        return
    assert kind is not Kind.REFUSED
    assert attempt < 5
    assert wait_s > 0
    assert elapsed_s + wait_s < 30
    assert wait_s >= (pause if kind is Kind.LIMITED else 0)


def test_the_waits_double_up_to_their_bound() -> None:
    """Without chance they are 0.25, 0.5, 1 s and so on."""
    retry, failure = Retry(attempts=9, deadline_s=60), Failure(Kind.UNAVAILABLE, "")
    assert [retry.delay_s(failure, attempt, 0, 0) for attempt in range(1, 7)] == [0.25, 0.5, 1, 2, 4, 4]
    assert retry.delay_s(failure, 1, 0, 0.5) == 0.25 * 0.75
    assert retry.delay_s(failure, 9, 0, 0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"first_delay_s": 0},
        {"max_delay_s": 0.1},
        {"factor": 0.5},
        {"jitter": 2},
        {"deadline_s": 0},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    """The message says which and what is allowed."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retry(**wrong)  # type: ignore[arg-type]


def test_an_error_body_becomes_one_line() -> None:
    """Alpaca's message, a page's title, or the text; never the secret."""
    assert explain('{"code": 42210000, "message": "no sip for you"}') == "no sip for you"
    assert explain("<html><head><title>502\nBad Gateway</title></head>") == "an HTML page: 502 Bad Gateway"
    assert explain("<!DOCTYPE html><p>") == "an HTML page"
    assert explain("") == "no body"
    assert explain('{"message": "key PKAB secret S3"}', "S3", "PKAB") == "key *** secret ***"
    assert len(explain("x" * 10_000)) <= 200

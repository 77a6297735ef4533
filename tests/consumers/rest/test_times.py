"""Times of REST keep every nanosecond, in both directions."""

import contextlib
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import BadStart
from consumers.rest.times import format_rfc3339, to_day, to_ns
from wire.times import parse_rfc3339

YEAR_10000_NS = 253_402_300_800 * 10**9


@given(st.integers(0, YEAR_10000_NS - 1))
def test_a_time_survives_writing_and_reading(time_ns: int) -> None:
    """What is written is read as the same nanosecond."""
    assert parse_rfc3339(format_rfc3339(time_ns)) == time_ns


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 30)),
    st.integers(0, 999_999_999),
    st.integers(0, 9),
    st.integers(-1439, 1439),
)
def test_an_offset_and_any_number_of_decimals_are_read(
    moment: datetime, fraction_ns: int, decimals: int, ahead_min: int
) -> None:
    """The same instant comes out whatever zone and precision it is written in."""
    ahead = timezone(timedelta(minutes=ahead_min))
    second = moment.replace(microsecond=0, tzinfo=ahead)
    digits = f"{fraction_ns:09}"[:decimals]
    sign, (hours, minutes) = "-" if ahead_min < 0 else "+", divmod(abs(ahead_min), 60)
    text = f"{second.replace(tzinfo=None).isoformat()}{'.' + digits if digits else ''}"
    text += f"{sign}{hours:02}:{minutes:02}"
    whole_s = (second - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert parse_rfc3339(text) == whole_s * 10**9 + int(digits.ljust(9, "0"))


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    """Nothing else comes out of the parser."""
    with contextlib.suppress(ValueError):
        parse_rfc3339(text)


def test_the_rules_of_the_format_are_kept() -> None:
    """Lower case, a leap second and a tenth decimal are read; what is no time is refused."""
    assert parse_rfc3339("1970-01-01t00:00:00.000000001z") == 1
    assert parse_rfc3339("1970-01-01T00:00:00.0000000019Z") == 1
    assert parse_rfc3339("2016-12-31T23:59:60Z") == parse_rfc3339("2017-01-01T00:00:00Z")
    for wrong in (
        "",
        "2026-11-23",
        "2026-11-23T14:30:00",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+24:00",
        "٢026-01-01T00:00:00Z",
    ):
        with pytest.raises(ValueError, match=r".+"):
            parse_rfc3339(wrong)


@pytest.mark.parametrize("wrong", [datetime(2026, 1, 1), 1_763_000_000, -1, YEAR_10000_NS, 1.5, True, "now"])
def test_a_time_that_is_none_is_refused_by_name(wrong: object) -> None:
    """The message names the argument."""
    with pytest.raises(BadStart, match="start"):
        to_ns(wrong, "start")


def test_datetimes_and_days_are_taken() -> None:
    """An aware datetime is exact to the microsecond; a day is written as ISO has it."""
    assert to_ns(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC), "start") == 1_000_005_000
    assert to_day(date(2026, 11, 23), "start") == "2026-11-23"
    with pytest.raises(BadStart, match="end is a datetime"):
        to_day(datetime(2026, 11, 23, tzinfo=UTC), "end")

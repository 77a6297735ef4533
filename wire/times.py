"""Instants in the spellings that a vendor may use, as nanoseconds since the epoch, UTC.

Decides what a text or a whole number says, exactly: a double or a datetime on the way would lose the nanoseconds.
Must never read a clock. Text is RFC 3339, https://www.rfc-editor.org/rfc/rfc3339#section-5.6, with any number of
decimals of a second. A whole number is unambiguous where it lies in the years 2000 to 2200: as seconds,
milliseconds, microseconds and nanoseconds these years have no number in common.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS: Final = 1_000_000_000
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_YEAR_2000_S: Final = 946_684_800
_YEAR_2200_S: Final = 7_258_118_400
UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": _NS}
"""Each unit, and how many nanoseconds it has."""


def to_datetime(time_ns: int) -> datetime:
    """The instant as an aware datetime, cut to microseconds; the nearest one where no datetime can hold it."""
    try:
        return _EPOCH + timedelta(microseconds=time_ns // 1000)
    except OverflowError:
        return (datetime.max if time_ns > 0 else datetime.min).replace(tzinfo=UTC)


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch; `ValueError` with the reason. Decimals behind the ninth are cut off."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is no RFC 3339 time, as 2026-11-23T14:30:00.123456789Z is one")
    year, month, day, hour, minute, second, fraction, sign, ahead_h, ahead_min = match.groups()
    if hour > "23" or minute > "59" or second > "60" or (sign and (ahead_h > "23" or ahead_min > "59")):
        raise ValueError(f"{text[:60]!r} is no time of day")
    # Days come from the calendar, the rest is counted: a leap second is the first of the next minute.
    days = datetime(int(year), int(month), int(day), tzinfo=UTC).toordinal() - _EPOCH.toordinal()
    seconds = days * 86_400 + int(hour) * 3_600 + int(minute) * 60 + int(second)
    if sign:
        ahead_s = int(ahead_h) * 3_600 + int(ahead_min) * 60
        seconds += ahead_s if sign == "-" else -ahead_s
    return seconds * _NS + int((fraction or "0")[:9].ljust(9, "0"))


def parse_whole(number: int) -> tuple[int, str]:
    """Nanoseconds since the epoch, and the unit in which the number counts; `ValueError` with the reason."""
    for unit, ns in UNITS.items():
        if _YEAR_2000_S <= number * ns // _NS < _YEAR_2200_S:
            return number * ns, unit
    raise ValueError(f"{str(number)[:30]} lies in the years 2000 to 2200 in no unit from s to ns")

"""Times as Alpaca writes them, and nanoseconds since the epoch.

Decides both directions exactly: a double or a datetime on the way would lose the nanoseconds. Must never read a
clock. The format is RFC 3339, https://www.rfc-editor.org/rfc/rfc3339#section-5.6, with up to nine decimals of a
second.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from consumers.errors import BadStart

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS: Final = 1_000_000_000
_LATEST_NS: Final = 253_402_300_800 * _NS
"""The first nanosecond of the year 10000, which the format cannot write."""
_LIKELY_NOT_NS: Final = range(10**9, 10**16)
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


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


def format_rfc3339(time_ns: int) -> str:
    """The same time as text in UTC, with all nine decimals. Years 1 to 9999."""
    seconds, nanoseconds = divmod(time_ns, _NS)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.isoformat()[:19]}.{nanoseconds:09}Z"


def to_ns(time: object, name: str) -> int:
    """Nanoseconds of an aware datetime, or of an int that is that already; `BadStart` names the argument."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise BadStart(
                f"{name}={time.isoformat()} has no time zone: pass an aware datetime, as in tzinfo=UTC"
            )
        time_ns = (time - _EPOCH) // timedelta(microseconds=1) * 1_000
    elif isinstance(time, int) and not isinstance(time, bool):
        if time in _LIKELY_NOT_NS:
            raise BadStart(f"{name}={time} looks like seconds, ms or us since the epoch: pass nanoseconds")
        time_ns = time
    else:
        raise BadStart(
            f"{name} is a {type(time).__name__}: pass an aware datetime or nanoseconds since the epoch"
        )
    if not 0 <= time_ns < _LATEST_NS:
        raise BadStart(f"{name}={str(time)[:40]} does not lie between 1970 and 9999")
    return time_ns


def to_day(day: object, name: str) -> str:
    """A day as YYYY-MM-DD, from a date; `BadStart` names the argument."""
    if isinstance(day, date) and not isinstance(day, datetime):
        return day.isoformat()
    raise BadStart(f"{name} is a {type(day).__name__}: pass a datetime.date, a day in New York")

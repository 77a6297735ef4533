"""Times as a caller gives them and as Alpaca's REST wants them, and nanoseconds since the epoch.

Decides exactly: a double or a datetime on the way would lose the nanoseconds. Must never read a clock. Alpaca's
format is RFC 3339, https://www.rfc-editor.org/rfc/rfc3339#section-5.6, with up to nine decimals of a second;
`wire.times` reads it.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final

from consumers.errors import BadStart

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS: Final = 1_000_000_000
_LATEST_NS: Final = 253_402_300_800 * _NS
"""The first nanosecond of the year 10000, which the format cannot write."""
_LIKELY_NOT_NS: Final = range(10**9, 10**16)


def format_rfc3339(time_ns: int) -> str:
    """The time as RFC 3339 text in UTC, with all nine decimals. Years 1 to 9999."""
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

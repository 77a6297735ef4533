"""What "at 09:30:00.5" means in a test.

Decides how a time may be written, and how a clock goes that a test has set. Must never read the machine's clock:
now is an argument.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias

Time: TypeAlias = datetime | int | str
"""An aware `datetime`, nanoseconds since the epoch, an ISO time with its zone (`"2026-03-02T14:30:00.5Z"`), or a
time of day in New York on `DAY` (`"09:30"`, `"09:30:00.5"`, up to nine decimals)."""

DAY: Final = date(2025, 1, 6)
"""The Monday on which a bare time of day lies: an ordinary trading day, in winter time."""

NS_PER_S: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# New York is five hours behind UTC on that day; no zone database is needed.
_MIDNIGHT_NS: Final = (
    (datetime(DAY.year, DAY.month, DAY.day, 5, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * NS_PER_S
)
_TIME_OF_DAY: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:\.(\d{1,9}))?)?", re.ASCII)


def parse_time(time: Time) -> int:
    """Nanoseconds since the epoch; `ValueError` with the reason and the remedy for what is no time."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(
                f"at={time.isoformat()} has no time zone: pass an aware datetime, as in tzinfo=UTC"
            )
        return (time - _EPOCH) // timedelta(microseconds=1) * 1000
    if isinstance(time, int) and not isinstance(time, bool):
        if not 10**16 < time < 2**63:
            raise ValueError(
                f"at={time} is no time in nanoseconds since the epoch: multiply, or pass a datetime"
            )
        return time
    if isinstance(time, str):
        found = _TIME_OF_DAY.fullmatch(time)
        if found:
            hours, minutes, seconds, decimals = found.groups(default="0")
            whole_s = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
            return _MIDNIGHT_NS + whole_s * NS_PER_S + int(decimals.ljust(9, "0"))
        try:
            return parse_time(datetime.fromisoformat(time))
        except ValueError:
            pass
    raise ValueError(
        f"at={time!r} is no time: write '09:30:00.5' (New York, on {DAY}), '2026-03-02T14:30:00Z', "
        "an aware datetime, or nanoseconds since the epoch"
    )


class Clock:
    """The venue's time for quotes that name none: the machine's until it is set, then what a test makes of it."""

    __slots__ = ("_set_ns",)

    def __init__(self) -> None:
        self._set_ns: int | None = None

    @property
    def is_set(self) -> bool:
        """Whether it stands still."""
        return self._set_ns is not None

    def set(self, time: Time | None) -> None:
        """Stop it at this time; None lets it follow the machine's again. Raises `ValueError`."""
        self._set_ns = None if time is None else parse_time(time)

    def advance(self, seconds: float) -> None:
        """Move a clock that was set; `ValueError` if it was not, or for a step back."""
        if self._set_ns is None:
            raise ValueError("the clock follows the machine's: set it first, as in clock.set('09:30')")
        if seconds < 0:
            raise ValueError(f"advance({seconds}): a clock goes forward; set it to go back")
        self._set_ns += round(seconds * NS_PER_S)

    def time_ns(self, now_ns: int) -> int:
        """The venue's time when the machine's is `now_ns`, in nanoseconds since the epoch."""
        return now_ns if self._set_ns is None else self._set_ns

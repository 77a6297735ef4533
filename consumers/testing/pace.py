"""When a recorded item is due, and how it is dated.

Decides both from arguments. Must never know the clock, nor where items come from or go to.
"""

import sys
from typing import Final, Literal, TypeAlias

import msgspec

from consumers.arguments import is_number
from wire import Gap, Quote

Times: TypeAlias = Literal["recorded", "fresh", "now"]
"""How a replay dates what it publishes.

- `"recorded"`: everything as it was, so that the stream is the same, entry by entry.
- `"fresh"`: the venue's times as recorded, received now, so that `max_age_s` and `quality` take it for live.
- `"now"`: the first item is dated now, the others keep their distance, divided by the speed.
"""


class Pace:
    """The schedule of one replay. Raises `ValueError` for choices that contradict each other.

    `speed` is recorded seconds per second; None is as fast as it is read.
    """

    __slots__ = ("_first_ns", "_speed", "_start_ns", "_start_s", "_times")

    def __init__(self, speed: float | None, times: Times) -> None:
        if speed is not None and not (is_number(speed, 0, sys.float_info.max) and speed > 0):
            raise ValueError(
                f"speed={speed!r}: take recorded seconds per second, or None for as fast as it is read"
            )
        if times not in ("recorded", "fresh", "now"):
            raise ValueError(f"times={times!r}: take 'recorded', 'fresh' or 'now'")
        if times == "now" and speed is None:
            raise ValueError(
                "times='now' needs a speed: read as fast as possible, times would run ahead of the clock"
            )
        self._speed: Final = speed
        self._times: Final = times
        self._first_ns: int | None = None
        self._start_s = 0.0
        self._start_ns = 0

    def due_s(self, item: Quote | Gap, now_s: float, now_ns: int) -> float:
        """The monotonic second at which it is published; the first item is due now, one dated back at once."""
        time_ns = time_of(item)
        if self._first_ns is None:
            self._first_ns, self._start_s, self._start_ns = time_ns, now_s, now_ns
        if self._speed is None:
            return now_s
        return self._start_s + (time_ns - self._first_ns) / 1e9 / self._speed

    def dated(self, item: Quote | Gap) -> Quote | Gap:
        """The item as it is published."""
        if isinstance(item, Gap):
            if self._times != "now":
                return item
            start, end = self._moved(item.from_ns), self._moved(item.to_ns)
            return msgspec.structs.replace(item, from_ns=start, to_ns=end)
        if self._times == "recorded":
            return item
        if self._times == "fresh":
            return msgspec.structs.replace(item, receive_delay_us=None)
        return msgspec.structs.replace(item, time_ns=self._moved(item.time_ns))

    def _moved(self, time_ns: int) -> int:
        assert self._first_ns is not None
        assert self._speed is not None
        return self._start_ns + round((time_ns - self._first_ns) / self._speed)


def time_of(item: Quote | Gap) -> int:
    """When it stands in the stream, in nanoseconds since the epoch: a gap where the hole ends."""
    return item.to_ns if isinstance(item, Gap) else item.time_ns

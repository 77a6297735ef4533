"""How many calls were made in the last minute, counted in this process.

Decides whether one more is allowed now, and since when not. Must never read a clock: `now_s` is any clock that only
goes forward. The same rule as `budget.lua`, for when Redis is away.

A call counts from when it is allowed until a window after it has ended: somewhere in between it arrives at the
service, so that in no window there, wherever it begins, are more calls than the limit.
"""

from typing import Final


class Window:
    """The calls of the last `window_s` seconds, at most `limit` of them."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit: Final = limit
        self._window_s: Final = window_s
        self._calls: Final[dict[str, float]] = {}
        self._stopped_until_s = 0.0

    def take(self, call: str, now_s: float, hold_s: float) -> float:
        """0 when this call is allowed, else the seconds until one may be at the earliest.

        `hold_s` is how long it lasts at most.
        """
        if now_s < self._stopped_until_s:
            return self._stopped_until_s - now_s
        if len(self._calls) >= self._limit:
            self._forget(now_s)
        if len(self._calls) < self._limit:
            self._calls[call] = now_s + hold_s
            return 0.0
        return min(min(self._calls.values()), now_s) + self._window_s - now_s

    def note(self, call: str, now_s: float, hold_s: float) -> None:
        """Count a call that somebody else has allowed."""
        if len(self._calls) >= self._limit:
            self._forget(now_s)
        while len(self._calls) >= self._limit:
            del self._calls[next(iter(self._calls))]
        self._calls[call] = now_s + hold_s

    def settle(self, call: str, now_s: float) -> None:
        """The call has ended."""
        if call in self._calls:
            self._calls[call] = now_s

    def stop(self, until_s: float) -> None:
        """Allow none until then; an earlier stop that lasts longer stays."""
        self._stopped_until_s = max(self._stopped_until_s, until_s)

    def _forget(self, now_s: float) -> None:
        for call in [call for call, time_s in self._calls.items() if time_s <= now_s - self._window_s]:
            del self._calls[call]

"""How many REST calls a key has left in this minute.

Decides which call is one too many, and what the headers say of it. Must never know the clock: the time is an
argument, in nanoseconds since the epoch. Facts: Alpaca counts calls per account and minute and tells the state in
`X-RateLimit-Limit`, `-Remaining` and `-Reset`, the last in unix seconds
(https://docs.alpaca.markets/docs/usage-limit-api-calls).
"""

from collections import OrderedDict
from typing import Final

MAX_KEYS: Final = 1_000
"""Keys that are remembered; beyond that the one heard of longest ago begins its minute anew."""

_MINUTE_NS: Final = 60_000_000_000


class Allowance:
    """The calls of every key. A key's minute begins with its first call after the last minute has ended."""

    def __init__(self, calls_per_minute: int) -> None:
        self.calls_per_minute: Final = calls_per_minute
        self._spent: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def spend(self, key: str, now_ns: int) -> bool:
        """Count a call; whether it is within the allowance. One beyond it is not counted."""
        until_ns, spent = self._minute(key, now_ns)
        granted = spent < self.calls_per_minute
        self._spent[key] = until_ns, spent + granted
        self._spent.move_to_end(key)
        if len(self._spent) > MAX_KEYS:
            self._spent.popitem(last=False)
        return granted

    def exhaust(self, key: str, now_ns: int) -> None:
        """Nothing is left of this minute."""
        self._spent[key] = self._minute(key, now_ns)[0], self.calls_per_minute

    def headers(self, key: str, now_ns: int) -> dict[str, str]:
        """What every answer says about it."""
        until_ns, spent = self._minute(key, now_ns)
        return {
            "X-RateLimit-Limit": str(self.calls_per_minute),
            "X-RateLimit-Remaining": str(self.calls_per_minute - spent),
            # Rounded up: whoever waits until then is not a moment early.
            "X-RateLimit-Reset": str(-(-until_ns // 1_000_000_000)),
        }

    def _minute(self, key: str, now_ns: int) -> tuple[int, int]:
        until_ns, spent = self._spent.get(key, (0, 0))
        return (until_ns, spent) if now_ns < until_ns else (now_ns + _MINUTE_NS, 0)

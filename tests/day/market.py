"""Whoever sends the quotes: so many, at a pace, numbered within each symbol, trimmed as the daemon trims.

Decides what is sent when. Must never know who reads.
"""

import random
import time
from array import array
from threading import Event
from typing import Final

from redis import Redis

from tests.day.design import SYMBOLS
from wire import QUOTE_FIELD, Keyspace, encode_quote, entry_id_at

AT_ONCE: Final = 500


class Market:
    """`sent` has the venue times of each symbol's quotes by number, `ends` the id of its last entry."""

    def __init__(self, url: str, seed: int, quotes: int, rate: float, maxlen: int) -> None:
        self.sent: Final = {symbol: array("q") for symbol in SYMBOLS}
        self.ends: Final[dict[str, str]] = {}
        self.is_over: Final = Event()
        self._url: Final = url
        self._quotes: Final = quotes
        self._rate: Final = rate
        self._maxlen: Final = maxlen
        self._chance: Final = random.Random(f"market {seed}")
        self._keys: Final = Keyspace()

    def run(self) -> None:
        """Send all of them, or until it is over."""
        began_s, done = time.monotonic(), 0
        with Redis.from_url(self._url, protocol=2) as redis:
            while done < self._quotes and not self.is_over.is_set():
                # In clumps of any size, as a market has them.
                count = min(self._chance.randint(1, AT_ONCE), self._quotes - done)
                pipe = redis.pipeline(transaction=False)
                for _ in range(count):
                    self._quote(pipe, self._chance.choice(SYMBOLS))
                pipe.execute()
                done += count
                self.is_over.wait(max(0.0, began_s + done / self._rate - time.monotonic()))

    def _quote(self, pipe: "Redis", symbol: str) -> None:
        times = self.sent[symbol]
        time_ns = max(time.time_ns(), times[-1] + 1_000 if times else 0)
        row = (187.12, len(times), "V", 187.13, 200, "N", ["R"], "C", time_ns, 8052)
        entry_id = str(entry_id_at(time_ns))
        pipe.xadd(self._keys.stream(symbol), {QUOTE_FIELD: encode_quote(row)}, entry_id, maxlen=self._maxlen)
        times.append(time_ns)
        self.ends[symbol] = entry_id

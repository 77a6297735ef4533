"""Quotes and gaps for a test, with everything filled in that the test does not care about.

Decides what is plausible: sizes, exchanges, conditions, a venue's time some milliseconds ago. Must never know where
they go; `publisher` writes them.
"""

import random
import time
from collections.abc import Iterator
from typing import Final

from consumers.testing.times import NS_PER_S, Time, parse_time
from wire import Gap, Quote, parse_symbol

DELAY_MS: Final = 8.0
"""From the venue to the daemon, where nothing else is said."""
_EXCHANGES: Final = "NPQVZKB"


def a_quote(
    symbol: str = "AAPL",
    *,
    bid: float | None = 187.12,
    ask: float | None = 187.13,
    bid_size: float = 300,
    ask_size: float = 200,
    at: Time | None = None,
    delay_ms: float | None = None,
    bid_exchange: str = "V",
    ask_exchange: str = "N",
    conditions: tuple[str, ...] = ("R",),
    tape: str = "C",
) -> Quote:
    """A quote that is not stored yet (`id` None).

    A side of None has no active quote. `at` is the venue's time, see `Time`; without it the quote is received now
    and `DELAY_MS` old. `delay_ms` is the time from there to the daemon's receipt; a quote with `at` and without it
    is received when it is published, so that it counts as fresh however long ago its day was. Raises `BadSymbol`,
    and `ValueError` for a time that is none.
    """
    if at is None:
        delay_ms = DELAY_MS if delay_ms is None else delay_ms
        time_ns = time.time_ns() - round(delay_ms * 1e6)
    else:
        time_ns = parse_time(at)
    return Quote(
        symbol=parse_symbol(symbol),
        id=None,
        bid_price=bid,
        bid_size=bid_size,
        bid_exchange=bid_exchange,
        ask_price=ask,
        ask_size=ask_size,
        ask_exchange=ask_exchange,
        conditions=conditions,
        tape=tape,
        time_ns=time_ns,
        receive_delay_us=None if delay_ms is None else round(delay_ms * 1e3),
    )


def an_old_quote(
    symbol: str = "AAPL", *, age_s: float, bid: float | None = 187.12, ask: float | None = 187.13
) -> Quote:
    """A quote that was received `age_s` seconds ago: for tests of what a strategy does with stale prices."""
    time_ns = time.time_ns() - round(age_s * NS_PER_S)
    return a_quote(symbol, bid=bid, ask=ask, at=time_ns - round(DELAY_MS * 1e6), delay_ms=DELAY_MS)


def a_gap(
    symbol: str = "AAPL",
    *,
    start: Time | None = None,
    end: Time | None = None,
    reason: str = "feed_disconnected",
    missing: int | None = None,
) -> Gap:
    """A gap marker that is not stored yet, from `start` to `end`; by default the last second.

    Raises `BadSymbol`, and `ValueError` for times that are none or in the wrong order.
    """
    to_ns = time.time_ns() if end is None else parse_time(end)
    from_ns = to_ns - NS_PER_S if start is None else parse_time(start)
    if from_ns > to_ns:
        raise ValueError("the gap ends before it starts: swap start and end")
    return Gap(
        symbol=parse_symbol(symbol), id=None, from_ns=from_ns, to_ns=to_ns, reason=reason, missing=missing
    )


def quotes_of(
    symbol: str = "AAPL",
    *,
    count: int,
    start: Time = "09:30",
    mid: float = 187.125,
    spread: float = 0.01,
    tick: float = 0.01,
    rate: float = 100.0,
    seed: int = 0,
) -> Iterator[Quote]:
    """A random walk of `count` quotes around `mid`, the same for the same `seed`.

    The mid moves by at most one `tick` at a time, the spread is one to three times `spread`, and `rate` quotes come
    per second on average, each with its own size, in order of time. Raises `BadSymbol` and `ValueError`.
    """
    if count < 0 or not rate > 0 or not tick > 0 or not spread > 0 or not mid > spread:
        raise ValueError(
            "count must not be negative; rate, tick, spread and mid (above spread) must be positive"
        )
    chance = random.Random(f"{symbol} {seed}")
    time_ns = parse_time(start)
    name = parse_symbol(symbol)
    return _walk(name, count, time_ns, mid, spread, tick, rate, chance)


def _walk(
    symbol: str,
    count: int,
    time_ns: int,
    mid: float,
    spread: float,
    tick: float,
    rate: float,
    chance: random.Random,
) -> Iterator[Quote]:
    for _ in range(count):
        mid = max(mid + chance.choice((-tick, 0.0, tick)), 2 * spread)
        half = spread * chance.choice((1, 1, 1, 2, 3)) / 2
        yield a_quote(
            symbol,
            bid=round(mid - half, 4),
            ask=round(mid + half, 4),
            bid_size=100 * chance.randint(1, 9),
            ask_size=100 * chance.randint(1, 9),
            bid_exchange=chance.choice(_EXCHANGES),
            ask_exchange=chance.choice(_EXCHANGES),
            at=time_ns,
        )
        # A microsecond at least, so that no two are ties.
        time_ns += 1_000 + round(chance.expovariate(rate) * NS_PER_S)

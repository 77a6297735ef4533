"""What was quoted before anybody listened: an endless past, computed and never stored.

Decides a quote from symbol, seed and time alone, so that any part of the past is the same whenever and in whatever
pieces it is asked for. Must never know the clock, nor what the websocket sent.

Time is cut into slots of five seconds with one quote in each, around the clock. An hour's quotes follow one of
a few shapes around the hour's level, and a shape knows the extremes of its minutes and of the whole: a year of bars
costs no more than its hours.
"""

import math
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple
from zlib import crc32

from simulator.frames import SimQuote
from simulator.market import Book

SLOT_NS: Final = 5_000_000_000
_SLOTS_PER_MINUTE: Final = 12
_SLOTS_PER_HOUR: Final = 720
_SHAPES: Final = 16
_WIDEST_STEPS: Final = 40
_SIZES: Final = (100, 100, 100, 200, 200, 300, 400, 500, 800, 1000)
_VENUES: Final = ("Q", "P", "K", "Z", "V", "N", "Y", "J")
_SPREADS: Final = (1, 1, 1, 1, 2, 2, 3)
_WAVES: Final = ((31.0, 0.004), (263.0, 0.01))
"""Period in hours and height, as a share of the price, of what moves the level."""


class _Point(NamedTuple):
    steps: int
    spread: int
    bid_size: int
    ask_size: int
    bid_exchange: str
    ask_exchange: str


class Span(NamedTuple):
    """Some quotes as a bar sees them: mids in half cents, `total` their sum, `shares` what stood on both sides."""

    first: int
    high: int
    low: int
    last: int
    total: int
    shares: int
    number: int

    def then(self, later: "Span") -> "Span":
        """Both together, this one being the earlier."""
        return Span(
            self.first,
            max(self.high, later.high),
            min(self.low, later.low),
            later.last,
            self.total + later.total,
            self.shares + later.shares,
            self.number + later.number,
        )


class _Shape(NamedTuple):
    points: list[_Point]
    minutes: list[Span]
    hour: Span


@lru_cache(maxsize=_SHAPES)
def _shape(number: int) -> _Shape:
    rng = random.Random(number)
    points: list[_Point] = []
    steps = 0
    for _ in range(_SLOTS_PER_HOUR):
        steps = max(-_WIDEST_STEPS, min(_WIDEST_STEPS, steps + rng.choice((-1, 0, 0, 1))))
        points.append(
            _Point(
                steps,
                rng.choice(_SPREADS),
                rng.choice(_SIZES),
                rng.choice(_SIZES),
                rng.choice(_VENUES),
                rng.choice(_VENUES),
            )
        )
    minutes = [
        _gathered([_span(p) for p in points[at : at + _SLOTS_PER_MINUTE]])
        for at in range(0, _SLOTS_PER_HOUR, _SLOTS_PER_MINUTE)
    ]
    return _Shape(points, minutes, _gathered(minutes))


def _span(point: _Point) -> Span:
    mid = 2 * point.steps + point.spread
    return Span(mid, mid, mid, mid, mid, point.bid_size + point.ask_size, 1)


def _gathered(spans: list[Span]) -> Span:
    whole = spans[0]
    for span in spans[1:]:
        whole = whole.then(span)
    return whole


class Past:
    """One symbol's past. The same symbol and seed give the same one."""

    def __init__(self, symbol: str, seed: int = 0) -> None:
        book = Book(symbol, seed)
        self._symbol = symbol
        self._mark = crc32(f"past:{seed}:{symbol}".encode())
        self._cents = book.bid_cents
        self._unit = book.spread_unit
        self._tape = book.tape

    def quotes(self, from_ns: int, to_ns: int) -> Iterator[SimQuote]:
        """Those with times from `from_ns` to `to_ns`, both included, oldest first."""
        for slot in range(max(from_ns, 0) // SLOT_NS, to_ns // SLOT_NS + 1):
            if from_ns <= self._time_ns(slot) <= to_ns:
                yield self._quote(slot)

    def backwards(self, from_ns: int, to_ns: int) -> Iterator[SimQuote]:
        """The same, newest first."""
        for slot in range(to_ns // SLOT_NS, max(from_ns, 0) // SLOT_NS - 1, -1):
            if from_ns <= self._time_ns(slot) <= to_ns:
                yield self._quote(slot)

    def span(self, from_ns: int, to_ns: int) -> Span | None:
        """The quotes from `from_ns` up to, not including, `to_ns`, as one; None when there are none.

        `from_ns` is the beginning of a slot, as all bars begin with one; what ends may be the present.
        """
        slot, end = from_ns // SLOT_NS, to_ns // SLOT_NS
        if self._time_ns(end) < to_ns:
            end += 1
        whole: Span | None = None
        while slot < end:
            hour, at = divmod(slot, _SLOTS_PER_HOUR)
            shape, level = self._hour(hour)
            if at == 0 and end - slot >= _SLOTS_PER_HOUR:
                part, taken = shape.hour, _SLOTS_PER_HOUR
            elif at % _SLOTS_PER_MINUTE == 0 and end - slot >= _SLOTS_PER_MINUTE:
                part, taken = shape.minutes[at // _SLOTS_PER_MINUTE], _SLOTS_PER_MINUTE
            else:
                part, taken = _span(shape.points[at]), 1
            part = self._raised(part, level)
            whole = part if whole is None else whole.then(part)
            slot += taken
        return whole

    def _raised(self, span: Span, level: int) -> Span:
        unit, base = self._unit, 2 * level
        return Span(
            base + unit * span.first,
            base + unit * span.high,
            base + unit * span.low,
            base + unit * span.last,
            base * span.number + unit * span.total,
            span.shares,
            span.number,
        )

    def _hour(self, hour: int) -> tuple[_Shape, int]:
        share = sum(
            height * math.sin(2 * math.pi * (hour / period_h + (self._mark >> 8 * n & 0xFF) / 256))
            for n, (period_h, height) in enumerate(_WAVES)
        )
        number = crc32(hour.to_bytes(8, "big"), self._mark) % _SHAPES
        return _shape(number), int(self._cents * (1 + share))

    def _time_ns(self, slot: int) -> int:
        return slot * SLOT_NS + crc32(slot.to_bytes(8, "big"), self._mark) * SLOT_NS // 2**32

    def _quote(self, slot: int) -> SimQuote:
        hour, at = divmod(slot, _SLOTS_PER_HOUR)
        shape, level = self._hour(hour)
        point = shape.points[at]
        bid = level + self._unit * point.steps
        return SimQuote(
            self._symbol,
            self._time_ns(slot),
            bid / 100,
            point.bid_size,
            (bid + self._unit * point.spread) / 100,
            point.ask_size,
            point.bid_exchange,
            point.ask_exchange,
            tape=self._tape,
        )

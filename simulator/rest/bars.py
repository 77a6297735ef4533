"""Bars, made of the quotes' mids: there are no trades in this market.

Decides where a bar begins and ends and what it shows. Must never know the clock, nor how a call arrived. Minutes
and hours run around the clock, as the quotes do; a day is its regular session, so that bars and calendar agree. `v`
is the size that stood on both sides, summed over the quotes, `n` their number, `vw` their mean mid.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

import msgspec

from ingestor.feed.hours import NEW_YORK, regular_session
from ingestor.feed.messages import time_as_json
from simulator.frames import SimQuote
from simulator.rest.answers import Refused
from simulator.rest.asking import Range
from simulator.rest.history import History
from simulator.rest.past import Span

_NS: Final = 1_000_000_000
_FRAME: Final = re.compile(r"(\d{1,2})(Min|T|Hour|H|Day|D|Week|W|Month|M)", re.ASCII)
_ALLOWED: Final = {
    "Min": range(1, 60),
    "Hour": range(1, 24),
    "Day": (1,),
    "Week": (1,),
    "Month": (1, 2, 3, 6, 12),
}
_SHORT: Final = {"T": "Min", "H": "Hour", "D": "Day", "W": "Week", "M": "Month"}


@dataclass(frozen=True)
class Timeframe:
    """How long a bar is."""

    amount: int
    unit: Literal["Min", "Hour", "Day", "Week", "Month"]


@dataclass(frozen=True)
class Bar:
    """One bar: when it begins, and its quotes."""

    t_ns: int
    span: Span


def timeframe_of(text: str | None) -> Timeframe:
    """Read one like `5Min`. Raises `Refused`."""
    if not text:
        raise Refused(400, "timeframe is required")
    match = _FRAME.fullmatch(text)
    if match is not None:
        unit = _SHORT.get(match[2], match[2])
        if int(match[1]) in _ALLOWED[unit]:
            return Timeframe(int(match[1]), unit)  # type: ignore[arg-type]
    raise Refused(400, f"invalid timeframe: {text[:40]}")


def bars_in(history: History, symbol: str, part: Range, frame: Timeframe, now_ns: int) -> Iterator[Bar]:
    """The bars that begin within the range, in its order; one without a quote is left out."""
    past, until_ns = history.past(symbol), history.past_until_ns(symbol, now_ns)
    begins = _slots(part, frame, now_ns)
    # Bars reach beyond the end of the range, the longest of them by a year.
    recorded = history.record.quotes(symbol, part.start_ns, part.end_ns + 366 * 86_400 * _NS)
    times = [quote.t_ns for quote in recorded]
    for t_ns, sessions in begins:
        whole: Span | None = None
        for from_ns, to_ns in sessions:
            spans = [past.span(from_ns, min(to_ns, until_ns))] if from_ns < until_ns else []
            spans.append(_span(recorded[bisect_left(times, from_ns) : bisect_left(times, to_ns)]))
            for span in spans:
                if span is not None:
                    whole = span if whole is None else whole.then(span)
        if whole is not None:
            yield Bar(t_ns, whole)


def bar_body(bar: Bar) -> dict[str, object]:
    """A bar as the vendor writes it; prices in USD."""
    span = bar.span
    return {
        "t": msgspec.Raw(time_as_json(bar.t_ns).replace(b".000000000", b"")),
        "o": span.first / 200,
        "h": span.high / 200,
        "l": span.low / 200,
        "c": span.last / 200,
        "v": span.shares,
        "n": span.number,
        "vw": round(span.total / span.number / 200, 6),
    }


def _slots(part: Range, frame: Timeframe, now_ns: int) -> Iterator[tuple[int, Sequence[tuple[int, int]]]]:
    """When each bar begins, and the spans of time whose quotes it is made of."""
    start_ns, end_ns = max(part.start_ns, 0), min(part.end_ns, now_ns)
    if frame.unit in ("Min", "Hour"):
        size_ns = frame.amount * (60 if frame.unit == "Min" else 3_600) * _NS
        numbers = range(-(-start_ns // size_ns), end_ns // size_ns + 1)
        for number in reversed(numbers) if part.newest_first else numbers:
            yield number * size_ns, [(number * size_ns, (number + 1) * size_ns)]
        return
    first = _bar_day(_day(start_ns), frame)
    if _midnight_ns(first) < start_ns:
        first = _next(first, frame)
    last = _bar_day(_day(end_ns), frame)
    day = last if part.newest_first else first
    while first <= day <= last:
        yield _midnight_ns(day), list(_sessions(day, _next(day, frame)))
        day = _bar_day(day - timedelta(days=1), frame) if part.newest_first else _next(day, frame)


def _sessions(day: date, end: date) -> Iterator[tuple[int, int]]:
    while day < end:
        session = regular_session(day)
        if session is not None:
            yield int(session[0]) * _NS, int(session[1]) * _NS
        day += timedelta(days=1)


def _bar_day(day: date, frame: Timeframe) -> date:
    if frame.unit == "Day":
        return day
    if frame.unit == "Week":
        return day - timedelta(days=day.weekday())
    return date(day.year, (day.month - 1) // frame.amount * frame.amount + 1, 1)


def _next(day: date, frame: Timeframe) -> date:
    if frame.unit != "Month":
        return day + timedelta(days=1 if frame.unit == "Day" else 7)
    months = day.year * 12 + day.month - 1 + frame.amount
    return date(months // 12, months % 12 + 1, 1)


def _day(time_ns: int) -> date:
    return datetime.fromtimestamp(time_ns // _NS, UTC).astimezone(NEW_YORK).date()


def _midnight_ns(day: date) -> int:
    return int(datetime.combine(day, time(0), NEW_YORK).timestamp()) * _NS


def _span(quotes: Sequence[SimQuote]) -> Span | None:
    if not quotes:
        return None
    mids = [round((quote.bid_price + quote.ask_price) * 100) for quote in quotes]
    shares = round(sum(quote.bid_size + quote.ask_size for quote in quotes))
    return Span(mids[0], max(mids), min(mids), mids[-1], sum(mids), shares, len(mids))

"""What was sent against what the streams hold, while it happens.

Decides whether every running number is there once and in order, and whether each hole is marked where it is. Must
never know why a number is missing, nor what was done to the servers. Memory grows with the number of symbols, and
not with the length of the run, so that it can watch for hours.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from wire import Keyspace

EXAMPLES: Final = 8
HOLES_REMEMBERED: Final = 64
"""Per symbol. A number that comes later still is called a double and not a latecomer; it is a failure anyway."""
COUNT: Final = 1000
"""Entries of one symbol read at once."""
BID_SIZE: Final = 1
"""Where the running number stands in a stored quote."""
TIME: Final = 8
"""Where its venue time stands."""


@dataclass(slots=True)
class Verdict:
    """Counts over all symbols. Most of them ought to be 0; see `is_honest`."""

    arrived: int = 0
    lost: int = 0
    """Missing without a marker between their neighbours."""
    duplicated: int = 0
    out_of_order: int = 0
    missing_in_gaps: int = 0
    """Missing, with a marker exactly where they are."""
    markers: int = 0
    late_markers: int = 0
    """Markers behind quotes that they ought to precede: they cover a hole that was passed without one."""
    unneeded_markers: int = 0
    """Markers without a number missing and without a new connection to the vendor."""
    unmarked_breaks: int = 0
    """New connections to the vendor without a marker before the next quote."""
    bad_ids: int = 0
    """Entry ids that are not above the one before."""
    foreign: int = 0
    """Entries that nobody sent."""
    outstanding: int = 0
    """Sent, and nothing after them is there yet."""
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = [f"{f.name} {n}" for f in fields(self) if isinstance(n := getattr(self, f.name), int) and n]
        return "\n  ".join([", ".join(counts) or "nothing sent", *self.examples])

    @property
    def is_honest(self) -> bool:
        """All is there once and in order, but for what the markers tell, and the markers tell nothing else."""
        return not (
            self.lost
            or self.duplicated
            or self.out_of_order
            or self.late_markers
            or self.unneeded_markers
            or self.unmarked_breaks
            or self.bad_ids
            or self.foreign
        )

    @property
    def is_complete(self) -> bool:
        """Honest, with nothing missing, nothing on its way and no marker."""
        return self.is_honest and not (self.missing_in_gaps or self.markers or self.outstanding)


@dataclass(slots=True)
class _Symbol:
    first: int
    sent: int
    breaks: deque[int] = field(default_factory=deque)
    """The first numbers of the vendor's connections that the stream has not come to yet."""
    epoch: int = 0
    last_id: str = "-"
    highest: int = 0
    forgiven: int = 0
    """Up to here it is no loss if a number is missing."""
    markers_since: int = 0
    reason: str = ""
    """The first marker's since the highest number."""
    time_ns: int = 0
    """Of the quote with the highest number."""
    passed: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=HOLES_REMEMBERED))
    """Holes without a marker: how many are missing, and the times of the quotes on both sides."""
    holes: list[tuple[int, int, bool]] = field(default_factory=list)
    """The latest missing ranges, both ends included, and whether a marker stands there."""


class Checker:
    """Told what is sent with `sent`, it reads what is stored with `follow`, and tells what it found.

    `markers_by_reason` counts markers, `missing_by_reason` the numbers that are missing where they stand.
    """

    def __init__(self, keys: Keyspace | None = None) -> None:
        self._keys = keys or Keyspace()
        self._symbols: dict[str, _Symbol] = {}
        self._counts = Verdict()
        self._examples: list[str] = []
        self.markers_by_reason: Counter[str] = Counter()
        self.missing_by_reason: Counter[str] = Counter()

    def sent(self, symbol: str, first: int, count: int, epoch: int = 0) -> None:
        """These numbers are being sent now; `epoch` tells one connection of the vendor from the next.

        Raises `ValueError` when they do not go on where the last ones ended.
        """
        known = self._symbols.get(symbol)
        if known is None:
            self._symbols[symbol] = known = _Symbol(first, first - 1, epoch=epoch, highest=first - 1)
        if first != known.sent + 1:
            raise ValueError(f"{symbol}: {known.sent + 1} is the next number, not {first}")
        if epoch != known.epoch:
            known.epoch = epoch
            known.breaks.append(first)
        known.sent += count

    async def follow(self, redis: Redis) -> int:
        """Read what is new in every stream; how many entries that were.

        It must keep ahead of retention, or entries that were trimmed unread are taken for lost.
        """
        found = 0
        for symbol, known in self._symbols.items():
            while True:
                start = "-" if known.last_id == "-" else f"({known.last_id}"
                entries: Any = await redis.xrange(self._keys.stream(symbol), start, "+", count=COUNT)
                self.see(symbol, entries)
                found += len(entries)
                if len(entries) < COUNT:
                    break
        return found

    def begin_again(self) -> None:
        """Forget what was read, so that `follow` reads whole streams: after a server that lost what was read."""
        self._counts, self._examples = Verdict(), []
        self.markers_by_reason.clear()
        self.missing_by_reason.clear()
        for symbol, known in self._symbols.items():
            self._symbols[symbol] = _Symbol(
                known.first,
                known.sent,
                epoch=known.epoch,
                highest=known.first - 1,
                forgiven=known.forgiven,
            )

    def forgive(self, numbers: Mapping[str, int]) -> None:
        """Numbers up to these may be missing: they were stored, and who could store them again is gone."""
        for symbol, number in numbers.items():
            if symbol in self._symbols:
                self._symbols[symbol].forgiven = number

    def see(self, symbol: str, entries: Iterable[tuple[Any, Mapping[Any, Any]]]) -> None:
        """Judge entries of one stream, in the order in which it holds them; texts or bytes."""
        known = self._symbols[symbol]
        for raw_id, raw_fields in entries:
            entry_id, content = _text(raw_id), {_text(k): v for k, v in raw_fields.items()}
            if known.last_id != "-" and _order(entry_id) <= _order(known.last_id):
                self._counts.bad_ids += 1
                self._tell(f"{symbol}: id {entry_id} comes after {known.last_id}")
            known.last_id = entry_id
            if "gap" in content:
                self._see_marker(known, content["gap"])
            else:
                number, time_ns = _quote(content)
                self._see_number(symbol, known, number, time_ns, entry_id)

    def highest(self, symbol: str) -> int:
        """The highest number of this symbol that was read."""
        return self._symbols[symbol].highest

    def verdict(self) -> Verdict:
        """What was found so far."""
        outstanding = sum(known.sent - known.highest for known in self._symbols.values())
        return replace(self._counts, outstanding=outstanding, examples=tuple(self._examples))

    def _see_marker(self, known: _Symbol, marker: str) -> None:
        reason, from_ns, to_ns = _gap(marker)
        self._counts.markers += 1
        self.markers_by_reason[reason] += 1
        told = [hole for hole in known.passed if from_ns < hole[2] <= to_ns]
        if told and told[0][1] <= from_ns:
            missing = sum(hole[0] for hole in told)
            self._counts.lost -= missing
            self._counts.missing_in_gaps += missing
            self._counts.late_markers += 1
            self.missing_by_reason[reason] += missing
            for hole in told:
                known.passed.remove(hole)
            return
        known.reason = known.reason if known.markers_since else reason
        known.markers_since += 1

    def _see_number(
        self, symbol: str, known: _Symbol, number: int | None, time_ns: int, entry_id: str
    ) -> None:
        if number is None or not known.first <= number <= known.sent:
            self._counts.foreign += 1
            self._tell(f"{symbol}: {entry_id} holds {number}, which nobody sent")
        elif number <= known.highest:
            self._see_late(symbol, known, number, entry_id)
        else:
            self._counts.arrived += 1
            self._judge_step(symbol, known, number, time_ns, entry_id)
            known.highest, known.markers_since, known.time_ns = number, 0, time_ns

    def _judge_step(self, symbol: str, known: _Symbol, number: int, time_ns: int, entry_id: str) -> None:
        missing = max(0, number - max(known.highest, known.forgiven) - 1)
        markers = known.markers_since
        broke = 0
        while known.breaks and known.breaks[0] <= number:
            known.breaks.popleft()
            broke += 1
        if missing:
            known.holes.append((known.highest + 1, number - 1, bool(markers)))
            del known.holes[:-HOLES_REMEMBERED]
        if missing and markers:
            self._counts.missing_in_gaps += missing
            self.missing_by_reason[known.reason] += missing
        elif missing:
            self._counts.lost += missing
            known.passed.append((missing, known.time_ns, time_ns))
            self._tell(f"{symbol}: {number} at {entry_id} follows {known.highest} without a marker")
        elif broke and not markers and known.highest >= known.forgiven:
            self._counts.unmarked_breaks += 1
            self._tell(f"{symbol}: no marker before {number} at {entry_id}, the first of a new connection")
        needed = max(broke, 1) if missing or broke else 0
        if markers > needed:
            self._counts.unneeded_markers += markers - needed
            self._tell(f"{symbol}: {markers} markers before {number} at {entry_id}, where {needed} would do")

    def _see_late(self, symbol: str, known: _Symbol, number: int, entry_id: str) -> None:
        known.passed.clear()
        for i, (low, high, is_marked) in enumerate(known.holes):
            if low <= number <= high:
                rest = [(low, number - 1, is_marked), (number + 1, high, is_marked)]
                known.holes[i : i + 1] = [hole for hole in rest if hole[0] <= hole[1]]
                self._counts.out_of_order += 1
                self._counts.arrived += 1
                if is_marked:
                    self._counts.missing_in_gaps -= 1
                else:
                    self._counts.lost -= 1
                self._tell(f"{symbol}: {number} at {entry_id} comes after {known.highest}")
                return
        self._counts.duplicated += 1
        self._tell(f"{symbol}: {number} at {entry_id} is there a second time")

    def _tell(self, example: str) -> None:
        if len(self._examples) < EXAMPLES:
            self._examples.append(example)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n)


def _gap(marker: str) -> tuple[str, int, int]:
    try:
        body = msgspec.json.decode(marker)
        return str(body["reason"]), int(body["from"]), int(body["to"])
    except (KeyError, TypeError, ValueError, msgspec.DecodeError):
        return "unreadable", 0, 0


def _quote(content: Mapping[str, Any]) -> tuple[int | None, int]:
    try:
        body = msgspec.json.decode(content["q"])
        return int(body[BID_SIZE]), int(body[TIME])
    except (KeyError, IndexError, TypeError, ValueError, msgspec.DecodeError):
        return None, 0

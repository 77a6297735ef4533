"""What became of each entry for one strategy, from what was sent and what it wrote down.

Decides what counts as missing, told and twice. Must never know the library, Redis, or how a strategy reads.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

NAMED: Final = 6
IN_HAND_S: Final = 1.0
"""What another worker had claimed when an acknowledgement came late it may still hand over: half of the time after
which things are claimed."""


class Note(msgspec.Struct, array_like=True, frozen=True):
    """One thing that was handed out: a quote by its number, with how many before it it stands for; or with a number
    of -1 a gap by its times."""

    symbol: str
    number: int
    passed_over: int = 0
    from_ns: int = 0
    to_ns: int = 0
    reason: str = ""


class Part(msgspec.Struct):
    """What a strategy writes down in one piece. One that goes by checkpoints has done the work on all of it."""

    notes: list[Note]


class Handled(msgspec.Struct, array_like=True, frozen=True):
    """A line of a worker: entries that it handled, or of which an acknowledgement was confirmed."""

    at_s: float
    is_acknowledged: bool
    entries: list[tuple[str, int]]


class Account(msgspec.Struct):
    """The figures of one strategy. `repeated` are entries that a worker was handed again without acknowledging
    them before, which is what a group promises; `twice` are those that nothing explains."""

    expected: int = 0
    received: int = 0
    told: int = 0
    missing: int = 0
    twice: int = 0
    out_of_order: int = 0
    repeated: int = 0
    names: list[str] = []

    @property
    def is_right(self) -> bool:
        """Whether each entry came once and in order, or was told."""
        return not (self.missing or self.twice or self.out_of_order)

    def name(self, what: str) -> None:
        """Some of what is wrong, for people."""
        if len(self.names) < NAMED:
            self.names.append(what)


def account(sent: Mapping[str, Sequence[int]], notes: Iterable[Note]) -> Account:
    """The account of who read these symbols from their first entry to their last (venue times, by number)."""
    result = Account(expected=sum(len(times) for times in sent.values()))
    seen = {symbol: bytearray(len(times)) for symbol, times in sent.items()}
    last = dict.fromkeys(sent, -1)
    gaps: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for note in notes:
        symbol, number = note.symbol, note.number
        if number < 0:
            gaps[symbol].append((min(note.from_ns, note.to_ns), max(note.from_ns, note.to_ns)))
            continue
        marks = seen[symbol]
        for each in range(number - note.passed_over, number + 1):
            if marks[each]:
                result.twice += 1
                result.name(f"twice: {symbol} {each}")
            marks[each] = 1
        if number <= last[symbol]:
            result.out_of_order += 1
            result.name(f"{symbol} {number} behind {last[symbol]}")
        last[symbol] = number
    _balance(result, sent, seen, gaps)
    return result


def account_of_group(sent: Mapping[str, Sequence[int]], lines: Iterable[Handled]) -> Account:
    """The account of all workers of a group together: each entry at least once, and not again behind its end."""
    result = Account(expected=sum(len(times) for times in sent.values()))
    seen = {symbol: bytearray(len(times)) for symbol, times in sent.items()}
    ended: dict[tuple[str, int], float] = {}
    for line in sorted(lines, key=lambda line: line.at_s):
        for symbol, number in line.entries:
            if line.is_acknowledged:
                ended.setdefault((symbol, number), line.at_s)
                continue
            if seen[symbol][number]:
                if line.at_s > ended.get((symbol, number), line.at_s) + IN_HAND_S:
                    result.twice += 1
                    result.name(f"again though acknowledged: {symbol} {number}")
                else:
                    result.repeated += 1
            seen[symbol][number] = 1
    _balance(result, sent, seen, {})
    return result


def _balance(
    result: Account,
    sent: Mapping[str, Sequence[int]],
    seen: Mapping[str, bytearray],
    gaps: Mapping[str, list[tuple[int, int]]],
) -> None:
    for symbol, marks in seen.items():
        result.received += marks.count(1)
        if 0 not in marks:
            continue
        times = sent[symbol]
        covered: set[int] = set()
        for since, to in gaps.get(symbol, ()):
            covered.update(range(bisect_left(times, since), bisect_left(times, to + 1)))
        for number, mark in enumerate(marks):
            if mark:
                continue
            if number in covered:
                result.told += 1
            else:
                result.missing += 1
                result.name(f"missing: {symbol} {number}")

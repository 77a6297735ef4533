"""One reader's account: what it got of each symbol, in order, and which missing numbers no gap covers.

Decides what counts as told. Must never know what was done to the streams.
"""

from dataclasses import dataclass, field

from consumers import Gap, Quote


@dataclass
class Account:
    """What one reader got, and when; quotes are numbered by their bid size."""

    got: dict[str, list[tuple[float, int | Gap]]] = field(default_factory=dict)

    def take(self, item: Quote | Gap, now_s: float) -> None:
        """It was handed this."""
        what = item if isinstance(item, Gap) else int(item.bid_size or 0)
        self.got.setdefault(item.symbol, []).append((now_s, what))

    def last(self, symbol: str) -> int:
        """The number of the last quote of this symbol, -1 before the first."""
        quotes = [what for _, what in self.got.get(symbol, []) if isinstance(what, int)]
        return quotes[-1] if quotes else -1


@dataclass(frozen=True)
class Balance:
    """Of the numbers that were written: never got, and of these in no gap; got again without a gap before.

    `unseen` stood in a stream that was gone again before the reader asked: no stream ever shows them.
    """

    written: int = 0
    missing: int = 0
    untold: tuple[str, ...] = ()
    unseen: int = 0
    twice: int = 0
    late: int = 0

    def __add__(self, other: "Balance") -> "Balance":
        return Balance(
            self.written + other.written,
            self.missing + other.missing,
            self.untold + other.untold,
            self.unseen + other.unseen,
            self.twice + other.twice,
            self.late + other.late,
        )


def balance(
    symbol: str, written: dict[int, int], interim: set[int], got: list[tuple[float, int | Gap]]
) -> Balance:
    """What is missing of the numbers that were written (number -> venue time in ns), and whether it was told.

    A number is told by a gap that stands where it is missing, or by one that covers its time, wherever that stands.
    """
    seen = {what for _, what in got if isinstance(what, int)}
    gaps = [what for _, what in got if isinstance(what, Gap)]
    in_place: set[int] = set()
    since, has_gap, twice = -1, False, 0
    for _, what in got:
        if isinstance(what, Gap):
            has_gap = True
            continue
        if what > since + 1 and has_gap:
            in_place.update(range(since + 1, what))
        if what <= since and not has_gap:
            twice += 1
        since, has_gap = what, False
    missing = [number for number in written if number not in seen]
    covered = {
        number
        for number in missing
        if any(min(gap.from_ns, gap.to_ns) <= written[number] <= max(gap.from_ns, gap.to_ns) for gap in gaps)
    }
    untold = [number for number in missing if number not in in_place and number not in covered]
    late = len([number for number in missing if number not in in_place and number in covered])
    named = tuple(f"{symbol} {number}" for number in untold if number not in interim)
    return Balance(len(written), len(missing), named, len(untold) - len(named), twice, late)

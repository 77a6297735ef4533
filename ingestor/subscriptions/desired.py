"""What the operators' set and the strategies' leases add up to.

Decides which members are symbols, in which order they come, and whether a set that vanished is believed. Must
never know what the vendor has confirmed. Order: operators' symbols before those that only a lease asks for, each
by name. The operators' part of it is in force as it stands, so that a limit cuts at the same place on every start;
leased symbols are put into an order of their own (`seniority`).
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wire import BadSymbol, Symbol, parse_symbol

SETTLE_S: Final = 0.01
"""A loop of single SADDs, or a MULTI, is read once and not a thousand times."""
CHURN_SETTLE_S: Final = 1.0
CHURN_WINDOW_S: Final = 5.0
CHANGES_ALLOWED: Final = 4
LEASES_HELD_S: Final = 15.0
"""As long as a lease lasts that nobody renews: by then every holder that lives has written it again."""
MAX_JUNK_SHOWN: Final = 100
"""Junk is listed so that somebody can mend it; nobody mends more than this, and a list must not grow for ever."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at Redis. `members` is None where the set's key holds another type; `leases` are those that have
    not expired, without their ends, so that a renewal is no change; `writer_present` tells whether the mark that a
    daemon's start leaves beside its position was there, as it is unless the database was emptied since."""

    members: frozenset[bytes] | None
    leases: frozenset[bytes]
    writer_present: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """The symbols to subscribe, in order; what was refused, as (shown name, reason); the reason why an older set is
    still in force, if it is; and which of the symbols only a lease asks for."""

    symbols: tuple[Symbol, ...] = ()
    junk: dict[str, str] = field(default_factory=dict)
    junk_total: int = 0
    held: str | None = None
    leased: frozenset[Symbol] = frozenset()


class _Names(NamedTuple):
    symbols: tuple[Symbol, ...]
    junk: tuple[tuple[bytes, str], ...]


class ChurnGuard:
    """Slows down looking when the same symbol comes and goes again and again.

    Without it a script that adds and removes a symbol ten times a second would make ten requests a second at the
    vendor. Any number of different symbols, each changed once, is not churn.
    """

    def __init__(self) -> None:
        self._began_s = 0.0
        self._changes: Counter[str] = Counter()

    def settle_s(self, changed: Iterable[str], now_s: float) -> float:
        """How long to wait after the next notification before looking, given what has just changed."""
        if now_s - self._began_s > CHURN_WINDOW_S:
            self._began_s = now_s
            self._changes.clear()
        self._changes.update(changed)
        worst = max(self._changes.values(), default=0)
        return CHURN_SETTLE_S if worst > CHANGES_ALLOWED else SETTLE_S


class DesiredSet:
    """Turns readings into what is desired, and keeps the last good set for `grace_s` when it vanishes.

    A key that is gone may have been emptied by hand, symbol by symbol, or lost with FLUSHALL, an eviction or a
    failover. The last symbol removed by hand is believed at once; a set of several that vanishes between two
    looks, or that goes together with the daemon's own key, is not.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._operators: frozenset[bytes] = frozenset()
        self._sorted: tuple[frozenset[bytes], _Names] = (frozenset(), _Names((), ()))
        self._vanished_at_s: float | None = None
        self._held: str | None = None
        self._leases: dict[bytes, float | None] = {}
        """Every lease in force; until when, for one that has vanished."""

    def observe(self, reading: Reading, now_s: float) -> Desired:
        """What is desired after this look; a look that failed must not be passed in."""
        self._accept(reading, now_s)
        if self._sorted[0] is not self._operators:
            # Leases are renewed all the time; the operators' thousands are only sorted when they change.
            self._sorted = self._operators, _names((member, member) for member in self._operators)
        self._accept_leases(reading, now_s)
        leases = _names((lease, lease.rpartition(b"@")[0] or lease) for lease in self._leases)
        return _put_together(self._sorted[1], leases, self._held)

    @property
    def look_again_at_s(self) -> float | None:
        """When what has vanished is to be believed gone, if anything has."""
        due = [until_s for until_s in self._leases.values() if until_s is not None]
        if self._vanished_at_s is not None:
            due.append(self._vanished_at_s + self._grace_s)
        return min(due, default=None)

    def _accept(self, reading: Reading, now_s: float) -> None:
        if reading.members is None:
            self._held = "the key of the desired set holds another type; the last good set stays in force"
            return
        if reading.members or not self._is_suspicious(reading):
            self._operators, self._vanished_at_s, self._held = reading.members, None, None
            return
        if self._vanished_at_s is None:
            self._vanished_at_s = now_s
        if now_s < self._vanished_at_s + self._grace_s:
            self._held = (
                f"the desired set vanished; its {len(self._operators)} members stay in force "
                f"for {self._grace_s:g} s"
            )
            return
        self._operators, self._vanished_at_s, self._held = frozenset(), None, None

    def _accept_leases(self, reading: Reading, now_s: float) -> None:
        """In a database that was emptied, leases are missed for as long as their holders may need to write again.

        Otherwise the first of them to do so would take the place of all others.
        """
        kept: dict[bytes, float | None] = dict.fromkeys(reading.leases)
        if not reading.writer_present:
            for lease in self._leases.keys() - reading.leases:
                until_s = self._leases[lease]
                until_s = now_s + LEASES_HELD_S if until_s is None else until_s
                if now_s < until_s:
                    kept[lease] = until_s
        self._leases = kept

    def _is_suspicious(self, reading: Reading) -> bool:
        if not self._operators:
            return False
        # The daemon writes its own key again at once, which makes a loss no operator's wish.
        is_held = self._vanished_at_s is not None
        return is_held or len(self._operators) > 1 or not reading.writer_present


def _names(asked: Iterable[tuple[bytes, bytes]]) -> _Names:
    """Sort pairs of (what to show, what should be a symbol) into symbols by name, and junk with its reason."""
    symbols: set[Symbol] = set()
    junk: list[tuple[bytes, str]] = []
    for shown, name in asked:
        try:
            symbols.add(parse_symbol(name))
        except BadSymbol as error:
            junk.append((shown, str(error)))
    return _Names(tuple(sorted(symbols)), tuple(junk))


def _put_together(operators: _Names, strategies: _Names, held: str | None) -> Desired:
    symbols, leased = operators.symbols, frozenset[Symbol]()
    if strategies.symbols:
        leased = frozenset(strategies.symbols).difference(symbols)
        symbols = (*symbols, *(s for s in strategies.symbols if s in leased))
    junk = (*operators.junk, *strategies.junk)
    # The same junk gives the same list, in whatever order the set was read.
    first = heapq.nsmallest(MAX_JUNK_SHOWN, junk)
    return Desired(symbols, {shown(member): why for member, why in first}, len(junk), held, leased)


def shown(member: bytes) -> str:
    """A name for eyes: bounded, and with nothing in it that a terminal would act on."""
    text = member[:48].decode("utf-8", "backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return (safe or "(empty)") + ("…" if len(member) > 48 else "")

"""What the operators' set and the strategies' leases add up to.

Decides which members are symbols, in which order they come, and whether a set that vanished is believed. Must
never know what the vendor has confirmed. Order: operators' symbols before those that only a lease asks for, each
by name, so that a limit cuts at the same place on every start.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from wire import BadSymbol, Symbol, parse_symbol

MAX_JUNK_SHOWN: Final = 100
"""Junk is listed so that somebody can mend it; nobody mends more than this, and a list must not grow for ever."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at Redis. `members` is None where the set's key holds another type; `writer_present` tells
    whether the mark that a daemon's start leaves beside its position was there, as it is unless the database was
    emptied since."""

    members: frozenset[bytes] | None
    leases: tuple[bytes, ...]
    writer_present: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """The symbols to subscribe, in order; what was refused, as (shown name, reason); and the reason why an
    older set is still in force, if it is."""

    symbols: tuple[Symbol, ...] = ()
    junk: dict[str, str] = field(default_factory=dict)
    junk_total: int = 0
    held: str | None = None


class DesiredSet:
    """Turns readings into what is desired, and keeps the last good set for `grace_s` when it vanishes.

    A key that is gone may have been emptied by hand, symbol by symbol, or lost with FLUSHALL, an eviction or a
    failover. The last symbol removed by hand is believed at once; a set of several that vanishes between two
    looks, or that goes together with the daemon's own key, is not.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._operators: frozenset[bytes] = frozenset()
        self._vanished_at_s: float | None = None
        self._held: str | None = None

    def observe(self, reading: Reading, now_s: float) -> Desired:
        """What is desired after this look; a look that failed must not be passed in."""
        self._accept(reading, now_s)
        return _sorted_out(self._operators, reading.leases, self._held)

    @property
    def look_again_at_s(self) -> float | None:
        """When the grace period ends, if one is running."""
        return None if self._vanished_at_s is None else self._vanished_at_s + self._grace_s

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
                f"the desired set vanished; its {len(self._operators)} symbols stay subscribed "
                f"for {self._grace_s:g} s"
            )
            return
        self._operators, self._vanished_at_s, self._held = frozenset(), None, None

    def _is_suspicious(self, reading: Reading) -> bool:
        if not self._operators:
            return False
        # The daemon writes its own key again at once, which makes a loss no operator's wish.
        is_held = self._vanished_at_s is not None
        return is_held or len(self._operators) > 1 or not reading.writer_present


def _sorted_out(members: Iterable[bytes], leases: Iterable[bytes], held: str | None) -> Desired:
    operators: set[Symbol] = set()
    strategies: set[Symbol] = set()
    junk: list[tuple[bytes, str]] = []
    asked = [(member, member, operators) for member in members]
    asked += [(lease, lease.rpartition(b"@")[0] or lease, strategies) for lease in leases]
    for shown, name, into in asked:
        try:
            into.add(parse_symbol(name))
        except BadSymbol as error:
            junk.append((shown, str(error)))
    symbols = (*sorted(operators), *sorted(strategies - operators))
    # The same junk gives the same list, in whatever order the set was read.
    first = heapq.nsmallest(MAX_JUNK_SHOWN, junk)
    return Desired(symbols, {_shown(member): why for member, why in first}, len(junk), held)


def _shown(member: bytes) -> str:
    """A name for eyes: bounded, and with nothing in it that a terminal would act on."""
    text = member[:48].decode("utf-8", "backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return (safe or "(empty)") + ("…" if len(member) > 48 else "")

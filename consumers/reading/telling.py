"""How often the log says of a symbol why it gets no quotes, and in which words.

Decides which causes are the same. Must never know how a cause was found, nor read a clock.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

TOLD_EVERY_S: Final = 60.0
SHOWN: Final = 20
"""Symbols in one line."""
REASON_MAX: Final = 300

QUIET: Final = "quiet"
"""Subscribed, and no quote came lately."""
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


class Told(NamedTuple):
    """A line for the log."""

    is_warning: bool
    text: str


class Cause(NamedTuple):
    """Why a symbol gets no quotes. Two causes with the same `key` are the same, though an age in it has grown.

    `is_lasting`: nothing is to be waited for before it is told. `is_fault` is False for what is as it should be.
    `is_new` is False for what every symbol comes to now and then, and which is told of all such together.
    """

    state: str
    reason: str
    is_lasting: bool = False
    is_fault: bool = True
    is_new: bool = True
    stable: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes it another one."""
        return self.state, self.reason if self.stable is None else self.stable


SERVED: Final = Cause("served", "")


def as_cause(state: str, reason: str, *, is_lasting: bool = False, is_new: bool = True) -> Cause:
    """A cause whose words may hold an age or another number that grows: it stays the same one then."""
    return Cause(state, reason, is_lasting=is_lasting, is_new=is_new, stable=_NUMBER.sub("#", reason))


@dataclass(slots=True)
class _Last:
    cause: Cause
    at_s: float


class Telling:
    """What was told, and when. Call `tell` after each look, with every symbol whose cause is known."""

    def __init__(self) -> None:
        self._last: Final[dict[str, _Last]] = {}
        """Kept for a minute when nobody follows a symbol, for a loop that begins again."""
        self._together_s = -TOLD_EVERY_S

    def tell(self, causes: Mapping[str, Cause], followed: Collection[str], now_s: float) -> list[Told]:
        """The lines of now, symbols with the same cause in one. Of whom nothing is known, `causes` has nothing."""
        lines: dict[tuple[str, str], tuple[Cause, list[str]]] = {}
        is_due_together = now_s - self._together_s >= TOLD_EVERY_S
        for symbol, cause in causes.items():
            last = self._last.get(symbol)
            if cause.key == (SERVED.key if last is None else last.cause.key):
                continue
            if last is not None and last.cause.state == QUIET and cause.key == SERVED.key:
                # That quotes come again shows by itself.
                self._last[symbol] = _Last(SERVED, last.at_s)
                continue
            is_due = last is None or now_s - last.at_s >= TOLD_EVERY_S
            if not is_due or not (cause.is_new or is_due_together):
                continue
            if not cause.is_new:
                self._together_s = now_s
            self._last[symbol] = _Last(cause, now_s)
            lines.setdefault(cause.key, (cause, []))[1].append(symbol)
        for symbol, last in list(self._last.items()):
            if symbol not in followed and now_s - last.at_s >= TOLD_EVERY_S:
                del self._last[symbol]
        return [_line(cause, symbols) for cause, symbols in lines.values()]


def _line(cause: Cause, symbols: list[str]) -> Told:
    more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
    names = ", ".join(sorted(symbols)[:SHOWN]) + more
    if cause.key == SERVED.key:
        return Told(False, f"{names}: live, quotes come again")
    return Told(cause.is_fault, f"{names}: {cause.state}, no quotes come: {cause.reason[:REASON_MAX]}")

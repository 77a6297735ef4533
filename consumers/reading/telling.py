"""How often the log says of a symbol why it gets no quotes, and in which words.

Decides which causes are the same. Must never know how a cause was found, nor read a clock.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

TOLD_EVERY_S: Final = 60.0
SHOWN: Final = 20
"""Symbols in one line."""
REASON_MAX: Final = 300

GRACE_S: Final = 1.7
"""How long a state must last that may pass by itself, such as a daemon that connects."""
QUIET: Final = "quiet"
"""Subscribed, and no quote came lately."""
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


class Told(NamedTuple):
    """A line for the log."""

    is_warning: bool
    text: str


class Layer(Enum):
    """Where the cause lies. Of each there is at most one line a minute for a symbol: none keeps another back."""

    SYMBOL = "symbol"
    QUOTES = "quotes"
    DAEMON = "daemon"
    REDIS = "redis"


class Cause(NamedTuple):
    """Why a symbol gets no quotes. Two causes with the same `key` are the same, though an age in it has grown.

    `grace_s`: how long it must last before it is told; 0 for what is the last word, and not perhaps on the way to
    it. `is_fault` is False for what is as it should be. `is_new` is False for what every symbol comes to now and
    then, and which is told of all such together.
    """

    state: str
    reason: str
    layer: Layer = Layer.SYMBOL
    grace_s: float = GRACE_S
    is_fault: bool = True
    is_new: bool = True
    stable: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes it another one."""
        return self.state, self.reason if self.stable is None else self.stable


SERVED: Final = Cause("served", "")


def as_cause(
    state: str, reason: str, layer: Layer, *, grace_s: float = GRACE_S, is_new: bool = True
) -> Cause:
    """A cause whose words may hold an age or another number that grows: it stays the same one then."""
    return Cause(state, reason, layer, grace_s, is_new=is_new, stable=_NUMBER.sub("#", reason))


@dataclass(slots=True)
class _Last:
    cause: Cause = SERVED
    at_s: float = -math.inf
    told_s: dict[tuple[Layer, bool], float] = field(default_factory=dict)
    """When a line of a layer was the last one, apart for last words and for what was on the way."""

    def is_due(self, cause: Cause, now_s: float) -> bool:
        """Whether a minute has passed."""
        if cause.key == SERVED.key:
            return now_s - self.at_s >= TOLD_EVERY_S
        # That a request was under way must not keep it back that the symbol is refused now.
        kinds = (True,) if cause.grace_s == 0 else (True, False)
        return all(now_s - self.told_s.get((cause.layer, kind), -math.inf) >= TOLD_EVERY_S for kind in kinds)

    def tell(self, cause: Cause, now_s: float) -> None:
        """It is told now."""
        is_served = cause.key == SERVED.key
        layer, is_last_word = (self.cause.layer, True) if is_served else (cause.layer, cause.grace_s == 0)
        self.told_s[layer, is_last_word] = self.at_s = now_s
        self.cause = cause


class Telling:
    """What was told, and when. Call `tell` after each look, with every symbol whose cause is known."""

    def __init__(self) -> None:
        self._last: Final[dict[str, _Last]] = {}
        """Kept for a minute when nobody follows a symbol, for a loop that begins again."""
        self._together_s = -math.inf

    def __contains__(self, symbol: str) -> bool:
        """Whether anything was told of it lately: of others, that they are served is nothing to tell."""
        return symbol in self._last

    def tell(self, causes: Mapping[str, Cause], followed: Collection[str], now_s: float) -> list[Told]:
        """The lines of now, symbols with the same cause in one. Of whom nothing is known, `causes` has nothing."""
        lines: dict[tuple[str, str], tuple[Cause, list[str]]] = {}
        is_due_together = now_s - self._together_s >= TOLD_EVERY_S
        for symbol, cause in causes.items():
            last = self._last.get(symbol) or _Last()
            if cause.key == last.cause.key:
                continue
            if last.cause.state == QUIET and cause.key == SERVED.key:
                # That quotes come again shows by itself.
                last.cause = SERVED
                continue
            if not last.is_due(cause, now_s) or not (cause.is_new or is_due_together):
                continue
            if not cause.is_new:
                self._together_s = now_s
            last.tell(cause, now_s)
            self._last[symbol] = last
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

"""Which followed symbols get no quotes because of their state, and which lines of the log that is worth.

Decides from what the daemon writes in `quotes:subscriptions`. Must never ask Redis, wait, or read a clock: seconds
of any monotonic clock are an argument. A symbol is told at once, again when its state or reason has changed, and at
most once a minute; that it is served again is told by the same rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

TOLD_EVERY_S: Final = 60.0
SHOWN: Final = 20
"""Symbols in one line."""
UNSERVED: Final = frozenset({"waiting", "refused"})
"""The states in which no quote will come until somebody or something changes."""


class Told(NamedTuple):
    """A line for the log."""

    is_warning: bool
    text: str


class _State(msgspec.Struct, gc=False):
    state: str
    reason: str | None = None


class _Why(NamedTuple):
    state: str
    reason: str


_SERVED: Final = _Why("live", "")
_decode: Final = msgspec.json.Decoder(_State).decode


@dataclass(slots=True)
class _Last:
    why: _Why
    at_s: float


class Unserved:
    """Call `look` every few seconds with the state of every symbol that is followed then."""

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}
        """What was told of a symbol; kept for a minute when nobody follows it, for a loop that begins again."""

    def look(self, states: Mapping[str, bytes | None], now_s: float) -> list[Told]:
        """What to tell now, symbols with the same state and reason in one line; a state of None is not known."""
        lines: dict[_Why, list[str]] = {}
        for symbol, value in states.items():
            why, last = _read(value), self._last.get(symbol)
            if why is None or why == (_SERVED if last is None else last.why):
                continue
            if last is None or now_s - last.at_s >= TOLD_EVERY_S:
                self._last[symbol] = _Last(why, now_s)
                lines.setdefault(why, []).append(symbol)
        for symbol, last in list(self._last.items()):
            if symbol not in states and now_s - last.at_s >= TOLD_EVERY_S:
                del self._last[symbol]
        return [_line(why, symbols) for why, symbols in lines.items()]


def _read(value: bytes | None) -> _Why | None:
    if value is None:
        return None
    try:
        found = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if found.state in UNSERVED:
        return _Why(found.state, found.reason or "no reason is given")
    return _SERVED if found.state == "live" else None


def _line(why: _Why, symbols: list[str]) -> Told:
    more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
    names = ", ".join(symbols[:SHOWN]) + more
    if why == _SERVED:
        return Told(False, f"{names}: live, quotes come again")
    return Told(True, f"{names}: {why.state}, no quotes come: {why.reason[:300]}")

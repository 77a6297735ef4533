"""The bad-day script: a few lines of plain text that say when the vendor misbehaves, and how.

Decides the grammar and the words of its errors. Must never know the clock or the sockets the lines will act on.

One line is one misfortune; `#` begins a comment. Events happen `at` a time after the first login, or `every` so
often from then on; rules wait for an occasion, `xN` times or `for` a while from their first use, otherwise always.

    at 5s drop                    at 5s drop no-ghost         every 30s drop
    at 10s mute 30s               at 50s unmute               at 3s half-open
    at 4s garbage                 at 2s error 500             at 8s close 1012
    at 6s burst 50000 in 1s       at 9s rate 2000             at 60s heal
    on upgrade status 429 retry-after 3 x2
    on connect refuse 406 for 20s
    on connect no-greeting x1
    on connect no-answer
    on subscribe delay-ack 4s
    on subscribe no-ack x2
    on subscribe partial-ack 3
    on subscribe error 405 x1
    on unsubscribe no-ack
    ack-extra ZZZZ
    ignore-unsubscribe x1
    at 20s on subscribe no-ack x1
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from simulator.faults import (
    AckExtra,
    Burst,
    Close,
    DelayAck,
    Drop,
    Event,
    Garbage,
    HalfOpen,
    Heal,
    IgnoreUnsubscribe,
    Mute,
    NoAck,
    NoAuthAnswer,
    NoGreeting,
    PartialAck,
    Rate,
    RefuseAuth,
    RefuseRequest,
    RefuseUpgrade,
    RequestKind,
    Rule,
    SendError,
)
from wire import BadSymbol, parse_symbol

MAX_LINES: Final = 1_000
MAX_BURST: Final = 10_000_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class BadScript(ValueError):
    """A script that cannot be read; the message names line, reason and remedy."""

    def __init__(self, source: str, line: int, reason: str, remedy: str) -> None:
        super().__init__(f"{source}, line {line}: {reason}; {remedy}")
        self.line = line


@dataclass(frozen=True)
class Arm:
    """A rule to arm: how many times, and for how many seconds from its first use; None is without end."""

    rule: Rule
    times: int | None = None
    for_s: float | None = None


@dataclass(frozen=True)
class Line:
    """One misfortune, `at_s` seconds after the first login, again every `every_s`. None for both is at once."""

    what: Event | Arm
    at_s: float | None = None
    every_s: float | None = None


class _Fault(ValueError):
    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class _Words:
    def __init__(self, words: list[str]) -> None:
        self._words = words

    def __bool__(self) -> bool:
        return bool(self._words)

    def next(self, wanted: str) -> str:
        if not self._words:
            raise _Fault("the line ends too early", f"here belongs {wanted}")
        return self._words.pop(0)

    def maybe(self, word: str) -> bool:
        if self._words and self._words[0] == word:
            self._words.pop(0)
            return True
        return False

    def expect(self, word: str) -> None:
        found = self.next(f"{word!r}")
        if found != word:
            raise _Fault(f"{found!r} is not understood", f"here belongs {word!r}")

    def duration_s(self, wanted: str = "a duration like 500ms, 5s or 2m") -> float:
        word = self.next(wanted)
        match = _DURATION.fullmatch(word)
        if match is None:
            raise _Fault(f"{word!r} is not a duration", "write one like 500ms, 5s or 2m")
        return float(match[1]) * _UNIT_S[match[2]]

    def number(self, low: int, high: int, wanted: str) -> int:
        word = self.next(wanted)
        if not (word.isascii() and word.isdigit() and len(word) < 12 and low <= int(word) <= high):
            raise _Fault(f"{word!r} is not {wanted}", f"take a whole number from {low} to {high}")
        return int(word)

    def code(self) -> int:
        return self.number(400, 599, "an error code")

    def span(self) -> tuple[int | None, float | None]:
        times: int | None = None
        for_s: float | None = None
        while self._words:
            word = self._words.pop(0)
            if word == "for" and for_s is None:
                for_s = self.duration_s()
            elif re.fullmatch(r"x[1-9]\d{0,5}", word) and times is None:
                times = int(word[1:])
            else:
                raise _Fault(f"{word!r} is not understood", "end with nothing, xN or for 20s")
        return times, for_s

    def end(self) -> None:
        if self._words:
            raise _Fault(f"{' '.join(self._words)!r} is too much", "end the line before it")


def parse_script(text: str, source: str = "script") -> tuple[Line, ...]:
    """The lines that are not empty, in order. Raises `BadScript`; `source` is what its message calls the text."""
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = _Words(line.split("#", 1)[0].split())
        if not words:
            continue
        if len(lines) >= MAX_LINES:
            raise BadScript(source, number, f"more than {MAX_LINES} lines", "shorten the script")
        try:
            lines.append(_line(words))
        except _Fault as error:
            raise BadScript(source, number, str(error), error.remedy) from None
    return tuple(lines)


def _line(words: _Words) -> Line:
    at_s: float | None = None
    every_s: float | None = None
    if words.maybe("at"):
        at_s = words.duration_s("a time like 5s")
    elif words.maybe("every"):
        at_s = every_s = words.duration_s("a time like 30s")
        if every_s < 0.001:
            raise _Fault("'every' without a pause", "take at least 1ms")
    verb = words.next("an event or 'on'")
    standing = _STANDING.get(verb)
    if standing is not None:
        return Line(standing(words), at_s, every_s)
    event = _EVENTS.get(verb)
    if event is None:
        known = ", ".join(sorted({*_EVENTS, *_STANDING}))
        raise _Fault(f"{verb!r} is not understood", f"take any of {known}")
    if at_s is None:
        raise _Fault(f"{verb!r} has no time", f"write 'at 5s {verb}' or 'every 30s {verb}'")
    made = event(words)
    words.end()
    return Line(made, at_s, every_s)


def _drop(words: _Words) -> Event:
    return Drop(ghost=not words.maybe("no-ghost"))


def _close(words: _Words) -> Event:
    code = words.number(1000, 4999, "a websocket close code") if words else 1000
    if code in (1004, 1005, 1006) or 1015 <= code < 3000:
        raise _Fault(f"close code {code} may not be sent", "take 1000 to 1003, 1007 to 1014, or 3000 to 4999")
    return Close(code)


def _mute(words: _Words) -> Event:
    return Mute(for_s=words.duration_s() if words else None)


def _burst(words: _Words) -> Event:
    count = words.number(1, MAX_BURST, "a number of quotes")
    words.expect("in")
    return Burst(count, words.duration_s())


def _rate(words: _Words) -> Event:
    return Rate(float(words.number(0, MAX_BURST, "quotes per second")))


_EVENTS: Final[dict[str, Callable[[_Words], Event]]] = {
    "drop": _drop,
    "close": _close,
    "mute": _mute,
    "unmute": lambda _: Mute(on=False),
    "half-open": lambda _: HalfOpen(),
    "garbage": lambda _: Garbage(),
    "error": lambda words: SendError(words.code()),
    "burst": _burst,
    "rate": _rate,
    "heal": lambda _: Heal(),
}


def _on(words: _Words) -> Arm:
    occasion = words.next("upgrade, connect, subscribe or unsubscribe")
    maker = _OCCASIONS.get(occasion)
    if maker is None:
        raise _Fault(f"{occasion!r} is no occasion", f"take any of {', '.join(_OCCASIONS)}")
    rule = maker(words)
    return Arm(rule, *words.span())


def _on_upgrade(words: _Words) -> Rule:
    words.expect("status")
    status = words.number(300, 599, "an HTTP status")
    if words.maybe("retry-after"):
        return RefuseUpgrade(status, (("Retry-After", f"{math.ceil(words.duration_s())}"),))
    return RefuseUpgrade(status)


def _on_connect(words: _Words) -> Rule:
    verb = words.next("refuse, no-greeting or no-answer")
    if verb == "refuse":
        return RefuseAuth(words.code())
    if verb == "no-greeting":
        return NoGreeting()
    if verb == "no-answer":
        return NoAuthAnswer()
    raise _Fault(f"{verb!r} is not understood", "take refuse, no-greeting or no-answer")


def _on_subscribe(words: _Words) -> Rule:
    verb = words.next("delay-ack, no-ack, partial-ack or error")
    if verb == "partial-ack":
        return PartialAck(words.number(0, MAX_BURST, "a number of symbols"))
    return _on_request(verb, "subscribe", words)


def _on_unsubscribe(words: _Words) -> Rule:
    return _on_request(words.next("delay-ack, no-ack or error"), "unsubscribe", words)


def _on_request(verb: str, on: RequestKind, words: _Words) -> Rule:
    if verb == "delay-ack":
        return DelayAck(words.duration_s(), on)
    if verb == "no-ack":
        return NoAck(on)
    if verb == "error":
        return RefuseRequest(words.code(), on)
    raise _Fault(f"{verb!r} is not understood", "take delay-ack, no-ack, partial-ack or error")


def _ack_extra(words: _Words) -> Arm:
    word = words.next("a symbol")
    try:
        rule = AckExtra(parse_symbol(word))
    except BadSymbol as error:
        raise _Fault(f"{word!r} is not a symbol: {error}", "give one like ZZZZ") from None
    times, for_s = words.span()
    # Once is what is meant: a client that takes the intruder out would otherwise never be done.
    return Arm(rule, 1 if times is None and for_s is None else times, for_s)


def _ignore_unsubscribe(words: _Words) -> Arm:
    return Arm(IgnoreUnsubscribe(), *words.span())


_Maker: TypeAlias = Callable[[_Words], Rule]
_OCCASIONS: Final[dict[str, _Maker]] = {
    "upgrade": _on_upgrade,
    "connect": _on_connect,
    "subscribe": _on_subscribe,
    "unsubscribe": _on_unsubscribe,
}
_STANDING: Final[dict[str, Callable[[_Words], Arm]]] = {
    "on": _on,
    "ack-extra": _ack_extra,
    "ignore-unsubscribe": _ignore_unsubscribe,
}

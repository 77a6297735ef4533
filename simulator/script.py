"""The bad-day script: a few lines of plain text that say when the vendor misbehaves, and how.

Decides the grammar and the words of its errors. Must never know the clock or the sockets the lines will act on.

One line is one misfortune; `#` begins a comment. Events happen `at` a time after the first login, or `every` so
often from then on; rules wait for an occasion, `xN` times or `for` a while from their first use, otherwise always.

    at 5s drop                    at 5s drop no-ghost         every 30s drop
    at 10s mute 30s               at 50s unmute               at 3s half-open
    at 4s garbage                 at 2s error 500             at 8s close 1012
    at 7s half-frame              at 7s half-frame no-ghost   at 9s compressed 100000000
    at 6s burst 50000 in 1s       at 9s rate 2000             at 60s heal
    on upgrade status 429 retry-after 3 x2
    on connect refuse 406 for 20s
    on connect no-greeting x1
    on connect no-answer
    on subscribe delay-ack 4s
    on subscribe no-ack x2
    on subscribe ack-twice
    on subscribe partial-ack 3
    on subscribe error 405 x1
    on subscribe of VXM error 414
    on subscribe of VXM no-ack            on subscribe of VXM close 1008
    on unsubscribe no-ack
    ack-extra ZZZZ
    ignore-unsubscribe x1
    on rest status 429 reset 2s x3
    on rest status 502 x1
    on rest hang 10s x1
    on rest slow 5s x1
    on rest cut x1
    at 20s on subscribe no-ack x1
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from simulator.faults import (
    AckExtra,
    AckTwice,
    Burst,
    Close,
    Compressed,
    DelayAck,
    Drop,
    Event,
    Garbage,
    HalfFrame,
    HalfOpen,
    HangUp,
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
from simulator.rest.faults import CutRest, HangRest, RefuseRest, SlowRest
from simulator.words import BadWord, Words
from wire import BadSymbol, parse_symbol

MAX_LINES: Final = 1_000
MAX_BURST: Final = 10_000_000
MAX_INFLATED_BYTES: Final = 2**30


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


def parse_script(text: str, source: str = "script") -> tuple[Line, ...]:
    """The lines that are not empty, in order. Raises `BadScript`; `source` is what its message calls the text."""
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = Words(line.split("#", 1)[0].split())
        if not words:
            continue
        if len(lines) >= MAX_LINES:
            raise BadScript(source, number, f"more than {MAX_LINES} lines", "shorten the script")
        try:
            lines.append(_line(words))
        except BadWord as error:
            raise BadScript(source, number, str(error), error.remedy) from None
    return tuple(lines)


def _line(words: Words) -> Line:
    at_s: float | None = None
    every_s: float | None = None
    if words.maybe("at"):
        at_s = words.duration_s("a time like 5s")
    elif words.maybe("every"):
        at_s = every_s = words.duration_s("a time like 30s")
        if every_s < 0.001:
            raise BadWord("'every' without a pause", "take at least 1ms")
    verb = words.next("an event or 'on'")
    standing = _STANDING.get(verb)
    if standing is not None:
        return Line(standing(words), at_s, every_s)
    event = _EVENTS.get(verb)
    if event is None:
        known = ", ".join(sorted({*_EVENTS, *_STANDING}))
        raise BadWord(f"{verb!r} is not understood", f"take any of {known}")
    if at_s is None:
        raise BadWord(f"{verb!r} has no time", f"write 'at 5s {verb}' or 'every 30s {verb}'")
    made = event(words)
    words.end()
    return Line(made, at_s, every_s)


def _drop(words: Words) -> Event:
    return Drop(ghost=not words.maybe("no-ghost"))


def _half_frame(words: Words) -> Event:
    return HalfFrame(ghost=not words.maybe("no-ghost"))


def _compressed(words: Words) -> Event:
    return Compressed(words.number(1, MAX_INFLATED_BYTES, "a size in bytes when inflated"))


def _close(words: Words) -> Event:
    return Close(_close_code(words) if words else 1000)


def _close_code(words: Words) -> int:
    code = words.number(1000, 4999, "a websocket close code")
    if code in (1004, 1005, 1006) or 1015 <= code < 3000:
        raise BadWord(
            f"close code {code} may not be sent", "take 1000 to 1003, 1007 to 1014, or 3000 to 4999"
        )
    return code


def _mute(words: Words) -> Event:
    return Mute(for_s=words.duration_s() if words else None)


def _burst(words: Words) -> Event:
    count = words.number(1, MAX_BURST, "a number of quotes")
    words.expect("in")
    return Burst(count, words.duration_s())


def _rate(words: Words) -> Event:
    return Rate(float(words.number(0, MAX_BURST, "quotes per second")))


_EVENTS: Final[dict[str, Callable[[Words], Event]]] = {
    "drop": _drop,
    "close": _close,
    "mute": _mute,
    "unmute": lambda _: Mute(on=False),
    "half-open": lambda _: HalfOpen(),
    "garbage": lambda _: Garbage(),
    "half-frame": _half_frame,
    "compressed": _compressed,
    "error": lambda words: SendError(words.code()),
    "burst": _burst,
    "rate": _rate,
    "heal": lambda _: Heal(),
}


def _on(words: Words) -> Arm:
    occasion = words.next("upgrade, connect, subscribe, unsubscribe or rest")
    maker = _OCCASIONS.get(occasion)
    if maker is None:
        raise BadWord(f"{occasion!r} is no occasion", f"take any of {', '.join(_OCCASIONS)}")
    rule = maker(words)
    return Arm(rule, *words.span())


def _on_upgrade(words: Words) -> Rule:
    words.expect("status")
    status = words.number(300, 599, "an HTTP status")
    if words.maybe("retry-after"):
        return RefuseUpgrade(status, (("Retry-After", f"{math.ceil(words.duration_s())}"),))
    return RefuseUpgrade(status)


def _on_connect(words: Words) -> Rule:
    verb = words.next("refuse, no-greeting or no-answer")
    if verb == "refuse":
        return RefuseAuth(words.code())
    if verb == "no-greeting":
        return NoGreeting()
    if verb == "no-answer":
        return NoAuthAnswer()
    raise BadWord(f"{verb!r} is not understood", "take refuse, no-greeting or no-answer")


def _on_subscribe(words: Words) -> Rule:
    if words.maybe("partial-ack"):
        return PartialAck(words.number(0, MAX_BURST, "a number of symbols"))
    return _on_request("subscribe", words)


def _on_request(on: RequestKind, words: Words) -> Rule:
    symbol = _symbol(words) if words.maybe("of") else None
    known = "error, no-ack or close" if symbol is not None else _VERBS[on]
    verb = words.next(known)
    if verb == "error":
        return RefuseRequest(words.code(), on, symbol)
    if verb == "no-ack":
        return NoAck(on, symbol)
    if verb == "close":
        return HangUp(_close_code(words), on, symbol)
    if verb == "delay-ack" and symbol is None:
        return DelayAck(words.duration_s(), on)
    if verb == "ack-twice" and symbol is None:
        return AckTwice(on)
    raise BadWord(f"{verb!r} is not understood", f"take {known}")


def _on_rest(words: Words) -> Rule:
    verb = words.next("status, hang, slow or cut")
    if verb == "status":
        status = words.number(400, 599, "an HTTP status")
        return RefuseRest(status, words.duration_s() if words.maybe("reset") else None)
    if verb == "hang":
        return HangRest(words.duration_s())
    if verb == "slow":
        return SlowRest(words.duration_s())
    if verb == "cut":
        return CutRest()
    raise BadWord(f"{verb!r} is not understood", "take status, hang, slow or cut")


def _symbol(words: Words) -> str:
    word = words.next("a symbol")
    try:
        return parse_symbol(word)
    except BadSymbol as error:
        raise BadWord(f"{word!r} is not a symbol: {error}", "give one like ZZZZ") from None


def _ack_extra(words: Words) -> Arm:
    rule = AckExtra(_symbol(words))
    times, for_s = words.span()
    # Once is what is meant: a client that takes the intruder out would otherwise never be done.
    return Arm(rule, 1 if times is None and for_s is None else times, for_s)


def _ignore_unsubscribe(words: Words) -> Arm:
    return Arm(IgnoreUnsubscribe(), *words.span())


_VERBS: Final[dict[RequestKind, str]] = {
    "subscribe": "of SYMBOL, delay-ack, no-ack, ack-twice, partial-ack, error or close",
    "unsubscribe": "of SYMBOL, delay-ack, no-ack, ack-twice, error or close",
}
_Maker: TypeAlias = Callable[[Words], Rule]
_OCCASIONS: Final[dict[str, _Maker]] = {
    "upgrade": _on_upgrade,
    "connect": _on_connect,
    "subscribe": _on_subscribe,
    "unsubscribe": lambda words: _on_request("unsubscribe", words),
    "rest": _on_rest,
}
_STANDING: Final[dict[str, Callable[[Words], Arm]]] = {
    "on": _on,
    "ack-extra": _ack_extra,
    "ignore-unsubscribe": _ignore_unsubscribe,
}

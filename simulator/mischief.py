"""What is broken at the vendor right now.

Decides which armed rule meets the next upgrade, login or request, and when a rule has been used up. Must never
know sockets or the clock: the time is an argument, in monotonic seconds.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from simulator.faults import (
    AckExtra,
    AckTwice,
    DelayAck,
    HangUp,
    IgnoreUnsubscribe,
    NoAck,
    NoAuthAnswer,
    NoGreeting,
    PartialAck,
    RefuseAuth,
    RefuseRequest,
    RefuseUpgrade,
    RequestKind,
    Rule,
)
from simulator.rest.faults import CutRest, HangRest, RefuseRest, RestRule, SlowRest

MAX_RULES: Final = 1_000


@dataclass(frozen=True)
class Quirk:
    """How the next (un)subscribe request is mistreated."""

    error: int | None = None
    msg: str | None = None
    close: int | None = None
    silent: bool = False
    twice: bool = False
    delay_s: float = 0.0
    take: int | None = None
    extra: tuple[str, ...] = ()
    ignore: bool = False


class _Armed:
    __slots__ = ("for_s", "left", "rule", "until_s")

    def __init__(self, rule: Rule, times: int | None, for_s: float | None) -> None:
        self.rule = rule
        self.left = times
        self.for_s = for_s
        self.until_s: float | None = None

    def spent(self, now_s: float) -> bool:
        return self.left == 0 or (self.until_s is not None and now_s >= self.until_s)

    def use(self, now_s: float) -> None:
        if self.left is not None:
            self.left -= 1
        # The span runs from the first use: whoever connects late still meets all of it.
        if self.for_s is not None and self.until_s is None:
            self.until_s = now_s + self.for_s


class Mischief:
    """The armed rules. Among rules for the same thing the one armed first is used up first."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def arm(self, rule: Rule, times: int | None = None, for_s: float | None = None) -> None:
        """Lie in wait `times` times and for `for_s` seconds from the first use; None is without end."""
        if len(self._armed) >= MAX_RULES:
            raise ValueError(f"more than {MAX_RULES} rules are armed; heal() first")
        self._armed.append(_Armed(rule, times, for_s))

    def heal(self) -> None:
        """Forget all rules."""
        self._armed.clear()

    def upgrade(self, now_s: float) -> RefuseUpgrade | None:
        """What meets an HTTP upgrade."""
        found = self._take(now_s, RefuseUpgrade)
        return found if isinstance(found, RefuseUpgrade) else None

    def greets(self, now_s: float) -> bool:
        """Whether a new connection is greeted."""
        return self._take(now_s, NoGreeting) is None

    def auth(self, now_s: float) -> RefuseAuth | NoAuthAnswer | None:
        """What meets credentials."""
        found = self._take(now_s, RefuseAuth, NoAuthAnswer)
        return found if isinstance(found, RefuseAuth | NoAuthAnswer) else None

    def rest(self, now_s: float) -> RestRule | None:
        """What meets a REST call."""
        found = self._take(now_s, RefuseRest, HangRest, CutRest, SlowRest)
        return found if isinstance(found, RefuseRest | HangRest | CutRest | SlowRest) else None

    def request(self, on: RequestKind, now_s: float, symbols: Collection[str] = ()) -> Quirk:
        """What meets a request of this kind for these symbols. A refusal stands alone, and so does the end of the
        connection; the others may come together."""
        refusal = self._take(now_s, RefuseRequest, HangUp, on=on, symbols=symbols)
        if isinstance(refusal, RefuseRequest):
            return Quirk(error=refusal.code, msg=refusal.msg)
        if isinstance(refusal, HangUp):
            return Quirk(close=refusal.code)
        silent = self._take(now_s, NoAck, on=on, symbols=symbols) is not None
        twice = not silent and self._take(now_s, AckTwice, on=on) is not None
        delay = None if silent else self._take(now_s, DelayAck, on=on)
        delay_s = delay.delay_s if isinstance(delay, DelayAck) else 0.0
        if on == "unsubscribe":
            ignore = self._take(now_s, IgnoreUnsubscribe) is not None
            return Quirk(silent=silent, twice=twice, delay_s=delay_s, ignore=ignore)
        part = self._take(now_s, PartialAck)
        extra = self._take(now_s, AckExtra)
        return Quirk(
            silent=silent,
            twice=twice,
            delay_s=delay_s,
            take=part.count if isinstance(part, PartialAck) else None,
            extra=(extra.symbol,) if isinstance(extra, AckExtra) else (),
        )

    def _take(
        self,
        now_s: float,
        *kinds: type[Rule],
        on: RequestKind | None = None,
        symbols: Collection[str] = (),
    ) -> Rule | None:
        self._armed = [armed for armed in self._armed if not armed.spent(now_s)]
        for armed in self._armed:
            symbol = getattr(armed.rule, "symbol", None)
            is_for_it = symbol is None or isinstance(armed.rule, AckExtra) or symbol in symbols
            if (
                isinstance(armed.rule, kinds)
                and is_for_it
                and (on is None or getattr(armed.rule, "on", on) == on)
            ):
                armed.use(now_s)
                return armed.rule
        return None

"""What is broken at the vendor right now: rules that lie in wait, and events that strike at once.

Decides which armed rule meets the next upgrade, login or request, and when a rule has been used up. Must never
know sockets or the clock: the time is an argument, in monotonic seconds.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from simulator.rest.faults import CutRest, HangRest, RefuseRest, RestRule, SlowRest

MAX_RULES: Final = 1_000


@dataclass(frozen=True)
class Drop:
    """Connections vanish without a close; with `ghost` their slots stay taken for a while."""

    ghost: bool = True


@dataclass(frozen=True)
class Close:
    """Connections are closed properly, with this websocket code."""

    code: int = 1000


@dataclass(frozen=True)
class Mute:
    """No data, while the connection lives and answers; for `for_s` seconds, or until the next `Mute(on=False)`."""

    on: bool = True
    for_s: float | None = None


@dataclass(frozen=True)
class HalfOpen:
    """The network is gone and nobody was told: nothing is read, nothing written, nothing closed."""


@dataclass(frozen=True)
class Garbage:
    """One frame that is no message of this protocol."""


@dataclass(frozen=True)
class HalfFrame:
    """A frame of quotes breaks off in the middle, and the connection with it; with `ghost` as in `Drop`."""

    ghost: bool = True


@dataclass(frozen=True)
class Compressed:
    """One frame that says it is compressed, which nobody negotiated; inflated it would be `size_bytes`."""

    size_bytes: int


@dataclass(frozen=True)
class SendError:
    """An error out of the blue."""

    code: int


@dataclass(frozen=True)
class Burst:
    """So many quotes more within `over_s` seconds."""

    count: int
    over_s: float


@dataclass(frozen=True)
class Rate:
    """From here on the synthetic market makes so many quotes per second."""

    quotes_per_s: float


@dataclass(frozen=True)
class Heal:
    """All rules are forgotten and a mute ends."""


Event: TypeAlias = (
    Drop | Close | Mute | HalfOpen | Garbage | HalfFrame | Compressed | SendError | Burst | Rate | Heal
)


@dataclass(frozen=True)
class RefuseUpgrade:
    """The HTTP upgrade gets this status instead, with these headers and this page."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    page: str = "refused\n"


@dataclass(frozen=True)
class NoGreeting:
    """The connection opens and the vendor says nothing."""


@dataclass(frozen=True)
class RefuseAuth:
    """Credentials are answered with this code; the connection stays open."""

    code: int


@dataclass(frozen=True)
class NoAuthAnswer:
    """Credentials are not answered."""


RequestKind: TypeAlias = Literal["subscribe", "unsubscribe"]


@dataclass(frozen=True)
class RefuseRequest:
    """The request is refused whole with this code."""

    code: int
    on: RequestKind = "subscribe"


@dataclass(frozen=True)
class DelayAck:
    """The request takes effect, its acknowledgement comes `delay_s` seconds late."""

    delay_s: float
    on: RequestKind = "subscribe"


@dataclass(frozen=True)
class NoAck:
    """The request takes effect and is never acknowledged."""

    on: RequestKind = "subscribe"


@dataclass(frozen=True)
class AckTwice:
    """The request takes effect, and its acknowledgement comes a second time behind the first."""

    on: RequestKind = "subscribe"


@dataclass(frozen=True)
class PartialAck:
    """Only the request's first `count` symbols per channel take effect, and the acknowledgement shows it."""

    count: int


@dataclass(frozen=True)
class AckExtra:
    """A symbol that nobody asked for enters the session's set of quotes."""

    symbol: str


@dataclass(frozen=True)
class IgnoreUnsubscribe:
    """The request is acknowledged with the unchanged set."""


Rule: TypeAlias = (
    RefuseUpgrade
    | NoGreeting
    | RefuseAuth
    | NoAuthAnswer
    | RefuseRequest
    | DelayAck
    | NoAck
    | AckTwice
    | PartialAck
    | AckExtra
    | IgnoreUnsubscribe
    | RestRule
)


@dataclass(frozen=True)
class Quirk:
    """How the next (un)subscribe request is mistreated."""

    error: int | None = None
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

    def request(self, on: RequestKind, now_s: float) -> Quirk:
        """What meets a request of this kind. A refusal stands alone; the others may come together."""
        refusal = self._take(now_s, RefuseRequest, on=on)
        if isinstance(refusal, RefuseRequest):
            return Quirk(error=refusal.code)
        silent = self._take(now_s, NoAck, on=on) is not None
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

    def _take(self, now_s: float, *kinds: type[Rule], on: RequestKind | None = None) -> Rule | None:
        self._armed = [armed for armed in self._armed if not armed.spent(now_s)]
        for armed in self._armed:
            if isinstance(armed.rule, kinds) and (on is None or getattr(armed.rule, "on", on) == on):
                armed.use(now_s)
                return armed.rule
        return None

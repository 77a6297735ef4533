"""What can be broken at the vendor: rules that lie in wait, and events that strike at once.

Decides their names and what each has to say. Must never know when one strikes: `mischief` does.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from simulator.rest.faults import RestRule


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
    """The request is refused whole with this code, in these words or else in the vendor's usual ones; with `symbol`
    only a request that holds it."""

    code: int
    on: RequestKind = "subscribe"
    symbol: str | None = None
    msg: str | None = None


@dataclass(frozen=True)
class HangUp:
    """The request is answered with the end of the connection, closed with this code; with `symbol` only one that
    holds it."""

    code: int = 1008
    on: RequestKind = "subscribe"
    symbol: str | None = None


@dataclass(frozen=True)
class DelayAck:
    """The request takes effect, its acknowledgement comes `delay_s` seconds late."""

    delay_s: float
    on: RequestKind = "subscribe"


@dataclass(frozen=True)
class NoAck:
    """The request takes effect and is never acknowledged; with `symbol` only one that holds it."""

    on: RequestKind = "subscribe"
    symbol: str | None = None


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
    | HangUp
    | DelayAck
    | NoAck
    | AckTwice
    | PartialAck
    | AckExtra
    | IgnoreUnsubscribe
    | RestRule
)

"""Whether what is known of a symbol is new enough to be handed out as current.

Decides from the cached quote, the shared one and REST's word. Must never ask for any of them, nor read a clock.

A quote is as old as the time since somebody was told that it is the newest: the daemon when it received it, a
strategy when REST answered with it. Nothing older than allowed is called fresh, and no quote is handed out while
one of a later venue time is known: where the later one is too old and REST names an earlier one, both are stale.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from consumers.rest.errors import RestError
from wire import Quote
from wire.quote import is_ahead, newer

CLOCKS_APART_S: Final = 2.0
"""How far in the future a receipt may lie, because the clocks of two machines differ, and still be believed.

So much older than it looks a quote may be. It covers what a daemon's clock gains on the server's between two of its
heartbeats, from which the rest is known."""


class Verdict(Enum):
    """What to do with it."""

    FRESH = "fresh"
    """Hand the quote out."""
    ASK = "ask"
    """Ask REST, then decide again with its answer."""
    STALE = "stale"
    """Say that it is too old."""
    UNKNOWN = "unknown"
    """Nobody has a quote of this symbol."""


class NotAsked(Enum):
    """The type of `NOT_ASKED`."""

    NOT_ASKED = "not asked"


NOT_ASKED: Final = NotAsked.NOT_ASKED
Asked: TypeAlias = Quote | RestError | NotAsked | None
"""What REST said: a quote, an error, nothing yet, or None when it has no quote of the symbol."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a symbol; `quote` is the newest that is known, `age_s` its age, `why` a reason in words."""

    verdict: Verdict
    quote: Quote | None = None
    age_s: float | None = None
    why: str = ""


def decide(
    now_ns: int, max_age_s: float, cached: Quote | None, shared: Quote | None, asked: Asked = NOT_ASKED
) -> Judgement:
    """What may be said of a symbol now.

    `now_ns` is unix time by the clock that stamped the receipts, best the Redis server's. A `FRESH` quote is at
    most `max_age_s` old; of equal venue times the later confirmation counts.
    """
    known = newer(newer(cached, shared), asked if isinstance(asked, Quote) else None)
    if known is None:
        if asked is NOT_ASKED:
            return Judgement(Verdict.ASK)
        return Judgement(Verdict.UNKNOWN, why=_outcome(asked, None))
    age_s = age_of(known, now_ns)
    if -CLOCKS_APART_S <= age_s <= max_age_s:
        return Judgement(Verdict.FRESH, known, max(age_s, 0.0))
    if asked is NOT_ASKED:
        return Judgement(Verdict.ASK, known, age_s)
    if age_s < 0:
        why = f"it was received {-age_s:.1f} s in the future: the clocks of the machines differ"
        return Judgement(Verdict.STALE, known, age_s, why)
    return Judgement(Verdict.STALE, known, age_s, _outcome(asked, known))


def age_of(quote: Quote, now_ns: int) -> float:
    """Seconds since the quote was confirmed; without a receipt, since its venue time, which is longer."""
    received_ns = quote.received_ns
    return (now_ns - (quote.time_ns if received_ns is None else received_ns)) / 1e9


def _outcome(asked: Asked, known: Quote | None) -> str:
    if isinstance(asked, RestError):
        return str(asked)
    if isinstance(asked, Quote):
        if is_ahead(asked):
            ahead_s = (asked.time_ns - (asked.received_ns or 0)) / 1e9
            return f"REST answers with a quote that is dated {ahead_s:.1f} s ahead; are the clocks right?"
        if known is not None and asked.time_ns < known.time_ns:
            return "REST answers with an earlier quote than the cache holds; are both of the same feed?"
        return "REST confirmed it, but its answer has become too old meanwhile"
    return "REST has no quote of this symbol"

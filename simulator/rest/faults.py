"""What can go wrong with a REST call: rules that lie in wait for the next ones.

Decides nothing; `simulator.faults` says which rule meets a call, `simulator.rest.office` carries it out.
Must never know sockets or the clock.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class RefuseRest:
    """The call is answered with this HTTP status. 502, 503 and 504 come as a gateway's HTML page, others as JSON.

    A 429 says that nothing is left of the minute; with `reset_s` that the next one begins in so many seconds.
    """

    status: int
    reset_s: float | None = None


@dataclass(frozen=True)
class HangRest:
    """The call is read and nothing is answered for `for_s` seconds; then comes the right answer."""

    for_s: float


@dataclass(frozen=True)
class CutRest:
    """The headers and half of the body arrive, then the connection ends."""


@dataclass(frozen=True)
class SlowRest:
    """The right answer, dripping: its bytes take `over_s` seconds."""

    over_s: float


RestRule: TypeAlias = RefuseRest | HangRest | CutRest | SlowRest

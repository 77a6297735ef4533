"""The words in which a feed is observed and faults are found.

Decides names, units and what may be switched off. Must never decide what is a fault.
"""

from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """The kinds of findings, as metrics and events name them."""

    MUTE = "mute"
    SLOW_RATE = "slow_rate"
    VENDOR_LAG = "vendor_lag"
    CLOCK_SKEW = "clock_skew"
    SYMBOLS_SILENT = "symbols_silent"
    ACKNOWLEDGEMENT_DRIFT = "acknowledgement_drift"


@dataclass(frozen=True, slots=True)
class Limits:
    """An operator's choices, in seconds; 0 switches one off. `delay_s`: how late the feed is on purpose."""

    mute_after_s: float = 30.0
    quiet_after_s: float = 900.0
    vendor_lag_limit_s: float = 10.0
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """The feed at one moment. `now_s` is monotonic; `quotes` and `session` count from the start of the daemon;
    `frame` is when the last frame was received and the venue's time of its last quote, in unix ns."""

    now_s: float
    is_open: bool
    is_regular: bool
    session: int
    is_connected: bool
    live: int
    quotes: int
    frame: tuple[int, int] | None = None
    adrift_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault: since when (clock of `now_s`), what was measured, against which limit, and in words."""

    kind: Kind
    since_s: float
    value: float
    limit: float
    reason: str


@dataclass(slots=True)
class Report:
    """What one observation led to; `reconnect` is the finding for which the session should be given up."""

    active: dict[Kind, Finding]
    begun: list[Finding] = field(default_factory=list)
    over: list[Finding] = field(default_factory=list)
    reconnect: Finding | None = None
    silence_s: float = 0.0
    lag_s: float = 0.0


def duration(seconds: float) -> str:
    """As people say it: 45 s, 15 min."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.4g} min"

"""What streams and service say of themselves, and how the one is made of the others.

Decides names and sums. Must never ask anybody: the parts are arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from consumers.reading.lag import Lag
from wire import Quality

COUNTS: Final = ("quotes", "gaps", "malformed", "callback_errors")
"""The fields that outlive a stream."""


class WhyUnserved(TypedDict):
    """The state of a symbol that gets no quotes now, and the reason, as `Unserved` has them."""

    state: str
    reason: str


class StreamStatus(TypedDict):
    """What one stream knows of itself, in values that JSON has; counts are since it was made.

    `wanted_symbols` is what it follows, `subscribed_symbols` those of them that Alpaca has confirmed, and
    `unserved` says of each that gets no quotes now why, in the daemon's words of about a second ago.
    """

    connected: bool
    wanted_symbols: list[str]
    subscribed_symbols: list[str]
    unserved: dict[str, WhyUnserved]
    active_callbacks: int
    reconnect_attempts: int
    quotes: int
    gaps: int
    malformed: int
    callback_errors: int
    lag_ms: float | None


class ServiceStatus(StreamStatus):
    """What a service knows of itself. Counts are of all its streams, also of those that have ended.

    `connected`: at least one stream runs, and each that runs has its connection. `reconnect_attempts`: failures
    in a row of the stream that has most of them, 0 while all is well. `lag_ms`: of the newest quotes handed out,
    the longest time from the daemon's receipt until then.
    """

    streams: list[StreamStatus]


class DaemonStatus(ServiceStatus):
    """The same with the daemon's status hash as it stands, and the quality and lag of each symbol."""

    daemon: dict[str, str]
    quality: dict[str, Quality]
    lag: dict[str, Lag]


def summed_up(
    streams: Sequence[tuple[StreamStatus, bool]],
    past: Mapping[str, int],
    shared_callbacks: int,
    shared_errors: int,
) -> ServiceStatus:
    """The status of a service from those of its streams, each with whether it runs, and the counts of past ones."""
    each = [status for status, _ in streams]
    running = [status for status, is_running in streams if is_running]
    lags = [status["lag_ms"] for status in each if status["lag_ms"] is not None]
    counts = {name: past[name] + sum(status[name] for status in each) for name in COUNTS}
    return ServiceStatus(
        connected=bool(running) and all(status["connected"] for status in running),
        wanted_symbols=sorted({symbol for status in each for symbol in status["wanted_symbols"]}),
        subscribed_symbols=sorted({symbol for status in each for symbol in status["subscribed_symbols"]}),
        unserved={symbol: why for status in each for symbol, why in status["unserved"].items()},
        active_callbacks=shared_callbacks + sum(status["active_callbacks"] for status in each),
        reconnect_attempts=max((status["reconnect_attempts"] for status in each), default=0),
        quotes=counts["quotes"],
        gaps=counts["gaps"],
        malformed=counts["malformed"],
        callback_errors=counts["callback_errors"] + shared_errors,
        lag_ms=max(lags, default=None),
        streams=each,
    )

"""What is wrong with a feed that looks connected.

Decides, second by second, which faults are there, when one has begun or is over, and which of them gets a new
connection. Must never know the clock, a socket or Redis: what was counted comes in as an `Observation`. Outside the
market's hours nothing is a fault.

Two rules keep a fault of the vendor from becoming a storm of ours: no two reconnections for one fault lie closer
together than its own threshold, and one that did not help doubles it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ingestor.feed.findings import Finding, Kind, Limits, Observation, Report, duration
from ingestor.feed.lag import Lag
from ingestor.feed.mute import Mute
from ingestor.feed.pulse import Pulse
from ingestor.feed.silence import SilentSymbols

STALL_S: Final = 5.0
"""Observations further apart than this: it was we who stood still, and nothing is known about the feed."""
SLOW_BASELINE: Final = 5.0
SLOW_FOR_S: Final = 30.0
DRIFT_FOR_S: Final = 30.0


class Watchdog:
    """Tell it about each second; it tells what is wrong."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pulse = Pulse()
        self._lag = Lag(limits)
        self._mute = Mute(limits.mute_after_s)
        self._last: Observation | None = None
        self._active: dict[Kind, Finding] = {}
        self._drift_session: int | None = None
        self._silent = SilentSymbols(limits.quiet_after_s)

    @property
    def silent(self) -> SilentSymbols:
        """The symbols without a quote, as of the last `hear`."""
        return self._silent

    def hear(self, now_s: float, marks: Mapping[str, int | None] | None) -> None:
        """Each live symbol with a mark that changes with its quotes; None when marks cannot be had just now."""
        if marks is None:
            self._silent.restart()
        else:
            self._silent.look(now_s, marks)

    def observe(self, seen: Observation) -> Report:
        """What this second shows."""
        last, self._last = self._last, seen
        if not seen.is_open:
            return self._close()
        quotes = seen.quotes - last.quotes if last is not None else 0
        if last is None or seen.now_s - last.now_s > STALL_S:
            self._pulse.skip()
            self._mute.restart()
        elif last.is_regular != seen.is_regular:
            self._pulse.begin()
        if last is not None and last.session != seen.session:
            self._lag.restart()
        if seen.is_connected and seen.live:
            self._pulse.beat(seen.now_s, quotes)
        elif self._mute.has_nothing_to_hear:
            self._pulse.close()
        else:
            self._pulse.skip()
        found: dict[Kind, Finding | None] = {
            Kind.MUTE: self._mute.look(seen, quotes, self._pulse.interval_s),
            Kind.SLOW_RATE: self._slow_rate(seen),
            Kind.SYMBOLS_SILENT: self._symbols_silent(seen),
            Kind.ACKNOWLEDGEMENT_DRIFT: self._drift(seen),
            **self._lag.look(seen),
        }
        report = self._compare(found)
        report.silence_s, report.lag_s = self._mute.silence_s(seen.now_s), self._lag.lag_s
        report.reconnect = self._reconnect(seen) if seen.is_connected else None
        return report

    def _close(self) -> Report:
        self._pulse.close()
        self._mute.close()
        self._lag.close()
        self._silent.restart()
        return self._compare(dict.fromkeys(Kind))

    def _compare(self, found: Mapping[Kind, Finding | None]) -> Report:
        report = Report({})
        for kind, finding in found.items():
            before = self._active.pop(kind, None)
            if finding is not None:
                self._active[kind] = replace(finding, since_s=before.since_s) if before else finding
                if before is None:
                    report.begun.append(finding)
            elif before is not None:
                report.over.append(before)
        report.active.update(self._active)
        return report

    def _reconnect(self, seen: Observation) -> Finding | None:
        """At most one fault gets the connection; the others wait and see whether that helped them too."""
        if self._mute.strike(seen.now_s):
            return self._active[Kind.MUTE]
        if self._lag.strike(seen.now_s):
            return self._active[Kind.VENDOR_LAG]
        drift = self._active.get(Kind.ACKNOWLEDGEMENT_DRIFT)
        if drift is not None and self._drift_session is None:
            self._drift_session = seen.session
            return drift
        return None

    def _slow_rate(self, seen: Observation) -> Finding | None:
        low_s, baseline = self._pulse.low_s(seen.now_s), self._pulse.baseline
        if low_s < SLOW_FOR_S or baseline < SLOW_BASELINE:
            return None
        rate = self._pulse.recent or 0.0
        reason = f"{rate:.1f} quotes/s for {low_s:.0f} s, {baseline:.0f} quotes/s in the minutes before"
        return Finding(Kind.SLOW_RATE, seen.now_s, rate, baseline / 10, reason)

    def _symbols_silent(self, seen: Observation) -> Finding | None:
        count, limit_s = len(self._silent.quiet), self._limits.quiet_after_s
        if not count:
            return None
        reason = f"{count} live symbols without a quote for {duration(limit_s)} or longer"
        return Finding(Kind.SYMBOLS_SILENT, seen.now_s, self._silent.oldest_s, limit_s, reason)

    def _drift(self, seen: Observation) -> Finding | None:
        if seen.adrift_s <= DRIFT_FOR_S:
            self._drift_session = None
            return None
        reason = f"for {seen.adrift_s:.0f} s the vendor's set has differed from what was asked"
        return Finding(Kind.ACKNOWLEDGEMENT_DRIFT, seen.now_s, seen.adrift_s, DRIFT_FOR_S, reason)

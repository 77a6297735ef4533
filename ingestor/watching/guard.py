"""The watchdog's shell: once a second it gathers what the watchdog wants to know, and does what it says.

Decides how often, and how a finding is told. Must never decide what is a fault (`feed.watchdog`), and never touches
Redis: it reads counters, writes notes, and asks the feed for a new session.
"""

import asyncio
import time
from collections import Counter
from typing import Final

from ingestor.feed.connection import FeedConnection
from ingestor.feed.findings import Finding, Kind, Limits, Observation, Report, duration
from ingestor.feed.hours import MarketHours
from ingestor.feed.watchdog import Watchdog
from ingestor.journal import Journal
from ingestor.publisher.publisher import Publisher
from ingestor.subscriptions.adrift import Adrift
from ingestor.subscriptions.reconciler import Reconciler

TICK_S: Final = 1.0
HEAR_EVERY_S: Final = 5.0
MANY_SYMBOLS: Final = 1000
MANY_TELL_EVERY_S: Final = 60.0
"""Each change of the quiet ones has the states of all symbols gone through; with thousands, that waits."""
UNREADY: Final = (Kind.MUTE, Kind.VENDOR_LAG)


class Guard:
    """Watches one feed. `findings` and `reconnects` count by kind since the start."""

    def __init__(
        self,
        feed: FeedConnection,
        reconciler: Reconciler,
        publisher: Publisher,
        journal: Journal,
        hours: MarketHours,
        limits: Limits,
    ) -> None:
        self._feed = feed
        self._reconciler = reconciler
        self._publisher = publisher
        self._journal = journal
        self._hours = hours
        self._limits = limits
        self._watchdog = Watchdog(limits)
        self._adrift = Adrift()
        self._report = Report({})
        self._hear_at_s = self._tell_at_s = 0.0
        self.findings: Counter[str] = Counter()
        self.reconnects: Counter[str] = Counter()
        # The calendar takes a tenth of a second to load: better now than between two quotes.
        hours.at(time.time_ns() / 1e9)

    @property
    def is_open(self) -> bool:
        """Whether quotes may be expected now; also while this daemon stands by and watches nothing."""
        return self._hours.at(time.time_ns() / 1e9).is_open

    @property
    def market(self) -> str:
        """`open` while quotes may be expected, else `closed`."""
        return "open" if self.is_open else "closed"

    @property
    def active(self) -> list[str]:
        """The kinds that are wrong now, in a fixed order."""
        return [kind.value for kind in Kind if kind in self._report.active]

    @property
    def silence_s(self) -> float:
        """For how long no quote has come although some could."""
        return self._report.silence_s

    @property
    def lag_s(self) -> float:
        """By how much quotes are late, beyond what the feed is late on purpose."""
        return self._report.lag_s

    @property
    def quiet(self) -> int:
        """Live symbols without a quote for too long."""
        return len(self._watchdog.silent.quiet)

    @property
    def problem(self) -> str | None:
        """Why a strategy should not rely on this daemon's quotes now, or None."""
        found = [self._report.active[kind] for kind in UNREADY if kind in self._report.active]
        return "; ".join(f"{finding.kind.value}: {finding.reason}" for finding in found) or None

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick(time.monotonic(), time.time_ns())

    def tick(self, now_s: float, unix_ns: int) -> None:
        """One look: `now_s` monotonic, `unix_ns` wall time."""
        moment = self._hours.at(unix_ns / 1e9)
        feed, reconciler = self._feed, self._reconciler
        if moment.is_open and feed.is_ready and now_s >= self._hear_at_s:
            self._hear_at_s = now_s + min(HEAR_EVERY_S, max(TICK_S, self._limits.quiet_after_s / 3))
            self._hear(now_s)
        report = self._report = self._watchdog.observe(
            Observation(
                now_s=now_s,
                is_open=moment.is_open,
                is_regular=moment.is_regular,
                session=feed.counts.connects,
                is_connected=feed.is_ready,
                live=len(reconciler.book.confirmed),
                # Quotes that cannot be stored or read are heard as well; no new session would mend it.
                quotes=feed.counts.quotes + feed.counts.broken_quotes + feed.counts.unclear,
                frame=feed.last_frame,
                adrift_s=self._adrift.look(
                    now_s, reconciler.book, reconciler.version, connected=feed.is_ready
                ),
            )
        )
        self._tell_states(now_s)
        for finding in report.over:
            self._tell("watchdog_over", "info", finding, lasted_s=round(now_s - finding.since_s, 1))
        for finding in report.begun:
            self.findings[finding.kind.value] += 1
            self._tell("watchdog", "warning", finding, reconnect=finding is report.reconnect)
        if report.reconnect is not None:
            self._reconnect(report.reconnect)

    def _hear(self, now_s: float) -> None:
        # While nothing is stamped, because Redis is away, nobody can tell whose quotes are among those that wait.
        is_blind = self._publisher.away_reason is not None
        symbols = self._reconciler.book.confirmed
        stamper = self._publisher.stamper
        self._watchdog.hear(now_s, None if is_blind else stamper.last_times_ns(symbols))

    def _tell_states(self, now_s: float) -> None:
        quiet, reconciler = self._watchdog.silent.quiet, self._reconciler
        if quiet is not reconciler.book.quiet and now_s >= self._tell_at_s:
            many = len(reconciler.book.confirmed) > MANY_SYMBOLS
            self._tell_at_s = now_s + (MANY_TELL_EVERY_S if many else 0.0)
            reconciler.note_quiet(quiet, f"no quote for {duration(self._limits.quiet_after_s)}")

    def _tell(self, event: str, level: str, finding: Finding, **details: object) -> None:
        told = {
            "finding": finding.kind.value,
            "reason": finding.reason,
            "value": round(finding.value, 3),
            "limit": round(finding.limit, 3),
            **details,
        }
        if finding.kind is Kind.SYMBOLS_SILENT:
            # One symbol that comes and goes must not fill the trail.
            self._journal.note_rarely(event, finding.kind.value, "info", **told)
        else:
            self._journal.note(event, level, **told)

    def _reconnect(self, finding: Finding) -> None:
        if self._feed.reconnect(finding.kind.value, finding.reason):
            self.reconnects[finding.kind.value] += 1

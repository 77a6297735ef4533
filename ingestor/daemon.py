"""All parts of one daemon, and how it fares as a whole.

Decides what is wired to what, the daemon's state in one word, and what of its parts is shown where. Must never
start or end anything: `app` does.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from redis.asyncio import Redis

from ingestor.assets.check import AssetCheck
from ingestor.control import control_client
from ingestor.feed.connection import FeedConnection
from ingestor.feed.events import Oddities
from ingestor.feed.hours import MarketHours
from ingestor.feed.session import Credentials
from ingestor.histogram import Histogram
from ingestor.journal import Journal
from ingestor.log_lines import log_lines
from ingestor.publisher.mender import CacheMender
from ingestor.publisher.onlooker import Onlooker
from ingestor.publisher.publisher import Publisher
from ingestor.publisher.retention import SweepCounts, Sweeper
from ingestor.redis_link import RedisAddress
from ingestor.settings import Settings, default_instance
from ingestor.spool.spool import Spool
from ingestor.subscriptions.reconciler import Reconciler, some
from ingestor.subscriptions.watch import ChangeWatch
from ingestor.tenure import Tenure
from ingestor.turn import Turn
from ingestor.watching.guard import Guard
from ingestor.watching.metrics import registry_for
from ingestor.watching.pages import Check
from ingestor.watching.reporter import Reporter, iso
from ingestor.watching.storage_watch import StorageWatch
from wire import CONTRACT_VERSION, Keyspace


def time_s() -> float:
    """Wall time, unix seconds."""
    return time.time_ns() / 1e9


class Daemon:
    """All parts of one daemon, wired."""

    def __init__(
        self,
        settings: Settings,
        credentials: Callable[[], Credentials],
        spool: Spool | None = None,
        redis_url: Callable[[], str] | None = None,
    ) -> None:
        self.settings = settings
        self.version = metadata.version("quotebus")
        self.feed_name = "custom" if settings.feed_url else settings.feed.value
        self.started_ns = time.time_ns()
        self.instance = settings.instance or default_instance()
        self.keys = Keyspace(settings.namespace)
        self.address = RedisAddress(settings.redis_url.get_secret_value(), redis_url)
        self.journal = Journal()
        self.control: Redis = control_client(self.address)
        self.publisher = Publisher(
            *(self.address, self.keys, self.journal),
            stream_maxlen=settings.stream_maxlen,
            memory_bytes=settings.memory_bytes,
            replay_s=settings.replay_s,
            replay_bytes=settings.replay_bytes,
            spool=spool,
        )
        self.watch = ChangeWatch(self.address, self.keys, self.journal)
        self.reconciler = self._reconciler()
        self.feed = FeedConnection(
            *(settings.url, credentials, self.publisher.receive, self.reconciler), settings.patience
        )
        self.feed.on_oddity = self._note_oddity
        self.reconciler.poke_feed = self.feed.poke
        self.guard = self._guard()
        self.assets = self._assets(credentials)
        self.storage = StorageWatch(self.feed, self.publisher, self.reconciler, self.journal)
        self.sweeper = Sweeper(
            self.control,
            self.keys,
            self.publisher.stamper,
            self.journal,
            lambda: frozenset(self.reconciler.book.desired.symbols) | self.reconciler.book.confirmed,
            max_age_s=settings.stream_max_age_s,
            forget_after_s=settings.forget_after_s,
        )
        self.mender = CacheMender(
            self.control, self.keys, self.publisher.stamper, self.publisher.position, self.journal
        )
        self.onlooker = Onlooker(self.control, self.keys, self.publisher.verdicts, self.journal)
        self.reporter = Reporter(
            *(self.control, self.keys, self.journal, self.reconciler),
            *(self.status_fields, lambda: self.state, time_s, lambda: self.publisher.held_s),
        )
        self.registry = registry_for(self)
        self.loop_lag_s = Histogram(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
        self.is_stopping = False
        self.turn = Turn(self.control, self.keys, self.journal, self.instance)
        self.tenure = Tenure()
        self.reporter.on_beat = self.tenure.beaten
        self._counted: Counter[str] = Counter()
        self._counted_version = -1
        self.http_port: int | None = None

    def _reconciler(self) -> Reconciler:
        return Reconciler(
            *(self.control, self.keys, self.watch),
            *(self.publisher.stamper, self.publisher.note_hole, self.journal),
            limit=self.settings.symbol_limit,
            grace_s=self.settings.grace_s,
        )

    def _assets(self, credentials: Callable[[], Credentials]) -> AssetCheck:
        return AssetCheck(
            *(self.control, self.keys, self.journal, credentials),
            lambda: self.reconciler.book.desired.symbols,
            self.reconciler.note_remarks,
            url=self.settings.assets_url,
            feed=self.feed_name,
            instance=self.instance,
        )

    def _guard(self) -> Guard:
        hours = MarketHours(self.settings.expected_hours)
        watched = (self.feed, self.reconciler, self.publisher)
        return Guard(*watched, self.journal, hours, self.settings.watchdog_limits)

    @property
    def sweep(self) -> SweepCounts:
        """What the retention sweep did."""
        return self.sweeper.counts

    @property
    def events_dropped(self) -> int:
        """Audit notes that found no place in the queue."""
        return self.journal.dropped

    @property
    def log_lines_dropped(self) -> int:
        """Log lines that nobody read in time."""
        return log_lines.dropped

    @property
    def symbol_states(self) -> Mapping[str, int]:
        """How many symbols are in each state."""
        version = self.reconciler.version
        if version != self._counted_version:
            # Counting ten thousand symbols for every scrape would hold up the quotes.
            statuses = self.reconciler.book.statuses(time_s())
            self._counted = Counter(status.state.value for status in statuses.values())
            self._counted_version = version
        return self._counted

    @property
    def state(self) -> str:
        """The daemon in one word."""
        if self.is_stopping:
            return "stopping"
        if self.turn.standing_by_for is not None:
            return "standby"
        if self.publisher.stamper.epoch is None:
            return "starting"
        if self.publisher.away_reason is not None:
            return "redis_away"
        if not self.feed.is_ready:
            return "connecting"
        return self.storage.verdict.state or "live"

    def checks(self) -> list[Check]:
        """The conditions of readiness."""
        desired = self.reconciler.book.desired
        return [
            Check("running", "stopping" if self.is_stopping else self._standby),
            Check("redis", self.turn.trouble or self.publisher.away_reason),
            Check("feed", self._without_feed),
            Check(
                "symbols", desired.held or (None if self.reconciler.first_look.is_set() else "not read yet")
            ),
            Check("watchdog", self.guard.problem),
            Check("spool", self.publisher.spooling.unready),
            Check("storing", self.storage.verdict.reason),
        ]

    @property
    def _without_feed(self) -> str | None:
        feed = self.feed
        return feed.off_because or (None if feed.is_ready else f"not connected, attempt {feed.attempt}")

    @property
    def _standby(self) -> str | None:
        other = self.turn.standing_by_for
        return f"standing by for {other}" if other else None

    def status_fields(self) -> dict[Any, Any]:
        """The fields of `quotes:status`."""
        feed, publisher = self.feed, self.publisher
        book = self.reconciler.book
        not_stored = book.unstored.count(book.confirmed)
        return {
            "contract": CONTRACT_VERSION,
            "version": self.version,
            "instance": self.instance,
            "state": self.state,
            "feed": self.feed_name,
            "heartbeat": iso(time_s()),
            "started": iso(self.started_ns / 1e9),
            "connected_since": iso(feed.connected_since_ns / 1e9) if feed.connected_since_ns else "",
            "last_quote": iso(feed.last_quote_ns / 1e9) if feed.last_quote_ns else "",
            "reconnects": max(0, feed.counts.connects - 1),
            "reconnect_attempt": feed.attempt,
            "market": self.guard.market,
            "watchdog": " ".join(self.guard.active),
            "epoch": publisher.stamper.epoch or 0,
            "desired": len(book.desired.symbols),
            "live": len(book.confirmed) - not_stored,
            "not_stored": not_stored,
            "junk": book.desired.junk_total,
            "symbol_limit": book.limit or 0,
            "held": book.desired.held or "",
            **self._ledger(),
            "storing": self.storage.verdict.reason or "",
            "spool": publisher.spooling.problem or "",
            "refusing": some(publisher.verdicts.refusing),
            "http": f"{self.settings.http_host_port[0]}:{self.http_port or 0}",
        }

    def _ledger(self) -> dict[str, int]:
        publisher = self.publisher
        counts, holdings = publisher.counts, publisher.holdings
        return {
            "received": counts.received,
            "recovered": counts.recovered,
            "stored": counts.stored,
            "already_stored": counts.already_stored,
            "rejected": sum(self.storage.rejected.values()),
            "dropped": counts.dropped_total,
            "queued": holdings.queued,
            "unanswered": holdings.unanswered,
            "spooled": holdings.spooled,
            "replayed": counts.replayed,
            "replaying": holdings.replaying,
            "lost_by_redis": counts.lost_by_redis,
        }

    def describe(self) -> str:
        """How the daemon fares, in one line for `systemctl status`."""
        book, holdings, states = self.reconciler.book, self.publisher.holdings, self.symbol_states
        problem = next((f"; {check.name}: {check.problem}" for check in self.checks() if check.problem), "")
        odd = "".join(
            f", {states[state]} {words}"
            for state, words in (("not_stored", "not stored"), ("refused", "refused"), ("waiting", "waiting"))
            if states.get(state)
        )
        live = len(book.confirmed) - book.unstored.count(book.confirmed)
        return (
            f"{self.state}: {live} of {len(book.desired.symbols)} symbols live{odd}, "
            f"{holdings.queued + holdings.unanswered + holdings.spooled} quotes not stored yet{problem}"
        )

    def status_page(self) -> Mapping[str, Any]:
        """The JSON of /status."""
        return {
            **self.status_fields(),
            "checks": {check.name: check.problem or "ok" for check in self.checks()},
            "symbols": dict(self.symbol_states),
            "tracking": self.watch.is_tracking,
            "parts": {
                "feed": repr(self.feed),
                "publisher": repr(self.publisher),
                "book": repr(self.reconciler.book),
            },
        }

    def _note_oddity(self, oddities: Oddities) -> None:
        if oddities.unreadable:
            self.journal.note_rarely(
                "unreadable_message",
                "vendor",
                count=len(oddities.unreadable),
                first=oddities.unreadable[0][:256],
                sample=oddities.sample.hex(),
            )
        for kind in oddities.unknown:
            self.journal.note_rarely("unknown_message", kind)

"""One life of the daemon: prepare, run, drain, leave.

Decides the order in which parts start and end. Must never decide anything within a part. The order of the end:
first the feed closes its socket with a handshake, so that the vendor frees the slot and nothing new arrives; then
what was received is stored; then the last state is reported.
"""

import asyncio
import contextlib
import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.control import control_client
from ingestor.feed.connection import FeedConnection
from ingestor.feed.hours import MarketHours
from ingestor.feed.session import Credentials, Oddities
from ingestor.histogram import Histogram
from ingestor.journal import Journal
from ingestor.log_lines import log_lines
from ingestor.parts import background, measure_loop_lag
from ingestor.publisher.claims import Fenced
from ingestor.publisher.mender import CacheMender
from ingestor.publisher.publisher import Publisher
from ingestor.publisher.retention import SweepCounts, Sweeper
from ingestor.publisher.spooling import digest
from ingestor.redis_link import RedisAddress
from ingestor.reload import Reload
from ingestor.rights import examine
from ingestor.settings import Settings, default_instance, spool_folder
from ingestor.spool.spool import Spool
from ingestor.subscriptions.reconciler import Reconciler
from ingestor.subscriptions.watch import ChangeWatch
from ingestor.supervisor import Supervisor
from ingestor.turn import Turn
from ingestor.watching.guard import Guard
from ingestor.watching.metrics import registry_for, render
from ingestor.watching.pages import Check, Sources, serve
from ingestor.watching.reporter import Reporter, iso
from wire import CONTRACT_VERSION, Keyspace

CONTROL_TIMEOUT_S: Final = 2.0
FAREWELL_S: Final = 1.0
SAVE_S: Final = 5.0


class Undrained(Exception):
    """The daemon was asked to stop, and quotes were left that neither Redis nor the disk took in time."""


class LeftOnDisk(Exception):
    """The daemon was asked to stop, and what Redis would not take in time waits on disk for the next start."""


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
        self.control: Redis = control_client(self.address, CONTROL_TIMEOUT_S)
        self.publisher = Publisher(
            *(self.address, self.keys, self.journal),
            stream_maxlen=settings.stream_maxlen,
            memory_bytes=settings.memory_bytes,
            replay_s=settings.replay_s,
            replay_bytes=settings.replay_bytes,
            spool=spool,
        )
        self.watch = ChangeWatch(self.address, self.keys, self.journal)
        self.reconciler = Reconciler(
            self.control,
            self.keys,
            self.watch,
            self.publisher.stamper,
            self.publisher.note_hole,
            self.journal,
            limit=settings.symbol_limit,
            grace_s=settings.grace_s,
        )
        self.feed = FeedConnection(settings.url, credentials, self.publisher.receive, self.reconciler)
        self.feed.on_oddity = self._note_oddity
        self.reconciler.poke_feed = self.feed.poke
        self.guard = self._guard()
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
        self.reporter = Reporter(
            self.control, self.keys, self.journal, self.reconciler, self.status_fields, time_s
        )
        self.registry = registry_for(self)
        self.loop_lag_s = Histogram(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
        self.is_stopping = False
        self.turn = Turn(self.control, self.keys, self.journal, self.instance)
        self._counted: Counter[str] = Counter()
        self._counted_version = -1
        self.http_port: int | None = None

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
        if not self.publisher.was_connected:
            return "starting"
        if self.publisher.away_reason is not None:
            return "redis_away"
        return "live" if self.feed.is_ready else "connecting"

    def checks(self) -> list[Check]:
        """The conditions of readiness."""
        desired = self.reconciler.book.desired
        return [
            Check("running", "stopping" if self.is_stopping else self._standby),
            Check("redis", self.publisher.away_reason),
            Check("feed", None if self.feed.is_ready else f"not connected, attempt {self.feed.attempt}"),
            Check(
                "symbols", desired.held or (None if self.reconciler.first_look.is_set() else "not read yet")
            ),
            Check("watchdog", self.guard.problem),
        ]

    @property
    def _standby(self) -> str | None:
        other = self.turn.standing_by_for
        return f"standing by for {other}" if other else None

    def status_fields(self) -> dict[Any, Any]:
        """The fields of `quotes:status`."""
        feed, publisher = self.feed, self.publisher
        book = self.reconciler.book
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
            "live": len(book.confirmed),
            "junk": book.desired.junk_total,
            "symbol_limit": book.limit or 0,
            "held": book.desired.held or "",
            **self._ledger(),
            "spool": publisher.spooling.problem or "",
            "refusing": " ".join(sorted(publisher.refusing)[:20]),
            "http": f"{self.settings.http_host_port[0]}:{self.http_port or 0}",
        }

    def _ledger(self) -> dict[str, int]:
        publisher = self.publisher
        counts, holdings = publisher.counts, publisher.holdings
        rejected = sum(counts.rejected.values()) + sum(publisher.stamper.counts.rejected.values())
        return {
            "received": counts.received,
            "recovered": counts.recovered,
            "stored": counts.stored,
            "already_stored": counts.already_stored,
            "rejected": rejected,
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
        book, holdings = self.reconciler.book, self.publisher.holdings
        return (
            f"{self.state}: {len(book.confirmed)} of {len(book.desired.symbols)} symbols live, "
            f"{holdings.queued + holdings.unanswered + holdings.spooled} quotes not stored yet"
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


def time_s() -> float:
    """Wall time, unix seconds."""
    return time.time_ns() / 1e9


async def run(
    settings: Settings,
    credentials: Callable[[], Credentials],
    stop: asyncio.Event,
    redis_url: Callable[[], str] | None = None,
    reload: Reload | None = None,
) -> None:
    """Run one daemon until `stop` is set. `redis_url` reads the URL anew, for a login that was refused; `reload`
    tells the journal what came of a new look at the settings.

    Raises `Fenced` when another daemon has taken over, `LeftOnDisk` or `Undrained` when quotes were left at the
    end, `SpoolUnusable` when the folder that was asked for cannot be used, `Unsuitable` when this Redis cannot
    serve, and `PagesProblem` when the HTTP address is taken.
    """
    daemon = Daemon(settings, credentials, spool_for(settings), redis_url)
    if reload is not None:
        reload.note = daemon.journal.note
    sources = Sources(lambda: render(daemon.registry), daemon.checks, daemon.status_page)
    gc.collect()
    gc.freeze()
    # Quotes are many small objects without cycles; the default threshold looks at them for nothing.
    gc.set_threshold(50_000, 20, 20)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(daemon.control.aclose)
        daemon.http_port = await stack.enter_async_context(serve(*settings.http_host_port, sources))
        daemon.journal.note(
            "started",
            instance=daemon.instance,
            feed=settings.url,
            redis=repr(daemon.address),
            http=daemon.http_port,
        )
        supervisor = stack.enter_context(Supervisor.of(os.environ))
        watched = supervisor.run(daemon.turn.redis_answered, daemon.describe)
        await stack.enter_async_context(background({"supervisor": watched}))
        await examine(daemon.address, daemon.keys, daemon.journal, stop)
        if await daemon.turn.wait(stop):
            await _live(daemon, stop, supervisor)
        else:
            daemon.journal.note("stopped", left=0)


def spool_for(settings: Settings) -> Spool | None:
    """The spool of these settings, not opened yet."""
    server = repr(RedisAddress(settings.redis_url.get_secret_value()))
    folder = spool_folder(settings, os.environ, server)
    if folder is None:
        return None
    return Spool(
        folder,
        identity=f"{settings.namespace}@{server}",
        max_bytes=settings.spool_bytes,
        max_age_s=settings.spool_max_age_s,
        digest=digest,
    )


async def _live(daemon: Daemon, stop: asyncio.Event, supervisor: Supervisor) -> None:
    spooling = daemon.publisher.spooling
    await spooling.open(is_optional=not daemon.settings.spool_dir)
    is_drained = is_saved = False
    try:
        parts = {"publisher": daemon.publisher.run(daemon.instance), "spool": spooling.run()}
        async with background(parts):
            try:
                async with background(_working(daemon)):
                    await stop.wait()
                    daemon.is_stopping = True
                    supervisor.tell(STOPPING="1", STATUS=daemon.describe())
                    daemon.journal.note("stopping", queued=daemon.publisher.holdings.queued)
            finally:
                # The feed is closed now, and with it the source of new quotes; also when a part has failed.
                is_drained = await daemon.publisher.drain(daemon.settings.drain_s)
                is_saved = is_drained or await daemon.publisher.save(SAVE_S)
    except Fenced:
        # Whoever took over reports from now on.
        raise
    except BaseException:
        await _say_farewell(daemon)
        raise
    finally:
        await spooling.close()
    left = daemon.publisher.holdings.total
    daemon.journal.note("stopped", "info" if is_drained else "error", left=left, on_disk=is_saved)
    await _say_farewell(daemon)
    if not is_drained:
        told = f"{left} quotes were not stored within {daemon.settings.drain_s:g} s"
        raise LeftOnDisk(f"{told}; they wait on disk") if is_saved else Undrained(told)


async def _say_farewell(daemon: Daemon) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(FAREWELL_S):
            await daemon.control.hset(
                daemon.keys.status, mapping={**daemon.status_fields(), "state": "stopped"}
            )
            await daemon.reporter.write_subscriptions()
            await daemon.reporter.write_events()


def _working(daemon: Daemon) -> dict[str, Any]:
    return {
        "feed": _feed(daemon),
        "reconciler": daemon.reconciler.run(),
        "watch": daemon.watch.run(),
        "cache": daemon.mender.run(daemon.publisher.cache_is_suspect),
        "sweep": daemon.sweeper.run(daemon.settings.sweep_every_s),
        "reporter": daemon.reporter.run(),
        "guard": daemon.guard.run(),
        "loop lag": measure_loop_lag(daemon.loop_lag_s),
    }


async def _feed(daemon: Daemon) -> None:
    # The vendor is not asked for quotes before there is somewhere to put them, and something to ask for is known.
    await daemon.publisher.ready.wait()
    await daemon.reconciler.first_look.wait()
    await daemon.feed.run()

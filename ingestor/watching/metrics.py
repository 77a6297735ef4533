"""The catalogue of metrics, and how they are read at scrape time.

Decides names, kinds and meanings. Must never be called per quote: the daemon's parts count in plain integers, and
this collector reads them when Prometheus asks. No label ever holds a symbol, so ten thousand symbols cost a scrape
nothing.
"""

import platform
from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ingestor.feed.codes import CODES
from ingestor.feed.connection import FeedConnection
from ingestor.feed.findings import Kind
from ingestor.histogram import Histogram
from ingestor.publisher.mender import CacheMender
from ingestor.publisher.publisher import Publisher
from ingestor.publisher.retention import SweepCounts
from ingestor.subscriptions.reconciler import Reconciler
from ingestor.subscriptions.states import SymbolState
from ingestor.turn import Turn
from ingestor.watching.families import counter, gauge, histogram, labelled, labelled_gauge
from ingestor.watching.guard import Guard
from ingestor.watching.storage_watch import StorageWatch
from ingestor.watching.storing import CATCHING_UP, NOT_STORING
from wire.times import UNITS
from wire.values import ODDITIES, SIDE_FIELDS

REJECT_REASONS = (
    "bad_time",
    "bad_price",
    "bad_symbol",
    "not_subscribed",
    "stream_exhausted",
    "wrong_type",
    "refused_by_redis",
)
DROP_REASONS = ("queue_full", "spool_full", "spool_too_old", "spool_damaged", "spool_hung", "superseded")
WATCHDOG_KINDS = tuple(kind.value for kind in Kind)
SYMBOL_STATES = tuple(state.value for state in SymbolState)


class Observed(Protocol):
    """The parts of a running daemon that are read at scrape time."""

    version: str
    feed_name: str
    started_ns: int
    feed: FeedConnection
    publisher: Publisher
    reconciler: Reconciler
    loop_lag_s: Histogram
    turn: Turn
    mender: CacheMender
    guard: Guard
    storage: StorageWatch

    @property
    def sweep(self) -> SweepCounts:
        """What the retention sweep did."""

    @property
    def symbol_states(self) -> Mapping[str, int]:
        """How many symbols are in each state."""

    @property
    def events_dropped(self) -> int:
        """Audit notes that found no place."""

    @property
    def log_lines_dropped(self) -> int:
        """Log lines that nobody read in time."""


class DaemonCollector(Collector):
    """Reads a daemon's counters. Series of known reasons stand at zero from the start."""

    def __init__(self, daemon: Observed) -> None:
        self._daemon = daemon

    def collect(self) -> Iterable[Metric]:
        """All families, as prometheus-client asks for them."""
        yield from self._about()
        yield from self._source()
        yield from self._watchdog()
        yield from self._quotes()
        yield from self._memory_and_disk()
        yield from self._subscriptions()
        yield from self._redis()
        yield from self._timing()

    def _about(self) -> Iterable[Metric]:
        daemon = self._daemon
        info = InfoMetricFamily("quotebus_build", "Version of the daemon, its Python, and its feed.")
        info.add_metric(
            [], {"version": daemon.version, "python": platform.python_version(), "feed": daemon.feed_name}
        )
        yield info
        yield gauge(
            "quotebus_standby",
            "1 while another daemon has the turn and this one waits.",
            float(daemon.turn.standing_by_for is not None),
        )
        yield gauge(
            "quotebus_start_timestamp_seconds",
            "When this process started, unix time.",
            daemon.started_ns / 1e9,
        )

    def _source(self) -> Iterable[Metric]:
        feed, counts = self._daemon.feed, self._daemon.feed.counts
        yield gauge("quotebus_source_connected", "1 while authenticated at the vendor.", float(feed.is_ready))
        yield gauge(
            "quotebus_source_last_quote_timestamp_seconds",
            "When the last quote was received, unix time; 0 before the first.",
            (feed.last_quote_ns or 0) / 1e9,
        )
        yield counter("quotebus_source_connects", "Websockets opened to the vendor.", counts.connects)
        yield labelled(
            "quotebus_source_connect_failures",
            "Websockets that did not open, by HTTP status.",
            "status",
            counts.connect_failures,
            ("unreachable", "429"),
        )
        yield labelled(
            "quotebus_source_disconnects",
            "Sessions that ended, by close code, vendor code, watchdog's finding, half_open, gave_way, or lost.",
            "reason",
            counts.disconnects,
            ("lost", "1000", "half_open", "gave_way", "mute", "vendor_lag", "acknowledgement_drift"),
        )
        yield labelled(
            "quotebus_source_errors",
            "Errors that the vendor sent, by its code.",
            "code",
            counts.errors,
            tuple(map(str, CODES)),
        )
        yield counter("quotebus_source_frames", "Websocket messages received.", counts.frames)
        yield counter("quotebus_source_bytes", "Bytes of websocket messages received.", counts.bytes)
        yield labelled(
            "quotebus_source_unknown_messages",
            "Messages of types that are passed over, by type.",
            "type",
            counts.unknown,
            (),
        )
        yield counter(
            "quotebus_source_unreadable_messages",
            "Messages or frames that could not be read.",
            counts.unreadable,
        )
        yield gauge(
            "quotebus_source_largest_frame_quotes",
            "Most quotes in one frame so far; the vendor's frames grow when a client is slow.",
            counts.largest_frame_quotes,
        )

    def _watchdog(self) -> Iterable[Metric]:
        guard = self._daemon.guard
        yield labelled_gauge(
            "quotebus_watchdog",
            "1 while the watchdog finds this fault.",
            "kind",
            dict.fromkeys(guard.active, 1),
            WATCHDOG_KINDS,
        )
        yield labelled(
            "quotebus_watchdog_findings",
            "Faults that the watchdog found, by kind.",
            "kind",
            guard.findings,
            WATCHDOG_KINDS,
        )
        yield labelled(
            "quotebus_watchdog_reconnects",
            "Sessions that the watchdog gave up, by kind.",
            "kind",
            guard.reconnects,
            ("mute", "vendor_lag", "acknowledgement_drift"),
        )
        yield gauge("quotebus_market_open", "1 while quotes may be expected.", float(guard.is_open))
        yield gauge(
            "quotebus_source_silence_seconds",
            "For how long no quote of any symbol has come, although some could; 0 while none is expected.",
            guard.silence_s,
        )
        yield gauge(
            "quotebus_source_lag_seconds",
            "Median age of quotes at receipt, beyond what the feed is late on purpose; negative when ahead.",
            guard.lag_s,
        )
        yield gauge(
            "quotebus_symbols_quiet", "Live symbols without a quote for QUOTEBUS_QUIET_AFTER_S.", guard.quiet
        )

    def _quotes(self) -> Iterable[Metric]:
        publisher = self._daemon.publisher
        counts, stamped = publisher.counts, publisher.stamper.counts
        yield counter("quotebus_quotes_received", "Quotes received from the vendor.", counts.received)
        yield counter("quotebus_quotes_stored", "Quotes that Redis has acknowledged.", counts.stored)
        yield counter(
            "quotebus_quotes_already_stored",
            "Quotes sent again that Redis proved to have already.",
            counts.already_stored,
        )
        yield labelled(
            "quotebus_quotes_rejected",
            "Quotes that cannot be stored, by reason.",
            "reason",
            self._daemon.storage.rejected,
            REJECT_REASONS,
        )
        yield labelled(
            "quotebus_quotes_dropped",
            "Quotes given up by policy, by reason; each leaves a gap marker.",
            "reason",
            counts.dropped,
            DROP_REASONS,
        )
        yield counter(
            "quotebus_quotes_recovered", "Quotes that an earlier run had left on disk.", counts.recovered
        )
        yield counter(
            "quotebus_quotes_replayed",
            "Quotes sent again since Redis had acknowledged and then forgotten them.",
            counts.replayed,
        )
        yield counter(
            "quotebus_quotes_lost_by_redis",
            "Quotes that Redis acknowledged and forgot, too long ago to send them again.",
            counts.lost_by_redis,
        )
        yield from self._places()
        yield from self._storing()
        yield labelled(
            "quotebus_ids_adjusted",
            "Entry ids that are not the venue's time, by cause.",
            "cause",
            {"tie": stamped.ties, "out_of_order": stamped.out_of_order, "clamped": stamped.clamped},
            (),
        )
        yield counter("quotebus_gap_markers", "Gap markers put into streams.", counts.markers_stored)

    def _storing(self) -> Iterable[Metric]:
        counts, stamped = self._daemon.feed.counts, self._daemon.publisher.stamper.counts
        odd_fields = CounterMetricFamily(
            "quotebus_source_odd_fields",
            "Side fields that were left out of quotes, by field and by what was odd.",
            labels=["field", "oddity"],
        )
        for name in SIDE_FIELDS:
            for oddity in ODDITIES:
                odd_fields.add_metric([name, oddity], counts.odd_fields[name, oddity])
        yield odd_fields
        verdict = self._daemon.storage.verdict
        yield labelled_gauge(
            "quotebus_storing_problem",
            "1 while quotes come and are not stored, or late.",
            "state",
            {} if verdict.state is None else {verdict.state: 1},
            (NOT_STORING, CATCHING_UP),
        )
        yield labelled(
            "quotebus_times_read",
            "Venue times that were no usual timestamp and were read all the same, by how they were spelt.",
            "spelling",
            stamped.spellings,
            ("text", *UNITS),
        )

    def _places(self) -> Iterable[Metric]:
        holdings = self._daemon.publisher.holdings
        yield gauge("quotebus_queue_quotes", "Quotes that wait in memory, never sent.", holdings.queued)
        yield gauge(
            "quotebus_unanswered_quotes",
            "Quotes on their way that Redis has not acknowledged.",
            holdings.unanswered,
        )
        yield gauge("quotebus_spooled_quotes", "Quotes that wait on disk.", holdings.spooled)
        yield gauge(
            "quotebus_oldest_unstored_timestamp_seconds",
            "When the oldest quote that is not stored was received, unix time; 0 when all are stored.",
            (holdings.oldest_received_ns or 0) / 1e9,
        )

    def _memory_and_disk(self) -> Iterable[Metric]:
        publisher = self._daemon.publisher
        spooling = publisher.spooling
        yield gauge(
            "quotebus_memory_bytes",
            "Memory of quotes that wait, and of stored ones kept in case Redis forgets them.",
            publisher.holdings.memory_bytes,
        )
        yield gauge(
            "quotebus_memory_limit_bytes", "Bound of the quotes that wait in memory.", publisher.memory_bytes
        )
        yield gauge("quotebus_spool_bytes", "What the spool takes up on disk.", spooling.bytes_on_disk)
        yield gauge("quotebus_spool_limit_bytes", "Bound of the spool; 0 without one.", spooling.max_bytes)
        yield gauge(
            "quotebus_spool_usable",
            "1 while quotes can be put on disk.",
            float(spooling.is_usable),
        )
        yield counter(
            "quotebus_spool_errors", "Failed operations and damaged files.", publisher.counts.spool_errors
        )

    def _subscriptions(self) -> Iterable[Metric]:
        daemon = self._daemon
        yield labelled_gauge(
            "quotebus_subscriptions",
            "Symbols by state.",
            "state",
            daemon.symbol_states,
            SYMBOL_STATES,
        )
        book = daemon.reconciler.book
        yield gauge(
            "quotebus_symbol_limit", "Symbols that fit the plan; 0 when no limit is known.", book.limit or 0
        )
        yield gauge(
            "quotebus_desired_held",
            "1 while a desired set that vanished stays in force.",
            float(book.desired.held is not None),
        )

    def _redis(self) -> Iterable[Metric]:
        publisher, sweep = self._daemon.publisher, self._daemon.sweep
        counts = publisher.counts
        yield gauge(
            "quotebus_redis_connected",
            "1 while batches can be written.",
            float(publisher.away_reason is None),
        )
        yield counter("quotebus_redis_connections_lost", "Writing connections that ended.", counts.reconnects)
        yield counter("quotebus_batches_sent", "Append calls sent.", counts.batches)
        yield counter("quotebus_batches_resent", "Append calls sent again.", counts.batches_resent)
        yield labelled(
            "quotebus_batches_refused",
            "Append calls refused whole, by the kind of error.",
            "error",
            counts.refusals,
            ("OOM", "READONLY", "MISCONF", "LOADING"),
        )
        yield counter("quotebus_cache_errors", "Cache fields that could not be written.", counts.cache_errors)
        yield counter(
            "quotebus_cache_mended", "Cache fields repaired from the streams.", self._daemon.mender.mended
        )
        yield gauge(
            "quotebus_streams_refusing",
            "Streams that take no entries now: another type of key, or no id left.",
            len(publisher.verdicts.refusing),
        )
        yield counter(
            "quotebus_streams_vanished",
            "Streams that were gone when the next quote came.",
            counts.streams_vanished,
        )
        yield counter("quotebus_sweeps", "Retention sweeps finished.", sweep.sweeps)
        yield counter("quotebus_entries_trimmed", "Entries removed by age.", sweep.trimmed)
        yield counter("quotebus_streams_forgotten", "Streams of unwanted symbols given up.", sweep.forgotten)
        yield counter(
            "quotebus_events_dropped", "Audit notes that found no place.", self._daemon.events_dropped
        )

        yield counter(
            "quotebus_log_lines_dropped",
            "Log lines that nobody read in time.",
            self._daemon.log_lines_dropped,
        )

    def _timing(self) -> Iterable[Metric]:
        publisher = self._daemon.publisher
        yield histogram(
            "quotebus_receive_to_stored_seconds",
            "From receipt of a batch's oldest quote to Redis' answer.",
            publisher.counts.latency_s,
        )
        yield histogram(
            "quotebus_append_seconds", "From sending an append call to its answer.", publisher.counts.append_s
        )
        yield histogram("quotebus_batch_entries", "Entries per append call.", publisher.counts.batch_entries)
        yield histogram(
            "quotebus_event_loop_lag_seconds",
            "How late the event loop woke a timer.",
            self._daemon.loop_lag_s,
        )


def registry_for(daemon: Observed) -> CollectorRegistry:
    """A registry of this daemon's metrics and of its process."""
    from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

    registry = CollectorRegistry()
    registry.register(DaemonCollector(daemon))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The exposition text."""
    return generate_latest(registry)

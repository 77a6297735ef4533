"""From websocket to stored in Redis: the daemon, the ceiling, and the loops that people write by hand.

Decides the contestants, and that each is measured in every round, one after the other, on the same server and from
the same frames. Must never know how a contestant works. A run counts only if every quote is found in its stream.
"""

import contextlib
import dataclasses
from statistics import median
from typing import Any, Final

from benchmarks.ceiling import Ceiling, measure_ceiling
from benchmarks.processes import BenchmarkFailed, SentinelWatch, control, cpu_s, daemon, program, source
from benchmarks.recording import SENTINEL, Activity, symbol_names
from simulator.redis_server import RedisServer
from wire import Keyspace

WARM_UP_QUOTES: Final = 20_000
KEYS: Final = Keyspace()


@dataclasses.dataclass(frozen=True)
class Run:
    """One recording's way from the first byte sent to the last quote stored. CPU is in microseconds per quote."""

    contestant: str
    quotes: int
    elapsed_s: float
    writer_cpu_us: float
    server_cpu_us: float
    source_cpu_us: float

    @property
    def quotes_per_s(self) -> float:
        """The rate."""
        return self.quotes / self.elapsed_s


def measure_daemon(
    server: RedisServer,
    *,
    symbols: int,
    per_frame: int,
    quotes: int,
    activity: Activity = "equal",
    contestant: str = "",
) -> Run:
    """A fresh daemon on an empty server; what it did before the measured recording is warming up."""
    client = control(server.url)
    client.flushall()
    names = [*symbol_names(symbols), SENTINEL]
    client.sadd(KEYS.symbols, *names)
    with source(symbols, activity) as feed, daemon(server.url, feed.url) as (child, _):
        return _measure(
            contestant or f"quotebus, {per_frame} per frame", server, client, feed, child, quotes, per_frame
        )


def measure_loop(server: RedisServer, kind: str, *, symbols: int, per_frame: int, quotes: int) -> Run:
    """A hand-written loop of `benchmarks.loops` in the daemon's place."""
    client = control(server.url)
    client.flushall()
    with (
        source(symbols) as feed,
        program("-m", "benchmarks.loops", kind, feed.url, server.url, "--symbols", str(symbols)) as child,
    ):
        return _measure(kind, server, client, feed, child, quotes, per_frame)


def _measure(
    contestant: str, server: RedisServer, client: Any, feed: Any, child: Any, quotes: int, per_frame: int
) -> Run:
    watch = SentinelWatch(client, KEYS)
    warm_up = min(WARM_UP_QUOTES, quotes // 4)
    feed.load(warm_up, per_frame)
    feed.go()
    watch.wait(child)
    feed.sent()
    feed.load(quotes, per_frame)
    before_s = cpu_s(child.pid), cpu_s(server.pid)
    feed.go()
    stored_s = watch.wait(child)
    after_s = cpu_s(child.pid), cpu_s(server.pid)
    sent = feed.sent()
    _check_count(client, warm_up + quotes)
    # fmt: off
    return Run(
        contestant, quotes, stored_s - sent.begin_s,
        (after_s[0] - before_s[0]) / quotes * 1e6, (after_s[1] - before_s[1]) / quotes * 1e6,
        sent.cpu_s / quotes * 1e6,
    )
    # fmt: on


def _check_count(client: Any, expected: int) -> None:
    streams = list(client.scan_iter(match=f"{KEYS.stream_prefix}*", count=5000))
    pipe = client.pipeline(transaction=False)
    for stream in streams:
        pipe.xlen(stream)
    found = sum(pipe.execute())
    if found != expected:
        raise BenchmarkFailed(f"{found} entries are stored, {expected} were sent")


@dataclasses.dataclass
class Comparison:
    """All runs of all rounds, by contestant in order of appearance; and the ceiling's, if it could be had."""

    runs: dict[str, list[Run]] = dataclasses.field(default_factory=dict)
    ceilings: list[Ceiling] = dataclasses.field(default_factory=list)
    ceiling_problem: str | None = None

    def add(self, run: Run) -> None:
        """One more run."""
        self.runs.setdefault(run.contestant, []).append(run)

    def rate(self, contestant: str) -> float:
        """The median rate, quotes per second."""
        return median(run.quotes_per_s for run in self.runs[contestant])

    @property
    def ceiling_rate(self) -> float | None:
        """The median of the ceiling, entries per second."""
        return median(c.entries_per_s for c in self.ceilings) if self.ceilings else None


FRAME_SIZES: Final = (1, 10, 100)
LOOPS: Final = ("awaited", "pipeline", "pipeline-best")


def compare(*, rounds: int, quotes: int) -> Comparison:
    """The daemon at three frame sizes, the ceiling, and the loops, interleaved."""
    result = Comparison()
    shares = {"awaited": 15, "pipeline": 6, "pipeline-best": 4}
    with RedisServer(dies_with_us=True) as server:
        for _ in range(rounds):
            for per_frame in FRAME_SIZES:
                result.add(measure_daemon(server, symbols=100, per_frame=per_frame, quotes=quotes))
            if result.ceiling_problem is None:
                try:
                    result.ceilings.append(measure_ceiling(server, symbols=100, entries=quotes))
                except FileNotFoundError as problem:
                    result.ceiling_problem = str(problem)
            for kind in LOOPS:
                result.add(
                    measure_loop(server, kind, symbols=100, per_frame=10, quotes=quotes // shares[kind])
                )
    return result


def _as_run(ceiling: Ceiling, symbols: int, entries: int) -> Run:
    nan = float("nan")
    elapsed_s = entries / ceiling.entries_per_s
    return Run(f"redis-benchmark, {symbols} streams", entries, elapsed_s, nan, ceiling.server_cpu_us, nan)


def compare_symbol_counts(*, rounds: int, quotes: int, counts: tuple[int, ...]) -> Comparison:
    """The daemon with few and many symbols, equally active, and many ranked as in a market."""
    result = Comparison()
    with RedisServer(dies_with_us=True) as server:
        for _ in range(rounds):
            for count in counts:
                with contextlib.suppress(FileNotFoundError):
                    result.add(_as_run(measure_ceiling(server, symbols=count, entries=quotes), count, quotes))
                result.add(
                    measure_daemon(
                        server, symbols=count, per_frame=10, quotes=quotes, contestant=f"{count} symbols"
                    )
                )
            result.add(
                measure_daemon(
                    server,
                    symbols=counts[-1],
                    per_frame=10,
                    quotes=quotes,
                    activity="ranked",
                    contestant=f"{counts[-1]} symbols, ranked",
                )
            )
    return result

"""From the receipt of a frame to its entries being readable, at a steady pace; and the CPU of a quiet daemon.

Decides pace and sample. Must never know the daemon's inside. A consumer blocks in XREAD on a few of the streams, as
a strategy would, and compares the clock with the receive time that each entry carries, so the figure includes the
server's wake-up, the way back and the reader's own parsing. The first sixth of each run is warming up.
"""

import math
import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.processes import SentinelWatch, control, cpu_s, daemon, source, until
from benchmarks.recording import SENTINEL, symbol_names
from simulator.redis_server import RedisServer
from wire import QUOTE_FIELD, Keyspace, decode_quote

SYMBOLS: Final = 100
FOLLOWED: Final = 5
QUIET_SYMBOLS: Final = 30
KEYS: Final = Keyspace()
_FIELD: Final = QUOTE_FIELD.encode()


@dataclass(frozen=True)
class Latency:
    """Milliseconds from receipt to read, of the followed symbols' quotes; and the daemon's own view: the share of
    batches whose oldest quote was known to be stored within 1 and 5 ms."""

    quotes_per_s: int
    per_frame: int
    samples: int
    median_ms: float
    p99_ms: float
    max_ms: float
    within_1_ms: float
    within_5_ms: float
    daemon_cpu_percent: float


def measure_latency(quotes_per_s: int, *, per_frame: int, duration_s: float) -> Latency:
    """One run at one pace."""
    with RedisServer(dies_with_us=True) as server:
        client = control(server.url)
        names = symbol_names(SYMBOLS)
        client.sadd(KEYS.symbols, *names, SENTINEL)
        with source(SYMBOLS) as feed, daemon(server.url, feed.url) as (child, pages):
            watch = SentinelWatch(client, KEYS)
            feed.load(1000, per_frame)
            feed.go(quotes_per_s)
            watch.wait(child)
            feed.sent()
            count = int(quotes_per_s * duration_s)
            feed.load(count, per_frame)
            reader = _Reader(server.url, names[:FOLLOWED])
            before, before_s, begin_s = _buckets(pages), cpu_s(child.pid), time.monotonic()
            feed.go(quotes_per_s)
            watch.wait(child)
            used_s, elapsed_s = cpu_s(child.pid) - before_s, time.monotonic() - begin_s
            feed.sent()
            after = _buckets(pages)
            samples = sorted(reader.finish()[count * FOLLOWED // SYMBOLS // 6 :])
    batches = after[math.inf] - before[math.inf]
    # fmt: off
    return Latency(
        quotes_per_s, per_frame, len(samples), _quantile(samples, 0.5), _quantile(samples, 0.99), samples[-1],
        (after[0.001] - before[0.001]) / batches, (after[0.005] - before[0.005]) / batches,
        used_s / elapsed_s * 100,
    )
    # fmt: on


def measure_idle(*, duration_s: float) -> float:
    """CPU percent of a daemon with 30 symbols subscribed and no quotes."""
    with RedisServer(dies_with_us=True) as server:
        client = control(server.url)
        client.sadd(KEYS.symbols, *symbol_names(QUIET_SYMBOLS), SENTINEL)
        with source(QUIET_SYMBOLS) as feed, daemon(server.url, feed.url) as (child, _):
            until(
                "the subscription",
                lambda: int(client.hget(KEYS.status, "live") or 0) > QUIET_SYMBOLS,
                child,
            )
            time.sleep(1.0)
            before_s = cpu_s(child.pid)
            time.sleep(duration_s)
            return (cpu_s(child.pid) - before_s) / duration_s * 100


class _Reader:
    """A strategy's loop in a thread: XREAD, look at the clock, go on."""

    def __init__(self, redis_url: str, symbols: list[str]) -> None:
        self._client = control(redis_url)
        self._symbol_of = {KEYS.stream(symbol).encode(): symbol for symbol in symbols}
        self._stop = threading.Event()
        self._replies: list[tuple[int, Any]] = []
        pipe = self._client.pipeline(transaction=False)
        for stream in self._symbol_of:
            pipe.xrevrange(stream, count=1)
        self._last = {
            stream: found[0][0] if found else b"0-0"
            for stream, found in zip(self._symbol_of, pipe.execute(), strict=True)
        }
        self._thread = threading.Thread(target=self._read, name="latency reader")
        self._thread.start()

    def finish(self) -> list[float]:
        """Milliseconds per quote read, in order of arrival."""
        self._stop.set()
        self._thread.join()
        delays_ms = []
        for read_ns, reply in self._replies:
            for stream, entries in reply:
                for entry_id, fields in entries:
                    quote = decode_quote(self._symbol_of[stream], entry_id, fields[_FIELD])
                    assert quote.received_ns is not None
                    delays_ms.append((read_ns - quote.received_ns) / 1e6)
        return delays_ms

    def _read(self) -> None:
        last, replies = self._last, self._replies
        while not self._stop.is_set():
            reply = self._client.xread(last, block=200)
            read_ns = time.time_ns()
            if not reply:
                continue
            replies.append((read_ns, reply))
            for stream, entries in reply:
                last[stream] = entries[-1][0]


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _buckets(pages: str) -> dict[float, float]:
    with urllib.request.urlopen(f"{pages}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    start = 'quotebus_receive_to_stored_seconds_bucket{le="'
    counts = {}
    for line in text.splitlines():
        if line.startswith(start):
            bound, count = line.removeprefix(start).split('"} ')
            counts[math.inf if bound == "+Inf" else float(bound)] = float(count)
    return counts

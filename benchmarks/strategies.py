"""Strategies that read: many at once beside the daemon at work, and one that reads as fast as it can.

Decides how many, what they are compared with, and that a run counts only if every strategy got every entry once and
in order. Must never know how a strategy reads; that is in `benchmarks.strategy`.
"""

import contextlib
import hashlib
import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.processes import (
    MEASURE_TIMEOUT_S,
    BenchmarkFailed,
    Program,
    SentinelWatch,
    control,
    cpu_s,
    daemon,
    program,
    source,
    until,
)
from benchmarks.recording import SENTINEL, make_quotes, symbol_names
from benchmarks.strategy import GO
from simulator.redis_server import RedisServer
from wire import QUOTE_FIELD, Keyspace, encode_latest, encode_quote, entry_id_at

KEYS: Final = Keyspace()
PIPELINE: Final = 1_000


@dataclass(frozen=True)
class Told:
    """What one strategy said at its end; CPU in us per quote that it got."""

    kind: str
    count: int
    gaps: int
    conflated: int
    elapsed_s: float
    cpu_us: float
    cpu_percent: float
    median_ms: float | None
    p99_ms: float | None
    digests: dict[str, list[Any]]

    @property
    def cpu_us_per_entry(self) -> float:
        """Of all that it read, what it passed over included."""
        return self.cpu_us * self.count / (self.count + self.conflated)


@dataclass(frozen=True)
class FanOut:
    """Many strategies beside one daemon."""

    strategies: list[Told]
    plain: Told
    quotes: int
    quotes_per_s: int
    server_cpu_percent: float
    daemon_cpu_percent: float


def measure_fan_out(*, strategies: int, symbols: int, quotes_per_s: int, duration_s: float) -> FanOut:
    """So many strategies of the library, and one loop by hand, all of them reading all symbols of one daemon."""
    count = int(quotes_per_s * duration_s)
    with RedisServer(dies_with_us=True) as server, contextlib.ExitStack() as children:
        client = control(server.url)
        client.sadd(KEYS.symbols, *symbol_names(symbols), SENTINEL)
        feed = children.enter_context(source(symbols))
        child, _ = children.enter_context(
            daemon(server.url, feed.url, QUOTEBUS_STREAM_MAXLEN=str(max(count, 10_000)))
        )
        watch = SentinelWatch(client, KEYS)
        feed.load(2_000, 10)
        feed.go()
        watch.wait(child)
        feed.sent()
        kinds = ["quotes"] * strategies + ["xread-msgspec"]
        readers = [
            children.enter_context(
                program(
                    "-m",
                    "benchmarks.strategy",
                    kind,
                    server.url,
                    "--symbols",
                    str(symbols),
                    "--ids",
                    "--count",
                    str(count),
                )
            )
            for kind in kinds
        ]
        for reader in readers:
            until("a strategy's start", lambda r=reader: GO in r.output, reader)
        until(
            "their waiting for the next entry",
            lambda: int(client.info("clients")["blocked_clients"]) >= len(readers),
            *readers,
        )
        before = _ends(client, symbols)
        used_s = cpu_s(child.pid), cpu_s(server.pid)
        begin_s = time.monotonic()
        feed.load(count, 10)
        feed.go(quotes_per_s)
        watch.wait(child, *readers, timeout_s=duration_s * 4 + 60)
        took_s = time.monotonic() - begin_s
        feed.sent()
        percent = [
            (cpu_s(p) - u) / took_s * 100 for p, u in zip((child.pid, server.pid), used_s, strict=True)
        ]
        told = [_hear(kind, reader) for kind, reader in zip(kinds, readers, strict=True)]
        truth = _truth(client, symbols, before)
    for one in told:
        _compare(one, truth)
    return FanOut(told[:-1], told[-1], count, quotes_per_s, percent[1], percent[0])


def measure_hand_over(*, quotes: int, symbols: int, joins: int) -> list[Told]:
    """Strategies that join, one after the other, a feed at full speed: the newest first, then all that follows."""
    with RedisServer(dies_with_us=True) as server, contextlib.ExitStack() as children:
        client = control(server.url)
        client.sadd(KEYS.symbols, *symbol_names(symbols), SENTINEL)
        feed = children.enter_context(source(symbols))
        # At this pace the recording's own times fall behind, which is no reason for a new session here.
        settings = {
            "QUOTEBUS_STREAM_MAXLEN": str(max(quotes, 10_000)),
            "QUOTEBUS_VENDOR_LAG_LIMIT_S": "3600",
        }
        child, _ = children.enter_context(daemon(server.url, feed.url, **settings))
        watch = SentinelWatch(client, KEYS)
        # Every symbol needs something in its stream, so that there is a snapshot to take.
        feed.load(symbols * 20, 10)
        feed.go()
        watch.wait(child)
        feed.sent()
        feed.load(quotes, 10)
        feed.go(PACE)
        readers = []
        for _ in range(joins):
            arguments = ("quotes", server.url, "--symbols", str(symbols), "--ids", "--start", "snapshot")
            reader = children.enter_context(program("-m", "benchmarks.strategy", *arguments))
            readers.append(reader)
            until("a strategy's start", lambda r=reader: GO in r.output, reader, child)
        watch.wait(child, *readers, timeout_s=300)
        feed.sent()
        told = [_hear("quotes", reader) for reader in readers]
        for one in told:
            _compare(one, _truth(client, symbols, {s: f"[{d[2]}" for s, d in one.digests.items()}))
    return told


PACE: Final = 25_000


def measure_reading(*, rounds: int, quotes: int, symbols: int, kinds: list[str]) -> list[Told]:
    """Each kind in turn, `rounds` times, reads streams that are full already, from the first entry to the last."""
    found = []
    with RedisServer(dies_with_us=True) as server:
        append_quotes(control(server.url), quotes, symbols)
        for _ in range(rounds):
            for kind in kinds:
                arguments = ("--symbols", str(symbols), "--start", "earliest", "--count", str(quotes))
                with program("-m", "benchmarks.strategy", kind, server.url, *arguments) as reader:
                    found.append(_hear(kind, reader))
                if (read := found[-1].count + found[-1].conflated) != quotes:
                    raise BenchmarkFailed(f"{kind} read {read} of {quotes} quotes")
    return found


def append_quotes(client: Any, quotes: int, symbols: int) -> None:
    """Write so many quotes, the last one the sentinel's, as the contract asks, in a thousand per pipeline."""
    names = symbol_names(symbols)
    first_ns = time.time_ns() - quotes * 1_000
    made: Iterator[Any] = iter(make_quotes(quotes, names, first_ns, "equal"))
    rng = random.Random(quotes)
    while chunk := list(itertools.islice(made, PIPELINE)):
        pipe = client.pipeline(transaction=False)
        for quote in chunk:
            row = (
                quote.bid_price, quote.bid_size, quote.bid_exchange, quote.ask_price, quote.ask_size,
                quote.ask_exchange, ["R"], "C", quote.t_ns, rng.randrange(1_000, 9_000),
            )  # fmt: skip
            entry_id = str(entry_id_at(quote.t_ns))
            pipe.xadd(KEYS.stream(quote.symbol), {QUOTE_FIELD: encode_quote(row)}, entry_id)
            pipe.hset(KEYS.latest, quote.symbol, encode_latest(quote.symbol, entry_id, row))
        pipe.execute()


def _hear(kind: str, reader: Program) -> Told:
    until("a strategy's account", lambda: '"count"' in reader.output, reader, timeout_s=MEASURE_TIMEOUT_S)
    words = json.loads(reader.output.strip().splitlines()[-1])
    count, elapsed_s = words["count"], words["elapsed_s"]
    return Told(
        kind, count, words["gaps"], words["conflated"], elapsed_s, words["cpu_s"] / count * 1e6,
        words["cpu_s"] / elapsed_s * 100, words["median_ms"], words["p99_ms"], words["digests"],
    )  # fmt: skip


def _ends(client: Any, symbols: int) -> dict[str, str]:
    """Symbol -> where what comes next begins, as XRANGE wants it."""
    ends = {}
    for symbol in (*symbol_names(symbols), SENTINEL):
        newest = client.xrevrange(KEYS.stream(symbol), count=1)
        ends[symbol] = f"({newest[0][0].decode()}" if newest else "-"
    return ends


def _truth(client: Any, symbols: int, begins: dict[str, str]) -> dict[str, list[Any]]:
    truth = {}
    for symbol in (*symbol_names(symbols), SENTINEL):
        if symbol not in begins:
            continue
        low = begins[symbol].removeprefix("[")
        entries = client.xrange(KEYS.stream(symbol), low, "+")
        ids = [entry_id for entry_id, fields in entries if QUOTE_FIELD.encode() in fields]
        if ids:
            truth[symbol] = [
                len(ids),
                hashlib.blake2b(b"".join(ids), digest_size=8).hexdigest(),
                ids[0].decode(),
            ]
    return truth


def _compare(told: Told, truth: dict[str, list[Any]]) -> None:
    wrong = [symbol for symbol, digest in truth.items() if told.digests.get(symbol) != digest]
    if wrong or told.digests.keys() != truth.keys():
        expected = sum(digest[0] for digest in truth.values())
        raise BenchmarkFailed(
            f"a strategy did not get every entry once and in order: {told.count} of {expected}, "
            f"{len(wrong)} symbols differ, the first is {wrong[:1]}"
        )

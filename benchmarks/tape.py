"""A recorded day through everything: simulator, daemon, Redis; and every field of every quote compared.

Decides what counts as equal. Must never know how a tape is replayed or stored. The replay is as fast as the double
can be read, with the tape's own times.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import control, cpu_s, daemon, program, until
from simulator.frames import SimQuote
from simulator.redis_server import RedisServer
from simulator.tape import read_tape
from wire import QUOTE_FIELD, Keyspace, Quote, decode_quote

KEYS: Final = Keyspace()
PAGE: Final = 5_000
COMMAND: Final = "from ingestor.entry import main; main()"
_FIELD: Final = QUOTE_FIELD.encode()


@dataclass(frozen=True)
class TapeRun:
    """What became of a tape. `difference` is the first one found, or None."""

    quotes: int
    symbols: int
    elapsed_s: float
    daemon_cpu_us: float
    adjusted_ids: int
    difference: str | None


def replay(path: Path, symbol: str | None = None) -> TapeRun:
    """Replay and compare."""
    rows: dict[str, list[SimQuote]] = defaultdict(list)
    for row in read_tape(path, symbol):
        rows[row.symbol].append(row)
    total = sum(map(len, rows.values()))
    options = ["--tape", str(path), "--speed", "0", "--rate", "0", "--port", "0"]
    if symbol is not None:
        options += ["--tape-symbol", symbol]
    with RedisServer(dies_with_us=True) as server, program("-c", COMMAND, "simulate", *options) as double:
        until("the simulator", lambda: _addresses(double.output), double)
        feed_url = _addresses(double.output)[0]
        client = control(server.url)
        client.sadd(KEYS.symbols, *rows)
        unbounded = {"QUOTEBUS_STREAM_MAXLEN": "0", "QUOTEBUS_STREAM_MAX_AGE_S": "0"}
        with daemon(server.url, feed_url, **unbounded) as (child, _):
            until("the first quote", lambda: _stored(client, rows), child, double)
            begin_s, begin_cpu_s = time.monotonic(), cpu_s(child.pid)
            until_stored(client, rows, total, child)
            elapsed_s = time.monotonic() - begin_s
            used_s = cpu_s(child.pid) - begin_cpu_s
            difference, adjusted = _compare(client, rows)
    return TapeRun(total, len(rows), elapsed_s, used_s / total * 1e6, adjusted, difference)


def until_stored(client: Any, rows: dict[str, list[SimQuote]], total: int, child: Any) -> None:
    """Wait for all rows, or for the count to stand still."""
    count, since_s = 0, time.monotonic()
    while count < total and time.monotonic() - since_s < 10:
        child.check()
        time.sleep(0.02)
        before, count = count, _stored(client, rows)
        if count != before:
            since_s = time.monotonic()


def _addresses(output: str) -> list[str]:
    return [line.strip() for line in output.splitlines(keepends=True) if re.match(r"wss?://.*\n", line)]


def _stored(client: Any, rows: dict[str, list[SimQuote]]) -> int:
    pipe = client.pipeline(transaction=False)
    for symbol in rows:
        pipe.xlen(KEYS.stream(symbol))
    return int(sum(pipe.execute()))


def _compare(client: Any, rows: dict[str, list[SimQuote]]) -> tuple[str | None, int]:
    adjusted = 0
    for symbol, expected in rows.items():
        entries = _entries(client, symbol)
        for number, row in enumerate(expected, 1):
            quote = next(entries, None)
            if quote is None:
                return f"{symbol}: {number - 1} quotes are stored, the tape has {len(expected)}", adjusted
            found, wanted = _fields(quote), _wanted(row)
            if found != wanted:
                return f"{symbol}, quote {number}: stored {found}, the tape has {wanted}", adjusted
            ms, n = (quote.id or "").split("-")
            adjusted += int(ms) * 1_000_000 + int(n) // 1000 != row.t_ns or int(n) % 1000 != 0
        if next(entries, None) is not None:
            return f"{symbol}: more is stored than the {len(expected)} quotes of the tape", adjusted
    return None, adjusted


def _entries(client: Any, symbol: str) -> Iterator[Quote]:
    after = "-"
    while page := client.xrange(KEYS.stream(symbol), after, "+", PAGE):
        for entry_id, fields in page:
            yield decode_quote(symbol, entry_id.decode(), fields.get(_FIELD, b"(no quote)"))
        after = f"({page[-1][0].decode()}"


def _fields(quote: Quote) -> tuple[object, ...]:
    # fmt: off
    return (
        quote.time_ns, quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size,
        quote.bid_exchange, quote.ask_exchange, quote.conditions, quote.tape,
    )
    # fmt: on


def _wanted(row: SimQuote) -> tuple[object, ...]:
    # fmt: off
    return (
        row.t_ns, row.bid_price or None, row.bid_size, row.ask_price or None, row.ask_size,
        row.bid_exchange, row.ask_exchange, row.conditions, row.tape,
    )
    # fmt: on

"""`python -m benchmarks`: everything in one run, or a tape.

Decides what is run, how long, and which limits the figures are held against. Must never measure by itself.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.departures import measure_claims, measure_leases, measure_trimming
from benchmarks.end_to_end import FRAME_SIZES, LOOPS, Comparison, compare, compare_symbol_counts
from benchmarks.latency import Latency, measure_idle, measure_latency
from benchmarks.processes import BenchmarkFailed
from benchmarks.receive import measure_readers
from benchmarks.report import Cell, Limit, Report, Table
from benchmarks.stages import measure_stages
from benchmarks.strategies import measure_fan_out, measure_hand_over, measure_reading
from benchmarks.tape import replay
from simulator.redis_server import ServerUnavailable, find_server
from simulator.tape import BadTape

SYMBOL_COUNTS: Final = (10, 100, 1_000, 10_000)
READING_KINDS: Final = {
    "quotes": "the library, one by one",
    "batches": "the library, in batches",
    "newest": "the library, latest-only",
    "sync": "the library, synchronous",
    "xread": "redis-py XREAD, json.loads",
    "xread-msgspec": "redis-py XREAD, the library's decoder",
}
ALPACA_KINDS: Final = ("alpaca-py", "alpaca-py, models")
LOOP_NAMES: Final = {
    "awaited": "redis-py, each XADD and HSET awaited",
    "pipeline": "redis-py pipeline of 200, XADD and HSET each",
    "pipeline-best": "redis-py pipeline of 200, cache once per pipeline",
}


def end_to_end(report: Report, quick: bool) -> None:
    """The comparison."""
    result = compare(rounds=1 if quick else 3, quotes=100_000 if quick else 300_000)
    ceiling = result.ceiling_rate
    rows = [_path_row(result, name, ceiling) for name in result.runs]
    if ceiling is not None:
        server_us = median(c.server_cpu_us for c in result.ceilings)
        rows.append(("redis-benchmark -P 200, XADD alone", ceiling, 1.0, None, server_us, None))
    report.add(
        Table(
            "From websocket to stored in Redis, 100 symbols",
            "medians; CPU in us per quote; the loops get 10 quotes per frame; the daemon runs as it comes",
            ("", "quotes/s", "of ceiling", "writer CPU", "server CPU", "source CPU"),
            rows,
        )
    )
    if result.ceiling_problem is not None:
        report.remark(f"no ceiling: {result.ceiling_problem}")
    best = max(result.rate(f"quotebus, {size} per frame") for size in FRAME_SIZES)
    same = result.rate("quotebus, 10 per frame")
    if ceiling is not None:
        report.limits.append(
            Limit("rate / redis-benchmark, best frame size", "at least", 0.9, best / ceiling)
        )
    report.limits += [
        Limit("rate / awaited redis-py", "at least", 20, same / result.rate("awaited")),
        Limit(
            "rate / best redis-py pipeline",
            "at least",
            6,
            same / max(result.rate(kind) for kind in LOOPS if kind != "awaited"),
        ),
    ]


def _path_row(result: Comparison, name: str, ceiling: float | None) -> tuple[Cell, ...]:
    runs = result.runs[name]
    rate = result.rate(name)
    return (
        LOOP_NAMES.get(name, name),
        rate,
        rate / ceiling if ceiling else None,
        median(run.writer_cpu_us for run in runs),
        median(run.server_cpu_us for run in runs),
        median(run.source_cpu_us for run in runs),
    )


def symbols(report: Report, quick: bool) -> None:
    """Few and many symbols."""
    counts = (10, 10_000) if quick else SYMBOL_COUNTS
    result = compare_symbol_counts(
        rounds=1 if quick else 3, quotes=100_000 if quick else 200_000, counts=counts
    )
    report.add(
        Table(
            "Number of symbols, 10 quotes per frame",
            "medians; CPU in us per quote; all equally active, or by rank as in a market",
            ("", "quotes/s", "writer CPU", "server CPU"),
            [
                (
                    name,
                    result.rate(name),
                    median(run.writer_cpu_us for run in runs),
                    median(run.server_cpu_us for run in runs),
                )
                for name, runs in sorted(result.runs.items(), key=lambda item: item[0].startswith("redis"))
            ],
        )
    )
    few = result.rate(f"{counts[0]} symbols")
    report.limits += [
        Limit(
            "cost at 10 000 symbols / at 10, ranked",
            "at most",
            1.3,
            few / result.rate("10000 symbols, ranked"),
        ),
        Limit("cost at 10 000 symbols / at 10, equal", "at most", 1.3, few / result.rate("10000 symbols")),
    ]


def receive(report: Report, quick: bool) -> None:
    """Transports and decoders."""
    readings = measure_readers(rounds=1 if quick else 2, quotes=60_000 if quick else 120_000)
    readers = list(dict.fromkeys(reading.reader for reading in readings))
    sizes = sorted({reading.per_frame for reading in readings})
    report.add(
        Table(
            "Receiving alone",
            "medians of CPU in us per quote, websocket to decoded",
            ("", *(f"{size} per frame" for size in sizes)),
            [
                (
                    reader,
                    *(
                        median(r.cpu_us for r in readings if (r.reader, r.per_frame) == (reader, size))
                        for size in sizes
                    ),
                )
                for reader in readers
            ],
        )
    )


def latency(report: Report, quick: bool) -> None:
    """Paced, and quiet."""
    duration_s = 3.0 if quick else 6.0
    runs = [
        measure_latency(2_000, per_frame=1, duration_s=duration_s),
        measure_latency(20_000, per_frame=10, duration_s=duration_s),
    ]
    report.add(
        Table(
            "From frame received to entry read by a consumer, 100 symbols",
            "ms; the daemon's own histogram ends at the server's answer",
            ("quotes/s", "median", "p99", "max", "stored < 1 ms", "stored < 5 ms", "daemon CPU %", "samples"),
            [_latency_row(run) for run in runs],
        )
    )
    idle = measure_idle(duration_s=4.0 if quick else 10.0)
    report.add(Table("Quiet", "", ("", "CPU %"), [("30 symbols, no quotes", idle)]))
    fast = runs[-1]
    report.limits += [
        Limit("ms at 20 000 quotes/s, median", "at most", 1.0, fast.median_ms),
        Limit("ms at 20 000 quotes/s, p99", "at most", 5.0, fast.p99_ms),
        Limit("CPU % with 30 quiet symbols", "at most", 1.0, idle),
    ]


def _latency_row(run: Latency) -> tuple[Cell, ...]:
    return (
        f"{run.quotes_per_s:,}",
        run.median_ms,
        run.p99_ms,
        run.max_ms,
        run.within_1_ms,
        run.within_5_ms,
        run.daemon_cpu_percent,
        run.samples,
    )


def reading(report: Report, quick: bool) -> None:
    """One strategy that reads as fast as it can."""
    rounds, quotes = (1, 100_000) if quick else (3, 300_000)
    told = measure_reading(rounds=rounds, quotes=quotes, symbols=100, kinds=list(READING_KINDS))
    rates: dict[str, float] = {}
    rows: list[tuple[Cell, ...]] = []
    for kind, name in READING_KINDS.items():
        runs = [one for one in told if one.kind == kind]
        rates[name] = median((one.count + one.conflated) / one.elapsed_s for one in runs)
        rows.append((name, rates[name], median(one.cpu_us_per_entry for one in runs)))
    direct = measure_readers(rounds=rounds, quotes=quotes // 2, readers=ALPACA_KINDS, sizes=(10,))
    for kind in ALPACA_KINDS:
        found = [one for one in direct if one.reader == kind]
        name = f"{kind}, 10 per frame"
        rates[name] = median(one.quotes_per_s for one in found)
        rows.append((name, rates[name], median(one.cpu_us for one in found)))
    report.add(
        Table(
            "One strategy reads 100 symbols as fast as it can",
            "medians; CPU in us per quote; from full streams, or from a websocket that is as fast",
            ("", "quotes/s", "reader CPU"),
            rows,
        )
    )
    library = rates[READING_KINDS["quotes"]]
    report.limits += [
        Limit(
            "reading / redis-py XREAD with json.loads",
            "at least",
            1.5,
            library / rates[READING_KINDS["xread"]],
        ),
        Limit("reading / alpaca-py with models", "at least", 3, library / rates[rows[-1][0]]),  # type: ignore[index]
    ]


def strategies(report: Report, quick: bool) -> None:
    """Many at once; and many that join a feed at full speed."""
    run = measure_fan_out(strategies=20, symbols=200, quotes_per_s=5_000, duration_s=6 if quick else 20)
    told = sorted(one.cpu_percent for one in run.strategies)
    medians = [one.median_ms for one in run.strategies if one.median_ms is not None]
    tails = [one.p99_ms for one in run.strategies if one.p99_ms is not None]
    rows: list[tuple[Cell, ...]] = [
        ("20 strategies of the library", median(medians), median(tails), max(tails), median(told), told[-1]),
        (
            "beside them: redis-py's XREAD", run.plain.median_ms, run.plain.p99_ms, run.plain.p99_ms,
            run.plain.cpu_percent, run.plain.cpu_percent,
        ),
    ]  # fmt: skip
    report.add(
        Table(
            f"{len(run.strategies)} strategies, 200 symbols, {run.quotes_per_s:,} quotes/s, {run.quotes:,} to each",
            "every entry once, in order; ms from receipt by the daemon to the item in the loop; CPU % of "
            f"one process; daemon {run.daemon_cpu_percent:.0f} %, server {run.server_cpu_percent:.0f} %",
            ("", "median", "p99", "worst p99", "CPU %", "most CPU %"),
            rows,
        )
    )
    joined = measure_hand_over(quotes=100_000 if quick else 1_000_000, symbols=100, joins=4 if quick else 10)
    report.add(
        Table(
            "Snapshot and follow: strategies that join a feed at full speed",
            "each got the newest quote of every symbol and all that followed, once, in order",
            ("", "quotes read", "gaps"),
            [(f"strategy {number}", one.count, one.gaps) for number, one in enumerate(joined, 1)],
        )
    )


def departures(report: Report, quick: bool) -> None:
    """Strategies that go, and one that falls behind."""
    rows: list[tuple[Cell, ...]] = [
        ("a strategy is interrupted: seconds until unsubscribed", measure_leases(kill=False)),
        ("a strategy is killed: seconds until unsubscribed", measure_leases(kill=True)),
    ]
    for claim_after_s in (5.0,) if quick else (5.0, 30.0):
        claims = measure_claims(claim_after_s=claim_after_s, entries=100)
        name = f"a worker is killed, claim_after_s={claim_after_s:g}: seconds until another has its"
        rows += [(f"{name} first entry", claims.first_s), (f"{name} last of {claims.entries}", claims.last_s)]
    told = measure_trimming(kept=1_000, written=10_000)
    rows += [
        ("a reader sleeps while 10,000 come and 1,000 are kept: quotes read", told.read),
        ("and told as trimmed, in gaps", sum(missing or 0 for missing in told.gaps)),
        ("gaps", len(told.gaps)),
    ]
    report.add(Table("Strategies that go, or fall behind", "", ("", "figure"), rows))


def stages(report: Report, quick: bool) -> None:
    """The hot path, cut up."""
    measured = measure_stages(rounds=3 if quick else 7, quotes=30_000)
    sizes = sorted({stage.per_frame for stage in measured if stage.per_frame})
    names = list(dict.fromkeys(stage.name for stage in measured))
    found = {(stage.name, stage.per_frame): stage.us for stage in measured}
    report.add(
        Table(
            "Stages of the hot path, in process",
            "best of several rounds, us per quote",
            ("", *(f"{size} per frame" for size in sizes)),
            [(name, *(found.get((name, size), found.get((name, 0))) for size in sizes)) for name in names],
        )
    )


SECTIONS: Final[dict[str, Callable[[Report, bool], None]]] = {
    "stages": stages,
    "end-to-end": end_to_end,
    "symbols": symbols,
    "receive": receive,
    "latency": latency,
    "reading": reading,
    "strategies": strategies,
    "departures": departures,
}


def tape(path: Path, symbol: str | None) -> int:
    """A tape through everything; 0 if every field of every quote arrived."""
    run = replay(path, symbol)
    print(
        f"{run.quotes:,} quotes of {run.symbols} symbols in {run.elapsed_s:.2f} s, "
        f"{run.quotes / run.elapsed_s:,.0f}/s; daemon {run.daemon_cpu_us:.2f} us of CPU per quote; "
        f"{run.adjusted_ids:,} ids follow their predecessor (ties, times out of order)"
    )
    print(run.difference or "stored = tape: count, order and every field")
    return 1 if run.difference else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the daemon beside its rivals."
    )
    parser.add_argument("--quick", action="store_true", help="one round of everything, under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="this section alone; may be repeated"
    )
    parser.add_argument(
        "--tape", type=Path, metavar="PATH", help="replay this CSV or CSV.gz and compare instead"
    )
    parser.add_argument(
        "--tape-symbol", metavar="SYMBOL", help="its symbol; default: the file name up to '-'"
    )
    options = parser.parse_args()
    begin_s = time.monotonic()
    try:
        if options.tape is not None:
            return tape(options.tape, options.tape_symbol)
        report = Report(_server_version())
        print(f"{report.server}\n")
        for name in options.only or SECTIONS:
            SECTIONS[name](report, options.quick)
    except (BenchmarkFailed, BadTape, ServerUnavailable) as problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    report.print_limits()
    if options.json is not None:
        report.write_json(options.json)
    print(f"took {time.monotonic() - begin_s:.0f} s")
    return 0


def _server_version() -> str:
    done = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or find_server()


if __name__ == "__main__":
    sys.exit(main())

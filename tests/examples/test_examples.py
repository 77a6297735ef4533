"""Each example does what `examples/README.md` says of it, with a daemon that nobody told which symbols to have."""

import asyncio
import contextlib
import itertools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from simulator import AlpacaSimulator, SimQuote
from simulator.redis_server import RedisServer
from tests.examples.conftest import EXAMPLES, StartExample, until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, gaps, numbered, numbers

pytestmark = pytest.mark.timeout(180)
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.p[yl]"))
PERL = shutil.which("perl")


def fresh(symbol: str, first: int, count: int) -> list[SimQuote]:
    """Numbered quotes of the last seconds."""
    return numbered(symbol, first, count, base_ns=time.time_ns() - 5_000_000_000)


async def wanted(vendor: AlpacaSimulator, *symbols: str) -> None:
    """Wait until the program's leases have had these subscribed."""
    await vendor.wait_for(lambda: vendor.symbols >= set(symbols), 30)


async def break_feed(vendor: AlpacaSimulator, *symbols: str) -> None:
    """Cut the daemon's connection, and wait until it is back."""
    before = len(vendor.closed)
    vendor.drop(ghost=False)
    await vendor.wait_for(lambda: len(vendor.closed) > before and vendor.symbols == set(symbols), 30)


async def blocked(redis: Redis, count: int = 1) -> None:
    """Wait until so many readers wait for the next entry."""

    async def enough() -> bool:
        return int((await redis.info("clients"))["blocked_clients"]) >= count

    await until(enough, 30)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith(".py")])
async def test_every_program_tells_its_usage(start: StartExample, name: str) -> None:
    """Without arguments each says in one line how it is called."""
    example = start(name)
    assert re.fullmatch(rf"usage: python examples/{name} .+\n", await example.ends(1))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("quick_start.py", "AAPL"),
        ("callbacks.py", "brk/b"),
        ("several_streams.py", "AAPL MSFT"),
        ("two_symbols.py", "AAPL brk/b"),
        ("with_callback.py", "brk/b 3"),
        ("concurrent_streams.py", "AAPL brk/b"),
        ("dashboard.py", "AAPL"),
        ("without_await.py", "AAPL"),
        ("checkpoint.py", "positions.json AAPL"),
        ("group_worker.py", "g w AAPL"),
        ("toy_strategy.py", "AAPL"),
        ("analysis.py", "AAPL 10 x.png"),
    ],
)
async def test_a_mistake_is_told_in_words(start: StartExample, name: str, arguments: str) -> None:
    """No server behind the URL, or a name that is no symbol: a sentence, and no traceback."""
    example = start(name, "redis://127.0.0.1:1/0", *arguments.split())
    errors = await example.ends(1)
    assert "Traceback" not in errors
    assert re.search(r"127\.0\.0\.1:1\S* is not usable|^symbol 'brk/b': ", errors), errors


def test_the_index_names_every_program() -> None:
    """The table of `examples/README.md` has each file that is there, and no other."""
    named = re.findall(r"^\| \[`([^`]+)`\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == PROGRAMS


async def test_quick_start(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """The cached quote, everything after it, and a gap when the feed breaks; the symbols are leased by the loop."""
    example = start("quick_start.py", shared_server.url, "AAPL", "MSFT")
    await example.until_prints("^in the cache: nothing yet$")
    await wanted(vendor, "AAPL", "MSFT")
    vendor.send([*fresh("AAPL", 1, 3), *fresh("MSFT", 1, 2)])
    await example.until_prints(r"^AAPL +100\.25 x 100\.27$")
    await until(lambda: count_is(example.lines, "100.25 x 100.27", 5), 30)
    await break_feed(vendor, "AAPL", "MSFT")
    vendor.send(fresh("AAPL", 4, 1))
    await example.until_prints(r"^AAPL +\d+\.\d{3} s are missing: feed_disconnected$")
    await example.interrupt()
    await vendor.wait_for(lambda: not vendor.symbols, 30)


async def count_is(lines: list[str], word: str, count: int) -> bool:
    """Whether so many lines have this word."""
    return sum(word in line for line in lines) == count


async def test_two_symbols(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """One loop has the quotes of both symbols, which nobody else has asked for."""
    example = start("two_symbols.py", shared_server.url, "AAPL", "MSFT")
    await wanted(vendor, "AAPL", "MSFT")
    vendor.send([*fresh("AAPL", 1, 3), *fresh("MSFT", 1, 2)])
    await until(lambda: count_is(example.lines, " 100.2", 5), 30)
    assert sorted(line.split()[0] for line in example.lines) == ["AAPL"] * 3 + ["MSFT"] * 2
    await example.interrupt()
    await vendor.wait_for(lambda: not vendor.symbols, 30)


async def test_with_callback(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """Called for each quote before the loop has it; one that it fails at is counted, and the loop has it too."""
    example = start("with_callback.py", shared_server.url, "AAPL", "4")
    await wanted(vendor, "AAPL")
    first, second, third, fourth = fresh("AAPL", 1, 4)
    bids = [
        replace(first, bid_price=100.25),
        replace(second, bid_price=100.27),
        replace(third, bid_price=0.0),
        replace(fourth, bid_price=100.26),
    ]
    vendor.send(bids)
    errors = await example.ends()
    assert example.lines == [
        "   1 AAPL 100.25, highest 100.25",
        "   2 AAPL 100.27, highest 100.27",
        "   3 AAPL None, highest 100.27",
        "   4 AAPL 100.26, highest 100.27",
        "1 errors in the callback",
    ]
    assert "nobody bids for AAPL" in errors


async def test_concurrent_streams(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """The slow stream holds nobody up; when it ends, its symbol is given back, and the other goes on."""
    example = start("concurrent_streams.py", shared_server.url, "AAPL", "MSFT")
    await wanted(vendor, "AAPL", "MSFT")
    await blocked(redis, 2)
    vendor.send([*fresh("MSFT", 1, 3), *fresh("AAPL", 1, 5)])
    await until(lambda: count_is(example.lines, "fast AAPL 100.2", 5), 30)
    await example.until_prints(r"^slow has ended, \['AAPL'\] goes on$")
    assert await count_is(example.lines, "slow MSFT 100.2", 3)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 30)
    vendor.send(fresh("AAPL", 6, 1))
    await until(lambda: count_is(example.lines, "fast AAPL 100.2", 6), 30)
    await example.interrupt()


async def test_checkpoint(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """Killed without a chance to say goodbye, it goes on where it had saved: every quote once."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await wanted(vendor, "AAPL")
    first = start("checkpoint.py", shared_server.url, "positions.json", "AAPL")
    vendor.send(fresh("AAPL", 1, 100))
    await first.until_prints(r"^read \{'AAPL': 100\}$")
    first.process.kill()
    vendor.send(fresh("AAPL", 101, 50))
    await until(lambda: stored_is(redis, "AAPL", 150), 30)
    second = start("checkpoint.py", shared_server.url, "positions.json", "AAPL")
    await second.until_prints(r"^read \{'AAPL': 50\}$")
    await second.interrupt()
    assert "positions are in positions.json" in second.out


async def stored_is(redis: Redis, symbol: str, count: int) -> bool:
    """Whether the stream has so many quotes."""
    return len(await numbers(redis, symbol)) == count


async def test_callbacks(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """Callbacks of both kinds are called for each quote, and the failing one is counted."""
    example = start("callbacks.py", shared_server.url, "AAPL", "MSFT")
    await wanted(vendor, "AAPL", "MSFT")
    vendor.send([*fresh("AAPL", 1, 3), *fresh("MSFT", 1, 2)])
    await until(lambda: count_is(example.lines, "100.25 x 100.27", 5), 30)
    example.process.send_signal(signal.SIGINT)
    errors = await example.ends()
    assert "5 quotes, 3 errors in callbacks" in example.out
    assert "widest spreads: {'AAPL': 0.02, 'MSFT': 0.02}" in example.out
    assert "no idea what to do with AAPL" in errors


async def test_several_streams(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """One loop gets every quote, one the newest of the others, one what was there before."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await wanted(vendor, "AAPL")
    vendor.send(fresh("AAPL", 1, 7))
    await until(lambda: stored_is(redis, "AAPL", 7), 30)
    example = start("several_streams.py", shared_server.url, "AAPL", "MSFT", "TSLA")
    await example.until_prints("^before  AAPL 7 entries in the last minute$")
    await wanted(vendor, "AAPL", "MSFT", "TSLA")
    await blocked(redis, 2)
    vendor.send([*fresh("AAPL", 8, 4), *fresh("MSFT", 1, 5), *fresh("TSLA", 1, 1)])
    await until(lambda: count_is(example.lines, "every ", 4), 30)
    await example.until_prints(r"^newest MSFT 100\.25 \(\d+ passed over\)$")
    await example.until_prints(r"^newest TSLA 100\.25 \(0 passed over\)$")
    await example.interrupt()


async def test_group_worker(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """Two workers share, each entry goes to one of them."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await wanted(vendor, "AAPL")
    vendor.send(fresh("AAPL", 1, 1))
    await until(lambda: stored_is(redis, "AAPL", 1), 30)
    workers = [
        start("group_worker.py", shared_server.url, "readme", name, "AAPL")
        for name in ("worker-1", "worker-2")
    ]
    await blocked(redis, 2)
    sent = itertools.count(2)

    async def both_have_worked() -> bool:
        vendor.send(fresh("AAPL", next(sent), 1))
        return all(": AAPL " in worker.out for worker in workers)

    await until(both_have_worked, 60)
    count = next(sent) - 2

    async def all_is_done() -> bool:
        return sum(worker.out.count(": AAPL ") for worker in workers) >= count

    await until(lambda: stored_is(redis, "AAPL", count + 1), 30)
    await until(all_is_done, 30)
    for worker in workers:
        await worker.interrupt()
    ids = [line.split()[2] for worker in workers for line in worker.lines if ": AAPL " in line]
    assert len(ids) == len(set(ids)) == count
    assert [worker.lines[-1].endswith("done, 0 not acknowledged") for worker in workers] == [True, True]


async def test_dashboard(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """Without a terminal a line per symbol and second, with prices, quality and how many were passed over."""
    example = start("dashboard.py", shared_server.url, "AAPL", "MSFT")
    await wanted(vendor, "AAPL", "MSFT")
    await blocked(redis)
    vendor.send(fresh("AAPL", 1, 20))
    await example.until_prints(r"^AAPL +100\.25 +100\.27 +0\.02 +\d+  live$")
    await example.until_prints(r"^MSFT +- +- +- +-  quiet$")
    await example.interrupt()


async def test_without_await(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """A plain loop with a time limit says when nothing came, and prints what does."""
    example = start("without_await.py", shared_server.url, "AAPL")
    await example.until_prints("^nothing for a second$")
    await wanted(vendor, "AAPL")
    vendor.send(fresh("AAPL", 1, 3))
    await until(lambda: count_is(example.lines, "100.25 x 100.27", 3), 30)
    await example.interrupt()


async def test_drop_in(
    redis: Redis, vendor: AlpacaSimulator, daemon: DaemonProcess, start: StartExample
) -> None:
    """alpaca-py's documented script, after its one changed line, gets alpaca-py's own quotes."""
    example = start("drop_in.py", "AAPL")
    await wanted(vendor, "AAPL")
    await blocked(redis)
    vendor.send(fresh("AAPL", 1, 2))
    await until(lambda: count_is(example.lines, "bid_price=100.25", 2), 30)
    await example.interrupt()
    assert example.lines[-1] == "keyboard interrupt, bye"


async def test_analysis(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
    tmp_path: Path,
) -> None:
    """A table, and a picture on disk."""
    await redis.sadd(KEYS.symbols, "AAPL")
    await wanted(vendor, "AAPL")
    vendor.send(fresh("AAPL", 1, 50))
    await until(lambda: stored_is(redis, "AAPL", 50), 30)
    await break_feed(vendor, "AAPL")
    vendor.send(fresh("AAPL", 51, 50))
    await until(lambda: stored_is(redis, "AAPL", 100), 30)
    example = start("analysis.py", shared_server.url, "AAPL", "10", "spread.png")
    await example.ends(0, 60)
    assert re.search(r"^count( +100\.0+){3}$", example.out, re.MULTILINE), example.out
    assert "100 quotes, 1 gaps" in example.out
    assert len(await gaps(redis, "AAPL")) == 1
    assert (tmp_path / "spread.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "spread.png").stat().st_size > 10_000


@pytest.mark.parametrize("missing", ["matplotlib", "pandas"])
def test_analysis_without_what_it_draws_with_is_one_sentence(missing: str) -> None:
    """The name of what is not installed, and what to install; no traceback."""
    program = (
        "import runpy, sys\n"
        f"sys.modules[{missing!r}] = None\n"
        f"runpy.run_path({str(EXAMPLES / 'analysis.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"{missing} is not installed: pip install 'quotebus[pandas]' matplotlib\n"


async def test_toy_strategy(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """It quotes, takes its quote back when the feed breaks, and resumes after three whole quotes."""
    example = start("toy_strategy.py", shared_server.url, "AAPL")
    await wanted(vendor, "AAPL")
    await blocked(redis)
    vendor.send(numbered("AAPL", 1, 3))
    await example.until_prints(r"\Aquote around 100\.260$")
    await break_feed(vendor, "AAPL")
    vendor.send(numbered("AAPL", 4, 3))
    await example.until_prints(r"^cancel: (\d+\.\d s are missing|stale)[^\n]+\nquote around 100\.260\Z")
    await example.interrupt()


async def test_replay_recording(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, start: StartExample, tmp_path: Path
) -> None:
    """A tape of a thousand quotes is read whole, and a broken one is told with its line."""
    rows = [f"{1_763_000_000_000_000_000 + n * 1_000_000},100.0,1,{100.02 + n % 2},1" for n in range(1000)]
    tape = tmp_path / "AAPL-tape.csv"
    tape.write_text("t_ns,bid_price,bid_size,ask_price,ask_size\n" + "\n".join(rows))
    example = start("replay_recording.py", str(tape), "AAPL")
    await example.ends()
    assert example.out == "1000 items: 1000 quotes, 0 gaps, 1000 moves of the mid"
    (tmp_path / "broken.jsonl").write_text(json.dumps({"type": "trade"}) + "\n")
    broken = start("replay_recording.py", "broken.jsonl", "AAPL", "1000")
    errors = await broken.ends(1)
    assert "broken.jsonl, line 1" in errors
    assert "Traceback" not in errors


async def test_another_language(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    start: StartExample,
) -> None:
    """Perl with nothing but a socket: takes a lease, reads cache, quotes and gaps, and gives the lease back."""
    assert PERL is not None, "perl-base is part of every Debian; install perl elsewhere"
    example = start("follow.pl", "127.0.0.1", str(shared_server.port), "AAPL", "7", interpreter=PERL)
    await wanted(vendor, "AAPL")
    vendor.send(fresh("AAPL", 1, 3))
    await until(lambda: count_is(example.lines, "100.25 x 100.27", 3), 30)
    await break_feed(vendor, "AAPL")
    vendor.send(fresh("AAPL", 4, 3))
    await example.ends()
    assert [line.split(maxsplit=2)[2] for line in example.lines] == [
        *["100.25 x 100.27"] * 3,
        "gap feed_disconnected",
        *["100.25 x 100.27"] * 3,
    ]
    await vendor.wait_for(lambda: not vendor.symbols, 30)
    again = start("follow.pl", "127.0.0.1", str(shared_server.port), "AAPL", interpreter=PERL)
    await again.until_prints(r"^AAPL \d+-\d+ 100\.25 x 100\.27 \(cache\)$")
    await again.interrupt()
    nobody = start("follow.pl", "127.0.0.1", "1", "AAPL", interpreter=PERL)
    assert "cannot be reached" in await nobody.ends(111)


async def test_dashboard_on_a_terminal(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, daemon: DaemonProcess
) -> None:
    """The table is drawn over itself, and Ctrl-C ends it without a traceback."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    command = [sys.executable, str(EXAMPLES / "dashboard.py"), shared_server.url, "AAPL", "MSFT"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)  # noqa: ASYNC220
    os.close(theirs)
    shown = b""

    async def is_drawn(pattern: bytes) -> bool:
        nonlocal shown
        with contextlib.suppress(OSError):
            shown += os.read(ours, 65536)
        return re.search(pattern, shown) is not None

    try:
        await wanted(vendor, "AAPL", "MSFT")
        await blocked(redis)
        vendor.send(fresh("AAPL", 1, 20))
        await until(lambda: is_drawn(rb"\x1b\[3Asymbol .*\r\nAAPL +100\.25 +100\.27 .*live"), 30)
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 30) == 0
        await is_drawn(b"")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"Traceback" not in shown

"""A script written for alpaca-py, and the same script after its one changed line, print the same quotes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator, SimQuote
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import BASE_NS, numbered

THEIRS = "from alpaca.data.live import StockDataStream"
OURS = "from consumers.alpaca import StockDataStream"

BY_MODEL = """
import os
from alpaca.data.live import StockDataStream

stream = StockDataStream("PKTESTKEY1234", "very-secret-value-5678", url_override=os.environ["STREAM_URL"])
seen = 0

async def handle_quote(quote):
    global seen
    print(quote.model_dump_json(), flush=True)
    seen += 1
    if seen == 205:
        await stream.stop_ws()

stream.subscribe_quotes(handle_quote, "AAPL", "MSFT")
stream.run()
print("the end")
"""

RAW_IN_A_THREAD = """
import json, os, sys, threading
from alpaca.data.live import StockDataStream

URL = os.environ["STREAM_URL"]
stream = StockDataStream("PKTESTKEY1234", "very-secret-value-5678", raw_data=True, url_override=URL)
seen = 0
done = threading.Event()

async def handle_quote(quote):
    global seen
    quote["t"] = quote["t"].to_unix_nano()
    print(json.dumps(quote, sort_keys=True), flush=True)
    seen += 1
    if seen == 205:
        done.set()

stream.subscribe_quotes(handle_quote, "AAPL")
thread = threading.Thread(target=stream.run)
thread.start()
sys.stdin.readline()
stream.subscribe_quotes(handle_quote, "MSFT")
done.wait(30)
stream.stop()
thread.join()
print("the end")
"""

QUOTES = [
    *numbered("AAPL", 1, 150),
    *numbered("MSFT", 1, 50),
    SimQuote("AAPL", BASE_NS + 10**9, 0.0, 0, 187.13, 200, " ", "Q", ("R", "O"), "A"),
    SimQuote("MSFT", BASE_NS + 10**9 + 1, 187.0, 5, 188.0, 200, "V", "N", (), "B"),
    *numbered("AAPL", 1001, 3),
]


def _start(folder: Path, script: str, **environment: str) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(script)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(path)],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def _printed(
    process: subprocess.Popen[str], feed: AlpacaSimulator, ready: Callable[[set[str]], Awaitable[bool]]
) -> list[dict[str, Any]]:
    """What the script prints of the quotes, each symbol's in order; it has to end by itself."""
    try:
        assert process.stdin is not None
        await until(lambda: ready({"AAPL"}), 30)
        process.stdin.write("\n")
        process.stdin.flush()
        await until(lambda: ready({"AAPL", "MSFT"}), 30)
        feed.send(QUOTES, frame_size=20)
        out, errors = await asyncio.to_thread(process.communicate, timeout=60)
    finally:
        process.kill()
        process.communicate()
    *lines, end = out.splitlines()
    assert (end, process.returncode, errors) == ("the end", 0, "")
    quotes = [json.loads(line) for line in lines]
    return sorted(quotes, key=lambda quote: str(quote.get("S") or quote["symbol"]))


@pytest.mark.parametrize("script", [BY_MODEL, RAW_IN_A_THREAD], ids=["model", "raw"])
@pytest.mark.timeout(180)
async def test_a_script_changes_one_line_and_prints_the_same(
    shared_server: RedisServer,
    redis: Redis,
    vendor: AlpacaSimulator,
    daemon: DaemonProcess,
    tmp_path: Path,
    script: str,
) -> None:
    """alpaca-py against the feed itself, the stand-in behind the daemon that has the only connection."""
    assert script.count(THEIRS) == 1
    async with AlpacaSimulator() as own_feed:

        async def is_subscribed(symbols: set[str]) -> bool:
            return own_feed.symbols >= symbols

        theirs = await _printed(
            _start(tmp_path, script, STREAM_URL=own_feed.url("iex")), own_feed, is_subscribed
        )

    async def is_wanted_and_read(symbols: set[str]) -> bool:
        clients = await redis.client_list()
        return vendor.symbols >= symbols and any(client["cmd"].startswith("xread") for client in clients)

    changed = script.replace(THEIRS, OURS)
    assert sum(a != b for a, b in zip(script.splitlines(), changed.splitlines(), strict=True)) == 1
    environment = {"STREAM_URL": "ws://127.0.0.1:1/nobody", "QUOTEBUS_REDIS_URL": shared_server.url}
    ours = await _printed(_start(tmp_path, changed, **environment), vendor, is_wanted_and_read)
    assert ours == theirs
    assert len(ours) == len(QUOTES)
    # The daemon lets go of what nobody wants any more.
    await until(lambda: _is_empty(vendor), 20)


async def _is_empty(vendor: AlpacaSimulator) -> bool:
    return not vendor.symbols

"""Clients that only receive, as processes of their own: `python -m benchmarks.readers KIND FEED REDIS`.

Decides how each library is used at its best: `picows` is the daemon's own transport and codec, `websockets` the
asyncio client with the same typed decoding or with plain msgpack, `alpaca-py` its StockDataStream with an empty
handler, raw or with models. When the sentinel's quote has been read, its stream in Redis says so, and reading
goes on.
"""

import argparse
import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import uvloop
from alpaca.data.live import StockDataStream
from redis import Redis
from websockets.asyncio.client import connect

from benchmarks.loops import GROUP, KEYS, messages
from benchmarks.recording import SENTINEL, symbol_names
from ingestor.feed.codec import FrameCodec
from ingestor.feed.messages import Authenticate, Subscribe
from ingestor.feed.transport import Socket, open_socket

HEADERS: Final = {"Content-Type": "application/msgpack"}


class Tally:
    """Counts quotes, and tells when a recording is over."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(redis_url)
        self.count = 0

    def over(self) -> None:
        """The sentinel has been read."""
        self._redis.xadd(KEYS.stream(SENTINEL), {"count": self.count})
        self.count = 0


async def picows(url: str, tally: Tally, symbols: list[str]) -> None:
    """The daemon's transport and codec."""
    codec = FrameCodec("msgpack")
    controls: asyncio.Queue[object] = asyncio.Queue()

    def on_message(payload: bytes) -> None:
        frame = codec.decode(payload)
        tally.count += len(frame.quotes)
        for control in frame.controls:
            controls.put_nowait(control)
        if frame.quotes and frame.quotes[-1].S == SENTINEL:
            tally.over()

    socket: Socket = await open_socket(url, HEADERS, on_message)
    await controls.get()
    socket.send(codec.encode(Authenticate("k", "s")))
    await controls.get()
    for start in range(0, len(symbols), GROUP):
        socket.send(codec.encode(Subscribe(quotes=symbols[start : start + GROUP])))
        await controls.get()
    await socket.wait_closed()


async def websockets_typed(url: str, tally: Tally, symbols: list[str]) -> None:
    """The asyncio client of `websockets`, and the daemon's codec."""
    codec = FrameCodec("msgpack")
    async with connect(url, additional_headers=HEADERS, compression=None, max_size=None) as socket:
        await socket.recv()
        await socket.send(codec.encode(Authenticate("k", "s")))
        await socket.recv()
        for start in range(0, len(symbols), GROUP):
            await socket.send(codec.encode(Subscribe(quotes=symbols[start : start + GROUP])))
            await socket.recv()
        async for payload in socket:
            assert isinstance(payload, bytes)
            quotes = codec.decode(payload).quotes
            tally.count += len(quotes)
            if quotes and quotes[-1].S == SENTINEL:
                tally.over()


async def websockets_msgpack(url: str, tally: Tally, symbols: list[str]) -> None:
    """The asyncio client of `websockets`, and plain dicts."""
    async for frame in messages(url, symbols):
        tally.count += len(frame)
        if frame[-1]["S"] == SENTINEL:
            tally.over()


async def alpaca_py(url: str, tally: Tally, symbols: list[str]) -> None:
    """alpaca-py's own stream, with raw data."""
    stream = StockDataStream("k", "s", raw_data=True, url_override=url)

    async def handler(quote: Any) -> None:
        tally.count += 1
        if quote["S"] == SENTINEL:
            tally.over()

    stream.subscribe_quotes(handler, *symbols)
    await stream._run_forever()


async def alpaca_py_models(url: str, tally: Tally, symbols: list[str]) -> None:
    """alpaca-py's own stream as it comes, with its models."""
    stream = StockDataStream("k", "s", url_override=url)

    async def handler(quote: Any) -> None:
        tally.count += 1
        if quote.symbol == SENTINEL:
            tally.over()

    stream.subscribe_quotes(handler, *symbols)
    await stream._run_forever()


KINDS: Final[dict[str, Callable[[str, Tally, list[str]], Any]]] = {
    "picows": picows,
    "websockets, typed": websockets_typed,
    "websockets, msgpack": websockets_msgpack,
    "alpaca-py": alpaca_py,
    "alpaca-py, models": alpaca_py_models,
}


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("feed_url")
    parser.add_argument("redis_url")
    parser.add_argument("--symbols", type=int, default=100)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    names = [*symbol_names(options.symbols), SENTINEL]
    uvloop.run(KINDS[options.kind](options.feed_url, Tally(options.redis_url), names))


if __name__ == "__main__":
    main()

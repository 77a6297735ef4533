"""The loops that people write by hand, as processes of their own: `python -m benchmarks.loops KIND FEED REDIS`.

Decides nothing that a careful author without our daemon would not also decide: msgpack, orjson, hiredis and uvloop
are used throughout. `awaited` is one XADD and one HSET per quote, each awaited; `pipeline` is 200 quotes to a
pipeline, XADD and HSET each; `pipeline-best` writes the cache once per symbol and pipeline.
"""

import argparse
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import msgpack
import orjson
import uvloop
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from benchmarks.recording import SENTINEL, symbol_names
from wire import Keyspace

PIPELINE_QUOTES: Final = 200
MAXLEN: Final = 50_000
GROUP: Final = 500
KEYS: Final = Keyspace()


async def messages(url: str, symbols: list[str]) -> AsyncIterator[list[dict[str, Any]]]:
    """Each frame's messages, after the vendor's conversation."""
    headers = {"Content-Type": "application/msgpack"}
    async with connect(url, additional_headers=headers, compression=None, max_size=None) as socket:
        await socket.recv()
        await socket.send(msgpack.packb({"action": "auth", "key": "k", "secret": "s"}))
        await socket.recv()
        for start in range(0, len(symbols), GROUP):
            await socket.send(
                msgpack.packb({"action": "subscribe", "quotes": symbols[start : start + GROUP]})
            )
            await socket.recv()
        async for frame in socket:
            yield msgpack.unpackb(frame, timestamp=2)


def entry_of(q: dict[str, Any], received_ns: int) -> bytes:
    """The value that the daemon would write."""
    t = q["t"]
    # fmt: off
    return orjson.dumps([
        q["bp"], q["bs"], q["bx"], q["ap"], q["as"], q["ax"], q["c"], q["z"], t, (received_ns - t) // 1000,
    ])
    # fmt: on


async def awaited(url: str, redis: Any, symbols: list[str]) -> None:
    """Every command waits for its answer."""
    async for frame in messages(url, symbols):
        received_ns = time.time_ns()
        for q in frame:
            await redis.xadd(
                KEYS.stream(q["S"]), {"q": entry_of(q, received_ns)}, maxlen=MAXLEN, approximate=True
            )
            await redis.hset(KEYS.latest, q["S"], orjson.dumps(q))


async def pipeline(url: str, redis: Any, symbols: list[str]) -> None:
    """Two commands per quote, 200 quotes per pipeline."""
    pipe = redis.pipeline(transaction=False)
    async for frame in messages(url, symbols):
        received_ns = time.time_ns()
        for q in frame:
            pipe.xadd(KEYS.stream(q["S"]), {"q": entry_of(q, received_ns)}, maxlen=MAXLEN, approximate=True)
            pipe.hset(KEYS.latest, q["S"], orjson.dumps(q))
            if len(pipe) >= 2 * PIPELINE_QUOTES or q["S"] == SENTINEL:
                await pipe.execute()


async def pipeline_best(url: str, redis: Any, symbols: list[str]) -> None:
    """One command per quote and one for the whole cache, 200 quotes per pipeline."""
    pipe = redis.pipeline(transaction=False)
    newest: dict[str, dict[str, Any]] = {}
    async for frame in messages(url, symbols):
        received_ns = time.time_ns()
        for q in frame:
            pipe.xadd(KEYS.stream(q["S"]), {"q": entry_of(q, received_ns)}, maxlen=MAXLEN, approximate=True)
            newest[q["S"]] = q
            if len(pipe) >= PIPELINE_QUOTES or q["S"] == SENTINEL:
                pipe.hset(
                    KEYS.latest, mapping={symbol: orjson.dumps(last) for symbol, last in newest.items()}
                )
                await pipe.execute()
                newest = {}


KINDS: Final = {"awaited": awaited, "pipeline": pipeline, "pipeline-best": pipeline_best}


async def _run(kind: str, feed_url: str, redis_url: str, symbols: list[str]) -> None:
    async with Redis.from_url(redis_url, protocol=2) as redis:
        await KINDS[kind](feed_url, redis, symbols)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("feed_url")
    parser.add_argument("redis_url")
    parser.add_argument("--symbols", type=int, default=100)
    options = parser.parse_args()
    names = [*symbol_names(options.symbols), SENTINEL]
    uvloop.run(_run(options.kind, options.feed_url, options.redis_url, names))


if __name__ == "__main__":
    main()

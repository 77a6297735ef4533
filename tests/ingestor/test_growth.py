"""Nothing in the daemon grows with time, with the number of quotes, or with names that come and go."""

import asyncio
import gc
import sys
import time
from typing import Final

from ingestor.feed.codec import FrameCodec
from ingestor.journal import Journal
from ingestor.parts import background
from ingestor.publisher.batch import Batch, batch_of
from ingestor.publisher.calls import MAX_SPELT, Calls
from ingestor.publisher.ledger import MAX_KINDS, PublishCounts
from ingestor.publisher.outbox import MAX_COUNTED
from ingestor.publisher.publisher import Publisher
from ingestor.redis_link import RedisAddress
from simulator.redis_server import RedisServer
from tests.ingestor.vendor import T0_NS, packed, quote
from wire import ZERO_ID, Keyspace

SYMBOLS: Final = ("AAPL", "MSFT", "TSLA")
STEP: Final = 150
STEPS: Final = 6
PATIENCE_S: Final = 90.0


async def test_stored_quotes_leave_nothing_behind() -> None:
    """Hundreds of frames, each a call of its own: the interpreter holds as many blocks of memory as before. One
    object left behind by each call, or by each quote, would show."""
    with RedisServer() as server:
        publisher = Publisher(
            RedisAddress(server.url),
            Keyspace(),
            Journal(),
            stream_maxlen=100,
            memory_bytes=1 << 20,
            replay_s=0.0,
            replay_bytes=0,
            spool=None,
        )
        for symbol in SYMBOLS:
            publisher.stamper.load(symbol, ZERO_ID, None)
        async with background({"publisher": publisher.run("test")}), asyncio.timeout(PATIENCE_S):
            await publisher.ready.wait()
            # Batches that were let go are counted up to a bound: filled here, or it would take minutes.
            publisher._outbox._let_go.extend((-1000 - n, len(SYMBOLS)) for n in range(MAX_COUNTED))
            held = [await _blocks_after(publisher, step) for step in range(STEPS)]
    assert publisher.counts.batches >= STEPS * STEP
    # The second half against the first; a table that doubles once is no growth.
    assert max(held[STEPS // 2 :]) - max(held[: STEPS // 2]) < STEP // 2, held


async def _blocks_after(publisher: Publisher, step: int) -> int:
    codec = FrameCodec("msgpack")
    for n in range(step * STEP, (step + 1) * STEP):
        frame = packed(*(quote(symbol, T0_NS + n * 1_000_000, bs=n) for symbol in SYMBOLS))
        publisher.receive(time.time_ns(), codec.decode(frame).quotes)
        assert await publisher.drain(PATIENCE_S)
    gc.collect()
    return sys.getallocatedblocks()


def test_symbols_that_come_and_go_are_not_remembered_for_ever() -> None:
    """Names of streams are kept spelt up to a bound, however many there were."""
    calls = Calls(Keyspace(), "token", 0)
    for n in range(2 * MAX_SPELT + 1):
        assert b"quotes:stream:S%d\r\n" % n in calls.append(_batch(f"S{n}"), 1, script_known=True)
    assert len(calls._streams) <= MAX_SPELT


def _batch(symbol: str) -> Batch:
    return batch_of([[symbol, False, "1-1", "[]"]], 1, 0, 0)


def test_a_server_that_makes_up_errors_does_not_grow_the_metrics() -> None:
    """The first kinds have a label each, all others share one."""
    counts = PublishCounts()
    for n in range(10_000):
        counts.refuse(f"KIND{n}")
    assert len(counts.refusals) == MAX_KINDS + 1
    assert sum(counts.refusals.values()) == 10_000
    assert counts.refusals["other"] == 10_000 - MAX_KINDS

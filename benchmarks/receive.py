"""What it costs to receive a quote, before anything is done with it.

Decides frame sizes and rounds. Must never know how a library works: those are in `readers`. CPU of the whole
process per quote, kernel included, so that a library cannot hide its work in a thread.
"""

from dataclasses import dataclass
from typing import Final

from benchmarks.processes import SentinelWatch, control, cpu_s, program, source
from benchmarks.readers import KINDS
from simulator.redis_server import RedisServer
from wire import Keyspace

FRAME_SIZES: Final = (1, 10, 100)
SYMBOLS: Final = 100


@dataclass(frozen=True)
class Reading:
    """One reader, one frame size, one round."""

    reader: str
    per_frame: int
    cpu_us: float


def measure_readers(*, rounds: int, quotes: int) -> list[Reading]:
    """All readers, each in one process for all its recordings; a round is all frame sizes."""
    readings = []
    with RedisServer() as server:
        client = control(server.url)
        for _ in range(rounds):
            for reader in KINDS:
                client.flushall()
                watch = SentinelWatch(client, Keyspace())
                with (
                    source(SYMBOLS) as feed,
                    program("-m", "benchmarks.readers", reader, feed.url, server.url) as child,
                ):
                    for per_frame in (FRAME_SIZES[-1], *FRAME_SIZES):
                        # Small frames cost most time and vary least; the first recording is warming up.
                        feed.load(quotes // (1 if per_frame > 1 else 3), per_frame)
                        before_s = cpu_s(child.pid)
                        feed.go()
                        watch.wait(child)
                        used_s = cpu_s(child.pid) - before_s
                        feed.sent()
                        count = quotes // (1 if per_frame > 1 else 3)
                        readings.append(Reading(reader, per_frame, used_s / count * 1e6))
                    del readings[-len(FRAME_SIZES) - 1]
    return readings

"""What it costs to receive a quote, before anything is done with it.

Decides frame sizes and rounds. Must never know how a library works: those are in `readers`. CPU of the whole
process per quote, kernel included, so that a library cannot hide its work in a thread.
"""

from collections.abc import Sequence
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
    quotes_per_s: float


def measure_readers(
    *, rounds: int, quotes: int, readers: Sequence[str] = tuple(KINDS), sizes: Sequence[int] = FRAME_SIZES
) -> list[Reading]:
    """The readers, each in one process for all its recordings; a round is all frame sizes."""
    readings = []
    with RedisServer(dies_with_us=True) as server:
        client = control(server.url)
        for _ in range(rounds):
            for reader in readers:
                client.flushall()
                watch = SentinelWatch(client, Keyspace())
                with (
                    source(SYMBOLS) as feed,
                    program("-m", "benchmarks.readers", reader, feed.url, server.url) as child,
                ):
                    for per_frame in (sizes[-1], *sizes):
                        # Small frames cost most time and vary least; the first recording is warming up.
                        feed.load(quotes // (1 if per_frame > 1 else 3), per_frame)
                        before_s = cpu_s(child.pid)
                        feed.go()
                        end_s = watch.wait(child)
                        used_s = cpu_s(child.pid) - before_s
                        took_s = end_s - feed.sent().begin_s
                        count = quotes // (1 if per_frame > 1 else 3)
                        readings.append(Reading(reader, per_frame, used_s / count * 1e6, count / took_s))
                    del readings[-len(sizes) - 1]
    return readings

"""Where the time of one quote goes, in process: each stage of the hot path alone, best of several rounds.

Decides what counts as a stage. This is the only measurement that opens the daemon, so that a change of the hot path
can be compared before it is measured end to end. The server's part is what the server itself accounts for.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import msgspec

from benchmarks.processes import control
from benchmarks.recording import encode_frames, first_ns_of, make_quotes, symbol_names
from ingestor.feed.codec import FrameCodec
from ingestor.feed.messages import Success
from ingestor.feed.session import Credentials, FeedSession
from ingestor.publisher.intake import Intake, Received
from ingestor.publisher.publisher import MAX_BATCH_QUOTES
from ingestor.publisher.stamper import Batch, Stamper
from simulator.redis_server import RedisServer
from wire import ZERO_ID, Keyspace

KEYS: Final = Keyspace()
SYMBOLS: Final = 100
_APPEND: Final = resources.files("ingestor.publisher").joinpath("append.lua").read_text()
_control: Final = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Stage:
    """Microseconds per quote; `per_frame` is 0 where frames do not matter."""

    name: str
    per_frame: int
    us: float


def measure_stages(*, rounds: int, quotes: int, frame_sizes: Sequence[int] = (1, 10, 100)) -> list[Stage]:
    """All stages."""
    recording = make_quotes(quotes, symbol_names(SYMBOLS), first_ns_of(quotes, 0), "equal")
    stages = []
    for per_frame in frame_sizes:
        frames = list(encode_frames(recording, per_frame))
        codec = FrameCodec("msgpack")
        session = _ready_session(codec)
        received = [Received(time.time_ns(), codec.decode(frame).quotes) for frame in frames]
        steps: list[tuple[str, Callable[[], object]]] = [
            ("decode", lambda codec=codec, frames=frames: _each(codec.decode, frames)),  # type: ignore[misc]
            (
                "decode and session",
                lambda session=session, frames=frames: [session.receive(f, 0.0) for f in frames],  # type: ignore[misc]
            ),
            ("queue", lambda received=received: _through_queue(received)),  # type: ignore[misc]
            (
                "stamp, encode and pack",
                lambda received=received: _stamp(received, recording[-1].t_ns),  # type: ignore[misc]
            ),
        ]
        stages += [Stage(name, per_frame, _best_us(step, rounds, quotes)) for name, step in steps]
    batches = _stamp(received, recording[-1].t_ns)
    pack = msgspec.msgpack.Encoder().encode
    stages.append(
        Stage("of which pack", 0, _best_us(lambda: [pack(b.rows) for b in batches], rounds, quotes))
    )
    stages.append(Stage("append.lua, by the server's account", 0, _measure_append(batches, quotes, rounds)))
    return stages


def _ready_session(codec: FrameCodec) -> FeedSession:
    session = FeedSession(Credentials("k", "s"), codec, 0.0)
    for word in ("connected", "authenticated"):
        session.receive(_control([Success(word)]), 0.0)
    return session


def _each(step: Callable[[bytes], object], frames: Sequence[bytes]) -> None:
    for frame in frames:
        step(frame)


def _through_queue(received: Sequence[Received]) -> None:
    intake = Intake(10_000_000)
    for received_ns, quotes in received:
        intake.put(received_ns, quotes)
    while intake.depth:
        intake.take(MAX_BATCH_QUOTES)


def _stamp(received: Sequence[Received], now_ns: int) -> list[Batch]:
    intake = Intake(10_000_000)
    stamper = Stamper()
    for received_ns, quotes in received:
        intake.put(received_ns, quotes)
        for quote in quotes:
            if not stamper.knows(quote.S):
                stamper.load(quote.S, ZERO_ID, None)
    batches = []
    while intake.depth:
        batch = stamper.stamp(intake.take(MAX_BATCH_QUOTES), now_ns)
        if batch is not None:
            batches.append(batch)
    return batches


def _best_us(step: Callable[[], object], rounds: int, quotes: int) -> float:
    best_s = min(_timed_s(step) for _ in range(rounds))
    return best_s / quotes * 1e6


def _timed_s(step: Callable[[], object]) -> float:
    begin_s = time.perf_counter()
    step()
    return time.perf_counter() - begin_s


def _measure_append(batches: Sequence[Batch], quotes: int, rounds: int) -> float:
    best_us = float("inf")
    with RedisServer() as server:
        client = control(server.url)
        sha = client.script_load(_APPEND)
        for _ in range(rounds):
            client.flushall()
            client.config_resetstat()
            client.hset(KEYS.writer, mapping={"epoch": 1, "batch": 0})
            for batch in batches:
                _append(client, sha, batch)
            used_us = client.info("commandstats")["cmdstat_evalsha"]["usec"]
            best_us = min(best_us, used_us / quotes)
    return best_us


def _append(client: Any, sha: str, batch: Batch) -> None:
    keys = [KEYS.writer, KEYS.latest, *map(KEYS.stream, batch.symbols)]
    reply = client.evalsha(sha, len(keys), *keys, 1, batch.number, 50_000, batch.blob)
    assert reply[0] == b"applied", reply

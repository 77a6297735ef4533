"""Where the time of one quote goes, in process: each stage of the hot path alone, best of several rounds.

Decides what counts as a stage. This is the only measurement that opens the daemon, so that a change of the hot path
can be compared before it is measured end to end. The server's part is what the server itself accounts for.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import msgspec

from benchmarks.processes import control
from benchmarks.recording import encode_frames, first_ns_of, make_quotes, symbol_names
from ingestor.feed.codec import FrameCodec
from ingestor.feed.messages import Success
from ingestor.feed.session import Credentials, FeedSession
from ingestor.publisher.batch import Batch
from ingestor.publisher.intake import Intake
from ingestor.publisher.publisher import MAX_BATCH_QUOTES
from ingestor.publisher.stamper import Stamper
from simulator.frames import SimQuote
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
    now_ns = recording[-1].t_ns
    codec = FrameCodec("msgpack")
    stages: list[Stage] = []
    batches: list[Batch] = []
    for per_frame in frame_sizes:
        frames = list(encode_frames(recording, per_frame))
        decoded = [codec.decode(frame).quotes for frame in frames]
        best = _Best(per_frame, quotes)
        for _ in range(rounds):
            session, stamper, intake = _ready_session(codec), _stamper_of(recording), Intake()
            with best.timing("decode, the long way"):
                for frame in frames:
                    codec.decode(frame)
            with best.timing("decode, as a session does"):
                for frame in frames:
                    session.quotes_in(frame)
            with best.timing("queue"):
                for some in decoded:
                    intake.put(now_ns, some)
                takings = []
                while intake.depth:
                    takings.append(intake.take(MAX_BATCH_QUOTES))
            with best.timing("stamp, encode and pack"):
                batches = [batch for taking in takings if (batch := stamper.stamp(taking, now_ns))]
        stages += best.stages
    pack = msgspec.msgpack.Encoder().encode
    best = _Best(0, quotes)
    unpacked = [batch.rows() for batch in batches]
    for _ in range(rounds):
        with best.timing("of which pack"):
            for rows in unpacked:
                pack(rows)
    server_us = _measure_append(batches, quotes, rounds)
    return [*stages, *best.stages, Stage("append.lua, by the server's account", 0, server_us)]


class _Best:
    """The shortest of all timings, by stage."""

    def __init__(self, per_frame: int, quotes: int) -> None:
        self._per_frame = per_frame
        self._quotes = quotes
        self._best_s: dict[str, float] = {}

    @contextlib.contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Time the body."""
        begin_s = time.perf_counter()
        yield
        taken_s = time.perf_counter() - begin_s
        self._best_s[stage] = min(taken_s, self._best_s.get(stage, taken_s))

    @property
    def stages(self) -> list[Stage]:
        """In order of first appearance."""
        return [Stage(name, self._per_frame, s / self._quotes * 1e6) for name, s in self._best_s.items()]


def _ready_session(codec: FrameCodec) -> FeedSession:
    session = FeedSession(Credentials("k", "s"), codec, 0.0)
    for word in ("connected", "authenticated"):
        session.receive(_control([Success(word)]), 0.0)
    return session


def _stamper_of(recording: Sequence[SimQuote]) -> Stamper:
    stamper = Stamper()
    for symbol in {quote.symbol for quote in recording}:
        stamper.load(symbol, ZERO_ID, None)
    return stamper


def _measure_append(batches: Sequence[Batch], quotes: int, rounds: int) -> float:
    best_us = float("inf")
    with RedisServer(dies_with_us=True) as server:
        client = control(server.url)
        sha = client.script_load(_APPEND)
        for _ in range(rounds):
            client.flushall()
            client.config_resetstat()
            client.hset(KEYS.writer, mapping={"epoch": 1, "batch": 0, "token": "bench"})
            for number, batch in enumerate(batches, 1):
                batch.number = number
                _append(client, sha, batch)
            used_us = client.info("commandstats")["cmdstat_evalsha"]["usec"]
            best_us = min(best_us, used_us / quotes)
    return best_us


def _append(client: Any, sha: str, batch: Batch) -> None:
    keys = [KEYS.writer, KEYS.latest, *map(KEYS.stream, batch.symbols)]
    reply = client.evalsha(sha, len(keys), *keys, 1, batch.number, 50_000, "bench", batch.blob)
    assert reply[0] == b"applied", reply

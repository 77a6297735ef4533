"""A writer made of the real scripts, a real server and the real stamper, without the task that drives them."""

import secrets
from importlib import resources
from typing import Any

import msgspec
from redis import Redis

from ingestor.feed.messages import QuoteMessage
from ingestor.publisher.batch import Batch
from ingestor.publisher.stamper import Stamper
from tests.ingestor.vendor import T0_NS, message
from wire import ZERO_ID, EntryId, Keyspace

KEYS = Keyspace()
APPEND = resources.files("ingestor.publisher").joinpath("append.lua").read_bytes()
CLAIM = resources.files("ingestor.publisher").joinpath("claim.lua").read_bytes()


def counts_additions(redis: Redis) -> bool:
    """Whether this server knows how many entries a stream has had; Redis 6.2 does not."""
    info: Any = redis.info("server")
    return int(str(info["redis_version"]).split(".")[0]) >= 7


class Writer:
    """One epoch of writing."""

    def __init__(self, redis: Redis, *symbols: str, claim: bool = True) -> None:
        self.redis = redis
        self.token = secrets.token_hex(4)
        self.stamper = Stamper()
        for symbol in symbols:
            self.stamper.load(symbol, ZERO_ID, None)
        self.epoch = 0
        self.count = 0
        self.batches = 0
        if claim:
            _, self.epoch, _ = self.claim(0, 0)
            self.stamper.epoch = self.epoch

    def raw(self, *command: str | bytes | int) -> Any:
        """One command as it stands."""
        return self.redis.execute_command(*command)  # type: ignore[no-untyped-call]

    def claim(self, epoch: int, answered: int, instance: str = "me") -> Any:
        """Take or confirm the position."""
        never = 2**53
        return self.raw("EVAL", CLAIM, 1, KEYS.writer, epoch, answered, instance, self.token, never, 0, "")

    def batch(self, *symbols: str, step_ns: int = 1_000_003) -> Batch:
        """A batch of one quote per name, numbered on as bid sizes."""
        quotes: list[QuoteMessage] = []
        for symbol in symbols:
            quotes.append(message(symbol, T0_NS + self.count * step_ns, bs=self.count))
            self.count += 1
        batch = self.stamper.stamp([(T0_NS, quotes)], T0_NS + 10**15)
        assert batch is not None
        return self.numbered(batch)

    def numbered(self, batch: Batch) -> Batch:
        """The batch under the next number, as the outbox would give it."""
        self.batches += 1
        batch.number = self.batches
        return batch

    def probe(self) -> Any:
        """Ask whether the position still stands."""
        return self.append(Batch([], msgspec.msgpack.encode([]), 0, 0, 0))

    def append(self, batch: Batch, *, epoch: int | None = None, maxlen: int = 0) -> Any:
        """Send it."""
        keys = [KEYS.writer, KEYS.latest, *map(KEYS.stream, batch.symbols)]
        epoch = self.epoch if epoch is None else epoch
        return self.raw("EVAL", APPEND, len(keys), *keys, epoch, batch.number, maxlen, self.token, batch.blob)

    def ids(self, symbol: str) -> list[EntryId]:
        """All ids of a stream."""
        return [EntryId.parse(entry_id) for entry_id, _ in self.raw("XRANGE", KEYS.stream(symbol), "-", "+")]

    def everything(self) -> dict[bytes, Any]:
        """All that the server holds, to see that nothing has changed."""
        return {key: self.redis.dump(key) for key in sorted(self.raw("KEYS", "*"))}

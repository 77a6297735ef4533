"""Keeps streams within their age, and lets go of those that nobody wants any more.

Decides what has outlived its time. Must never touch what is wanted and young. Age counts back from a stream's own
newest entry, so an old tape is not trimmed as it arrives. An unwanted stream gets an expiry on the server, which
goes on counting while this daemon is down; wanting the symbol again takes it away.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.journal import Journal
from ingestor.publisher.stamper import Stamper
from wire import EntryId, Keyspace

CHUNK: Final = 200
NO_KEY: Final = -2
NO_EXPIRY: Final = -1


@dataclass(slots=True)
class SweepCounts:
    """What the sweep did, cumulative since start."""

    sweeps: int = 0
    trimmed: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What one stream needs: an id before which entries go, an expiry set or lifted, its cache field removed."""

    trim_before: EntryId | None = None
    expire_after_s: int | None = None
    persist: bool = False
    drop_cache: bool = False


def upkeep(
    *, wanted: bool, ttl_s: int, last: EntryId | None, now_ms: int, max_age_s: float, forget_after_s: float
) -> Upkeep:
    """What a stream needs, from its time to live as TTL tells it (-1 none, -2 no such key) and its last id.

    An id from the future, which only a foreign writer leaves, counts as now: it must not age out the rest.
    """
    if ttl_s == NO_KEY:
        return Upkeep(drop_cache=not wanted)
    before = None
    if last is not None and max_age_s > 0:
        before = EntryId(max(0, min(last.ms, now_ms) - int(max_age_s * 1000)), 0)
    return Upkeep(
        trim_before=before,
        expire_after_s=max(1, int(forget_after_s)) if not wanted and ttl_s == NO_EXPIRY else None,
        persist=wanted and ttl_s >= 0,
    )


class Sweeper:
    """Goes over every stream that the cache knows, once per period."""

    def __init__(
        self,
        client: "Redis",
        keys: Keyspace,
        stamper: Stamper,
        journal: Journal,
        wanted: Callable[[], AbstractSet[str]],
        *,
        max_age_s: float,
        forget_after_s: float,
    ) -> None:
        self._client = client
        self._keys = keys
        self._stamper = stamper
        self._journal = journal
        self._wanted = wanted
        self._max_age_s = max_age_s
        self._forget_after_s = forget_after_s
        self.counts = SweepCounts()

    async def run(self, every_s: float) -> None:
        """Sweep every `every_s` seconds; never returns. A sweep that fails is made up by the next."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.sweep()
            except (RedisError, OSError, TimeoutError) as error:
                self._journal.note_rarely("sweep_failed", "redis", reason=str(error)[:200])

    async def sweep(self) -> None:
        """One pass. The cache's fields are the index: a stream with an entry has one."""
        fields = await self._client.hkeys(self._keys.latest)
        symbols = sorted({_text(field) for field in fields} | self._stamper.symbols)
        for start in range(0, len(symbols), CHUNK):
            await self._sweep_some(symbols[start : start + CHUNK])
        self.counts.sweeps += 1

    async def _sweep_some(self, symbols: Sequence[str]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipe.ttl(self._keys.stream(symbol))
            pipe.xrevrange(self._keys.stream(symbol), count=1)
        found = await pipe.execute(raise_on_error=False)
        wanted = self._wanted()
        pipe = self._client.pipeline(transaction=False)
        trims: list[int] = []
        for symbol, ttl_s, newest in zip(symbols, found[::2], found[1::2], strict=True):
            if isinstance(ttl_s, Exception) or isinstance(newest, Exception):
                continue  # a key of another type; the append call reports it
            needs = upkeep(
                wanted=symbol in wanted,
                ttl_s=ttl_s,
                last=EntryId.parse(newest[0][0]) if newest else None,
                now_ms=time.time_ns() // 1_000_000,
                max_age_s=self._max_age_s,
                forget_after_s=self._forget_after_s,
            )
            self._queue(pipe, symbol, needs, trims)
        if len(pipe):
            replies = await pipe.execute(raise_on_error=False)
            self.counts.trimmed += sum(replies[i] for i in trims if isinstance(replies[i], int))
        # Wanted again while we were at it: the expiry just set must not outlive the wish.
        for symbol in (self._wanted() - wanted) & frozenset(symbols):
            await self._client.persist(self._keys.stream(symbol))

    def _queue(self, pipe: Any, symbol: str, needs: Upkeep, trims: list[int]) -> None:
        stream = self._keys.stream(symbol)
        if needs.trim_before is not None:
            trims.append(len(pipe))
            pipe.xtrim(stream, minid=str(needs.trim_before), approximate=True)
        if needs.persist:
            pipe.persist(stream)
        if needs.expire_after_s is not None:
            pipe.expire(stream, needs.expire_after_s)
            self._journal.note("stream_unwanted", symbol=symbol, expires_in_s=needs.expire_after_s)
        if needs.drop_cache:
            pipe.hdel(self._keys.latest, symbol)
            self._stamper.forget(symbol)
            self.counts.forgotten += 1
            self._journal.note("stream_forgotten", symbol=symbol)


def _text(raw: bytes | str) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw

"""Whoever writes the streams: what the daemon does with a server that forgets, without a vendor and a spool.

Decides what is sent again and what is marked: a stream that vanished begins anew with a marker behind its first
entry; a server that was emptied, or has lost its end, is sent what is young enough, behind a marker for the rest.
Must never know the workers.
"""

import asyncio
import random
import time
from collections import defaultdict
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from wire import GAP_FIELD, QUOTE_FIELD, ZERO_ID, EntryId, Keyspace, encode_gap, encode_quote, entry_id_at

KEYS: Final = Keyspace()
EPOCH: Final = "churn:epoch"
WHOLE: Final = b"1"
"""What stands there while the server holds all that this writer sent, or marks of it."""
LOOKS_AFTER_MARKER_S: Final = 1.0


class Writer:
    """Appends quotes to some streams. `sent` has the venue times of what was sent, by symbol and in order;
    `sent_again` the moments at which some of it was sent again."""

    def __init__(
        self, redis: Redis, symbols: list[str], rate: float, replay_s: float, chance: random.Random
    ) -> None:
        self.sent: dict[str, list[int]] = {symbol: [] for symbol in symbols}
        self.sent_again: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self.is_over = False
        self._redis = redis
        self._rate = rate
        self._replay_ns = int(replay_s * 1e9)
        self._chance = chance
        self._entries: dict[str, list[tuple[EntryId, bytes]]] = {symbol: [] for symbol in symbols}
        self._began_ns = time.time_ns()
        self._markers: list[tuple[float, str, EntryId, int]] = []
        self._is_known = False

    async def run(self) -> None:
        """Write until it is over, whatever the server does."""
        while not self.is_over:
            await asyncio.sleep(3 / self._rate)
            await self._persist(self._chance.choice(list(self.sent)), self._chance.randint(1, 6))
            if self._chance.random() < 0.002:
                await asyncio.sleep(0.3)

    async def finish(self) -> None:
        """A few more for each symbol, so that what was lost at the end of a stream shows."""
        for symbol in self.sent:
            await self._persist(symbol, 3)
        await asyncio.sleep(LOOKS_AFTER_MARKER_S)
        for symbol in self.sent:
            await self._persist(symbol, 1)

    async def _persist(self, symbol: str, count: int) -> None:
        try:
            if not self._is_known:
                await self._recover()
            await self._look_after_markers()
            await self._write(symbol, count)
        except (RedisError, OSError):
            self._is_known = False
            await asyncio.sleep(0.02)

    async def _write(self, symbol: str, count: int) -> None:
        new = [self._entry(symbol) for _ in range(count)]
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(EPOCH)
        for entry_id, payload in new:
            self._append(pipe, symbol, entry_id, payload, nomkstream=True)
        epoch, *answers = await pipe.execute(raise_on_error=False)
        if epoch != WHOLE or any(isinstance(answer, Exception) for answer in (epoch, *answers)):
            self._is_known = False
        elif None in answers:
            await self._begin_anew(symbol, new)

    async def _begin_anew(self, symbol: str, new: list[tuple[EntryId, bytes]]) -> None:
        """The stream has vanished; those before the last sent entry are history."""
        before = self._entries[symbol][: -len(new)]
        since_ns = before[-1][0].time_ns if before else self._began_ns
        async with self._redis.pipeline(transaction=True) as pipe:
            if not await self._holds(pipe):
                return
            for number, (entry_id, payload) in enumerate(new):
                self._append(pipe, symbol, entry_id, payload)
                if not number:
                    self._mark(pipe, symbol, entry_id.successor(), since_ns, entry_id.time_ns, "stream_lost")
            await pipe.execute(raise_on_error=False)

    async def _holds(self, pipe: Any) -> bool:
        """Whether the server still is the one we know; what follows fails when it is emptied in between."""
        await pipe.watch(EPOCH)
        self._is_known = await pipe.get(EPOCH) == WHOLE
        pipe.multi()
        return self._is_known

    async def _recover(self) -> None:
        """The server was away, or is another: send again what it has not, and is young enough."""
        is_emptied = await self._redis.get(EPOCH) != WHOLE
        if is_emptied:
            await self._redis.set(EPOCH, b"incomplete")
        for symbol, entries in self._entries.items():
            try:
                info = await self._redis.xinfo_stream(KEYS.stream(symbol))
                end = EntryId.parse(info["last-generated-id"])
            except RedisError as error:
                if "no such key" not in str(error):
                    raise
                end = ZERO_ID
            if end == ZERO_ID and not is_emptied:
                continue
            missing = [entry for entry in entries if entry[0] > end]
            again = [entry for entry in missing if entry[0].time_ns > time.time_ns() - self._replay_ns]
            pipe = self._redis.pipeline(transaction=True)
            if len(again) < len(missing) or (end == ZERO_ID and entries):
                since = end.successor() if end != ZERO_ID else entry_id_at(self._began_ns)
                until = again[0][0] if again else entries[-1][0]
                self._mark(pipe, symbol, since, since.time_ns, until.time_ns, "redis_lost")
            for entry_id, payload in again:
                self.sent_again[symbol, entry_id.time_ns].append(time.monotonic())
                self._append(pipe, symbol, entry_id, payload)
            await pipe.execute()
        # It may have been emptied in the midst of this.
        self._is_known = bool(await self._redis.set(EPOCH, WHOLE, xx=True))

    async def _look_after_markers(self) -> None:
        """A marker that went with a stream which stood there for a moment is written again."""
        now_s = time.monotonic()
        while self._markers and now_s - self._markers[0][0] > LOOKS_AFTER_MARKER_S:
            _, symbol, marker, since_ns = self._markers.pop(0)
            if not await self._redis.exists(KEYS.stream(symbol)):
                continue
            if await self._redis.xrange(KEYS.stream(symbol), str(marker), str(marker)):
                continue
            first = await self._redis.xrange(KEYS.stream(symbol), count=1)
            if first and EntryId.parse(first[0][0] or b"") > marker:
                continue
            async with self._redis.pipeline(transaction=True) as pipe:
                if not await self._holds(pipe):
                    return
                entry_id, payload = self._entry(symbol)
                self._append(pipe, symbol, entry_id, payload)
                self._mark(pipe, symbol, entry_id.successor(), since_ns, entry_id.time_ns, "stream_lost")
                await pipe.execute()

    def _entry(self, symbol: str) -> tuple[EntryId, bytes]:
        times = self.sent[symbol]
        time_ns = max(time.time_ns(), times[-1] + 1_000 if times else 0)
        times.append(time_ns)
        entry = (
            entry_id_at(time_ns),
            encode_quote((1.0, len(times), "V", 2.0, 1, "N", ["R"], "C", time_ns, 1)),
        )
        self._entries[symbol].append(entry)
        return entry

    def _append(
        self, pipe: Any, symbol: str, entry_id: EntryId, payload: bytes, *, nomkstream: bool = False
    ) -> None:
        pipe.xadd(KEYS.stream(symbol), {QUOTE_FIELD: payload}, str(entry_id), nomkstream=nomkstream)

    def _mark(
        self, pipe: Any, symbol: str, entry_id: EntryId, since_ns: int, to_ns: int, reason: str
    ) -> None:
        pipe.xadd(KEYS.stream(symbol), {GAP_FIELD: encode_gap(since_ns, to_ns, reason, 1)}, str(entry_id))
        self._markers.append((time.monotonic(), symbol, entry_id, since_ns))

"""Writes what operators read on Redis: `quotes:status`, `quotes:subscriptions`, `quotes:events`.

Decides when to write and that only differences are written. Must never hold anything up: it reads the other parts,
and when Redis is away it tries again with the newest state.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.journal import Journal, Note
from ingestor.subscriptions.reconciler import Reconciler
from wire import Keyspace

HEARTBEAT_EVERY_S: Final = 1.0
LOOK_EVERY_S: Final = 0.1
MAX_EVENTS_KEPT: Final = 10_000
CHUNK: Final = 1000


class Reporter:
    """The daemon's pen on Redis, apart from the quotes themselves."""

    def __init__(
        self,
        client: "Redis",
        keys: Keyspace,
        journal: Journal,
        reconciler: Reconciler,
        status: Callable[[], dict[Any, Any]],
        now_s: Callable[[], float],
    ) -> None:
        self._client = client
        self._keys = keys
        self._journal = journal
        self._reconciler = reconciler
        self._status = status
        self._now_s = now_s
        self._written: dict[str, str] | None = None
        self._written_version = -1

    async def run(self) -> None:
        """Report until cancelled."""
        next_heartbeat_s = 0.0
        while True:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                if self._now_s() >= next_heartbeat_s:
                    await self.beat()
                    next_heartbeat_s = self._now_s() + HEARTBEAT_EVERY_S
                await self.flush()
            await asyncio.sleep(LOOK_EVERY_S)

    async def flush(self) -> None:
        """Write the subscriptions that changed and the notes that queued up."""
        await self._write_subscriptions()
        await self._write_events()

    async def beat(self) -> None:
        """Write the status, heartbeat included."""
        await self._client.hset(self._keys.status, mapping=self._status())

    async def _write_subscriptions(self) -> None:
        version = self._reconciler.version
        if version == self._written_version or not self._reconciler.first_look.is_set():
            return
        statuses = self._reconciler.book.statuses(self._now_s())
        wanted = {symbol: status.as_json(iso) for symbol, status in statuses.items()}
        if self._written is None:
            # What an earlier run left is replaced whole.
            self._written = {}
            await self._client.delete(self._keys.subscriptions)
        before = self._written
        changed = [item for item in wanted.items() if before.get(item[0]) != item[1]]
        gone = [symbol for symbol in before if symbol not in wanted]
        try:
            for start in range(0, len(changed), CHUNK):
                await self._client.hset(
                    self._keys.subscriptions, mapping=dict(changed[start : start + CHUNK])
                )
            for start in range(0, len(gone), CHUNK):
                await self._client.hdel(self._keys.subscriptions, *gone[start : start + CHUNK])
        except BaseException:
            self._written = None
            raise
        self._written, self._written_version = wanted, version

    async def _write_events(self) -> None:
        queue = self._journal.queue
        while queue:
            notes = [queue[i] for i in range(min(len(queue), 200))]
            pipe = self._client.pipeline(transaction=False)
            for note in notes:
                pipe.xadd(self._keys.events, _event_fields(note), maxlen=MAX_EVENTS_KEPT, approximate=True)
            await pipe.execute()
            for _ in notes:
                queue.popleft()


def iso(unix_s: float) -> str:
    """UTC, to the millisecond, as people write it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event_fields(note: Note) -> dict[Any, Any]:
    fields: dict[Any, Any] = {"kind": note.kind, "at": iso(note.at_ns / 1e9)}
    for name, value in note.details.items():
        if value is not None:
            fields[name] = value if isinstance(value, str | int | float) else orjson.dumps(value).decode()
            if isinstance(value, bool):
                fields[name] = int(value)
    return fields

"""Writes what operators read on Redis: `quotes:status`, `quotes:subscriptions`, `quotes:events`.

Decides when to write and that only differences are written. Must never hold anything up: it reads the other parts,
and when Redis is away it tries again with the newest state.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.journal import Journal, Note
from ingestor.subscriptions.reconciler import Reconciler
from ingestor.subscriptions.states import SymbolStatus
from ingestor.turn import SILENT_AFTER_S, STANDBY
from wire import Keyspace

HEARTBEAT_EVERY_S: Final = 1.0
LOOK_EVERY_S: Final = 0.1
MAX_EVENTS_KEPT: Final = 10_000
CHUNK: Final = 1000
EVENTS_AT_ONCE: Final = 200
MANY_SYMBOLS: Final = 1000
MANY_LOOK_EVERY_S: Final = 1.0
UNSURE_FOR_S: Final = 3.0
"""Then a Redis that confirms nothing, or a publisher without a connection, is worth telling of."""


class Reporter:
    """The daemon's pen on Redis, apart from the quotes themselves."""

    def __init__(
        self,
        client: "Redis",
        keys: Keyspace,
        journal: Journal,
        reconciler: Reconciler,
        status: Callable[[], dict[Any, Any]],
        state: Callable[[], str],
        now_s: Callable[[], float],
        held_s: Callable[[], float],
    ) -> None:
        self._client = client
        self._keys = keys
        self._journal = journal
        self._reconciler = reconciler
        self._status = status
        self._state = state
        self._now_s = now_s
        self._held_s = held_s
        self._tried_s = self._unsure_since_s = 0.0
        self._told_state: str | None = None
        self._written: dict[str, SymbolStatus] | None = None
        self._written_version = -1
        self.on_beat: Callable[[float, str | None, str | None], None] = lambda *_: None

    async def run(self) -> None:
        """Report until cancelled. Each of the three keys fails for itself, and is tried again a second later."""
        next_beat_s = next_look_s = 0.0
        self._tried_s = time.monotonic()
        while True:
            # Not the wall clock: set back by an hour, it would stop the heart for as long.
            now_s = time.monotonic()
            is_well = True
            # The states of symbols are written at once; the daemon's own must not belie them for a second.
            is_due = now_s >= next_beat_s or self._state() != self._told_state
            if is_due and self._may_speak(now_s):
                next_beat_s = now_s + HEARTBEAT_EVERY_S
                is_well &= await self._try(self.beat, self._keys.status)
                is_well &= await self._try(self.check, self._keys.subscriptions)
            if now_s >= next_look_s:
                # Rewriting the states of many symbols takes time that the quotes need more.
                many = len(self._reconciler.book.desired.symbols) > MANY_SYMBOLS
                next_look_s = now_s + (MANY_LOOK_EVERY_S if many else 0.0)
                is_well &= await self._try(self.write_subscriptions, self._keys.subscriptions)
            is_well &= await self._try(self.write_events, self._keys.events)
            await asyncio.sleep(LOOK_EVERY_S if is_well else HEARTBEAT_EVERY_S)

    def _may_speak(self, now_s: float) -> bool:
        """Whether nobody else can have taken over without our knowing.

        After a silence in which another daemon might have begun, as when this process was frozen, the position
        has to be confirmed first: two that write one status would be believed in turn.
        """
        if now_s - self._tried_s > SILENT_AFTER_S:
            self._unsure_since_s = now_s
        self._tried_s = now_s
        return self._held_s() >= self._unsure_since_s or now_s - self._unsure_since_s > UNSURE_FOR_S

    async def _try(self, write: Callable[[], Awaitable[None]], key: str) -> bool:
        try:
            await write()
        except (RedisError, OSError, TimeoutError) as error:
            self._journal.note_rarely("not_reported", key, reason=str(error)[:200])
            return False
        return True

    async def beat(self) -> None:
        """Write the status, heartbeat included, and look who stands by."""
        sent_s = time.monotonic()
        fields = self._status()
        self._told_state = fields["state"]
        pipe = self._client.pipeline(transaction=False)
        pipe.hset(self._keys.status, mapping=fields)
        pipe.hmget(self._keys.status, STANDBY)
        _, standby = await pipe.execute()
        self.on_beat(sent_s, *(None if text is None else text.decode("utf-8", "replace") for text in standby))

    async def check(self) -> None:
        """Whether the states that were written are still there; a database that was emptied gets them anew."""
        if self._written and await self._client.hlen(self._keys.subscriptions) != len(self._written):
            self._written, self._written_version = None, -1

    async def write_subscriptions(self) -> None:
        """Write the states that changed, and take away those of symbols that are gone."""
        version = self._reconciler.version
        if version == self._written_version or not self._reconciler.first_look.is_set():
            return
        statuses = dict(self._reconciler.book.statuses(self._now_s()))
        before = self._written or {}
        # The book keeps the same object for as long as nothing about a symbol changes.
        changed = [symbol for symbol, status in statuses.items() if before.get(symbol) is not status]
        for start in range(0, len(changed), CHUNK):
            fields: dict[Any, Any] = {s: statuses[s].as_json(iso) for s in changed[start : start + CHUNK]}
            await self._client.hset(self._keys.subscriptions, mapping=fields)
        gone = [symbol for symbol in await self._present(before) if symbol not in statuses]
        for start in range(0, len(gone), CHUNK):
            await self._client.hdel(self._keys.subscriptions, *gone[start : start + CHUNK])
        self._written, self._written_version = statuses, version

    async def _present(self, before: Mapping[str, object]) -> Iterable[str]:
        """The fields that may stand there: on the first writing also what an earlier run left."""
        if self._written is not None:
            return before
        fields = await self._client.hkeys(self._keys.subscriptions)
        return [f.decode("utf-8", "replace") if isinstance(f, bytes) else f for f in fields]

    async def write_events(self) -> None:
        """Append the notes that queued up; what cannot be written now stays, in order."""
        queue = self._journal.queue
        while queue:
            notes = [queue.popleft() for _ in range(min(len(queue), EVENTS_AT_ONCE))]
            pipe = self._client.pipeline(transaction=False)
            for note in notes:
                pipe.xadd(self._keys.events, _event_fields(note), maxlen=MAX_EVENTS_KEPT, approximate=True)
            try:
                await pipe.execute()
            except BaseException:
                queue.extendleft(reversed(notes))
                raise


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

"""Whose turn it is: a daemon that starts while another one lives stands by, and the one at work gives way in time.

Decides from heartbeats on Redis alone; what keeps two writers apart in earnest is the epoch in `append.lua`. Must
never know what a daemon does when it has the turn. Two that started regardless would fight over the vendor's one
connection and fence each other off in turn.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ingestor.journal import Journal
from ingestor.tenure import Tenure
from wire import Keyspace

LOOK_EVERY_S: Final = 0.25
SILENT_AFTER_S: Final = 3.0
"""Without a beat for so long, a daemon is taken for dead; it beats every second."""


STANDBY: Final = ("standby", "standby_heartbeat")
"""Fields of the status: the name of a daemon that waits, and what changes while it does."""
KEEP_EVERY_S: Final = 0.1


class Vendor(Protocol):
    """The connection that only one daemon may have."""

    @property
    def off_because(self) -> str | None:
        """Why there is to be no session, or None."""

    def stay_off(self, reason: str | None) -> None:
        """End the session, and have no other until this is called with None."""


class Turn:
    """Waits for it. `standing_by_for` names the daemon that has it, while there is one."""

    def __init__(self, client: "Redis", keys: Keyspace, journal: Journal, instance: str) -> None:
        self._client = client
        self._keys = keys
        self._journal = journal
        self._instance = instance
        self._beat: bytes | None = None
        self._unchanged_since_s = 0.0
        self.standing_by_for: str | None = None
        self.trouble: str | None = None
        """Why Redis cannot be asked, or None while it can."""
        self.redis_answered = asyncio.Event()

    async def wait(self, stop: asyncio.Event) -> bool:
        """Wait while another daemon's heartbeat goes on; False when told to stop meanwhile."""
        self._unchanged_since_s = time.monotonic()
        while not stop.is_set():
            try:
                if not await self._is_another_alive():
                    break
            except ResponseError as error:
                if "WRONGTYPE" in str(error):
                    self.redis_answered.set()
                    # No heartbeat can be there; that it cannot be written is told by whoever writes it.
                    break
                self._cannot_tell(error)
            except (RedisError, OSError, TimeoutError) as error:
                self._cannot_tell(error)
            if time.monotonic() - self._unchanged_since_s > SILENT_AFTER_S:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await stop.wait()
        self.standing_by_for = self.trouble = None
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._client.hdel(self._keys.status, *STANDBY)
        return not stop.is_set()

    def note_trouble(self, reason: str | None) -> None:
        """Somebody else, who asks before there can be a turn, could not ask Redis; None: it could."""
        self.trouble = reason

    def _cannot_tell(self, error: Exception) -> None:
        """Silence proves nothing while a heartbeat could be neither written nor read."""
        self._unchanged_since_s = time.monotonic()
        self.trouble = str(error)[:200]
        self._journal.note_rarely("redis_away", "turn", "error", reason=self.trouble)

    async def _is_another_alive(self) -> bool:
        """A heartbeat is believed for changing, not for its time: the clocks of two hosts need not agree."""
        pipe = self._client.pipeline(transaction=False)
        # What we could not write, the other could not either: memory full, disk full, a replica.
        pipe.hset(
            self._keys.status, mapping=dict(zip(STANDBY, (self._instance, time.time_ns()), strict=True))
        )
        pipe.hmget(self._keys.status, "heartbeat", "state", "instance")
        replies: list[Any] = await pipe.execute()
        self.trouble = None
        self.redis_answered.set()
        beat, state, instance = replies[1]
        if state == b"stopped":
            return False
        if beat is None:
            # Lost together with the database, a heartbeat that was heard before still counts until it is silent.
            return self._beat is not None
        if beat != self._beat:
            other = (instance or b"another daemon").decode("utf-8", "replace")
            if self._beat is None:
                self._journal.note("listening_for_heartbeat", instance=other, for_s=SILENT_AFTER_S)
            elif self.standing_by_for is None:
                self.standing_by_for = other
                self._journal.note("standing_by", "warning", instance=other)
            self._beat, self._unchanged_since_s = beat, time.monotonic()
        return True


async def listen(client: "Redis", keys: Keyspace, tenure: Tenure) -> None:
    """Hear of a daemon that begins to stand by well before the next heartbeat would; never returns.

    Whoever loses Redis in between would not know that there is somebody to give way to.
    """
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        asked_s = time.monotonic()
        # That Redis is away is told by the heartbeat.
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            other, sign = (_text(value) for value in await client.hmget(keys.status, STANDBY))
            tenure.heard(asked_s, other, sign)


def _text(value: bytes | str | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


async def keep(tenure: Tenure, held_s: Callable[[], float], feed: Vendor) -> None:
    """Keep the turn, and keep off the vendor while another may take it; never returns."""
    while True:
        reason = tenure.off_because(time.monotonic(), held_s())
        if reason != feed.off_because:
            feed.stay_off(reason)
        await asyncio.sleep(KEEP_EVERY_S)

"""Notices that the desired set or the leases may have changed.

Decides nothing: it sets an event, and whoever waits for it reads everything anew, so a lost or doubled signal
does no harm. `CLIENT TRACKING … BCAST` redirected to a subscriber (https://redis.io/docs/latest/commands/client-tracking/)
needs no server configuration and sees SADD, SREM, DEL, RENAME, EXPIRE and FLUSHALL alike. Where it is not allowed,
the reader's own period has to do.
"""

import asyncio
from typing import Final

import hiredis

from ingestor.journal import Journal
from ingestor.redis_link import LinkFailure, RedisAddress, RedisLink, Reply
from ingestor.resp import pack
from wire import Keyspace

PING_EVERY_S: Final = 5.0
RETRY_S: Final = (0.1, 2.0)
NOT_ALLOWED_RETRY_S: Final = 60.0


class _NotAllowed(Exception):
    """The server does not let us track keys."""


class ChangeWatch:
    """`changed` is set after every change, and after every connection, since anything may have happened before."""

    def __init__(self, address: RedisAddress, keys: Keyspace, journal: Journal) -> None:
        self._address = address
        self._keys = keys
        self._journal = journal
        self.changed = asyncio.Event()
        self.is_tracking = False

    async def run(self) -> None:
        """Track until cancelled, through every loss of a connection."""
        attempt = 0
        while True:
            try:
                await self._track()
                attempt = 0
                pause_s = RETRY_S[0]
            except (LinkFailure, TimeoutError):
                attempt += 1
                pause_s = min(RETRY_S[1], RETRY_S[0] * 2.0 ** min(attempt, 10))
            finally:
                self.is_tracking = False
            await asyncio.sleep(pause_s)

    async def _track(self) -> None:
        generation = self._address.generation
        listener = await self._address.open("quotebus-watch")
        try:
            tracker = await self._address.open("quotebus-watch")
            try:
                try:
                    async with asyncio.timeout(PING_EVERY_S):
                        await self._redirect(tracker, listener)
                except _NotAllowed as refusal:
                    self._journal.note_rarely("tracking_not_allowed", "server", reason=str(refusal))
                    # Whoever answers after this connection has ended may be another server.
                    await asyncio.wait((listener.closed,), timeout=NOT_ALLOWED_RETRY_S)
                    return
                self.is_tracking = True
                self.changed.set()
                await self._until_lost(tracker, listener, generation)
            finally:
                tracker.abort("done")
        finally:
            listener.abort("done")

    async def _redirect(self, tracker: RedisLink, listener: RedisLink) -> None:
        listener_id = _answer(await listener.call("CLIENT", "ID"))
        _answer(await listener.call("SUBSCRIBE", "__redis__:invalidate"))
        listener.on_reply = self._on_push
        prefixes = ("PREFIX", self._keys.symbols, "PREFIX", self._keys.interest)
        _answer(await tracker.call("CLIENT", "TRACKING", "ON", "REDIRECT", listener_id, "BCAST", *prefixes))

    def _on_push(self, reply: Reply) -> None:
        if isinstance(reply, list) and reply and reply[0] == b"message":
            self.changed.set()

    async def _until_lost(self, tracker: RedisLink, listener: RedisLink, generation: int) -> None:
        """Both connections carry nothing for hours; only a PING tells a dead one from a quiet one."""
        while generation == self._address.generation:
            await asyncio.wait(
                (tracker.closed, listener.closed), timeout=PING_EVERY_S, return_when=asyncio.FIRST_COMPLETED
            )
            if tracker.closed.done() or listener.closed.done():
                return
            listener.send(pack("PING"))
            try:
                async with asyncio.timeout(PING_EVERY_S):
                    _answer(await tracker.call("PING"))
            except (TimeoutError, LinkFailure, _NotAllowed):
                return


def _answer(reply: Reply) -> Reply:
    if isinstance(reply, hiredis.ReplyError):
        refusal = str(reply)
        lasting = refusal.startswith("NOPERM") or "unknown" in refusal.lower()
        raise _NotAllowed(refusal) if lasting else LinkFailure(refusal)
    return reply

"""Looks again whether markers stand in their streams some time after they were stored.

Decides nothing but when to ask: one question for all that are due. Must never write. What goes into a stream that
somebody puts in the place of another for a moment is thrown away with it, and neither the daemon nor the readers of
the old one would notice.
"""

import asyncio
import time
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.journal import Journal
from ingestor.publisher.second_looks import Question, Sight
from ingestor.publisher.verdicts import Verdicts
from wire import GAP_FIELD, BadEntry, EntryId, Keyspace, decode_gap

_STAND: Final = resources.files("ingestor.publisher").joinpath("stand.lua").read_text()
TICK_S: Final = 0.25
LAST_ID: Final = EntryId(2**64 - 1, 2**64 - 1)


class Onlooker:
    """The clock and the questions of the second looks."""

    def __init__(self, client: "Redis", keys: Keyspace, verdicts: Verdicts, journal: Journal) -> None:
        self._client = client
        self._keys = keys
        self._verdicts = verdicts
        self._journal = journal

    async def run(self) -> None:
        """Look at what is due; never returns. A look that fails is made up by the next."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.look(time.monotonic())
            except (RedisError, OSError, TimeoutError) as error:
                self._journal.note_rarely("look_failed", "redis", reason=str(error)[:200])

    async def look(self, now_s: float) -> None:
        """One round trip, if anything is due, and what follows."""
        looks = self._verdicts.second_looks
        question = looks.question(now_s)
        if not question.entries:
            return
        reckoning = looks.reckon(question, await self._ask(question), now_s)
        for batch in reckoning.batches:
            reckoning.add(batch)
            # Half a minute of quotes may be kept; others have their turn in between.
            await asyncio.sleep(0)
        self._verdicts.on_gone(reckoning)

    async def _ask(self, question: Question) -> dict[str, list[Sight]]:
        asked = [(symbol, entry) for symbol, entries in question.entries.items() for entry in entries]
        streams = [self._keys.stream(symbol) for symbol, _ in asked]
        # Behind the largest id there is nothing, and it has no successor.
        places = [(str(entry), str(entry.successor() if entry < LAST_ID else entry)) for _, entry in asked]
        # A script, not a transaction: that would need a right which users of earlier releases were not given.
        replies: Sequence[Any] = await self._client.eval(
            _STAND, len(streams), *streams, *(id_ for place in places for id_ in place)
        )
        sights: dict[str, list[Sight]] = {symbol: [] for symbol in question.entries}
        for (symbol, _), *pair in zip(asked, replies[::2], replies[1::2], strict=True):
            before, next_ = map(_entry_of, pair)
            sights[symbol].append(
                Sight(
                    before and before[0], next_ and next_[0], _told_from_ns(symbol, next_) if next_ else None
                )
            )
        return sights


def _entry_of(reply: Sequence[Any]) -> tuple[EntryId, dict[bytes, bytes]] | None:
    if not reply:
        return None
    ((entry_id, (*fields,)),) = reply
    return EntryId.parse(entry_id.decode()), dict(zip(fields[::2], fields[1::2], strict=True))


def _told_from_ns(symbol: str, entry: tuple[EntryId, dict[bytes, bytes]]) -> int | None:
    entry_id, fields = entry
    marker = fields.get(GAP_FIELD.encode())
    try:
        return None if marker is None else decode_gap(symbol, str(entry_id), marker).from_ns
    except BadEntry:
        return None

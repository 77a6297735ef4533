"""Repairs the cache from the streams, which are the truth.

Decides when to look: soon after a field could not be written or a server forgot something, and again until a pass
finds nothing to mend. Must never set a field back: the script compares ids on the server. A field can be missing
because somebody removed it, the key held another type, or the user had no right to it.
"""

import asyncio
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.journal import Journal
from ingestor.publisher.stamper import Stamper
from wire import (
    QUOTE_FIELD,
    ZERO_ID,
    BadEntry,
    EntryId,
    Keyspace,
    QuoteRow,
    decode_latest,
    decode_quote,
    encode_latest,
)

_MEND: Final = resources.files("ingestor.publisher").joinpath("mend.lua").read_text()
CHUNK: Final = 200
LOOK_EVERY_S: Final = 60.0
RETRY_S: Final = 2.0
ENTRIES_LOOKED_AT: Final = 3
"""The newest entry may be a gap marker, of which there is never more than one in a row or two."""


class CacheMender:
    """`mended` counts the fields that were set."""

    def __init__(
        self,
        client: "Redis",
        keys: Keyspace,
        stamper: Stamper,
        position: Callable[[], tuple[int, str]],
        journal: Journal,
    ) -> None:
        self._client = client
        self._keys = keys
        self._stamper = stamper
        self._position = position
        self._journal = journal
        self.mended = 0

    async def run(self, suspect: asyncio.Event) -> None:
        """Look when told, and every `LOOK_EVERY_S`; never returns."""
        while True:
            pause_s = LOOK_EVERY_S
            suspect.clear()
            try:
                if await self.look():
                    pause_s = RETRY_S
            except (RedisError, OSError, TimeoutError) as error:
                self._journal.note_rarely("cache_not_mended", "redis", reason=str(error)[:200])
                pause_s = RETRY_S
            try:
                async with asyncio.timeout(pause_s):
                    await suspect.wait()
            except TimeoutError:
                continue
            # What was refused just now is refused still; and the append calls mend what they can by themselves.
            await asyncio.sleep(RETRY_S)

    async def look(self) -> int:
        """One pass over all known streams; how many fields were set."""
        symbols = sorted(self._stamper.symbols)
        mended = 0
        for start in range(0, len(symbols), CHUNK):
            mended += await self._look_at(symbols[start : start + CHUNK])
        if mended:
            self.mended += mended
            self._journal.note("cache_mended", fields=mended)
        return mended

    async def _look_at(self, symbols: Sequence[str]) -> int:
        pipe = self._client.pipeline(transaction=False)
        pipe.hmget(self._keys.latest, list(symbols))
        for symbol in symbols:
            pipe.xrevrange(self._keys.stream(symbol), count=ENTRIES_LOOKED_AT)
        held, *newest = await pipe.execute(raise_on_error=False)
        if isinstance(held, Exception):
            raise held
        arguments: list[str] = []
        for symbol, value, entries in zip(symbols, held, newest, strict=True):
            if not isinstance(entries, Exception):
                arguments += _behind(symbol, value, entries)
        if not arguments:
            return 0
        epoch, token = self._position()
        mended: int = await self._client.eval(
            _MEND, 2, self._keys.writer, self._keys.latest, str(epoch), token, *arguments
        )
        return mended


def _cached_id(symbol: str, held: bytes | None) -> EntryId:
    """Of which entry the cache has the quote; the zero id where it has none, or somebody wrote nonsense."""
    try:
        cached = decode_latest(symbol, held) if held else None
        return ZERO_ID if cached is None or cached.id is None else EntryId.parse(cached.id)
    except ValueError:
        return ZERO_ID


def _behind(symbol: str, held: bytes | None, entries: Sequence[Any]) -> tuple[str, ...]:
    """Symbol, id and value where the cache is behind the stream; else nothing."""
    for raw_id, fields in entries:
        payload = fields.get(QUOTE_FIELD.encode())
        if payload is None:
            continue
        entry_id = raw_id.decode() if isinstance(raw_id, bytes) else str(raw_id)
        if _cached_id(symbol, held) >= EntryId.parse(entry_id):
            return ()
        try:
            decode_quote(symbol, entry_id, payload)
        except BadEntry:
            return ()
        return (
            symbol,
            entry_id,
            encode_latest(symbol, entry_id, cast("QuoteRow", tuple(msgspec.json.decode(payload)))).decode(),
        )
    return ()

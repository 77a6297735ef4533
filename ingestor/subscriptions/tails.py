"""Where each stream ends: read from Redis before the first quote of a symbol is stamped.

Decides what an existing stream says about its last quote. Must never write. A stream that holds quotes was being
written by an earlier run, so whatever came in between is missing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from wire import QUOTE_FIELD, ZERO_ID, BadEntry, EntryId, Keyspace, decode_quote

CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Tail:
    """The last id, and the venue time of the newest entry if that is a quote."""

    last: EntryId
    time_ns: int | None


async def read_tails(client: "Redis", keys: Keyspace, symbols: Sequence[str]) -> dict[str, Tail]:
    """The tails of these symbols' streams, and their keys kept from expiring; redis-py's errors pass through.

    XINFO STREAM (https://redis.io/docs/latest/commands/xinfo-stream/) knows the last id even of a stream whose
    entries were all trimmed, which XREVRANGE does not.
    """
    tails = {}
    for start in range(0, len(symbols), CHUNK):
        chunk = symbols[start : start + CHUNK]
        pipe = client.pipeline(transaction=False)
        for symbol in chunk:
            pipe.xinfo_stream(keys.stream(symbol))
            pipe.persist(keys.stream(symbol))
        replies = await pipe.execute(raise_on_error=False)
        for symbol, info in zip(chunk, replies[::2], strict=True):
            tails[symbol] = _tail(symbol, info)
    return tails


async def keep(client: "Redis", keys: Keyspace, symbols: Sequence[str]) -> None:
    """Take away the expiry of these symbols' streams."""
    for start in range(0, len(symbols), CHUNK):
        pipe = client.pipeline(transaction=False)
        for symbol in symbols[start : start + CHUNK]:
            pipe.persist(keys.stream(symbol))
        await pipe.execute()


def _tail(symbol: str, info: Any) -> Tail:
    if isinstance(info, ResponseError) and re.search("no such key|WRONGTYPE", str(info)):
        # A key of another type is reported by the append call, when there is something to append.
        return Tail(ZERO_ID, None)
    if isinstance(info, Exception):
        raise info
    last = EntryId.parse(info["last-generated-id"])
    entry = info.get("last-entry")
    if not entry:
        return Tail(last, None)
    entry_id, fields = entry
    value = fields.get(QUOTE_FIELD.encode())
    try:
        return Tail(last, decode_quote(symbol, str(entry_id), value).time_ns if value else None)
    except BadEntry:
        return Tail(last, None)

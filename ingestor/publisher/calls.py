"""How the two scripts are called, and what their refusals are called.

Decides bytes and names. Must never know when a call is made, or what follows from its answer.
"""

import hashlib
import re
from importlib import resources
from typing import Final

from ingestor.publisher.stamper import Batch
from ingestor.resp import bulk
from wire import Keyspace

_APPEND: Final = resources.files("ingestor.publisher").joinpath("append.lua").read_bytes()
_CLAIM: Final = resources.files("ingestor.publisher").joinpath("claim.lua").read_bytes()
_SCRIPT_BULK: Final = bulk(_APPEND)
_SHA_BULK: Final = bulk(hashlib.sha1(_APPEND, usedforsecurity=False).hexdigest())
_WRAPPED: Final = re.compile(r"-(READONLY|OOM|MISCONF|NOREPLICAS|NOPERM|WRONGTYPE)\b")


class Calls:
    """The calls of one writer on one namespace."""

    def __init__(self, keys: Keyspace, token: str, maxlen: int) -> None:
        self._keys = keys
        self._token = token
        self._writer, self._latest = bulk(keys.writer), bulk(keys.latest)
        self._maxlen, self._token_bulk = bulk(maxlen), bulk(token)
        self._streams: dict[str, bytes] = {}

    def claim(self, epoch: int, answered: int, instance: str) -> tuple[str | bytes | int, ...]:
        """Take (epoch 0) or confirm the writer's position."""
        return ("EVAL", _CLAIM, 1, self._keys.writer, epoch, answered, instance, self._token)

    def append(self, batch: Batch, epoch: int, *, script_known: bool) -> bytes:
        """Append one batch, packed; with the whole script where the server may not know it yet."""
        how, script = (b"EVALSHA", _SHA_BULK) if script_known else (b"EVAL", _SCRIPT_BULK)
        symbols = batch.symbols
        head = b"*%d\r\n$%d\r\n%b\r\n%b" % (len(symbols) + 10, len(how), how, script)
        streams = self._streams
        parts = [head, bulk(len(symbols) + 2), self._writer, self._latest]
        for symbol in symbols:
            stream = streams.get(symbol)
            if stream is None:
                streams[symbol] = stream = bulk(self._keys.stream(symbol))
            parts.append(stream)
        parts += [bulk(epoch), bulk(batch.number), self._maxlen, self._token_bulk, bulk(batch.blob)]
        return b"".join(parts)


def kind_of(refusal: str) -> str:
    """The kind of an error reply; Redis 6.2 wraps what happened within a script in a sentence of its own."""
    wrapped = _WRAPPED.search(refusal)
    return wrapped[1] if wrapped else refusal.split(" ", 1)[0][:32]

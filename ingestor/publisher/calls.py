"""How the scripts are called, and what their refusals are called.

Decides bytes and names. Must never know when a call is made, or what follows from its answer.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Final

from ingestor.publisher.batch import Batch, pack
from ingestor.resp import bulk
from wire import Keyspace

_APPEND: Final = resources.files("ingestor.publisher").joinpath("append.lua").read_bytes()
_CLAIM: Final = resources.files("ingestor.publisher").joinpath("claim.lua").read_bytes()
_ENDS: Final = resources.files("ingestor.publisher").joinpath("ends.lua").read_bytes()
PROBE: Final = Batch([], pack([]), 0, 0, 0)
"""Number 0 and no entries: asks whether the writer's position still stands, and is answered with `seen` if so."""
_SCRIPT_BULK: Final = bulk(_APPEND)
_SHA_BULK: Final = bulk(hashlib.sha1(_APPEND, usedforsecurity=False).hexdigest())
MAX_SPELT: Final = 20_000
"""So many streams' names are kept spelt; symbols come and go for as long as the process lives."""
_WRAPPED: Final = re.compile(r"-(READONLY|OOM|MISCONF|NOREPLICAS|NOPERM|WRONGTYPE)\b")
_NOT_PERMITTED: Final = re.compile(
    r"ACL failure|can't run this command|can't access at least one of the keys"
)


class Calls:
    """The calls of one writer on one namespace."""

    def __init__(self, keys: Keyspace, token: str, maxlen: int) -> None:
        self._keys = keys
        self.token = token
        self.bus = ""
        """The id that the data gets where it has none; empty for none."""
        self._writer, self._latest = bulk(keys.writer), bulk(keys.latest)
        self._maxlen, self._token_bulk = bulk(maxlen), bulk(token)
        self._streams: dict[str, bytes] = {}

    def claim(
        self, epoch: int, least: int, instance: str, sent: int, answered: int
    ) -> tuple[str | bytes | int, ...]:
        """Take (epoch 0) or confirm the writer's position; batches up to `least` will not be sent again, none above
        `sent` ever was, and all up to `answered` are applied."""
        place = (self._keys.writer, epoch, least, instance, self.token, sent, answered, self.bus)
        return ("EVAL", _CLAIM, 1, *place)

    def ends(self, symbols: Sequence[str]) -> tuple[str | bytes | int, ...]:
        """The last ids of these symbols' streams, in order; an empty one where there is no stream."""
        return ("EVAL", _ENDS, len(symbols), *map(self._keys.stream, symbols))

    def check(self, batch: Batch, epoch: int) -> tuple[str | bytes | int, ...]:
        """What has become of the entries of a batch that was applied; answered with `seen` and notes."""
        keys = (self._keys.writer, self._keys.latest, *map(self._keys.stream, batch.symbols))
        return ("EVAL", _APPEND, len(keys), *keys, epoch, batch.number, 0, self.token, batch.blob)

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
                if len(streams) >= MAX_SPELT:
                    streams.clear()
                streams[symbol] = stream = bulk(self._keys.stream(symbol))
            parts.append(stream)
        parts += [bulk(epoch), bulk(batch.number), self._maxlen, self._token_bulk, bulk(batch.blob)]
        return b"".join(parts)


def kind_of(refusal: str) -> str:
    """The kind of an error reply; what happened within a script is wrapped in a sentence, of each server's own."""
    if _NOT_PERMITTED.search(refusal):
        return "NOPERM"
    wrapped = _WRAPPED.search(refusal)
    return wrapped[1] if wrapped else refusal.split(" ", 1)[0][:32]

"""Every key name on Redis, built in this file and nowhere else.

| key (namespace `quotes`) | type | writer | content |
|---|---|---|---|
| `quotes:symbols` | set | operators | the desired symbols |
| `quotes:interest` | sorted set | consumers | `SYMBOL@consumer-id`, score = expiry in unix ms |
| `quotes:stream:AAPL` | stream | daemon | one entry per quote (field `q`) or gap marker (field `gap`) |
| `quotes:latest` | hash | daemon | field `AAPL` -> newest quote as JSON, with its entry id |
| `quotes:rest` | hash | consumers | field `AAPL` -> newest quote that REST brought, without id |
| `quotes:rest:calls:<account>` | sorted set | consumers | the account's REST calls of the last minute |
| `quotes:groups:<group>:AAPL` | sorted set | consumers | one member, JSON: what a group has handled; expires |
| `quotes:assets:<account>` | hash | daemon | field `AAPL` -> `active tradable NASDAQ`; expires in a day |
| `quotes:subscriptions` | hash | daemon | field `AAPL` -> JSON: state, reason, since, live_since |
| `quotes:status` | hash | daemon | instance, state, feed, heartbeat, counts |
| `quotes:events` | stream | daemon | the audit trail, capped |
| `quotes:writer` | hash | daemon | epoch, token, last batch applied, id of the data: the writer's position |

It knows no value's format: those are in `wire.quote` and `wire.gap`.
"""

import hashlib
import re
from typing import Final

from wire.symbols import Symbol

CONTRACT_VERSION: Final = 1
QUOTE_FIELD: Final = "q"
GAP_FIELD: Final = "gap"

_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def account_of(key_id: str) -> str:
    """The name of an account in keys that all its programs share: a hash, from which the key id does not follow."""
    return hashlib.sha256(key_id.encode()).hexdigest()[:16]


class BadNamespace(ValueError):
    """A namespace that could not safely become the start of key names."""


class Keyspace:
    """The key names of one namespace, which by default is `quotes`.

    Raises `BadNamespace` when the name has characters that glob patterns, ACL rules or cluster hash tags
    would read as their own.
    """

    __slots__ = (
        "events",
        "interest",
        "latest",
        "namespace",
        "rest",
        "status",
        "stream_prefix",
        "subscriptions",
        "symbols",
        "writer",
    )

    def __init__(self, namespace: str = "quotes") -> None:
        if not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):  # type: ignore[redundant-expr]
            raise BadNamespace(
                f"namespace {str(namespace)[:80]!r} is not usable: take 1 to 64 letters, digits or any of _ . : -"
            )
        self.namespace: Final = namespace
        self.symbols: Final = f"{namespace}:symbols"
        self.interest: Final = f"{namespace}:interest"
        self.stream_prefix: Final = f"{namespace}:stream:"
        self.latest: Final = f"{namespace}:latest"
        self.rest: Final = f"{namespace}:rest"
        self.subscriptions: Final = f"{namespace}:subscriptions"
        self.status: Final = f"{namespace}:status"
        self.events: Final = f"{namespace}:events"
        self.writer: Final = f"{namespace}:writer"

    def stream(self, symbol: str) -> str:
        """The stream that holds this symbol's quotes."""
        return self.stream_prefix + symbol

    def rest_calls(self, account: str) -> str:
        """The REST calls of one account in the last minute. `account` is a hash, never the key id itself."""
        return f"{self.rest}:calls:{account}"

    def group(self, group: str, symbol: str) -> str:
        """What this consumer group has handled in the symbol's stream."""
        return f"{self.namespace}:groups:{group}:{symbol}"

    def assets(self, account: str) -> str:
        """Alpaca's list of assets, as this account was told it. `account` is a hash, never the key id itself."""
        return f"{self.namespace}:assets:{account}"

    def symbol_of(self, stream: str) -> Symbol:
        """The symbol whose quotes this stream holds; `ValueError` for any other key."""
        if not stream.startswith(self.stream_prefix):
            raise ValueError(f"{stream!r} is not a quote stream of namespace {self.namespace!r}")
        return Symbol(stream.removeprefix(self.stream_prefix))

    def __repr__(self) -> str:
        return f"Keyspace({self.namespace!r})"

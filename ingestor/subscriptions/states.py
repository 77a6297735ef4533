"""What `quotes:subscriptions` says of a symbol, and what an earlier run said there.

Decides the form of one field and how it is read again. Must never know how a symbol came into its state.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from ingestor.subscriptions.seniority import Earlier

BY_OPERATOR: Final = "put out by an operator's symbol"
BY_LIMIT: Final = "put out when the limit fell"


class SymbolState(Enum):
    """The states of `quotes:subscriptions`."""

    REQUESTED = "requested"
    LIVE = "live"
    NOT_STORED = "not_stored"
    WAITING = "waiting"
    REFUSED = "refused"
    LEAVING = "leaving"


class Unstored(NamedTuple):
    """Whose quotes come and are not stored, and why; `every` is the reason of all symbols that are live."""

    symbols: Mapping[str, str]
    every: str | None = None

    def why(self, symbol: str) -> str | None:
        """The reason of one that is live, or None where its quotes are stored."""
        return self.symbols.get(symbol) or self.every

    def count(self, live: frozenset[str]) -> int:
        """How many of these there are."""
        return len(self.symbols.keys() & live) if self.every is None else len(live)


class SymbolStatus(NamedTuple):
    """One field of `quotes:subscriptions`; times are unix seconds.

    `since_s` is from when on state and reason are these, `live_since_s` when the symbol became live for the first
    time since it is wanted: its claim to a place.
    """

    state: SymbolState
    reason: str | None
    since_s: float
    live_since_s: float | None = None

    def as_json(self, iso: Callable[[float], str]) -> str:
        """The field's value."""
        live_since = None if self.live_since_s is None else iso(self.live_since_s)
        value = {"state": self.state.value, "reason": self.reason, "since": iso(self.since_s)}
        return json.dumps(value | {"live_since": live_since}, ensure_ascii=False)


def read_earlier(value: bytes | None) -> Earlier | None:
    """What an earlier run, perhaps of an older release, wrote of a symbol; None for what is not readable."""
    try:
        fields: Any = json.loads(value or b"null")
        since_s = datetime.fromisoformat(fields["since"]).timestamp()
        live_since = fields.get("live_since", fields["since"] if fields["state"] == "live" else None)
        live_since_s = None if live_since is None else datetime.fromisoformat(live_since).timestamp()
        reason = str(fields["reason"] or "") if fields["state"] == SymbolState.WAITING.value else ""
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    cause = next((cause for cause in (BY_OPERATOR, BY_LIMIT) if reason.startswith(cause)), None)
    return Earlier(live_since_s, since_s, cause)

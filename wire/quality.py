"""How far a symbol's cached quote can be trusted, from what stands on Redis alone.

Decides one of four levels, with the reason and since when. Must never know who asks, nor ask for anything: the
fields and the time are arguments. The time is the server's own (TIME), so that the clocks of a dozen readers need
not agree. Whatever is missing or unreadable counts against the quote: nothing unknown is called live.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from wire.quote import UNREADABLE
from wire.times import to_datetime

HEARTBEAT_LIMIT_S: Final = 5.0
"""A daemon beats every second; one whose last beat is older is taken for gone. A beat that lies further ahead of
the server's clock than this proves nothing either."""
QUIET_AFTER_S: Final = 60.0
STATUS_FIELDS: Final = ("heartbeat", "state", "standby", "connected_since", "storing")
"""The fields of `quotes:status` that the decision needs."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_US: Final = 1_000
_NS_PER_S: Final = 1_000_000_000
_UNSUBSCRIBED: Final = {
    "waiting": "waiting for room under the limit of symbols",
    "refused": "refused",
    "leaving": "no longer desired",
}
_AWAY: Final = {
    "starting": "the daemon has only just started",
    "connecting": "the daemon is not connected to its feed",
    "redis_away": "the daemon cannot write quotes to Redis",
    "standby": "the daemon only stands by",
    "catching_up": "the daemon stores quotes late",
}
_NOT_STORING: Final = "not_storing"
"""The daemon's state while quotes come and are not stored; the symbols' states say whose."""
_GONE: Final = ("stopped", "stopping")
DAEMON_STATES: Final = frozenset({"live", *_AWAY, _NOT_STORING, *_GONE})
"""What a daemon of this version calls itself. A later one may have other words, which count as not live."""
SYMBOL_STATES: Final = frozenset({"live", "not_stored", "requested", *_UNSUBSCRIBED})
"""The same of its symbols."""


class Level(StrEnum):
    """What to make of a cached quote, the best first."""

    LIVE = "live"
    """Connected, subscribed, and a quote came lately."""
    QUIET = "quiet"
    """Connected and subscribed, but no quote came lately, or none yet on this connection, or none since the daemon
    made a remark on the symbol."""
    STALE = "stale"
    """The daemon is gone, its feed or its Redis is away, or newer quotes came and are not stored: the quote may be
    outdated."""
    NOT_SUBSCRIBED = "not_subscribed"
    """Nobody has subscribed the symbol, so no newer quote will come."""


class Quality(msgspec.Struct, frozen=True, gc=False):
    """The verdict on one symbol's cached quote.

    `reason` is None when it is live. `since_ns` is from when on the level holds, as far as that can be told, and
    `quote_age_s` how long ago the cached quote was received; both None when not known.
    """

    symbol: str
    level: Level
    reason: str | None
    since_ns: int | None
    quote_age_s: float | None

    @property
    def is_live(self) -> bool:
        """Whether the cached quote is the market's present one, as far as anybody here can tell."""
        return self.level is Level.LIVE

    @property
    def since(self) -> datetime | None:
        """`since_ns` as an aware datetime, cut to microseconds."""
        return None if self.since_ns is None else to_datetime(self.since_ns)


class _Subscription(msgspec.Struct, gc=False):
    state: str
    reason: str | None = None
    since: str | None = None


_decode_subscription = msgspec.json.Decoder(_Subscription).decode


class QualityJudge:
    """Judges any number of symbols by one reading of `quotes:status`.

    `now_ns` is the server's time, nanoseconds since the epoch. `status` needs `STATUS_FIELDS`; what it lacks, or
    holds as None, counts as not there. A daemon whose last heartbeat is older than `beat_limit_s` is gone.
    """

    def __init__(
        self,
        now_ns: int,
        status: Mapping[str, str | bytes | None],
        *,
        quiet_after_s: float = QUIET_AFTER_S,
        beat_limit_s: float = HEARTBEAT_LIMIT_S,
    ) -> None:
        fields = {name: _text(status.get(name)) for name in STATUS_FIELDS}
        self.now_ns: Final = now_ns
        self.was_there: Final = any(fields.values())
        """Whether a daemon has ever written here."""
        self.state: Final = fields["state"][:40]
        """The daemon's."""
        self._beat_limit_s = beat_limit_s
        self._quiet_after_ns = int(quiet_after_s * _NS_PER_S)
        self._storing = fields["storing"][:200]
        self._connected_since_ns = time_ns_of(fields["connected_since"])
        self._beat_ns = time_ns_of(fields["heartbeat"])
        self._gone = self._why_gone(fields)

    @property
    def is_gone(self) -> bool:
        """Whether there is no daemon that is at work."""
        return self._gone is not None

    def is_live_at(self, received_ns: int | None) -> bool:
        """Whether a symbol that is subscribed and stored is live, its cached quote having been received then."""
        if self._gone is not None or self.state not in ("live", _NOT_STORING):
            return False
        return self._lately(received_ns, None)[0] is Level.LIVE

    def judge(self, symbol: str, subscription: str | bytes | None, received_ns: int | None) -> Quality:
        """The verdict; `subscription` is the symbol's field in `quotes:subscriptions`, `received_ns` when its
        cached quote was received (or its venue time, where that is not known), each None when there is none."""
        level, reason, since_ns = self._verdict(subscription, received_ns)
        age_s = None if received_ns is None else (self.now_ns - received_ns) / _NS_PER_S
        return Quality(symbol, level, reason, since_ns, age_s)

    def _verdict(
        self, subscription: str | bytes | None, received_ns: int | None
    ) -> tuple[Level, str | None, int | None]:
        if self._gone is not None:
            return Level.STALE, self._gone, self._beat_ns
        if subscription is None:
            return Level.NOT_SUBSCRIBED, "not desired, or not looked at yet", None
        try:
            found = _decode_subscription(subscription)
        except UNREADABLE:
            return Level.NOT_SUBSCRIBED, "its state is not readable", None
        since_ns = time_ns_of(found.since)
        if found.state in _UNSUBSCRIBED:
            return Level.NOT_SUBSCRIBED, found.reason or _UNSUBSCRIBED[found.state], since_ns
        if self.state not in ("live", _NOT_STORING):
            why = _AWAY.get(self.state, f"the daemon is in state {self.state!r}")
            why += f": {self._storing}" if self._storing else ""
            return Level.STALE, why, since_ns if found.state == "requested" else received_ns
        if found.state == "requested":
            return Level.NOT_SUBSCRIBED, found.reason or "asked for, not confirmed yet", since_ns
        if found.state == "not_stored":
            return Level.STALE, found.reason or "its quotes are not stored", since_ns
        if found.state != "live":
            return Level.NOT_SUBSCRIBED, f"in state {found.state[:40]!r}", since_ns
        if received_ns is None and found.reason:
            return Level.QUIET, f"no quote yet; {found.reason}", since_ns
        if found.reason and since_ns is not None and received_ns is not None and received_ns < since_ns:
            # The daemon knows why there is none behind it, however young it is.
            return Level.QUIET, found.reason, since_ns
        return self._lately(received_ns, since_ns)

    def _lately(self, received_ns: int | None, since_ns: int | None) -> tuple[Level, str | None, int | None]:
        """The daemon, its feed and the subscription are well: did quotes come?"""
        if received_ns is None:
            return Level.QUIET, "no quote yet", since_ns
        if self._connected_since_ns is None or received_ns < self._connected_since_ns:
            # What happened before the feed came back was missed, and nothing has told since.
            return Level.QUIET, "no quote since the feed came back", received_ns
        age_ns = self.now_ns - received_ns
        if age_ns > self._quiet_after_ns:
            return Level.QUIET, f"no quote for {age_ns / _NS_PER_S:.0f} s", received_ns
        if age_ns < -HEARTBEAT_LIMIT_S * _NS_PER_S:
            return Level.QUIET, f"the newest quote is dated {-age_ns / _NS_PER_S:.0f} s ahead", received_ns
        return Level.LIVE, None, since_ns

    def _why_gone(self, fields: Mapping[str, str]) -> str | None:
        if not self.was_there:
            return "no daemon has written here"
        waits = f"; {fields['standby'][:100]} stands by" if fields["standby"] else ""
        if self.state in _GONE:
            return f"the daemon was stopped{waits}"
        if self._beat_ns is None:
            return f"the daemon's heartbeat is not readable{waits}"
        age_s = (self.now_ns - self._beat_ns) / _NS_PER_S
        if age_s > self._beat_limit_s:
            return f"the daemon's last heartbeat is {age_s:.0f} s old{waits}"
        if age_s < -HEARTBEAT_LIMIT_S:
            return f"the daemon's heartbeat lies {-age_s:.0f} s ahead of the server's clock"
        return None


def time_ns_of(text: str | None) -> int | None:
    """Nanoseconds since the epoch of a time with a zone, as the daemon writes them; None for anything else."""
    try:
        time = datetime.fromisoformat(text or "")
        return (time - _EPOCH) // timedelta(microseconds=1) * _NS_PER_US
    except (ValueError, TypeError, OverflowError):
        return None


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""

"""Which followed symbols get no quotes now, why, and which lines of the log that is worth.

Decides from what the daemon writes of itself and of each symbol, and from how old the cached quotes are; `telling`
decides how often that is told. Must never ask Redis, wait, or read a clock: seconds of any monotonic clock are an
argument.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from consumers.reading.telling import GRACE_S, QUIET, SERVED, Cause, Layer, Telling, Told, as_cause
from wire import HEARTBEAT_LIMIT_S, STATUS_FIELDS, Level, QualityJudge
from wire.quality import time_ns_of
from wire.quote import UNREADABLE

FIELDS: Final = (*STATUS_FIELDS, "market")
"""The fields of `quotes:status` that are looked at."""
BEAT_LIMIT_S: Final = 3.2
"""A daemon whose last heartbeat is older has missed three; a standby takes over then."""
BEATS_S: Final = 2.6
"""While a heartbeat has changed within so long, it may be as old as `quality` allows: its clock is behind."""
REQUEST_GRACE_S: Final = 2.8
"""As `GRACE_S`, for a state of the symbol itself: Alpaca may take a moment to confirm or to refuse it."""
BACK_GRACE_S: Final = 2.8
"""Behind an outage of Redis, in which the daemon could not write its heartbeat either."""
CALM_S: Final = 3.0
"""Without a cause for so long, or with a quote, trouble is over; between causes in a row it is not."""
QUIET_AGAIN_S: Final = 10.0
"""How often a cached quote is looked at, once the symbol has been looked at for the first time."""
MOST_STATES: Final = 2_000
MOST_QUOTES: Final = 500
"""Symbols of one look; of more, some are looked at each time, longest unseen first."""

WAITING: Final = "waiting"
REFUSED: Final = "refused"
NO_REDIS: Final = "no_redis"
NO_DAEMON: Final = "no_daemon"


class Unserved(msgspec.Struct, frozen=True, gc=False):
    """A symbol that is followed and gets no quotes now.

    `state` is its own as the daemon writes it (`waiting`, `refused`, `requested`, `not_stored`, …; `live` where it
    is subscribed and the daemon has made a remark since its last quote), `not_subscribed` where nothing is written
    of it, the daemon's (`connecting`, `redis_away`, …) where that is why, `no_daemon`, `no_redis`, or `quiet` for
    one that is subscribed and has had no quote lately. `reason` says it in words.
    """

    symbol: str
    state: str
    reason: str


class Answers(NamedTuple):
    """What one look brought; what could not be asked, such as by a user without the right, is None or absent."""

    now_ns: int | None
    status: Mapping[str, bytes | None] | None
    states: Mapping[str, bytes | None]
    received_ns: Mapping[str, int | None]
    """When the cached quote was received, of the symbols whose field was looked at."""


class _State(msgspec.Struct, gc=False):
    state: str
    reason: str | None = None
    since: str | None = None

    def is_newer_than(self, received_ns: int | None) -> bool:
        """Whether the daemon has made a remark since this quote came, by its own clock in both."""
        since_ns = time_ns_of(self.since) if self.reason else None
        return since_ns is not None and received_ns is not None and received_ns < since_ns


_decode: Final = msgspec.json.Decoder(_State).decode
_NOWHERE: Final = _State("not_subscribed")
_SUBSCRIBED: Final = ("live", "not_stored")


@dataclass(slots=True, eq=False)
class _Symbol:
    followed_s: float
    state_s: float = -1.0
    """When its state was seen; before 0: never."""
    quote_due_s: float = 0.0
    quote_seen_s: float = -1.0
    state: bytes | None = None
    own: _State = _NOWHERE
    received_ns: int | None = None
    cause: Cause = SERVED
    since_s: float = 0.0
    """From when on the cause is this."""
    trouble_s: float = math.inf
    """From when on there has been some cause or other."""
    calm_s: float = -math.inf
    """Since when there is none."""


class Lookout:
    """Knows who is followed; `questions`, then `digest`, every second."""

    def __init__(self) -> None:
        self._symbols: Final[dict[str, _Symbol]] = {}
        self._telling: Final = Telling()
        self._is_away = False
        self._beat: bytes | None = None
        self._beat_changed_s = -math.inf
        self._back_s = -math.inf
        """Since when Redis answers again."""
        self.unserved: dict[str, Unserved] = {}
        """By symbol, as of the last look. Replaced, never changed."""
        self.subscribed: frozenset[str] = frozenset()
        """The symbols of which the daemon says that Alpaca has confirmed them, as of the last look."""

    def follow(self, symbols: Iterable[str], now_s: float) -> None:
        """Look at these from now on."""
        for symbol in symbols:
            self._symbols[symbol] = _Symbol(now_s, quote_due_s=now_s)

    def drop(self, symbols: Iterable[str]) -> None:
        """Look at these no more."""
        gone = frozenset(symbols)
        for symbol in gone:
            self._symbols.pop(symbol, None)
        # What is known of them would be old when somebody follows them again.
        self.unserved = {symbol: why for symbol, why in self.unserved.items() if symbol not in gone}
        self.subscribed -= gone

    def questions(self, now_s: float) -> tuple[list[str], list[str]]:
        """The symbols whose states are to be asked for, and those whose cached quotes are."""
        states = list(self._symbols)
        if len(states) > MOST_STATES:
            states = sorted(states, key=lambda symbol: self._symbols[symbol].state_s)[:MOST_STATES]
        due = [symbol for symbol, known in self._symbols.items() if known.quote_due_s <= now_s]
        due.sort(key=lambda symbol: self._symbols[symbol].quote_due_s)
        return states, due[:MOST_QUOTES]

    def digest(self, answers: Answers, now_s: float) -> list[Told]:
        """What to tell after this look."""
        if self._is_away:
            self._is_away, self._back_s = False, now_s
        for symbol, state in answers.states.items():
            if (known := self._symbols.get(symbol)) is not None:
                known.state_s = now_s
                if state != known.state:
                    known.state, known.own = state, _read(state)
        for symbol, received_ns in answers.received_ns.items():
            if (known := self._symbols.get(symbol)) is not None:
                known.received_ns, known.quote_seen_s = received_ns, now_s
                known.quote_due_s = now_s + QUIET_AGAIN_S
        self.subscribed = frozenset(
            symbol for symbol, known in self._symbols.items() if known.own.state in _SUBSCRIBED
        )
        if answers.now_ns is None or answers.status is None:
            causes = {s: _by_state(known) for s, known in self._symbols.items() if known.state_s >= 0}
            return self._told(causes, now_s)
        if (beat := answers.status.get("heartbeat")) != self._beat:
            self._beat, self._beat_changed_s = beat, now_s
        beats = now_s - self._beat_changed_s < BEATS_S
        limit_s = HEARTBEAT_LIMIT_S if beats else BEAT_LIMIT_S
        judge = QualityJudge(answers.now_ns, answers.status, beat_limit_s=limit_s)
        is_closed = answers.status.get("market") == b"closed"
        return self._told(
            {
                symbol: self._judged(judge, symbol, known, now_s, is_closed=is_closed)
                for symbol, known in self._symbols.items()
                if known.state_s >= 0
            },
            now_s,
        )

    def away(self, why: str, now_s: float, *, for_long: bool = False) -> list[Told]:
        """Redis cannot be asked; `for_long`: it has been waited for already. What to tell."""
        self._is_away = True
        cause = Cause(NO_REDIS, why, Layer.REDIS, 0.0 if for_long else GRACE_S)
        return self._told(dict.fromkeys(self._symbols, cause), now_s)

    def _judged(
        self, judge: QualityJudge, symbol: str, known: _Symbol, now_s: float, *, is_closed: bool
    ) -> Cause:
        own = known.own
        if own.state == "live" and judge.is_live_at(known.received_ns):
            # The usual case, of thousands of symbols every second.
            if own.is_newer_than(known.received_ns):
                return self._remarked(known, now_s)
            known.trouble_s = math.inf
            return SERVED
        if own.state in (WAITING, REFUSED) and not judge.was_there:
            return _by_state(known)
        found = judge.judge(symbol, known.state, known.received_ns)
        reason = found.reason or ""
        if judge.is_gone:
            # The age of a heartbeat is a grace of its own, but not where none could be written.
            grace_s = 0.0 if judge.was_there else GRACE_S
            if now_s - self._back_s < BACK_GRACE_S:
                grace_s = BACK_GRACE_S
            return as_cause(NO_DAEMON, reason, Layer.DAEMON, grace_s=grace_s)
        if found.level is Level.NOT_SUBSCRIBED:
            return _by_state(known, reason)
        if found.level is Level.STALE:
            if own.state == "not_stored":
                return as_cause(own.state, reason, Layer.SYMBOL)
            return as_cause(judge.state, reason, Layer.DAEMON)
        if found.level is Level.LIVE:
            return SERVED
        if known.quote_seen_s != now_s:
            # By a cached quote of some seconds ago nothing can be said of the present.
            known.quote_due_s = min(known.quote_due_s, now_s) if known.cause is SERVED else known.quote_due_s
            return known.cause if known.cause.state in (QUIET, "live") else SERVED
        if found.since_ns is not None and judge.now_ns - found.since_ns < GRACE_S * 1e9:
            known.quote_due_s = now_s
            return SERVED
        if own.reason:
            return as_cause("live", own.reason, Layer.SYMBOL, grace_s=0.0)
        if is_closed:
            return Cause(QUIET, "the market is closed", Layer.QUOTES, 0.0, is_fault=False)
        is_new = now_s - known.followed_s < 2 * QUIET_AGAIN_S
        words = f"{reason}; a halt looks the same"
        return as_cause(QUIET, words, Layer.QUOTES, grace_s=0.0, is_new=is_new)

    def _remarked(self, known: _Symbol, now_s: float) -> Cause:
        """Its last quote is no old one, and the daemon knows why there is none behind it."""
        if known.quote_seen_s == now_s:
            return as_cause("live", known.own.reason or "", Layer.SYMBOL)
        if known.cause is SERVED or now_s - known.since_s < known.cause.grace_s:
            known.quote_due_s = min(known.quote_due_s, now_s)
        return known.cause if known.cause.state == "live" else SERVED

    def _told(self, causes: Mapping[str, Cause], now_s: float) -> list[Told]:
        due: dict[str, Cause] = {}
        unserved: dict[str, Unserved] = {}
        for symbol, cause in causes.items():
            known = self._symbols[symbol]
            if cause is SERVED:
                if known.cause is not SERVED:
                    known.cause, known.calm_s = SERVED, now_s
                if now_s - known.calm_s >= CALM_S:
                    known.trouble_s = math.inf
                if symbol in self._telling:
                    due[symbol] = SERVED
                continue
            if known.cause.key != cause.key:
                known.cause, known.since_s = cause, now_s
            known.trouble_s = min(known.trouble_s, now_s)
            # Each cause may pass by itself; several in a row have had that time together. But behind an outage of
            # Redis the daemon has the whole of it.
            is_back = cause.state == NO_DAEMON and now_s - self._back_s < BACK_GRACE_S
            has_lasted = now_s - known.trouble_s >= REQUEST_GRACE_S and not is_back
            if has_lasted or now_s - known.since_s >= cause.grace_s:
                due[symbol] = cause
                unserved[symbol] = Unserved(symbol, cause.state, cause.reason)
        self.unserved = unserved
        return self._telling.tell(due, self._symbols, now_s)


def _read(state: bytes | None) -> _State:
    if state is None:
        return _NOWHERE
    try:
        return _decode(state)
    except UNREADABLE:
        return _State("unreadable", "its state is not readable")


def _by_state(known: _Symbol, reason: str = "") -> Cause:
    own = known.own
    if own.state in _SUBSCRIBED:
        return SERVED
    words = own.reason or reason or "no reason is given"
    return Cause(own.state[:40], words, grace_s=0.0 if own.state in (WAITING, REFUSED) else REQUEST_GRACE_S)

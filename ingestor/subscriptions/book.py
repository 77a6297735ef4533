"""What is wanted, what the vendor confirmed, what it refused: and the next request that follows.

Decides the order and the size of requests, how a refused batch is divided until the culprit stands alone, where
the plan's limit lies, and when to try a refusal again. Must never know sockets, Redis or the clock. A request is
recorded as under way before it is handed out, so asking twice cannot send it twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ingestor.feed.codes import Code, Remedy
from ingestor.feed.session import MAX_CHANGE_SYMBOLS, Change
from ingestor.subscriptions.desired import Desired
from ingestor.subscriptions.plan import Plan, plan
from ingestor.subscriptions.seniority import Earlier, Seniority
from ingestor.subscriptions.states import BY_LIMIT, BY_OPERATOR, SymbolState, SymbolStatus

RETRY_REFUSED_AFTER_S: Final = 3600.0
"""A malformed symbol stays malformed; once an hour is for the day on which a listing begins."""
RETRY_LIMIT_AFTER_S: Final = (60.0, 900.0)
"""The first look whether the limit still holds, doubling up to the last: one mistaken refusal costs a minute, and a
larger plan is noticed within a quarter of an hour."""
UNCONFIRMED_BEFORE_REFUSAL: Final = 3
EXPIRIES_BEFORE_RECONNECT: Final = 2
IGNORED_REMOVALS_BEFORE_RECONNECT: Final = 3


@dataclass(slots=True)
class _Refusal:
    reason: str
    retry_at_s: float


class SubscriptionBook:
    """The reconciler's memory. Tell it what happened; ask `next_change` after each telling."""

    def __init__(self, limit: int | None = None) -> None:
        self._configured_limit = limit
        self._desired = Desired()
        self._wanted: frozenset[str] = frozenset()
        self._seniority = Seniority()
        self._order: tuple[str, ...] = ()
        self._put_out: dict[str, str] = {}
        self._confirmed: frozenset[str] = frozenset()
        self._refused: dict[str, _Refusal] = {}
        self._suspects: list[tuple[str, ...]] = []
        self._unconfirmed: dict[str, int] = {}
        self._ceiling: int | None = None
        self._ceiling_until_s = 0.0
        self._ceilings_lapsed = 0
        self._is_probing = False
        self._connected = False
        self._expiries = 0
        self._ignored_removals = 0
        self._statuses: dict[str, SymbolStatus] = {}
        self.in_flight: Change | None = None
        self.must_reconnect: str | None = None
        self.quiet: frozenset[str] = frozenset()
        self.quiet_reason = ""

    def __repr__(self) -> str:
        return (
            f"<SubscriptionBook {len(self._confirmed)}/{len(self._wanted)} live, "
            f"{len(self._refused)} refused, limit {self.limit}>"
        )

    @property
    def desired(self) -> Desired:
        """What is wanted, as last told."""
        return self._desired

    @property
    def confirmed(self) -> frozenset[str]:
        """The vendor's set, as last acknowledged; empty while not connected."""
        return self._confirmed

    @property
    def limit(self) -> int | None:
        """How many symbols fit: as configured, or as the vendor's refusals have taught."""
        if self._ceiling is None or self._configured_limit is None:
            return self._configured_limit if self._ceiling is None else self._ceiling
        return min(self._configured_limit, self._ceiling)

    @property
    def settled(self) -> bool:
        """Whether nothing is under way and nothing is left to ask for."""
        goal = self._plan()
        return self._connected and self.in_flight is None and not (goal.subscribe or goal.unsubscribe)

    def recall(self, earlier: Mapping[str, Earlier]) -> None:
        """What an earlier run wrote of symbols that are leased now; before they are desired."""
        self._seniority.recall(earlier)
        self._put_out = {symbol: seen.put_out_by for symbol, seen in earlier.items() if seen.put_out_by}

    def desire(self, desired: Desired) -> None:
        """The operators' and strategies' wish, whole."""
        waited = self._waiting()
        self._desired = desired
        self._wanted = frozenset(desired.symbols)
        self._seniority.wanted(desired.symbols)
        self._order = self._seniority.in_order(desired.symbols, desired.leased)
        # Removing a refused symbol and adding it again is how an operator asks for another try.
        self._refused = {s: r for s, r in self._refused.items() if s in self._wanted}
        self._unconfirmed = {s: n for s, n in self._unconfirmed.items() if s in self._wanted}
        self._note_put_out(waited, BY_OPERATOR)

    def connected(self) -> None:
        """A new session is ready, with an empty set."""
        self._connected = True
        self._confirmed = frozenset()
        self._expiries = 0
        self._ignored_removals = 0

    def disconnected(self) -> None:
        """The session is over, and with it the vendor's set and the request under way."""
        self._connected = False
        self._confirmed = frozenset()
        self.in_flight = None
        self.must_reconnect = None

    def confirm(self, symbols: frozenset[str], change: Change | None, now_s: float) -> None:
        """An acknowledgement: the vendor's whole set is the truth, whether or not it is what was asked."""
        self._confirmed = symbols
        if self._seniority.live(symbols):
            self._order = self._seniority.in_order(self._desired.symbols, self._desired.leased)
        # Acknowledgements that came late or twice can make a symbol look refused that the vendor has taken.
        self._refused = {s: r for s, r in self._refused.items() if s not in symbols}
        if change is None:
            return
        self.in_flight = None
        self._expiries = 0
        if self._is_probing and symbols.issuperset(change.subscribe) and len(symbols) > (self._ceiling or 0):
            self._ceiling, self._is_probing = None, False
        for symbol in change.subscribe:
            if symbol in symbols:
                self._unconfirmed.pop(symbol, None)
                continue
            self._unconfirmed[symbol] = self._unconfirmed.get(symbol, 0) + 1
            if self._unconfirmed[symbol] >= UNCONFIRMED_BEFORE_REFUSAL:
                del self._unconfirmed[symbol]
                self._refuse(symbol, "the vendor acknowledges the request without this symbol", now_s)
        if change.unsubscribe:
            ignored = any(symbol in symbols for symbol in change.unsubscribe)
            self._ignored_removals = self._ignored_removals + 1 if ignored else 0
            if self._ignored_removals >= IGNORED_REMOVALS_BEFORE_RECONNECT:
                self.must_reconnect = "the vendor ignores removals"

    def refuse(self, change: Change, code: Code, now_s: float) -> None:
        """The request under way was refused whole, and the vendor's set is as it was."""
        self.in_flight = None
        if change.unsubscribe:
            self._ignored_removals += 1
            if self._ignored_removals >= IGNORED_REMOVALS_BEFORE_RECONNECT:
                self.must_reconnect = f"the vendor refuses removals (code {code.number})"
            return
        group = change.subscribe
        if code.remedy is Remedy.LIMIT:
            first_s, last_s = RETRY_LIMIT_AFTER_S
            waited, self._is_probing = self._waiting(), False
            self._ceiling = len(self._confirmed) + len(group) - 1
            self._ceiling_until_s = now_s + min(last_s, first_s * 2.0**self._ceilings_lapsed)
            self._note_put_out(waited, BY_LIMIT)
        elif len(group) == 1:
            self._refuse(group[0], f"the vendor refused it: {code.number} {code.meaning}", now_s)
        else:
            middle = len(group) // 2
            self._suspects += [group[middle:], group[:middle]]

    def expire(self, change: Change) -> None:
        """No answer came: what the vendor did is unknown, so the next acknowledgement will tell."""
        self.in_flight = None
        self._expiries += 1
        if self._expiries >= EXPIRIES_BEFORE_RECONNECT:
            verb = "adding" if change.subscribe else "removing"
            self.must_reconnect = f"no acknowledgement for {verb} symbols, {self._expiries} times"

    def next_change(self, now_s: float) -> Change | None:
        """The request to send now, recorded as under way; None when there is nothing to ask or to wait."""
        if not self._connected or self.in_flight is not None or self.must_reconnect is not None:
            return None
        self._forgive(now_s)
        goal = self._plan()
        if goal.unsubscribe:
            # Room is made before it is filled: at the limit, the other order would be refused.
            self.in_flight = Change(unsubscribe=goal.unsubscribe[:MAX_CHANGE_SYMBOLS])
        elif goal.subscribe:
            self.in_flight = Change(subscribe=self._next_group(goal.subscribe))
        elif self._is_probing and goal.waiting:
            # One more than is known to fit, and nobody's place is at stake: a refusal changes nothing.
            self.in_flight = Change(subscribe=goal.waiting[:1])
        return self.in_flight

    @property
    def retry_at_s(self) -> float | None:
        """When the earliest refusal, of a symbol or for the limit, is due for another try."""
        due = [refusal.retry_at_s for refusal in self._refused.values()]
        if self._ceiling is not None:
            due.append(self._ceiling_until_s)
        return min(due, default=None)

    def statuses(self, now_unix_s: float) -> dict[str, SymbolStatus]:
        """The state of every symbol that is wanted, confirmed or refused, and since when."""
        self._seniority.date(now_unix_s)
        waiting = self._waiting()
        before, self._statuses = self._statuses, {}
        # One for all that join: where a hundred thousand wait, making as many would hold up the quotes.
        waits = f"waits behind the limit of {self.limit} symbols"
        joins = SymbolStatus(SymbolState.WAITING, waits, now_unix_s)
        for symbol in self._desired.symbols:
            if symbol not in waiting:
                self._note(before, symbol, *self._state_of(symbol), now_unix_s)
            elif self._seniority.was_live(symbol):
                why = self._put_out.get(symbol)
                self._note(
                    before, symbol, SymbolState.WAITING, f"{why}; {waits}" if why else waits, now_unix_s
                )
            else:
                old = before.get(symbol)
                self._statuses[symbol] = old if old is not None and old[:2] == joins[:2] else joins
        for leaving in self._confirmed - self._wanted:
            self._note(before, leaving, SymbolState.LEAVING, "no longer desired", now_unix_s)
        for shown, why in self._desired.junk.items():
            if shown not in self._statuses:
                self._note(before, shown, SymbolState.REFUSED, why, now_unix_s)
        return self._statuses

    def _state_of(self, symbol: str) -> tuple[SymbolState, str | None]:
        refusal = self._refused.get(symbol)
        if refusal is not None:
            return SymbolState.REFUSED, refusal.reason
        if symbol in self._confirmed:
            return SymbolState.LIVE, self.quiet_reason if symbol in self.quiet else None
        return SymbolState.REQUESTED, None if self._connected else "not connected to the vendor"

    def _note(
        self,
        before: dict[str, SymbolStatus],
        symbol: str,
        state: SymbolState,
        reason: str | None,
        now_s: float,
    ) -> None:
        old, live_since_s = before.get(symbol), self._seniority.live_since_s(symbol)
        if old is None or old.state is not state or old.reason != reason:
            self._statuses[symbol] = SymbolStatus(state, reason, now_s, live_since_s)
        else:
            same = old.live_since_s == live_since_s
            self._statuses[symbol] = old if same else old._replace(live_since_s=live_since_s)

    def _waiting(self) -> frozenset[str]:
        return frozenset() if self.limit is None else frozenset(self._plan().waiting)

    def _note_put_out(self, waited: frozenset[str], cause: str) -> None:
        """Remember why those wait now that had a place before."""
        self._put_out = {
            symbol: self._put_out[symbol] if symbol in waited and symbol in self._put_out else cause
            for symbol in self._waiting()
            if self._seniority.was_live(symbol) and (symbol not in waited or symbol in self._put_out)
        }

    def _plan(self) -> Plan:
        return plan(self._order, self._confirmed, self._refused, self.limit)

    def _next_group(self, subscribe: Sequence[str]) -> tuple[str, ...]:
        missing = frozenset(subscribe)
        while self._suspects:
            group = tuple(s for s in self._suspects.pop() if s in missing)
            if group:
                return group
        size = MAX_CHANGE_SYMBOLS
        if self._ceiling is not None:
            # The ceiling is only known from above; asking for half of the room finds it in a few steps.
            room = self._ceiling - len(self._confirmed)
            size = min(size, max(1, (room + 1) // 2))
        return tuple(subscribe[:size])

    def _refuse(self, symbol: str, reason: str, now_s: float) -> None:
        self._refused[symbol] = _Refusal(reason, now_s + RETRY_REFUSED_AFTER_S)

    def _forgive(self, now_s: float) -> None:
        due = [s for s, refusal in self._refused.items() if refusal.retry_at_s <= now_s]
        if due:
            taken = len(self._wanted) - len(self._refused)
            room = len(due) if self.limit is None else max(0, self.limit - taken)
            for symbol in due[:room]:
                del self._refused[symbol]
            for symbol in due[room:]:
                # What was refused is no reason to take the place of a symbol that is live.
                self._refused[symbol].retry_at_s = now_s + RETRY_REFUSED_AFTER_S
        if self._ceiling is not None and self._ceiling_until_s <= now_s and not self._is_probing:
            self._ceilings_lapsed = min(self._ceilings_lapsed + 1, 10)
            self._is_probing = self.limit != self._configured_limit and bool(self._plan().waiting)
            if not self._is_probing:
                self._ceiling = None

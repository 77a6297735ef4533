"""What is wanted, what the vendor confirmed, what it refused: and the next request that follows.

Decides which request is next and when a session is not worth keeping; who is to blame for a refusal is for
`refusals` to say, and how many symbols fit for `ceiling`. Must never know sockets, Redis or the clock. A request is
recorded as under way before it is handed out, so asking twice cannot send it twice.
"""

from collections.abc import Mapping
from typing import Final

from ingestor.feed.codes import Code, Remedy, is_about_symbols, why_ended, why_refused
from ingestor.feed.events import MAX_CHANGE_SYMBOLS, Change, SessionEnded
from ingestor.subscriptions.ceiling import Ceiling
from ingestor.subscriptions.desired import Desired
from ingestor.subscriptions.plan import Plan, plan
from ingestor.subscriptions.refusals import Refusals
from ingestor.subscriptions.seniority import Earlier, Seniority
from ingestor.subscriptions.states import BY_LIMIT, BY_OPERATOR, SymbolState, SymbolStatus, Unstored

UNCONFIRMED_BEFORE_REFUSAL: Final = 3
EXPIRIES_BEFORE_RECONNECT: Final = 2
IGNORED_REMOVALS_BEFORE_RECONNECT: Final = 3


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
        self._refusals = Refusals()
        self._unconfirmed: dict[str, int] = {}
        self._ceiling = Ceiling()
        self._asked_at_s = 0.0
        self._is_unsure = False
        self._connected = False
        self._expiries = 0
        self._ignored_removals = 0
        self._statuses: dict[str, SymbolStatus] = {}
        self.in_flight: Change | None = None
        self.must_end: SessionEnded | None = None
        self.quiet: frozenset[str] = frozenset()
        self.quiet_reason = ""
        self.remarks: Mapping[str, str] = {}
        self.unstored = Unstored({})

    def __repr__(self) -> str:
        return (
            f"<SubscriptionBook {len(self._confirmed)}/{len(self._wanted)} live, "
            f"{len(self._refusals)} refused, limit {self.limit}>"
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
        known = [limit for limit in (self._configured_limit, self._ceiling.value) if limit is not None]
        return min(known, default=None)

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
        self._order = self._seniority.in_order(desired.symbols, desired.leased, self._put_out.keys() & waited)
        self._refusals.keep(self._wanted)
        self._unconfirmed = {s: n for s, n in self._unconfirmed.items() if s in self._wanted}
        self._note_put_out(waited, BY_OPERATOR)

    def connected(self) -> None:
        """A new session is ready, with an empty set."""
        self._connected = True
        self._confirmed = frozenset()
        self._expiries = 0
        self._ignored_removals = 0
        self._is_unsure = False
        self._ceiling.begin()
        self._refusals.begin()

    def disconnected(self) -> None:
        """The session is over, and with it the vendor's set and the request under way."""
        if self.in_flight is not None and self.in_flight.subscribe:
            self._refusals.lose(self.in_flight.subscribe, self._asked_at_s)
        self._connected = False
        self._confirmed = frozenset()
        self.in_flight = None
        self.must_end = None

    def confirm(self, symbols: frozenset[str], change: Change | None, now_s: float) -> None:
        """An acknowledgement: the vendor's whole set is the truth, whether or not it is what was asked."""
        self._confirmed = symbols
        if self._seniority.live(symbols):
            out = self._put_out.keys() & self._waiting()
            self._order = self._seniority.in_order(self._desired.symbols, self._desired.leased, out)
        self._is_unsure = False
        self._refusals.grant(symbols, now_s)
        if change is None:
            return
        self.in_flight = None
        self._expiries = 0
        culprit = None
        if not symbols.isdisjoint(change.subscribe):
            culprit = self._ceiling.grant(len(symbols))
        if culprit is not None:
            self._refusals.refuse_one(*culprit, now_s, is_its_own=False)
        for symbol in change.subscribe:
            if symbol in symbols:
                self._unconfirmed.pop(symbol, None)
                continue
            self._unconfirmed[symbol] = self._unconfirmed.get(symbol, 0) + 1
            if self._unconfirmed[symbol] >= UNCONFIRMED_BEFORE_REFUSAL:
                del self._unconfirmed[symbol]
                reason = "the vendor acknowledges the request without this symbol"
                self._refusals.refuse_one(symbol, reason, now_s, is_its_own=True)
        if change.unsubscribe:
            ignored = any(symbol in symbols for symbol in change.unsubscribe)
            self._ignored_removals = self._ignored_removals + 1 if ignored else 0
            if self._ignored_removals >= IGNORED_REMOVALS_BEFORE_RECONNECT:
                self.must_end = _reconnect("the vendor ignores removals")

    def refuse(self, change: Change, code: Code, now_s: float, words: str = "") -> None:
        """The request under way was refused whole, in these words, and the vendor's set is as it was."""
        self.in_flight = None
        self._expiries = 0
        if change.unsubscribe:
            self._ignored_removals += 1
            if self._ignored_removals >= IGNORED_REMOVALS_BEFORE_RECONNECT:
                self.must_end = _reconnect(f"the vendor refuses removals (code {code.number})")
            return
        group, reason = change.subscribe, why_refused(code, words)
        if code.remedy is Remedy.LIMIT:
            if self._is_unsure:
                self.must_end = _reconnect("the limit is reached, perhaps by a request that was not answered")
            waited = self._waiting()
            self._ceiling.refuse(group, len(self._confirmed), reason, now_s)
            self._note_put_out(waited, BY_LIMIT)
            return
        self._refusals.refuse(group, reason, now_s, is_its_own=is_about_symbols(code))
        if self._refusals.has_every_part_failed(self._plan().subscribe):
            told = f"every request for symbols was refused: {why_ended(code, words)}"
            self.must_end = SessionEnded(code.remedy, told, code)

    def expire(self, change: Change, now_s: float = 0.0) -> None:
        """No answer came: what the vendor did is unknown, so the next acknowledgement will tell."""
        self.in_flight = None
        self._expiries += 1
        self._is_unsure = True
        is_last_straw = self._expiries >= EXPIRIES_BEFORE_RECONNECT
        if change.subscribe:
            is_last_straw = self._refusals.expire(change.subscribe, now_s, is_last_straw=is_last_straw)
        if is_last_straw:
            verb = "adding" if change.subscribe else "removing"
            self.must_end = _reconnect(f"no acknowledgement for {verb} symbols, {self._expiries} times")

    def next_change(self, now_s: float) -> Change | None:
        """The request to send now, recorded as under way; None when there is nothing to ask or to wait."""
        if not self._connected or self.in_flight is not None or self.must_end is not None:
            return None
        self._forgive(now_s)
        goal = self._plan()
        if not (goal.unsubscribe or goal.subscribe) and self._ceiling.is_stuck(
            len(self._beyond_ceiling(goal))
        ):
            waited = self._waiting()
            self._ceiling.believe(len(self._confirmed), now_s, is_proved=True)
            self._note_put_out(waited, BY_LIMIT)
            goal = self._plan()
        self._asked_at_s = now_s
        if goal.unsubscribe:
            # Room is made before it is filled: at the limit, the other order would be refused.
            self.in_flight = Change(unsubscribe=goal.unsubscribe[:MAX_CHANGE_SYMBOLS])
        elif goal.subscribe:
            if self._refusals.may_ask(now_s):
                size = self._ceiling.size(len(self._confirmed))
                self.in_flight = Change(subscribe=self._refusals.next_group(goal.subscribe, size))
        elif self._ceiling.has_a_question(len(self._beyond_ceiling(goal))):
            # One more than is known to fit, and nobody's place is at stake: a refusal changes nothing.
            self.in_flight = Change(subscribe=goal.waiting[:1])
        return self.in_flight

    @property
    def retry_at_s(self) -> float | None:
        """When the earliest refusal, of a symbol or for the limit, is due for another try."""
        due = (self._refusals.retry_at_s, self._ceiling.retry_at_s)
        return min((at_s for at_s in due if at_s is not None), default=None)

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
            elif self._seniority.was_live(symbol) or symbol in self.remarks:
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
        refusal = self._refusals.reason(symbol)
        if refusal is not None:
            return SymbolState.REFUSED, refusal
        if symbol in self._confirmed:
            if (unstored := self.unstored.why(symbol)) is not None:
                return SymbolState.NOT_STORED, unstored
            return SymbolState.LIVE, self.quiet_reason if symbol in self.quiet else None
        absent = None if self._connected else "not connected to the vendor"
        return SymbolState.REQUESTED, self._refusals.doubt(symbol) or absent

    def _note(
        self,
        before: dict[str, SymbolStatus],
        symbol: str,
        state: SymbolState,
        reason: str | None,
        now_s: float,
    ) -> None:
        remark = self.remarks.get(symbol)
        if remark is not None:
            reason = remark if reason is None else f"{reason}; {remark}"
        old, live_since_s = before.get(symbol), self._seniority.live_since_s(symbol)
        if old is None or old.state is not state or old.reason != reason:
            self._statuses[symbol] = SymbolStatus(state, reason, now_s, live_since_s)
        else:
            same = old.live_since_s == live_since_s
            self._statuses[symbol] = old if same else old._replace(live_since_s=live_since_s)

    def _waiting(self) -> frozenset[str]:
        if self.limit is None:
            return frozenset()
        # Whoever was refused alone keeps its place until it is known why.
        return frozenset(plan(self._order, self._confirmed, self._refusals.skipped, self.limit).waiting)

    def _note_put_out(self, waited: frozenset[str], cause: str) -> None:
        """Remember why those wait now that had a place before."""
        self._put_out = {
            symbol: self._put_out[symbol] if symbol in waited and symbol in self._put_out else cause
            for symbol in self._waiting()
            if self._seniority.was_live(symbol) and (symbol not in waited or symbol in self._put_out)
        }

    def _plan(self) -> Plan:
        skipped = self._refusals.skipped
        if self._ceiling.beyond is not None:
            skipped = {*skipped, self._ceiling.beyond[0]}
        return plan(self._order, self._confirmed, skipped, self.limit)

    def _beyond_ceiling(self, goal: Plan) -> tuple[str, ...]:
        """Those who wait for what the vendor taught, and not for what was configured."""
        return goal.waiting if self.limit != self._configured_limit else ()

    def _forgive(self, now_s: float) -> None:
        taken = len(self._wanted) - len(self._refusals)
        self._refusals.forgive(now_s, None if self.limit is None else max(0, self.limit - taken))
        self._ceiling.forgive(now_s, len(self._beyond_ceiling(self._plan())))


def _reconnect(reason: str) -> SessionEnded:
    return SessionEnded(Remedy.RECONNECT, reason)

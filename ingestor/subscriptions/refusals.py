"""What the vendor would not have: who is to blame, when each symbol is tried again, and which group is asked next.

Decides how a request that failed is divided until the culprit stands alone, and whether the culprit is a symbol or
the session. Must never know sockets, Redis or the clock, nor how large the plan is. A refusal counts against a
symbol where the session grants others; where it grants nothing, every part having failed, against the session.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

RETRY_REFUSED_AFTER_S: Final = 3600.0
"""A malformed symbol stays malformed; once an hour is for the day on which a listing begins."""
RETRY_DOUBTFUL_AFTER_S: Final = (30.0, 3600.0)
"""For an error that speaks of no symbol, such as the vendor's own: the first pause, doubling up to the last."""
LOSSES_BEFORE_REFUSAL: Final = 3
"""So many sessions may end while a symbol is asked for, alone and after others were granted."""
FAILURES_BEFORE_END: Final = 40
"""So many requests may fail in a session that grants nothing: the way to a culprit among 500 is half as long."""
FAILURES_AT_ONCE: Final = 300
FAILURES_PER_S: Final = 1.0
"""In the long run, over all sessions: whatever the vendor's mood, nobody is asked in a loop."""


@dataclass(slots=True)
class _Refusal:
    reason: str
    retry_at_s: float


class Refusals:
    """Told what came of each request; asked what is not to be asked, and what is asked next."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refusal] = {}
        self._tries: dict[str, int] = {}
        self._suspects: list[tuple[str, ...]] = []
        self._doubts: dict[str, str] = {}
        self._failed: set[str] = set()
        self._losses: dict[str, int] = {}
        self._costly: set[str] = set()
        self._has_granted = False
        self._failures = 0
        self._allowance = float(FAILURES_AT_ONCE)
        self._allowance_at_s: float | None = None

    def __len__(self) -> int:
        return len(self._refused)

    @property
    def skipped(self) -> Collection[str]:
        """Symbols that are not to be asked for now; they take no place in the plan."""
        return self._refused.keys() | self._failed if self._failed else self._refused.keys()

    @property
    def retry_at_s(self) -> float | None:
        """When the earliest of them is due for another try."""
        return min((refusal.retry_at_s for refusal in self._refused.values()), default=None)

    def reason(self, symbol: str) -> str | None:
        """Why it is refused, or None."""
        refusal = self._refused.get(symbol)
        if refusal is not None:
            return refusal.reason
        return self._doubts.get(symbol) if symbol in self._failed else None

    def doubt(self, symbol: str) -> str | None:
        """What went wrong when it was asked for last, in a session that granted nothing or was lost; or None."""
        return self._doubts.get(symbol)

    def keep(self, wanted: Collection[str]) -> None:
        """Forget all others: removing a symbol and adding it again is how an operator asks for another try."""
        for memory in (self._refused, self._tries, self._doubts, self._losses):
            for symbol in [s for s in memory if s not in wanted]:
                del memory[symbol]
        self._failed &= set(wanted)
        self._costly &= set(wanted)

    def forgive(self, now_s: float, room: int | None) -> None:
        """Let those be asked whose time has come, as far as there is room; None is without end. What was refused is
        no reason to take the place of a symbol that is live."""
        due = [s for s, refusal in self._refused.items() if refusal.retry_at_s <= now_s]
        for symbol in due[:room]:
            del self._refused[symbol]
        for symbol in due[room:] if room is not None else ():
            self._refused[symbol].retry_at_s = now_s + RETRY_REFUSED_AFTER_S

    def begin(self) -> None:
        """A new session: what failed in one that granted nothing may be asked again, after all others."""
        self._failed.clear()
        self._has_granted = False
        self._failures = 0

    def grant(self, symbols: frozenset[str], now_s: float) -> None:
        """The vendor's set, as acknowledged. Acknowledgements that came late or twice can have made a symbol look
        refused that is in it."""
        self._has_granted = self._has_granted or bool(symbols)
        for memory in (self._refused, self._tries, self._doubts, self._losses):
            for symbol in [s for s in memory if s in symbols]:
                del memory[symbol]
        self._failed -= symbols
        self._costly -= symbols
        if self._has_granted:
            for symbol in self._failed:
                self.refuse_one(symbol, self._doubts.pop(symbol), now_s, is_its_own=False)
            self._failed.clear()

    def refuse(self, group: tuple[str, ...], reason: str, now_s: float, *, is_its_own: bool) -> None:
        """A request for these was refused whole; `is_its_own` if the error speaks of what was asked for."""
        self._failures += 1
        self._allowance = self._left(now_s) - 1.0
        self._allowance_at_s = now_s
        if len(group) > 1:
            self._divide(group)
        elif is_its_own or self._has_granted:
            self.refuse_one(group[0], reason, now_s, is_its_own=is_its_own)
        else:
            self._doubts[group[0]] = reason
            self._failed.add(group[0])

    def refuse_one(self, symbol: str, reason: str, now_s: float, *, is_its_own: bool) -> None:
        """This symbol is to blame."""
        self._doubts.pop(symbol, None)
        after_s = RETRY_REFUSED_AFTER_S
        if not is_its_own:
            first_s, last_s = RETRY_DOUBTFUL_AFTER_S
            after_s = min(last_s, first_s * 2.0 ** min(self._tries.get(symbol, 0), 30))
            self._tries[symbol] = self._tries.get(symbol, 0) + 1
        self._refused[symbol] = _Refusal(reason, now_s + after_s)

    def expire(self, group: tuple[str, ...], now_s: float, *, is_last_straw: bool) -> bool:
        """A request for these got no answer. Whether the session is to be given up for it: when it was the last
        straw; where the session has granted others, only for a symbol that stands alone, and once for each."""
        if len(group) > 1:
            self._divide(group)
            return is_last_straw and not self._has_granted
        symbol = group[0]
        self._doubts[symbol] = "the vendor does not answer the request for it"
        if is_last_straw and self._has_granted and symbol in self._costly:
            self.refuse_one(symbol, "the vendor does not answer the request for it", now_s, is_its_own=False)
            return False
        if is_last_straw:
            self._costly.add(symbol)
        return is_last_straw

    def lose(self, group: tuple[str, ...], now_s: float) -> None:
        """The session ended while these were asked for."""
        if len(group) > 1:
            self._divide(group)
            return
        symbol, reason = group[0], "the connection ended while it was asked for"
        self._doubts[symbol] = reason
        if self._has_granted:
            self._losses[symbol] = self._losses.get(symbol, 0) + 1
            if self._losses[symbol] >= LOSSES_BEFORE_REFUSAL:
                # The count stays: each further try costs everybody a session, so there is one in an hour.
                self.refuse_one(symbol, f"{reason}, {self._losses[symbol]} times", now_s, is_its_own=True)

    def may_ask(self, now_s: float) -> bool:
        """Whether the requests that failed lately leave room for another one."""
        return self._left(now_s) >= 1.0

    def has_every_part_failed(self, missing: Collection[str]) -> bool:
        """Whether the session is to blame: it granted nothing, and nothing is left to ask or enough was tried."""
        if self._has_granted or not self._failed:
            return False
        return not missing or self._failures >= FAILURES_BEFORE_END

    def next_group(self, missing: Sequence[str], size: int) -> tuple[str, ...]:
        """Of the symbols that are missing, those to ask for now: the unsuspected before the suspects, and one that
        failed by itself after all others, alone."""
        if not (self._suspects or self._doubts):
            return tuple(missing[:size])
        suspected = {symbol for group in self._suspects for symbol in group} | self._doubts.keys()
        fresh = [symbol for symbol in missing if symbol not in suspected]
        if fresh:
            return tuple(fresh[:size])
        still_missing = frozenset(missing)
        while self._suspects:
            group = tuple(s for s in self._suspects.pop() if s in still_missing and s not in self._doubts)
            if group:
                # What a limit leaves no room for is taken up again as if it had never been suspected.
                return group[:size]
        return (missing[0],)

    def _divide(self, group: tuple[str, ...]) -> None:
        middle = len(group) // 2
        self._suspects += [group[middle:], group[:middle]]

    def _left(self, now_s: float) -> float:
        if self._allowance_at_s is None:
            return self._allowance
        gained = max(0.0, now_s - self._allowance_at_s) * FAILURES_PER_S
        return min(float(FAILURES_AT_ONCE), self._allowance + gained)

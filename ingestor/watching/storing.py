"""Whether what arrives is stored: the one place that decides it.

Decides, look by look, whether the daemon stores what it receives, for which symbols it does not, and why, in
words; readiness, the daemon's state, the symbols' states and what strategies are told all show this verdict. A
quote counts once Redis has acknowledged it, and not when it has arrived. Must never know the clock, Redis or the
feed: what was counted comes in as `Counted`.

Four things can be wrong, each by itself:

- Quotes wait, and none is stored any more: Redis takes no writes, or something before it holds them back.
- Quotes are stored, late: older ones wait before them.
- What arrives is not kept: every quote, or most of them, is rejected, dropped or unreadable.
- A symbol's quotes are not kept, while others are.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

STUCK_AFTER_S: Final = 2.5
"""Nothing stored for so long, while quotes wait. Redis itself is given up after 2 s without an answer."""
LATE_AFTER_S: Final = 2.5
"""A quote that is older than this when it is stored is no news."""
REJECTED_FOR_S: Final = 1.0
"""One odd quote at night is no fault of the flow: there must be others, so much later, and no good one between."""
FORGET_AFTER_S: Final = 60.0
"""Nothing has come for so long: what was rejected before says nothing any more."""
WINDOW_S: Final = 3.0
FLOWED_S: Final = 2.0
"""What nobody can tell from a quote is taken for one no longer than this after the last, or the last such."""
MOST_SHARE: Final = 0.5
SHARE_OF_AT_LEAST: Final = 20
"""Quotes in the window, before their share is judged."""
FEED_REASONS: Final = frozenset({"bad_symbol", "not_subscribed", "unreadable", "bad_price", "bad_time"})
"""Reasons for which the feed is to blame, and not one symbol's stream."""
NAMED_REASONS: Final = frozenset(
    {"bad_price", "bad_time", "wrong_type", "stream_exhausted", "refused_by_redis"}
)
"""Reasons for which it is known whose quotes were lost; for any other they may be everybody's."""

NOT_STORING: Final = "not_storing"
CATCHING_UP: Final = "catching_up"


@dataclass(frozen=True, slots=True)
class Counted:
    """What has become of quotes, at one moment. `now_s` is monotonic; counts are cumulative since the start.

    `lost` counts quotes that will never be stored, by reason; `received` all that could be read, and `unclear` what
    may have been quotes or anything else. `refusing` are the symbols whose stream
    takes no entry, with the server's reason; `rejected` those whose last quote was rejected, with the number of
    that episode and the reason. `oldest_s` is how long ago the oldest quote was received that is not stored.
    """

    now_s: float
    stored: int
    waiting: int
    oldest_s: float | None
    lost: Mapping[str, int]
    refusing: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    is_away: bool = False
    """Redis cannot be written at all, which is told elsewhere."""
    spool_problem: str | None = None
    received: int = 0
    unclear: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with the daemon as a whole, if anything is: `state` in one word, `reason` in a sentence; and by
    symbol why its quotes are not stored. `all_symbols`, where it is given, is the reason of every live symbol."""

    state: str | None = None
    reason: str | None = None
    symbols: Mapping[str, str] = field(default_factory=dict)
    all_symbols: str | None = None


class Storing:
    """Tell it what was counted a few times a second."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, Mapping[str, int]]] = deque()
        self._progress_s: float | None = None
        self._late_since_s: float | None = None
        self._lost_first_s: float | None = None
        self._lost_last_s = 0.0
        self._lost_before: Mapping[str, int] = {}
        self._episodes: dict[str, tuple[int, float]] = {}
        self._flowed_s = float("-inf")
        self._received = self._unclear = self._unclear_quotes = 0

    def look(self, seen: Counted) -> Verdict:
        """The verdict at this moment."""
        seen = self._with_unclear(seen)
        before = self._looks[-1] if self._looks else None
        is_progress = before is None or seen.stored > before[1]
        self._looks.append((seen.now_s, seen.stored, dict(seen.lost)))
        while len(self._looks) > 1 and seen.now_s - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()
        if is_progress or not seen.waiting or self._progress_s is None:
            self._progress_s = seen.now_s
        self._note_lost(seen, before[2] if before else seen.lost, is_progress=is_progress)
        symbols = self._symbols(seen)
        return (
            self._stuck(seen, symbols)
            or self._late(seen, symbols)
            or self._all_lost(seen, symbols)
            or self._most_lost(symbols)
            or Verdict(symbols=symbols)
        )

    def _with_unclear(self, seen: Counted) -> Counted:
        """Junk in a silent session is no lost quote; in the midst of quotes it may be, and counts as unreadable."""
        unclear = seen.unclear - self._unclear
        if seen.received > self._received:
            self._flowed_s = seen.now_s
        if unclear and seen.now_s - self._flowed_s <= FLOWED_S:
            self._flowed_s = seen.now_s
            self._unclear_quotes += unclear
        self._received, self._unclear = seen.received, seen.unclear
        if not self._unclear_quotes:
            return seen
        unreadable = seen.lost.get("unreadable", 0) + self._unclear_quotes
        return replace(seen, lost={**seen.lost, "unreadable": unreadable})

    def _stuck(self, seen: Counted, symbols: Mapping[str, str]) -> Verdict | None:
        stuck_s = seen.now_s - (self._progress_s or 0.0)
        if stuck_s <= STUCK_AFTER_S:
            return None
        disk = f"; the disk: {seen.spool_problem}" if seen.spool_problem else ""
        reason = f"nothing has been stored for {stuck_s:.0f} s, {seen.waiting} quotes wait{disk}"
        all_symbols = None if seen.is_away else f"quotes wait, and none is stored{disk}"
        return Verdict(NOT_STORING, reason, symbols, all_symbols)

    def _late(self, seen: Counted, symbols: Mapping[str, str]) -> Verdict | None:
        if not seen.waiting or seen.oldest_s is None or seen.oldest_s <= LATE_AFTER_S:
            self._late_since_s = None
            return None
        if self._late_since_s is None:
            # One look may fall upon quotes that are sent again, or upon a clock that was set.
            self._late_since_s = seen.now_s
            return None
        reason = (
            f"quotes are stored late: the oldest of {seen.waiting} was received {seen.oldest_s:.0f} s ago"
        )
        return Verdict(CATCHING_UP, reason, symbols)

    def _note_lost(self, seen: Counted, before: Mapping[str, int], *, is_progress: bool) -> None:
        if is_progress or seen.now_s - self._lost_last_s > FORGET_AFTER_S:
            self._lost_first_s = None
        if any(count > before.get(reason, 0) for reason, count in seen.lost.items()):
            self._lost_last_s = seen.now_s
            if self._lost_first_s is None:
                self._lost_first_s, self._lost_before = seen.now_s, before

    def _all_lost(self, seen: Counted, symbols: Mapping[str, str]) -> Verdict | None:
        if self._lost_first_s is None or self._lost_last_s - self._lost_first_s < REJECTED_FOR_S:
            return None
        lost = _difference(seen.lost, self._lost_before)
        reason = f"none of the last {sum(lost.values())} quotes could be stored: {_counted(lost)}"
        named = sum(count for why, count in lost.items() if why in NAMED_REASONS)
        worst = max(lost, key=lambda why: lost[why])
        may_be_anybodys = 2 * named < sum(lost.values())
        all_symbols = f"quotes come, and none can be stored: {worst}" if may_be_anybodys else None
        return Verdict(NOT_STORING, reason, symbols, all_symbols)

    def _most_lost(self, symbols: Mapping[str, str]) -> Verdict | None:
        (_, stored_first, lost_first), (_, stored_last, lost_last) = self._looks[0], self._looks[-1]
        lost = _difference(lost_last, lost_first)
        blamed = {reason: count for reason, count in lost.items() if reason in FEED_REASONS}
        count = sum(blamed.values())
        total = stored_last - stored_first + sum(lost.values())
        if total < SHARE_OF_AT_LEAST or count <= MOST_SHARE * total:
            return None
        reason = f"{count} of the last {total} quotes could not be stored: {_counted(blamed)}"
        return Verdict(NOT_STORING, reason, symbols)

    def _symbols(self, seen: Counted) -> Mapping[str, str]:
        if not (seen.refusing or seen.rejected):
            self._episodes.clear()
            return {}
        known, self._episodes = self._episodes, {}
        found = {}
        for symbol, (episode, words) in seen.rejected.items():
            since = known.get(symbol)
            if since is None or since[0] != episode:
                since = episode, seen.now_s
            self._episodes[symbol] = since
            if seen.now_s - since[1] >= REJECTED_FOR_S:
                found[symbol] = f"its last quote was rejected: {words}"
        for symbol, words in seen.refusing.items():
            found[symbol] = f"Redis takes no entry of its stream: {words}"
        return found


def _difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {
        reason: count - before.get(reason, 0)
        for reason, count in after.items()
        if count > before.get(reason, 0)
    }


def _counted(lost: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(lost.items(), key=lambda item: -item[1]))

"""What became of each entry, from what was sent and what the workers wrote down. It asks nobody.

Decides what counts as handled, told, and handled twice, and why it was: for each time that an entry came again
after it had been acknowledged, a moment must be found at which nobody could have known that. Must never ask Redis.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

from consumers.reading.start import before
from wire import EntryId, entry_id_at

IN_HAND_S: Final = 1.0
"""A worker that had claimed an entry when another acknowledged it late looks again only after half of this."""
FSYNC_S: Final = 2.0
"""What Redis was told so shortly before it was killed may not be in its file (`appendfsync everysec`)."""
GROUPLESS_S: Final = 4.0
"""So long after a server has lost everything, an acknowledgement may have met a stream that was sent again, and no
group."""
LAG_S: Final = 3.0
"""Who has worked on a stream for so long has written down where the group stands: rounds take at most a second."""
AT_WORK_S: Final = 0.2
"""Between two entries further apart a worker may have been stopped, or have had no processor."""

NOT_ACKNOWLEDGED: Final = "not acknowledged"
IN_HAND: Final = "in hand when another acknowledged it"
PENDING: Final = "pending when the group was destroyed"
NOT_WRITTEN: Final = "acknowledged since the record was written"
BEHIND: Final = "behind one that was not acknowledged when the record was written"
SENT_AGAIN: Final = "sent again to a server that had lost it"
FORGOTTEN: Final = "acknowledgement lost with the server's last moments"
AWAY: Final = "acknowledged while the stream was away"
SET_BACK: Final = "group set back by hand"
WRITTEN_LATE: Final = "WITHOUT NEED: the record was written too late"
WITHOUT_NEED: Final = "WITHOUT NEED"
NEEDLESS: Final = frozenset({WRITTEN_LATE, WITHOUT_NEED})


class Blow(msgspec.Struct, frozen=True):
    """What Redis knows of a group was unmade, at some moment from `since` to `until`: of one symbol, or of all.

    `why` is what may come again for it. For a group that was destroyed it is `NOT_WRITTEN`; the rest is what Redis
    knew at that very moment: the record's floor, the second in which it was written, and what was pending.
    """

    why: str
    since: float
    until: float
    symbol: str | None = None
    floor: str | None = None
    written: float = 0.0
    pending: frozenset[str] = frozenset()


class Ack(NamedTuple):
    """Redis has acknowledged an entry at some moment between these."""

    asked: float
    at: float


class Account(msgspec.Struct):
    """The figures of one run. `again` counts by reason how often entries came again; `needless` are those of them
    that nothing explains, `missing` names some of those that were never handled and are in no gap."""

    entries: int = 0
    handled: int = 0
    told: int = 0
    lost: int = 0
    twice: int = 0
    again: dict[str, int] = {}
    gaps: dict[str, int] = {}
    missing: list[str] = []
    repeated: list[str] = []

    @property
    def needless(self) -> int:
        """How often an entry came again that was known to be acknowledged."""
        return sum(self.again.get(why, 0) for why in NEEDLESS)


def account(
    sent: Mapping[str, Sequence[int]],
    notes: Iterable[dict[str, Any]],
    blows: Sequence[Blow],
    sent_again: Mapping[tuple[str, int], Sequence[float]] | None = None,
) -> Account:
    """The account of these entries, which are known by symbol and venue time.

    `sent_again` says when the writer sent some of them again.
    """
    seen = _Seen(sent, notes, blows, sent_again or {})
    result, again = Account(gaps=dict(seen.reasons)), Counter[str]()
    for symbol, times in sent.items():
        for time_ns in times:
            result.entries += 1
            found = seen.handled.get((symbol, time_ns), [])
            result.handled += bool(found)
            if not found and time_ns in seen.told[symbol]:
                result.told += 1
            elif not found:
                result.lost += 1
                result.missing.append(f"{symbol} {time_ns}")
            result.twice += len(found) > 1
            for at in found[1:]:
                why = seen.why_again(symbol, time_ns, at)
                again[why] += 1
                if why in NEEDLESS:
                    acks = ", ".join(f"{ack.at:.2f}" for ack in seen.acks[symbol, entry_id_at(time_ns)])
                    result.repeated.append(
                        f"{symbol} {time_ns} handled {found[0]:.2f}, acknowledged {acks}, again {at:.2f}: {why}"
                    )
    result.again = dict(again)
    result.missing = _some(result.missing)
    result.repeated = _some(result.repeated)
    return result


class _Seen:
    """What was seen, by entry, and what follows for one that came again."""

    def __init__(
        self,
        sent: Mapping[str, Sequence[int]],
        notes: Iterable[dict[str, Any]],
        blows: Sequence[Blow],
        sent_again: Mapping[tuple[str, int], Sequence[float]],
    ) -> None:
        self._sent = sent
        self._blows = blows
        self._sent_again = sent_again
        self.handled: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self.acks: defaultdict[tuple[str, EntryId], list[Ack]] = defaultdict(list)
        self.reasons: Counter[str] = Counter()
        self.told: defaultdict[str, set[int]] = defaultdict(set)
        self._handed: defaultdict[tuple[str, EntryId], list[float]] = defaultdict(list)
        self._at_work: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for note in sorted(notes, key=lambda note: float(note["at"])):
            self._note(note)
        self._ids = {
            symbol: sorted(
                {entry_id_at(time_ns) for time_ns in times}
                | {entry_id for of, entry_id in self._handed if of == symbol}
            )
            for symbol, times in sent.items()
        }

    def _note(self, note: dict[str, Any]) -> None:
        if note["what"] in {"handled", "told"} and note.get("id") is not None:
            self._handed[note["symbol"], EntryId.parse(note["id"])].append(note["at"])
            self._at_work[note["symbol"], note.get("worker", "")].append(note["at"])
        match note["what"]:
            case "handled":
                self.handled[note["symbol"], note["time"]].append(note["at"])
            case "told":
                since, to = sorted((note["since"], note["to"]))
                times = self._sent.get(note["symbol"], ())
                self.told[note["symbol"]].update(times[bisect_left(times, since) : bisect_right(times, to)])
                self.reasons[note["why"]] += 1
            case "acked":
                for symbol, entry_id in note["ids"]:
                    ack = Ack(note["asked"], note["at"])
                    self.acks[symbol, EntryId.parse(entry_id)].append(ack)

    def why_again(self, symbol: str, time_ns: int, at: float) -> str:
        """Why this entry was handled once more at this moment; each time that it was acknowledged counts."""
        acks = [ack for ack in self.acks[symbol, entry_id_at(time_ns)] if ack.at < at]
        if not acks:
            return NOT_ACKNOWLEDGED
        before_s = max((when for when in self.handled[symbol, time_ns] if when < at), default=at)
        sent_again = self._sent_again.get((symbol, time_ns), ())
        if any(before_s <= when <= at <= when + GROUPLESS_S for when in sent_again):
            return SENT_AGAIN
        reasons = [self._why(symbol, time_ns, ack, at) for ack in acks]
        return next((why for why in reasons if why in NEEDLESS), reasons[0])

    def _why(self, symbol: str, time_ns: int, ack: Ack, at: float) -> str:
        sent_again = self._sent_again.get((symbol, time_ns), ())
        # Handled may have been what was read before that; its acknowledgement then met no group, or a later one.
        if any(
            ack.asked <= when <= at or when <= ack.asked <= at <= when + GROUPLESS_S for when in sent_again
        ):
            return SENT_AGAIN
        found = {
            self._explained(blow, symbol, entry_id_at(time_ns), ack)
            for blow in self._blows
            if blow.symbol in {None, symbol} and blow.since <= at
        }
        for why in (SET_BACK, FORGOTTEN, AWAY, PENDING, BEHIND, NOT_WRITTEN):
            if why in found:
                return why
        if at <= ack.at + IN_HAND_S:
            return IN_HAND
        return WRITTEN_LATE if WRITTEN_LATE in found else WITHOUT_NEED

    def _explained(self, blow: Blow, symbol: str, entry_id: EntryId, ack: Ack) -> str | None:
        if blow.why == NOT_WRITTEN:
            return self._unwritten(blow, symbol, entry_id, ack)
        if blow.why == SET_BACK:
            return SET_BACK if self._was_handed(symbol, entry_id, ack) <= blow.until else None
        since = {FORGOTTEN: blow.since - FSYNC_S, AWAY: blow.since}[blow.why]
        return blow.why if ack.asked <= blow.until and ack.at >= since else None

    def _unwritten(self, blow: Blow, symbol: str, entry_id: EntryId, ack: Ack) -> str | None:
        """What Redis did not know when this group was destroyed, or knew and the record did not say."""
        if str(entry_id) in blow.pending:
            return PENDING
        if self._was_handed(symbol, entry_id, ack) > blow.until or blow.floor is None:
            return None
        floor = EntryId.parse(blow.floor)
        if entry_id <= floor:
            return None
        earlier = list(self._between(symbol, floor, entry_id))
        is_behind = any(not self._was_acknowledged(symbol, other, blow.written) for other in earlier)
        if not is_behind and ack.at < blow.written:
            return None
        last = [self._last_ack(symbol, other, blow.since) for other in (*earlier, entry_id)]
        since = None if None in last else max((at for at in last if at is not None), default=blow.since)
        if since is not None and self._worked_s(symbol, since, blow.since) > LAG_S:
            return WRITTEN_LATE
        return BEHIND if is_behind else NOT_WRITTEN

    def _between(self, symbol: str, floor: EntryId, entry_id: EntryId) -> Iterator[EntryId]:
        """What was handed out, or is to be, behind the floor and before this entry. What stands in a gap counts
        only if the floor shows that it was pending."""
        ids = self._ids[symbol]
        for other in ids[bisect_right(ids, floor) : bisect_left(ids, entry_id)]:
            if other.time_ns not in self.told[symbol] or before(other) == floor:
                yield other

    def _was_handed(self, symbol: str, entry_id: EntryId, ack: Ack) -> float:
        """When the worker was given what it acknowledged: a group made since then knows nothing of it."""
        return max((when for when in self._handed[symbol, entry_id] if when <= ack.asked), default=ack.asked)

    def _was_acknowledged(self, symbol: str, entry_id: EntryId, at: float) -> bool:
        last = self._last_ack(symbol, entry_id, at)
        return last is not None and not any(last < when < at for when in self._handed[symbol, entry_id])

    def _last_ack(self, symbol: str, entry_id: EntryId, at: float) -> float | None:
        return max((ack.at for ack in self.acks[symbol, entry_id] if ack.at <= at), default=None)

    def _worked_s(self, symbol: str, since: float, until: float) -> float:
        """The longest that one worker was at work on this symbol between these, as far as it shows."""
        found = 0.0
        for (worked_on, _), moments in self._at_work.items():
            if worked_on == symbol:
                some = [since, *moments[bisect_left(moments, since) : bisect_right(moments, until)], until]
                found = max(found, sum(min(later - at, AT_WORK_S) for at, later in pairwise(some)))
        return found


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= 6 else [*names[:3], f"… {len(names) - 6} more …", *names[-3:]]

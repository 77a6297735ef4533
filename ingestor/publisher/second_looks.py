"""Which entries are looked for again after they were stored, and what is missing where one is gone.

Decides that of every marker, and of the first entry of every stream that was begun: a stream that was taken away
and put back has neither. Must never know Redis or the clock: `now_s` and what the server said are arguments. How
many quotes are gone with the entry is known from the batches that the outbox keeps.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from ingestor.publisher.batch import Batch, Row
from ingestor.publisher.outbox import Outbox
from wire import EntryId

LOOKS_AFTER_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""The pauses before each look: a stream that comes back later than after all of them is not noticed."""
AT_ONCE: Final = 500
"""Entries per look, which is one round trip: each costs the server some microseconds."""
MAX_ENTRIES: Final = 8
"""Of one symbol: more than one only until the next look."""
MAX_DOUBTS: Final = 4
"""So often a look is put off while what stands behind the entry has not been answered yet."""
STREAM_LOST: Final = "stream_lost"
_TIME: Final = 8

_json = msgspec.json.Decoder().decode


@dataclass(slots=True, eq=False)
class Watched:
    """Entries that must stand, oldest first. Those that were seen together are of one stream: the last stands for
    all of them."""

    entries: list[EntryId]
    looks: int = 0
    doubts: int = 0
    due_s: float | None = None


class Sight(NamedTuple):
    """What a server said at one moment of an entry's place: the last one up to there, and the next one; if that is
    a marker, since when it tells."""

    before: EntryId | None
    after: EntryId | None
    told_from_ns: int | None = None


class Lost(NamedTuple):
    """What is gone with an entry: since when, why, and how many quotes, where that is known; so many of them were
    found among those that are kept."""

    from_ns: int
    reason: str
    missing: int | None
    quotes: int


class Question(NamedTuple):
    """The entries to look for now, by symbol, and the last batch that was answered before."""

    entries: dict[str, tuple[EntryId, ...]]
    answered: int


class SecondLooks:
    """What is watched of each symbol."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._forgotten = outbox.times_forgotten
        self._watched: dict[str, Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def stored(
        self,
        batch: Batch,
        refused: AbstractSet[tuple[int, int]] = frozenset(),
        begun: AbstractSet[int] = frozenset(),
    ) -> None:
        """A batch is stored, but for the `refused` (row, entry); the streams of the rows `begun` were not there
        before. Rows and entries count from 1."""
        if not (batch.markers or begun):
            return
        self._forget()
        for r, row in enumerate(batch.rows(), 1):
            entry = _to_watch(row, {e for of, e in refused if of == r}, is_begun=r in begun)
            if entry is not None:
                self._watch(str(row[0]), EntryId.parse(entry))

    def question(self, now_s: float) -> Question:
        """What is due."""
        self._forget()
        due = {symbol: tuple(watched.entries) for symbol, watched in islice(self._due(now_s), AT_ONCE)}
        return Question(due, self._outbox.answered)

    def reckon(self, question: Question, sights: Mapping[str, Sequence[Sight]], now_s: float) -> "Reckoning":
        """What stands is looked for again later; of what does not, the oldest of each symbol is to be reckoned.

        Trimming takes the oldest first, so an entry with nothing before it is not missed.
        """
        reckoning = Reckoning(question.answered)
        for symbol, entries in question.entries.items():
            watched = self._watched.get(symbol)
            if watched is None or tuple(watched.entries[: len(entries)]) != entries:
                continue
            gone = [
                sight
                for entry, sight in zip(entries, sights[symbol], strict=True)
                if sight.before is not None and sight.before != entry
            ]
            if not gone:
                self._stood(symbol, watched, entries, now_s)
            elif gone[0].before is not None:
                reckoning.losses[symbol] = Loss(watched, gone[0], gone[0].before, gone[0].before.time_ns)
        if reckoning.losses:
            reckoning.batches = self._outbox.kept
            sent = (batch.symbols for batch in self._outbox.unsettled if batch.number)
            reckoning.unanswered = {symbol for symbols in sent for symbol in symbols}
        return reckoning

    def settle(self, reckoning: "Reckoning", since_ns: Mapping[str, int | None]) -> dict[str, Lost]:
        """What is lost of each symbol, and in no marker yet; `since_ns` is when its stream began, as far as this
        writer knows.

        Where the answers that would tell are still to come, the next look decides.
        """
        lost = {}
        for symbol, loss in reckoning.losses.items():
            watched = loss.watched
            if self._watched.get(symbol) is not watched:
                continue
            is_open = reckoning.is_open(symbol)
            if is_open and watched.doubts < MAX_DOUBTS:
                watched.doubts += 1
                continue
            watched.doubts = 0
            after = loss.sight.after
            watched.entries = [
                entry
                for entry in watched.entries
                if entry <= loss.before or (after is not None and entry >= after)
            ]
            if not watched.entries:
                del self._watched[symbol]
            told = loss.told(since_ns.get(symbol), is_whole=not is_open)
            if loss.sight.told_from_ns is None or loss.sight.told_from_ns > told.from_ns:
                lost[symbol] = told
        return lost

    def _watch(self, symbol: str, entry: EntryId) -> None:
        watched = self._watched.get(symbol)
        if watched is None:
            self._watched[symbol] = Watched([entry])
            return
        watched.entries = [*watched.entries[: MAX_ENTRIES - 1], entry]
        if watched.looks:
            watched.looks, watched.due_s = 0, None

    def _due(self, now_s: float) -> Iterator[tuple[str, Watched]]:
        for symbol, watched in self._watched.items():
            if watched.due_s is None:
                watched.due_s = now_s + LOOKS_AFTER_S[0]
            if watched.due_s <= now_s:
                yield symbol, watched

    def _stood(self, symbol: str, watched: Watched, entries: Sequence[EntryId], now_s: float) -> None:
        if len(watched.entries) > len(entries):
            return  # The newest was stored since; all of them are looked for together.
        watched.entries = [entries[-1]]
        watched.looks += 1
        if watched.looks == len(LOOKS_AFTER_S):
            del self._watched[symbol]
        else:
            watched.due_s, watched.doubts = now_s + LOOKS_AFTER_S[watched.looks], 0

    def _forget(self) -> None:
        """What a server forgot as a whole, the claim has marked: nothing from before is looked for any more."""
        if self._forgotten != self._outbox.times_forgotten:
            self._forgotten = self._outbox.times_forgotten
            self._watched.clear()


@dataclass(slots=True, eq=False)
class Loss:
    """An entry that is gone, with all that was stored between the entries before and after it."""

    watched: Watched
    sight: Sight
    before: EntryId
    from_ns: int
    quotes: int = 0
    markers: list[dict[str, Any]] = field(default_factory=list)
    is_before_known: bool = False
    is_after_known: bool = False

    def told(self, since_ns: int | None, *, is_whole: bool) -> Lost:
        """What is to be said of it."""
        # That all was gone is no longer true, now that it is back.
        markers = [body for body in self.markers if not _tells_of_all(body, since_ns)]
        counts = [None if body["reason"] == STREAM_LOST else body.get("missing") for body in markers]
        is_known = is_whole and self.is_before_known and None not in counts
        reason = STREAM_LOST if self.quotes or not markers else markers[0]["reason"]
        missing = self.quotes + sum(count or 0 for count in counts)
        from_ns = min([self.from_ns, *(body["from"] for body in markers)])
        return Lost(from_ns, reason, missing if is_known else None, self.quotes)


@dataclass(slots=True, eq=False)
class Reckoning:
    """Counts what was stored and stands no more; `add` takes `batches` one by one, as there may be many."""

    answered: int
    losses: dict[str, Loss] = field(default_factory=dict)
    batches: Sequence[Batch] = ()
    unanswered: set[str] = field(default_factory=set)

    def add(self, batch: Batch) -> None:
        """A batch that was stored."""
        if self.losses.keys().isdisjoint(batch.symbols):
            return
        for row in batch.rows():
            loss = self.losses.get(str(row[0]))
            if loss is None:
                continue
            if loss.sight.after is None and batch.number > self.answered:
                # It may stand there by now.
                self.unanswered.add(str(row[0]))
                continue
            for i in range(2, len(row), 2):
                _add(loss, EntryId.parse(str(row[i])), str(row[i + 1]))

    def is_open(self, symbol: str) -> bool:
        """Whether it is still to be answered which entries were stored before the first that stands."""
        loss = self.losses[symbol]
        return symbol in self.unanswered if loss.sight.after is None else not loss.is_after_known


def _add(loss: Loss, entry_id: EntryId, payload: str) -> None:
    if entry_id <= loss.before:
        loss.is_before_known = True
    elif loss.sight.after is not None and entry_id >= loss.sight.after:
        loss.is_after_known = True
    elif payload.startswith("["):
        loss.quotes += 1
        loss.from_ns = min(loss.from_ns, _json(payload)[_TIME])
    else:
        loss.markers.append(_json(payload))


def _to_watch(row: Row, refused: AbstractSet[int], *, is_begun: bool) -> str | None:
    """The id of the last marker that was stored; else of the first entry, where that began the stream."""
    first = None
    for entry in range(len(row) // 2 - 1, 0, -1):
        if entry not in refused:
            first = str(row[2 * entry])
            if not str(row[2 * entry + 1]).startswith("["):
                return first
    return first if is_begun else None


def _tells_of_all(body: Mapping[str, Any], since_ns: int | None) -> bool:
    return body["reason"] == STREAM_LOST and "missing" not in body and body["from"] == since_ns

"""The brain of a reader: where it stands in each stream, what to ask next, and whether an answer may be trusted.

Decides when a plain blocking XREAD will do, and when the stream must be looked at in the same transaction,
because entries may have been trimmed, or the stream replaced, since the last look. Must never send anything
or read a clock: seconds are an argument.

An answer that did not wait for such a look is trusted only while the reader keeps up: it asked within `TRUST_S`
of the answer before, and got fewer entries than it asked for. To lose entries unnoticed, a stream would have to
turn over completely within that time and hold fewer than `COUNT_MAX` entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from consumers.command import Command, Reply
from consumers.reading.gaps import Anchor, StreamFacts, Verdict, hole, judge, numbered, read_facts
from consumers.reading.start import Place, before
from consumers.reconnect import is_wrong_type, tells_of_key
from wire import ZERO_ID, EntryId, Gap, Keyspace

COUNT_MAX: Final = 1_000
"""Entries of one stream per read: beyond this, reading is not faster, and the reply is long to parse in one go."""
ENTRIES_PER_READ: Final = 20_000
"""All streams of a read together, so that a reply of a thousand streams stays within some megabytes."""
COUNT_MIN: Final = 10
BLOCK_S: Final = 0.5
TRUST_S: Final = 0.25
LOOK_EVERY_S: Final = 1.0
"""How often quiet streams are looked at; a stream must be quiet that long first."""
LOOKS_AT_ONCE: Final = 250
"""Quiet streams per look, longest unseen first: each costs the server some 10 us."""
REWIND_HOLDS_S: Final = 1.0
"""How long a stream must stay behind our position: a daemon that sends its spool again to an emptied server
passes through such a state, and would be taken for a new stream."""
_BEGINNING: Final = str(ZERO_ID)


@dataclass(slots=True, eq=False)
class Track:
    """One followed stream. `after` is the id of the last entry handed out or skipped, as text."""

    symbol: str
    key: bytes
    after: str
    anchor: Anchor
    look_now: bool = True
    wary: bool = False
    """Hand nothing out of it without a look."""
    barred: bool = False
    """The key holds no stream."""
    dropped: bool = False
    seen_at: float = 0.0
    rewound_since: float | None = None
    first: EntryId | None = None
    """The first entry of the stream when it was last looked at and found whole."""
    read_to: str = ""
    """The id of the last entry that was read, handed out or not."""
    number: int | None = None
    """The running number of that entry (see `gaps.numbered`), where it is known."""
    added: int | None = None
    """How many entries the stream had been given when it was last looked at."""
    deleted: EntryId | None = None
    """The largest id that had been deleted by then."""

    @property
    def number_here(self) -> int | None:
        """The running number of the position, known when all that was read has been handed out."""
        return self.number if self.read_to == self.after else None

    def move_to(self, after: str) -> None:
        """Read on from here."""
        self.after = after
        # At the beginning of a stream begun anew no entry has been seen.
        self.anchor = Anchor.CHOSEN if after == _BEGINNING else Anchor.SEEN


class Read(NamedTuple):
    """What to ask next: the commands, and how to understand the replies.

    With `looked` not empty the commands are a transaction. Without any command there is nothing to read yet.
    """

    commands: tuple[Command, ...]
    tracks: tuple[Track, ...]
    by_key: Mapping[bytes, Track]
    looked: tuple[Track, ...]
    per_stream: int


class Run(NamedTuple):
    """Raw entries of one stream, in order, after a gap if there is one."""

    track: Track
    gap: Gap | None
    entries: list[Any]
    after: str | None = None
    """Where the position is when the gap has been handed over."""

    def pass_gap(self) -> None:
        """Move the position behind the gap; whoever hands it over does so, that it is told once and not less."""
        if self.after is not None:
            self.track.move_to(self.after)


class Pursuit:
    """The positions of one reader and the rules of going on from them."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys
        self._tracks: dict[str, Track] = {}
        # Made anew, never changed: a read that is under way keeps the tracks that it was made for, so that a
        # symbol removed and added meanwhile does not receive the entries of its former self.
        self._by_key: Mapping[bytes, Track] | None = None
        self._answered_at: float | None = None
        self._look_at = 0.0

    @property
    def barred(self) -> list[str]:
        """The symbols whose key holds no stream."""
        return [track.symbol for track in self._tracks.values() if track.barred]

    def track(self, symbol: str) -> Track | None:
        """Where it stands in this symbol's stream."""
        return self._tracks.get(symbol)

    @property
    def is_behind(self) -> bool:
        """Whether the last answer left entries unread that were there already, as far as it shows."""
        return any(track.look_now for track in self._tracks.values())

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> id after which reading goes on."""
        return {symbol: track.after for symbol, track in self._tracks.items()}

    def follow(self, symbol: str, place: Place) -> Track:
        """Begin with this symbol at this place."""
        key = self._keys.stream(symbol).encode()
        track = Track(symbol, key, str(place.after), place.anchor)
        self._tracks[symbol] = track
        self._by_key = None
        return track

    def drop(self, symbol: str) -> None:
        """Follow this symbol no more; entries already read are not handed out."""
        track = self._tracks.pop(symbol, None)
        if track is not None:
            track.dropped = True
            self._by_key = None

    def halt(self) -> None:
        """Hand nothing out any more; positions stay as they are."""
        for track in self._tracks.values():
            track.dropped = True

    def lost_touch(self) -> None:
        """The connection is new: anything may have happened to the streams."""
        self._answered_at = None

    def next_read(self, now_s: float, block_s: float = BLOCK_S) -> Read:
        """What to ask now; the server may wait `block_s` for something to answer, from 1 ms on."""
        tracks = self._tracks.values()
        if self._answered_at is None or now_s - self._answered_at > TRUST_S:
            for track in tracks:
                track.look_now = True
        looked = [track for track in tracks if track.look_now]
        if now_s >= self._look_at:
            self._look_at = now_s + LOOK_EVERY_S
            quiet = [t for t in tracks if not t.look_now and now_s - t.seen_at >= LOOK_EVERY_S]
            looked += sorted(quiet, key=lambda t: t.seen_at)[:LOOKS_AT_ONCE]
        readable = tuple(track for track in tracks if not track.barred)
        count = max(COUNT_MIN, min(COUNT_MAX, ENTRIES_PER_READ // max(len(readable), 1)))
        block_ms = int(block_s * 1000)
        commands: list[Command] = []
        if looked:
            commands += [("MULTI",), *(("XINFO", "STREAM", track.key) for track in looked)]
        if readable:
            block = ("BLOCK", block_ms) if block_ms and not looked else ()
            keys_and_ids: Command = (*(t.key for t in readable), *(t.after for t in readable))
            commands.append(("XREAD", "COUNT", count, *block, "STREAMS", *keys_and_ids))
        if looked:
            commands.append(("EXEC",))
        if self._by_key is None:
            self._by_key = {track.key: track for track in tracks}
        return Read(tuple(commands), readable, self._by_key, tuple(looked), count)

    def digest(self, read: Read, replies: list[Reply], now_s: float) -> list[Run]:
        """What may be handed out of the replies, in order.

        Raises the error that Redis answered, unless it is one that this reader can work around.
        """
        for reply in replies:
            if isinstance(reply, Exception) and not is_wrong_type(reply):
                raise reply
        answers = replies[-1] if read.looked else replies
        facts = dict(zip(read.looked, answers, strict=False))
        streams = answers[-1] if read.tracks else None
        for answer in facts.values():
            if isinstance(answer, Exception) and not tells_of_key(answer):
                raise answer
        if isinstance(streams, Exception):
            if not is_wrong_type(streams):
                raise streams
            # One key that is no stream fails the whole XREAD, so nothing is known of the others either: look at
            # each to find which, and read on without it.
            for track in read.tracks:
                track.look_now = True
            for track, answer in facts.items():
                track.barred = is_wrong_type(answer)
            self._answered_at = now_s
            return []
        self._answered_at = now_s
        tracks = ((read.by_key[key], found) for key, found in streams or ())
        entries = {track: found for track, found in tracks if not track.dropped}
        runs = self._judge_all(facts, entries, read.per_stream, now_s)
        for track, found in entries.items():
            track.seen_at = now_s
            if track not in facts:
                if track.wary or len(found) >= read.per_stream:
                    track.look_now = True
                    continue
                track.number = None if track.number_here is None else track.number_here + len(found)
            # A full answer means that we are behind: the next one is to be read with a look as well.
            track.look_now = len(found) >= read.per_stream
            track.read_to = found[-1][0].decode()
            gap = runs.pop(track, None)
            # With the gap the position comes to stand directly before what is left.
            after = None if gap is None else str(before(EntryId.parse(found[0][0])))
            runs[track] = Run(track, gap.gap if gap else None, found, after)
        return list(runs.values())

    def _judge_all(
        self, facts: Mapping[Track, Reply], entries: Mapping[Track, list[Any]], per_stream: int, now_s: float
    ) -> dict[Track, Run]:
        runs: dict[Track, Run] = {}
        for track, answer in facts.items():
            if track.dropped:
                continue
            track.look_now = False
            track.seen_at = now_s
            was_barred, track.barred = track.barred, is_wrong_type(answer)
            if was_barred and not track.barred:
                track.look_now = True  # It was not read this time.
                continue
            run = self._judge(track, read_facts(answer), len(entries.get(track, ())), per_stream, now_s)
            if run is not None:
                runs[track] = run
        return runs

    def _judge(
        self, track: Track, facts: StreamFacts | None, found: int, per_stream: int, now_s: float
    ) -> Run | None:
        position = EntryId.parse(track.after)
        verdict = judge(position, track.anchor, facts)
        if facts is not None:
            if verdict is Verdict.REWOUND and facts.first == track.first is not None:
                # The same stream without its last entries, as a server leaves it that restarts from a truncated
                # file: this reader has had them, and what comes next has larger ids.
                verdict = Verdict.INTACT
            elif verdict is Verdict.TRIMMED and (facts.added or 0) < (track.added or 0):
                # A stream that was given fewer entries than it had been is not the one it was.
                verdict = Verdict.REPLACED
            if verdict is Verdict.INTACT:
                track.first = facts.first
        if verdict is not Verdict.REWOUND:
            track.rewound_since = None
        # What comes next from a missing stream stands in a new one.
        track.wary = verdict in {Verdict.MISSING, Verdict.REWOUND} and position != ZERO_ID
        if facts is None:
            return None
        # Entries deleted since the last look may have been among those that were counted on.
        number = track.number_here if track.deleted == facts.deleted else None
        track.added, track.deleted, track.read_to = facts.added, facts.deleted, track.after
        track.number = numbered(position, number, facts, found, is_all=found < per_stream)
        if verdict is Verdict.INTACT:
            return None
        if verdict is Verdict.REWOUND:
            track.number = None
            if track.rewound_since is None:
                track.rewound_since = now_s
            if now_s - track.rewound_since < REWIND_HOLDS_S:
                return None
            track.look_now, track.wary, track.rewound_since = True, False, None
            after: str | None = _BEGINNING
        elif found:
            after = None  # It follows from what was found.
        else:
            # Trimmed to nothing: there is no entry to move the position, and the gap is told once.
            after = track.read_to = str(facts.last)
        return Run(track, hole(track.symbol, position, facts, verdict, number), [], after)

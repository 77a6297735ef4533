"""The brain of a reader: where it stands in each stream, what to ask next, and whether an answer may be trusted.

Decides when a plain blocking XREAD will do, and when the stream must be looked at in the same transaction,
because entries may have been trimmed, or the stream replaced, since the last look. Must never send anything
or read a clock: seconds are an argument.

An answer that did not wait for such a look is trusted only while the reader keeps up: it asked within `TRUST_S`
of the answer before, got fewer entries than it asked for, and the entry at its position still stands after the
answer came. Without that proof, which costs a round trip, only who asked within `PROMPT_S` is believed. Whatever
went all the same shows in the running numbers at the next look, which comes for each stream in turn: the gap is
told then, late.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from consumers.command import Command, Reply
from consumers.reading.gaps import Sight, Verdict, hole, is_there, numbered, read_facts, span, weigh
from consumers.reading.start import Place, before
from consumers.reading.track import BEGINNING, Read, Run, Track
from consumers.reconnect import is_wrong_type, tells_of_key
from wire import ZERO_ID, EntryId, Keyspace

COUNT_MAX: Final = 1_000
"""Entries of one stream per read: beyond this, reading is not faster, and the reply is long to parse in one go."""
ENTRIES_PER_READ: Final = 20_000
"""All streams of a read together, so that a reply of a thousand streams stays within some megabytes."""
COUNT_MIN: Final = 10
BLOCK_S: Final = 0.5
TRUST_S: Final = 0.25
"""After a longer pause streams are looked at before they are read: by then they may be others."""
PROMPT_S: Final = 0.0005
"""After a longer pause an answer is believed only with proof, for which there is one round trip more."""
LOOK_EVERY_S: Final = 1.0
"""How often streams are looked at that are read without; each at most as often."""
LOOKS_AT_ONCE: Final = 250
"""Such streams per look, longest unseen first: each costs the server some 10 us."""
ENTRIES_PER_S: Final = 50_000
"""More than any daemon writes into one stream: what counts more than that further is another stream."""
REWIND_HOLDS_S: Final = 1.0
"""How long a stream must stay behind our position: a daemon that sends its spool again to an emptied server
passes through such a state, and would be taken for a new stream."""


class Pursuit:
    """The positions of one reader and the rules of going on from them."""

    def __init__(self, keys: Keyspace, *, prompt_s: float = PROMPT_S) -> None:
        self._keys = keys
        self._prompt_s = prompt_s
        self._tracks: dict[str, Track] = {}
        # Made anew, never changed: a read that is under way keeps the tracks that it was made for, so that a
        # symbol removed and added meanwhile does not receive the entries of its former self.
        self._by_key: Mapping[bytes, Track] | None = None
        self._answered_at: float | None = None
        self._look_at = 0.0
        self._pauses = 0
        self._asked: tuple[Command, ...] = ()

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
        after = str(place.after)
        track = Track(symbol, key, after, place.anchor, read_to=after, number=place.number)
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
        paused_s = math.inf if self._answered_at is None else now_s - self._answered_at
        if paused_s > self._prompt_s:
            self._pauses += 1
        if paused_s > TRUST_S:
            for track in tracks:
                track.look_now = track.is_untouched = True
                track.at_end = False
        looked = [track for track in tracks if track.look_now]
        if now_s >= self._look_at:
            self._look_at = now_s + LOOK_EVERY_S
            due = [t for t in tracks if not t.look_now and now_s - t.looked_at >= LOOK_EVERY_S]
            looked += sorted(due, key=lambda t: t.looked_at)[:LOOKS_AT_ONCE]
        readable = tuple(track for track in tracks if not track.barred)
        count = max(COUNT_MIN, min(COUNT_MAX, ENTRIES_PER_READ // max(len(readable), 1)))
        block_ms = int(block_s * 1000)
        commands: list[Command] = []
        if looked:
            commands += [("MULTI",), *(("XINFO", "STREAM", track.key) for track in looked)]
            commands += [("XRANGE", track.key, track.after, track.after) for track in looked]
        if readable:
            block = ("BLOCK", block_ms) if block_ms and not looked else ()
            keys_and_ids: Command = (*(t.key for t in readable), *(t.after for t in readable))
            commands.append(("XREAD", "COUNT", count, *block, "STREAMS", *keys_and_ids))
        if looked:
            commands.append(("EXEC",))
        if self._by_key is None:
            self._by_key = {track.key: track for track in tracks}
        return Read(tuple(commands), readable, self._by_key, tuple(looked), count, self._pauses)

    def proofs(self, read: Read, replies: list[Reply]) -> tuple[Command, ...]:
        """What to ask, now that these replies have come, before any of them may be believed; perhaps nothing.

        Trimming takes the oldest first, and a server that forgets takes the last: an entry that still stands at the
        position after the answer came proves that no entry behind it was trimmed or forgotten before.
        """
        streams = None if read.looked or not read.tracks else replies[-1]
        tracks = () if isinstance(streams, Exception) else [read.by_key[key] for key, _ in streams or ()]
        self._asked = tuple(
            ("XRANGE", t.key, t.after, t.after)
            for t in tracks
            if t.proven_in != read.pauses and t.is_provable and not (t.wary or t.dropped)
        )
        return self._asked

    def digest(
        self, read: Read, replies: list[Reply], now_s: float, proofs: Sequence[Reply] = ()
    ) -> list[Run]:
        """What may be handed out of the replies, in order; `proofs` are those to what `proofs` asked.

        Raises the error that Redis answered, unless it is one that this reader can work around.
        """
        for reply in (*replies, *proofs):
            if isinstance(reply, Exception) and not is_wrong_type(reply):
                raise reply
        answers = replies[-1] if read.looked else replies
        looked = len(read.looked)
        facts = dict(
            zip(read.looked, zip(answers[:looked], answers[looked : 2 * looked], strict=True), strict=True)
        )
        streams = answers[-1] if read.tracks else None
        for answer in (part for pair in facts.values() for part in pair):
            if isinstance(answer, Exception) and not tells_of_key(answer):
                raise answer
        if isinstance(streams, Exception):
            if not is_wrong_type(streams):
                raise streams
            # One key that is no stream fails the whole XREAD, so nothing is known of the others either: look at
            # each to find which, and read on without it.
            for track in read.tracks:
                track.look_now = True
            for track, (answer, _) in facts.items():
                track.barred = is_wrong_type(answer)
            self._answered_at = now_s
            return []
        self._answered_at = now_s
        tracks = ((read.by_key[key], found) for key, found in streams or ())
        entries = {track: found for track, found in tracks if not track.dropped}
        runs = self._judge_all(facts, entries, read, now_s)
        proven = {key for (_, key, *_), proof in zip(self._asked, proofs, strict=True) if is_there(proof)}
        for track, found in entries.items():
            if track not in facts:
                if track.key in proven or track.is_taken_on_trust:
                    track.proven_in = read.pauses
                is_whole = track.proven_in == read.pauses
                if track.wary or not is_whole or len(found) >= read.per_stream:
                    track.look_now = True
                    continue
                number = track.number_here
                track.read_on(found[-1][0].decode(), None if number is None else number + len(found))
            # A full answer means that we are behind: the next one is to be read with a look as well. So is the one
            # after the first of a stream that was not there: nothing is known of it yet.
            track.look_now = len(found) >= read.per_stream or track.facts is None
            track.at_end = track.is_forgotten = False
            gap = runs.pop(track, None)
            # With the gap the position comes to stand directly before what is left.
            after = None if gap is None else str(before(EntryId.parse(found[0][0])))
            runs[track] = Run(track, gap.gap if gap else None, found, after)
        return list(runs.values())

    def _judge_all(
        self,
        facts: Mapping[Track, tuple[Reply, Reply]],
        entries: Mapping[Track, list[Any]],
        read: Read,
        now_s: float,
    ) -> dict[Track, Run]:
        runs: dict[Track, Run] = {}
        for track, (answer, here) in facts.items():
            if track.dropped:
                continue
            track.look_now = False
            track.looked_at, track.proven_in = now_s, read.pauses
            was_barred, track.barred = track.barred, is_wrong_type(answer)
            if was_barred and not track.barred:
                track.look_now = True  # It was not read this time.
                continue
            found = entries.get(track, [])
            stream = read_facts(answer)
            sight = None
            if stream is not None:
                nearest = EntryId.parse(found[0][0]) if found else None
                sight = Sight(stream, is_there(here), nearest, len(found), len(found) < read.per_stream)
            run = self._judge(track, sight, found, now_s)
            if run is not None:
                runs[track] = run
        return runs

    def _judge(self, track: Track, sight: Sight | None, found: list[Any], now_s: float) -> Run | None:
        position = EntryId.parse(track.after)
        if sight is None:
            # What comes next stands in another stream.
            track.wary = position != ZERO_ID
            track.rewound_since = None
            return None
        facts, was, number = sight.facts, track.facts, track.number_here
        sure_to = EntryId.parse(track.sure_to) if track.sure_to else position
        is_cut = was is None or was.deleted != facts.deleted
        most = ENTRIES_PER_S * max(1.0, now_s - track.facts_at)
        doubted_from = sure_to if is_cut or track.is_doubtful else None
        verdict, gone = weigh(
            *(position, track.anchor, sight, number),
            before=was,
            at_end=track.at_end,
            most=most,
            doubted_from=doubted_from,
        )
        is_cut_short = verdict is Verdict.REWOUND and facts.first == track.first is not None
        if is_cut_short:
            is_doubted = doubted_from is not None and (facts.deleted or ZERO_ID) > doubted_from
            verdict = Verdict.TRIMMED if is_doubted else Verdict.INTACT
            track.lose_end()
        if verdict is Verdict.INTACT:
            track.first = facts.first
        if verdict is not Verdict.REWOUND:
            track.rewound_since = None
        track.is_forgotten = track.is_forgotten and not sight.stands
        track.wary = track.is_forgotten or (verdict is Verdict.REWOUND and position != ZERO_ID)
        track.is_untouched = False
        track.is_doubtful = not sight.is_all and (track.is_doubtful or is_cut)
        track.facts, track.facts_at = facts, now_s
        if verdict is Verdict.REWOUND:
            track.read_on(track.after, None)
            if track.rewound_since is None:
                track.rewound_since = now_s
            if now_s - track.rewound_since < REWIND_HOLDS_S:
                return None
            track.look_now, track.wary, track.rewound_since = True, False, None
            return Run(track, hole(track.symbol, position, facts, verdict), [], BEGINNING)
        behind, after = str(found[-1][0].decode()) if found else track.after, None
        if verdict is not Verdict.INTACT and not found:
            # Nothing is left behind the position: there is no entry to move it, and the gap is told once.
            behind = after = str(max(facts.last, position))
        is_gone = not found and not sight.stands and position >= facts.last
        is_past = after is not None and not is_cut_short
        track.at_end = track.at_end or is_past or (is_gone and not track.is_forgotten)
        track.read_on(behind, numbered(position, number, sight))
        if verdict in {Verdict.REPLACED, Verdict.FORGOTTEN}:
            track.number_before = None
        if sight.is_all:
            track.sure_to = behind
        if verdict is Verdict.INTACT:
            return None
        ids = [EntryId.parse(entry[0]) for entry in found]
        is_doubted = doubted_from is not None
        since, to = span(position, sure_to, sight, verdict, ids, before=was, most=most, is_doubted=is_doubted)
        return Run(track, hole(track.symbol, since, facts, verdict, gone, to), [], after)

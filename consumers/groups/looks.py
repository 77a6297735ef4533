"""A look at one stream of the group: what to ask, and what the answers change in what a worker knows.

Decides when a look is due, whether a group is there, and where one is to be made. Must never send anything.

A stream that is not there is waited for and never made. A group of its own is made when it comes, at its start,
so that nothing of it is missed. A round is a look that also asks for the record and for what is pending.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import ResponseError

from consumers.command import Command, Reply
from consumers.groups.inherit import Birth, adopted, born, reborn, renamed, together
from consumers.groups.record import Debt, Record, decode_record, first_record, tags
from consumers.groups.rounds import pause_s
from consumers.groups.standing import (
    GroupFacts,
    Loss,
    Standing,
    deleted_behind,
    having_seen,
    is_rewound,
    lost,
    marked,
    read_group,
    stand,
    take_tally,
    trimmed,
)
from consumers.groups.track import START, Track
from consumers.reading.gaps import STREAM_RECREATED, Anchor, StreamFacts, read_facts
from consumers.reading.start import Place, Wish, questions, settle
from consumers.reconnect import is_wrong_type, tells_of_key
from wire import ZERO_ID, EntryId, Keyspace

AGAIN_S: Final = 1.0
"""How often a stream that is not there is looked for."""
NEWCOMER_WAITS_S: Final = 1.5
"""How long who knows nothing of a group leaves it to others to make it: those who know look every `AGAIN_S`."""
MAKING_TAKES_S: Final = 0.5
"""How long a group that the record speaks of may be without its name, or not be there yet."""
REWIND_HOLDS_S: Final = 1.0
"""How long a stream must end before what was seen in it: a daemon that sends its spool again to an emptied server
passes through such a state."""
LOOKS_AT_ONCE: Final = 250
RECORD: Final = 2
"""Which of a round's answers it is, without the two of each look; those after it are asked by who is not in it."""
HEAD: Final = 2
"""The daemon's marker stands in front of the first entry of a new stream or behind it."""


def is_group_gone(error: object) -> bool:
    """Whether the error says that there is no such group, or no such stream for one.

    A reader that waits while the stream is deleted is told UNBLOCKED before Redis 7.2, NOGROUP since.
    """
    text = str(error)
    return isinstance(error, ResponseError) and (
        text.startswith(("NOGROUP", "UNBLOCKED")) or "requires the key to exist" in text
    )


class Looks:
    """How one worker looks at its streams."""

    def __init__(
        self, keys: Keyspace, group: str, consumer: str, claim_after_s: float, chance: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._name = group.encode()
        self._claim_after_s = claim_after_s
        self._chance = chance

    def due(self, tracks: Iterable[Track], now_s: float) -> list[Track]:
        """The streams to look at now: all that are not trusted, and some of those whose round has come."""
        untrusted, rounds = [], []
        for track in tracks:
            if track.joined and track.look_now:
                untrusted.append(track)
            elif track.look_at <= now_s:
                rounds.append(track)
        return untrusted + sorted(rounds, key=lambda track: track.look_at)[:LOOKS_AT_ONCE]

    def questions(self, track: Track, now_s: float) -> list[Command]:
        """What to ask about this stream, within one transaction."""
        asked: list[Command] = [("XINFO", "STREAM", track.key), ("XINFO", "GROUPS", track.key)]
        if track.look_at <= now_s:
            asked += [
                ("XPENDING", track.key, self._group),
                ("XINFO", "CONSUMERS", track.key, self._group),
                ("ZRANGE", self._keys.group(self._group, track.symbol), 0, 0),
            ]
            if not track.joined:
                asked.append(("XRANGE", track.key, "-", "+", "COUNT", HEAD))
                if track.memory is None and track.origin is Wish.SNAPSHOT:
                    asked += questions(self._keys, track.symbol, Wish.SNAPSHOT)
            if track.mark is not None:
                asked.append(("XRANGE", track.key, str(track.mark), str(track.mark)))
        return asked

    def judge(self, track: Track, answers: Sequence[Reply], now_s: float) -> Loss | None:
        """Learn from the answers; returns what is to be told, if there is something."""
        stream, groups, *more = answers
        for answer in answers:
            if isinstance(answer, Exception) and not (is_group_gone(answer) or tells_of_key(answer)):
                raise answer
        track.look_now = False
        track.barred = is_wrong_type(stream)
        facts, group = read_facts(stream), read_group(groups, self._name)
        record: Record | None = None
        track.proof = None
        if more and track.mark is not None:
            track.proof, track.mark = (track.mark, bool(more.pop())), None
        if more:
            track.raw, record = decode_record(more[RECORD])
        if facts is None or group is None:
            if track.joined:
                track.leave()
            track.joined = False
            track.tally = track.told = None
            # With a round of who is not in it, if this was none: record and first entries tell where to begin.
            track.look_at = now_s + AGAIN_S if facts is None or len(more) > RECORD + 1 else now_s
            if facts is not None and len(more) > RECORD + 1:
                self._begin(track, facts, record, more[RECORD + 1 :], now_s)
            elif facts is None and isinstance(track.origin, Wish):
                # Nothing is there now, so whatever comes has come since.
                track.origin = Place(ZERO_ID, Anchor.CHOSEN)
            return None
        track.rewound_since = track.came_at = None
        if more:
            self._round(track, group, facts, record, more, now_s)
            if not track.joined:
                return None
        group = replace(group, members=group.members - track.tags)
        return self._missed(track, group, facts)

    def _begin(
        self, track: Track, facts: StreamFacts, record: Record | None, more: Sequence[Reply], now_s: float
    ) -> None:
        head = more[0] if isinstance(more[0], list) else []
        known = together(track.symbol, record, track.memory, facts, self._consumer)
        if known is not None and track.verified == known.generation and track.seen is not None:
            known = known.at(having_seen(known.standing, EntryId.parse(track.seen)))
        if known is None:
            self._begin_anew(track, facts, head, more, now_s)
            return
        proven = self._proven(track, known, now_s)
        if proven is None:
            return
        if (
            record is not None
            and record.generation != track.verified
            and self._is_in_the_making(track, (record.generation, frozenset()), now_s)
        ):
            return
        if is_rewound(known.standing, facts):
            if track.rewound_since is None:
                track.rewound_since = now_s
            if now_s - track.rewound_since < REWIND_HOLDS_S:
                return
        track.birth = reborn(track.symbol, known, proven, facts, head, self._generation(), self._consumer)
        track.seen = None

    def _begin_anew(
        self, track: Track, facts: StreamFacts, head: Sequence[Any], more: Sequence[Reply], now_s: float
    ) -> None:
        origin = track.origin
        if origin is Wish.NOW:
            origin = Place(facts.last, Anchor.SEEN)
        elif origin is Wish.SNAPSHOT:
            origin = settle(track.symbol, Wish.SNAPSHOT, more[-2:])
        track.origin = origin
        if track.came_at is None:
            track.came_at = now_s
        if origin.after != ZERO_ID and now_s - track.came_at < NEWCOMER_WAITS_S:
            track.look_at = now_s + AGAIN_S / 4
            return
        track.birth = born(track.symbol, origin, facts, head, self._generation(), self._consumer)

    def _round(
        self,
        track: Track,
        group: GroupFacts,
        facts: StreamFacts,
        record: Record | None,
        more: Sequence[Reply],
        now_s: float,
    ) -> None:
        count, oldest = more[0][:2]
        now = marked(stand(group, facts, EntryId.parse(oldest) if count else None), facts)
        found = tags(more[1])
        track.tags = len(found)
        members = group.members - track.tags
        track.look_at = now_s + pause_s(self._claim_after_s, members, self._chance())
        known = together(track.symbol, record, track.memory, facts, self._consumer)
        if known is not None and known.generation not in found:
            track.joined = False
            proven = self._proven(track, known, now_s)
            if proven is not None and not self._is_in_the_making(track, (known.generation, found), now_s):
                kept = renamed(
                    track.symbol, known, proven, group, facts, now, found, self._generation(), self._consumer
                )
                track.birth = Birth(kept, None)
                if not known.knows_none(found):
                    # What else the later stream had been given is told when an entry has come.
                    track.verified, track.gone_from = kept.generation, max(proven.mark, facts.last)
            return
        if known is None and not found:
            track.joined = False
            head = more[3] if len(more) > 3 and isinstance(more[3], list) else []
            kept = adopted(track.symbol, group, facts, now, head, self._generation(), self._consumer)
            track.birth = Birth(kept, None)
            return
        # Where only the record was lost, or has expired, the group still has its name.
        kept = first_record(min(found), now) if known is None else known.raised(now)
        kept = kept.seeing(facts.deleted, group.last)
        track.nameless = None
        if track.verified == kept.generation:
            kept = self._told_of_return(track, kept, facts)
        else:
            track.gone_from = None
        track.verified = kept.generation
        if not track.joined:
            track.joined = track.was_joined = True
            track.recover_from = START
        if count and track.claim_from is None:
            track.claim_from = START
        track.memory = track.draft = kept

    def _proven(self, track: Track, known: Record, now_s: float) -> Standing | None:
        """Where the group stood, once it was looked for its mark; None until then."""
        standing = known.standing
        if standing.anchor is not Anchor.SEEN:
            return standing
        if track.proof is None or track.proof[0] != standing.mark:
            track.mark, track.look_at = standing.mark, now_s
            return None
        return replace(standing, is_absent=not track.proof[1])

    def _is_in_the_making(self, track: Track, found: tuple[str, frozenset[str]], now_s: float) -> bool:
        """Whether another worker may be about to make, or to name, the group that the record speaks of."""
        if found != track.nameless:
            track.nameless, track.nameless_since = found, now_s
        if now_s - track.nameless_since >= MAKING_TAKES_S:
            track.nameless = None
            return False
        track.look_at = now_s + MAKING_TAKES_S / 10
        return True

    def _told_of_return(self, track: Track, kept: Record, facts: StreamFacts) -> Record:
        """The very group that was gone is back: what was written to another stream meanwhile went with that.

        Told when an entry has come since, because until then nobody can say up to when.
        """
        since = track.gone_from
        if since is None or facts.last <= since:
            return kept
        track.gone_from = None
        return kept.owing(Debt(self._consumer, str(since), str(facts.last), STREAM_RECREATED))

    def _missed(self, track: Track, group: GroupFacts, facts: StreamFacts) -> Loss | None:
        known = None if track.memory is None else track.memory.deleted_to
        gap, upto = trimmed(track.symbol, group, facts, track.tally), deleted_behind(group.last, facts, known)
        if gap is None and upto is None:
            track.tally = take_tally(group, facts) or track.tally
            return None
        # With the next entry that is read Redis counts as read what is missing here.
        counted = None if upto is not None else take_tally(group, facts)
        track.tally = None if counted is None else replace(counted, read=None)
        if gap is not None:
            # Where nothing is left to be read the group's place stays; what comes and goes behind it is news.
            until = group.last, facts.first or facts.last
            gap = None if track.told == until else gap
            track.told = until
        return lost(track.symbol, group, facts, gap, upto)

    def _generation(self) -> str:
        return f"{int(self._chance() * 2**32):08x}{int(self._chance() * 2**32):08x}"

"""A look at one stream of the group: what to ask, and what the answers change in what a worker knows.

Decides when a look is due, whether a group is there, and where one is to be made. Must never send anything.

A stream that is not there is waited for and never made. A group of its own is made when it comes, at its start,
so that nothing of it is missed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from redis.exceptions import ResponseError

from consumers.command import Command, Reply
from consumers.groups.rounds import pause_s
from consumers.groups.standing import (
    GroupFacts,
    begin,
    begin_again,
    having_seen,
    is_rewound,
    read_group,
    stand,
    take_tally,
    trimmed,
)
from consumers.groups.track import START, Track
from consumers.reading.gaps import Anchor, StreamFacts, read_facts
from consumers.reading.start import Place, Wish, questions, settle
from consumers.reconnect import is_wrong_type, tells_of_key
from wire import ZERO_ID, EntryId, Gap, Keyspace

AGAIN_S: Final = 1.0
"""How often a stream that is not there is looked for."""
REWIND_HOLDS_S: Final = 1.0
"""How long a stream must end before what was seen in it: a daemon that sends its spool again to an emptied server
passes through such a state."""
LOOKS_AT_ONCE: Final = 250


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

    def __init__(self, keys: Keyspace, group: str, claim_after_s: float, chance: Callable[[], float]) -> None:
        self._keys = keys
        self._group = group
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
            asked.append(("XPENDING", track.key, self._group))
        if not track.joined and track.standing is None and track.origin is Wish.SNAPSHOT:
            asked += questions(self._keys, track.symbol, Wish.SNAPSHOT)
        return asked

    def judge(self, track: Track, answers: Sequence[Reply], now_s: float) -> Gap | None:
        """Learn from the answers; returns the gap to tell, if there is one."""
        stream, groups, *more = answers
        for answer in answers:
            if isinstance(answer, Exception) and not (is_group_gone(answer) or tells_of_key(answer)):
                raise answer
        track.look_now = False
        track.barred = is_wrong_type(stream)
        facts, group = read_facts(stream), read_group(groups, self._name)
        if facts is None or group is None:
            track.joined = False
            track.look_at = now_s + AGAIN_S
            track.tally = track.told = None
            if facts is not None:
                self._begin(track, facts, more, now_s)
            elif isinstance(track.origin, Wish):
                # Nothing is there now, so whatever comes has come since.
                track.origin = Place(ZERO_ID, Anchor.CHOSEN)
            return None
        track.rewound_since = None
        if not track.joined:
            track.joined = track.was_joined = True
            track.recover_from = START
        if more and not isinstance(more[0], Exception):
            self._round(track, group, facts, more[0], now_s)
        return self._missed(track, group, facts)

    def _begin(self, track: Track, facts: StreamFacts, more: Sequence[Reply], now_s: float) -> None:
        if track.standing is not None:
            seen = None if track.seen is None else EntryId.parse(track.seen)
            standing = having_seen(track.standing, seen)
            if is_rewound(standing, facts):
                if track.rewound_since is None:
                    track.rewound_since = now_s
                if now_s - track.rewound_since < REWIND_HOLDS_S:
                    return
            track.beginning = begin_again(track.symbol, standing, facts)
            track.seen = None
            return
        origin = track.origin
        if origin is Wish.NOW:
            origin = Place(facts.last, Anchor.SEEN)
        elif origin is Wish.SNAPSHOT:
            origin = settle(track.symbol, Wish.SNAPSHOT, more[-2:])
        track.beginning = begin(origin, facts)

    def _round(
        self, track: Track, group: GroupFacts, facts: StreamFacts, pending: Sequence[Reply], now_s: float
    ) -> None:
        count, oldest = pending[:2]
        track.standing = stand(group, facts, EntryId.parse(oldest) if count else None)
        track.look_at = now_s + pause_s(self._claim_after_s, group.members, self._chance())
        if count and track.claim_from is None:
            track.claim_from = START

    def _missed(self, track: Track, group: GroupFacts, facts: StreamFacts) -> Gap | None:
        gap = trimmed(track.symbol, group, facts, track.tally)
        if gap is None:
            track.tally = take_tally(group, facts) or track.tally
            return None
        track.tally = None
        if track.told == group.last:
            return None
        track.told = group.last
        return gap

"""The brain of a worker: which command comes next, and what its answer means.

Decides the order of steps: look where groups are not known, make those that are missing, fetch what this worker had
left, claim what others left, and only then read what is new. Must never send anything or read a clock.

XREADGROUP jumps in silence over entries that were trimmed. So streams are looked at in the same transaction,
unless the group had been handed every entry within the last `TRUST_S`: then a stream would have to turn over
completely within that time to lose some unnoticed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from consumers.command import Command, Reply
from consumers.groups.looks import Looks, is_group_gone
from consumers.groups.standing import gone
from consumers.groups.track import START, Run, Track
from consumers.reading.start import Place, Wish
from consumers.reconnect import is_wrong_type, tells_of_key
from wire import Keyspace

BLOCK_S: Final = 0.5
TRUST_S: Final = 0.25
PAGE: Final = 100
"""Pending entries of one stream per step."""
STREAMS_PER_STEP: Final = 50
BUSY: Final = "BUSYGROUP"


class Step(NamedTuple):
    """Commands, and how to understand their replies: `digest(replies, now_s)`."""

    commands: Sequence[Command]
    digest: Callable[[Sequence[Reply], float], list[Run]]


class Membership:
    """The streams of one worker, and the rules of going on.

    `prefetch` bounds the entries of one read. `holds(symbol, id)` tells whether the strategy has an entry;
    `chance` draws a random number in [0, 1).
    """

    def __init__(
        self,
        keys: Keyspace,
        group: str,
        consumer: str,
        *,
        claim_after_s: float,
        prefetch: int,
        holds: Callable[[str, str], bool],
        chance: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._claim_after_ms = max(1, int(claim_after_s * 1000))
        self._prefetch = prefetch
        self._holds = holds
        self._looks = Looks(keys, group, claim_after_s, chance)
        self._tracks: dict[str, Track] = {}
        self._answered_at: float | None = None

    @property
    def tracks(self) -> Mapping[str, Track]:
        """What is known of each symbol."""
        return self._tracks

    @property
    def barred(self) -> list[str]:
        """The symbols whose key holds no stream."""
        return [track.symbol for track in self._tracks.values() if track.barred]

    def follow(self, symbol: str, origin: Wish | Place) -> Track:
        """Share in the work on this symbol."""
        self._tracks[symbol] = track = Track(symbol, self._keys.stream(symbol).encode(), origin)
        return track

    def drop(self, symbol: str) -> None:
        """Share in it no more; what was read and not handed over stays pending."""
        track = self._tracks.pop(symbol, None)
        if track is not None:
            track.dropped = True

    def halt(self) -> None:
        """Hand nothing out any more."""
        for track in self._tracks.values():
            track.dropped = True

    def lost_touch(self) -> None:
        """The connection is new: answers may have been lost with entries in them, and groups with the server."""
        self._answered_at = None
        for track in self._tracks.values():
            track.look_now = True
            if not track.joined:
                track.look_at = 0.0
            track.recover_from = START
            track.claim_from = None
            track.beginning = None
            track.wanted, track.claimed = {}, set()

    def next_step(self, now_s: float, block_s: float = BLOCK_S) -> Step:
        """What to ask now, if there is anything to do; the server may wait `block_s` for entries, from 1 ms on."""
        tracks = list(self._tracks.values())
        if found := [track for track in tracks if track.beginning is not None]:
            return self._make(found[:STREAMS_PER_STEP])
        joined = [track for track in tracks if track.joined]
        if found := [track for track in joined if track.wanted]:
            return self._fetch(found[: max(1, self._prefetch // PAGE)])
        if found := [track for track in joined if track.recover_from is not None]:
            return self._recover(found[:STREAMS_PER_STEP])
        if found := [track for track in joined if track.claim_from is not None]:
            return self._claim(found[:STREAMS_PER_STEP])
        if self._answered_at is None or now_s - self._answered_at > TRUST_S:
            for track in joined:
                track.look_now = True
        return self._read(self._looks.due(tracks, now_s), joined, now_s, int(block_s * 1000))

    def _make(self, tracks: list[Track]) -> Step:
        commands: list[Command] = []
        for track in tracks:
            assert track.beginning is not None
            after, read, _ = track.beginning
            count: Command = () if read is None else ("ENTRIESREAD", read)
            commands.append(("XGROUP", "CREATE", track.key, self._group, str(after), *count))

        def digest(replies: Sequence[Reply], now_s: float) -> list[Run]:
            runs = []
            for track, reply in zip(tracks, replies, strict=True):
                beginning, track.beginning = track.beginning, None
                track.look_now, track.look_at = True, now_s
                if isinstance(reply, ResponseError):
                    # Another member was faster, or the stream is gone again: the next look tells.
                    if not str(reply).startswith(BUSY) and not _is_of_stream(reply):
                        raise reply
                elif beginning is not None and beginning.gap is not None and not track.dropped:
                    runs.append(Run(track, beginning.gap, [], {}, ()))
            return runs

        return Step(commands, digest)

    def _recover(self, tracks: list[Track]) -> Step:
        """Look for what this worker was given and never handed over."""
        commands: list[Command] = [
            ("XPENDING", track.key, self._group, track.recover_from or START, "+", PAGE, self._consumer)
            for track in tracks
        ]

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            for track, found in zip(tracks, replies, strict=True):
                if self._is_lost(track, found):
                    continue
                for raw_id, _, _, times in found:
                    entry_id = raw_id.decode()
                    if not self._holds(track.symbol, entry_id):
                        track.wanted[entry_id] = times
                track.recover_from = f"({found[-1][0].decode()}" if len(found) == PAGE else None
            return []

        return Step(commands, digest)

    def _claim(self, tracks: list[Track]) -> Step:
        """Take over what nobody has acknowledged in time, wherever it lies."""
        idle = self._claim_after_ms
        commands: list[Command] = []
        for track in tracks:
            start = track.claim_from or START
            commands += [
                ("MULTI",),
                ("XPENDING", track.key, self._group, "IDLE", idle, start, "+", PAGE),
                ("XAUTOCLAIM", track.key, self._group, self._consumer, idle, start, "COUNT", PAGE, "JUSTID"),
                ("EXEC",),
            ]

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            runs = []
            for track, answer in zip(tracks, _executed(replies, 4), strict=True):
                found, claims = answer
                if self._is_lost(track, found) or self._is_lost(track, claims):
                    continue
                owners = {raw_id: (owner, times) for raw_id, owner, _, times in found}
                for raw_id in claims[1]:
                    owner, times = owners.get(raw_id, (b"", 1))
                    track.wanted[raw_id.decode()] = times
                    if owner != self._consumer.encode():
                        track.claimed.add(raw_id.decode())
                # From Redis 7.0 on, what the stream no longer holds is named, and pending no more.
                if lost := [raw_id.decode() for raw_id in claims[2]] if len(claims) > 2 else []:
                    runs.append(Run(track, gone(track.symbol, lost), [], {}, (), lost))
                cursor = claims[0].decode()
                track.claim_from = None if cursor == "0-0" else cursor
            return runs

        return Step(commands, digest)

    def _fetch(self, tracks: list[Track]) -> Step:
        """Get the entries that were found pending; this counts as one more delivery."""
        asked = [(track, dict(list(track.wanted.items())[:PAGE])) for track in tracks]
        commands: list[Command] = []
        for track, some in asked:
            commands.append(("XCLAIM", track.key, self._group, self._consumer, 0, *some))
            # One that is not claimed is lost, or was acknowledged late: only the stream can tell.
            commands += [("XRANGE", track.key, entry_id, entry_id) for entry_id in some]

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            runs, answers = [], iter(replies)
            for track, some in asked:
                found, *there = [next(answers) for _ in range(1 + len(some))]
                if self._is_lost(track, found) or track.dropped:
                    continue
                # Before Redis 7.0 an entry that the stream no longer holds is null here.
                entries = [entry for entry in found if entry is not None and entry[1] is not None]
                here = {raw_id.decode() for raw_id, _ in entries}
                lost = [key for key, stands in zip(some, there, strict=True) if not (key in here or stands)]
                claimed = track.claimed & here
                gap = gone(track.symbol, lost) if lost else None
                times = {entry_id: times + 1 for entry_id, times in some.items()}
                runs.append(Run(track, gap, entries, times, claimed, lost))
                for entry_id in some:
                    track.wanted.pop(entry_id, None)
                track.claimed.difference_update(some)
            return runs

        return Step(commands, digest)

    def _read(self, looked: list[Track], joined: list[Track], now_s: float, block_ms: int) -> Step:
        count = max(1, self._prefetch // max(len(joined), 1))
        looks = [(track, self._looks.questions(track, now_s)) for track in looked]
        commands: list[Command] = [("MULTI",)] if looks else []
        for _, questions in looks:
            commands += questions
        if joined:
            block: Command = ("BLOCK", block_ms) if block_ms and not looks else ()
            streams: Command = ("STREAMS", *(track.key for track in joined), *[">"] * len(joined))
            commands.append(
                ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count, *block, *streams)
            )
        if looks:
            commands.append(("EXEC",))
        by_key = {track.key: track for track in joined}

        def digest(replies: Sequence[Reply], now_s: float) -> list[Run]:
            answers = list(_executed(replies, len(commands))[0] if looks else replies)
            runs: dict[Track, Run] = {}
            at = 0
            for track, questions in looks:
                gap = self._looks.judge(track, answers[at : at + len(questions)], now_s)
                at += len(questions)
                if gap is not None and not track.dropped:
                    runs[track] = Run(track, gap, [], {}, ())
            if not joined:
                return list(runs.values())
            found = answers[-1]
            if isinstance(found, Exception):
                if not _is_of_stream(found):
                    raise found
                for track in joined:
                    track.look_now = True
                return list(runs.values())
            self._answered_at = now_s
            for key, entries in found or ():
                track = by_key[key]
                track.seen = entries[-1][0]
                # A full answer means that the group is behind: the next one is to be read with a look.
                track.look_now = track.look_now or len(entries) >= count
                earlier = runs.pop(track, None)
                runs[track] = Run(track, earlier.gap if earlier else None, entries, {}, ())
            return list(runs.values())

        return Step(commands, digest)

    def _is_lost(self, track: Track, reply: Reply) -> bool:
        """Whether stream or group went away meanwhile; any other error is raised."""
        if not isinstance(reply, Exception):
            return False
        if not _is_of_stream(reply):
            raise reply
        track.look_now = True
        track.joined = False
        track.look_at = 0.0
        track.wanted, track.claimed = {}, set()
        return True


def _executed(replies: Sequence[Reply], size: int) -> list[Any]:
    """The answers of each transaction, so many replies apart; an error of one is raised."""
    found = []
    for at in range(0, len(replies), size):
        part = replies[at : at + size]
        if isinstance(part[-1], Exception):
            raise next(reply for reply in part if isinstance(reply, Exception))
        found.append(part[-1])
    return found


def _is_of_stream(error: object) -> bool:
    return is_group_gone(error) or is_wrong_type(error) or tells_of_key(error)

"""What lies pending in a group and is to be handed out by this worker: its own, what others left, what was skipped.

Decides how it is found, and when an entry counts as lost. Must never send anything or read a clock.

Before an entry is fetched the stream is asked whether it still has it: XCLAIM and XAUTOCLAIM forget what is gone,
and if their answer is lost, or its reader killed, nobody would ever be told.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from consumers.command import Command, Reply
from consumers.groups.inherit import handed
from consumers.groups.ledger import Ledger
from consumers.groups.looks import is_group_gone
from consumers.groups.record import Debt, Record
from consumers.groups.standing import Missed, gone, missed_between
from consumers.groups.track import START, Run, Track
from consumers.reading.gaps import read_facts
from consumers.reading.start import before
from consumers.reconnect import is_wrong_type, tells_of_key
from wire import EntryId

PAGE: Final = 100
"""Pending entries of one stream per step."""
STREAMS_PER_STEP: Final = 50


class Step(NamedTuple):
    """Commands, and how to understand their replies: `digest(replies, now_s)`."""

    commands: Sequence[Command]
    digest: Callable[[Sequence[Reply], float], list[Run]]


class Pending:
    """The pending entries of one worker's streams."""

    def __init__(
        self,
        group: str,
        consumer: str,
        ledger: Ledger,
        *,
        claim_after_ms: int,
        prefetch: int,
        holds: Callable[[str, str], bool],
    ) -> None:
        self._group = group
        self._consumer = consumer
        self._ledger = ledger
        self._claim_after_ms = claim_after_ms
        self._at_once = max(1, prefetch // PAGE)
        self._holds = holds

    def next_step(self, joined: list[Track]) -> Step | None:
        """What to do for what is pending; None when there is nothing to do."""
        if found := [track for track in joined if track.found]:
            return self._fetch(found[: self._at_once])
        if found := [track for track in joined if track.wanted]:
            return self._sift(found[: self._at_once])
        if found := [track for track in joined if track.skipped]:
            return self._adopt(found[:STREAMS_PER_STEP])
        if found := [track for track in joined if track.ranges]:
            return self._seek(found[:STREAMS_PER_STEP])
        if found := [track for track in joined if track.recover_from is not None]:
            return self._recover(found[:STREAMS_PER_STEP])
        if found := [track for track in joined if track.claim_from is not None]:
            return self._claim(found[:STREAMS_PER_STEP])
        return None

    def _recover(self, tracks: list[Track]) -> Step:
        """Look for what this worker was given and never handed over."""
        commands: list[Command] = [
            ("XPENDING", track.key, self._group, track.recover_from or START, "+", PAGE, self._consumer)
            for track in tracks
        ]

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            for track, found in _there(tracks, replies):
                for raw_id, _, _, times in found:
                    entry_id = raw_id.decode()
                    if not self._holds(track.symbol, entry_id):
                        track.wanted[entry_id] = times
                track.recover_from = _next(found)
            return []

        return Step(commands, digest)

    def _claim(self, tracks: list[Track]) -> Step:
        """Look for what nobody has acknowledged in time, wherever it lies."""
        idle = self._claim_after_ms
        commands: list[Command] = [
            ("XPENDING", track.key, self._group, "IDLE", idle, track.claim_from or START, "+", PAGE)
            for track in tracks
        ]

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            for track, found in _there(tracks, replies):
                for raw_id, owner, _, times in found:
                    entry_id = raw_id.decode()
                    track.wanted[entry_id] = times
                    track.idle.add(entry_id)
                    if owner != self._consumer.encode():
                        track.claimed.add(entry_id)
                track.claim_from = _next(found)
            return []

        return Step(commands, digest)

    def _sift(self, tracks: list[Track]) -> Step:
        """Find out which of them the stream still has; what is gone is told, and settled when that is written."""
        asked = [(track, list(track.wanted)[:PAGE]) for track in tracks]
        commands: list[Command] = []
        for track, ids in asked:
            commands += [("XRANGE", track.key, entry_id, entry_id) for entry_id in ids]
            # XRANGE does not tell a stream that has lost entries from one that is not there.
            commands.append(("XPENDING", track.key, self._group))

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            runs, answers = [], iter(replies)
            for track, ids in asked:
                there = [next(answers) for _ in ids]
                if is_lost(track, next(answers)) or any(is_lost(track, answer) for answer in there):
                    continue
                track.found = [key for key, stands in zip(ids, there, strict=True) if stands]
                if lost := [key for key, stands in zip(ids, there, strict=True) if not stands]:
                    self._ledger.owe(track, [gone(track.symbol, lost)])
                    runs.append(Run(track, None, [], {}, (), lost))
                for entry_id in lost:
                    _done(track, entry_id)
            return runs

        return Step(commands, digest)

    def _fetch(self, tracks: list[Track]) -> Step:
        """Get the entries that were found pending; this counts as one more delivery."""
        asked: list[tuple[Track, list[list[str]]]] = []
        commands: list[Command] = []
        for track in tracks:
            own = [key for key in track.found if key not in track.idle]
            idle = [key for key in track.found if key in track.idle]
            asked.append((track, [own, idle]))
            for ids, idle_ms in ((own, 0), (idle, self._claim_after_ms)):
                if ids:
                    commands.append(("XCLAIM", track.key, self._group, self._consumer, idle_ms, *ids))

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            runs, answers = [], iter(replies)
            for track, parts in asked:
                found = [next(answers) for ids in parts if ids]
                if any(is_lost(track, answer) for answer in found) or track.dropped:
                    continue
                # What is not among them was acknowledged late, or another worker was faster.
                entries = [
                    entry
                    for answer in found
                    for entry in answer
                    if entry is not None and entry[1] is not None
                ]
                entries.sort(key=lambda entry: _order(entry[0]))
                here = {raw_id.decode() for raw_id, _ in entries}
                times = {key: track.wanted[key] + 1 for key in here if key in track.wanted}
                runs.append(Run(track, None, entries, times, track.claimed & here))
                for entry_id in track.found:
                    _done(track, entry_id)
                track.found = []
            return runs

        return Step(commands, digest)

    def _seek(self, tracks: list[Track]) -> Step:
        """Look for entries that were skipped; what was trimmed or deleted of them meanwhile is told."""
        asked = [(track, track.ranges[0]) for track in tracks]
        commands: list[Command] = []
        for track, debt in asked:
            commands.append(("XINFO", "STREAM", track.key))
            commands.append(("XRANGE", track.key, f"({debt.after}", debt.upto, "COUNT", PAGE + 1))

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            for (track, debt), stream, found in zip(asked, replies[::2], replies[1::2], strict=True):
                if is_lost(track, stream) or is_lost(track, found) or debt not in track.ranges:
                    continue
                if (missed := self._missed(track, debt, stream)) is not None:
                    self._ledger.owe(track, [missed.gap])
                    if missed.deleted is not None:
                        track.change(partial(Record.knowing, deleted=missed.deleted))
                    if missed.trimmed_to is not None:
                        # The rest is looked for from there, when that is written.
                        self._paid(track, debt, str(before(missed.trimmed_to)))
                        continue
                ids = [raw_id.decode() for raw_id, _ in found]
                track.skipped, track.behind = ids[:PAGE], next(iter(ids[PAGE:]), None)
                if not found:
                    self._paid(track, debt, None)
            return []

        return Step(commands, digest)

    def _adopt(self, tracks: list[Track]) -> Step:
        """Make skipped entries pending for this worker, though the group was never given them."""
        asked = {track: (track.ranges[0], track.skipped, track.behind) for track in tracks}
        commands: list[Command] = [
            ("XCLAIM", track.key, self._group, self._consumer, 0, *skipped, "FORCE", "JUSTID")
            for track, (_, skipped, _) in asked.items()
        ]

        def digest(replies: Sequence[Reply], _now_s: float) -> list[Run]:
            for track, found in _there(tracks, replies):
                debt, skipped, behind = asked[track]
                there = [raw_id.decode() for raw_id in found if raw_id is not None]
                track.wanted.update(dict.fromkeys(there, 0))
                if lost := [entry_id for entry_id in skipped if entry_id not in track.wanted]:
                    self._ledger.owe(track, [gone(track.symbol, lost)])
                # With the same answers this worker may have learnt that another pays it.
                if debt in track.ranges:
                    track.skipped = []
                    self._paid(track, debt, None if behind is None else str(before(EntryId.parse(behind))))
            return []

        return Step(commands, digest)

    def _missed(self, track: Track, debt: Debt, stream: Reply) -> Missed | None:
        facts, known = read_facts(stream), None if track.memory is None else track.memory.deleted_to
        return None if facts is None else missed_between(track.symbol, debt.after, debt.upto, facts, known)

    def _paid(self, track: Track, debt: Debt, last: str | None) -> None:
        track.ranges.remove(debt)
        track.change(partial(handed, debt=debt, last=last))


def _there(tracks: Sequence[Track], replies: Sequence[Reply]) -> Iterator[tuple[Track, Any]]:
    """Each stream that is still there, with its one reply."""
    for track, reply in zip(tracks, replies, strict=True):
        if not is_lost(track, reply):
            yield track, reply


def is_lost(track: Track, reply: Reply) -> bool:
    """Whether stream or group went away meanwhile; any other error is raised."""
    if not isinstance(reply, Exception):
        return False
    if not is_of_stream(reply):
        raise reply
    track.look_now = True
    track.leave()
    track.look_at = 0.0
    track.forget_pending()
    return True


def is_of_stream(error: object) -> bool:
    """Whether the error is about one stream or its group."""
    return is_group_gone(error) or is_wrong_type(error) or tells_of_key(error)


def names(error: object, key: bytes) -> bool:
    """Whether the error says that this stream, or its group, is gone."""
    return is_group_gone(error) and f"'{key.decode()}'" in str(error)


def _done(track: Track, entry_id: str) -> None:
    track.wanted.pop(entry_id, None)
    track.claimed.discard(entry_id)
    track.idle.discard(entry_id)


def _next(found: Sequence[Any]) -> str | None:
    return f"({found[-1][0].decode()}" if len(found) == PAGE else None


def _order(raw_id: bytes) -> tuple[int, int]:
    ms, _, n = raw_id.partition(b"-")
    return int(ms), int(n)

"""The brain of a worker: which command comes next, and what its answer means.

Decides the order of steps: look where groups are not known, make those that are missing, fetch what this worker had
left, claim what others left, and only then read what is new. Must never send anything or read a clock.

XREADGROUP jumps in silence over entries that were trimmed or deleted. So streams are looked at before they are
read, unless the group had been handed every entry a moment ago (`trust_s`): entries would have to come and go
within that time to be lost unnoticed. An answer speaks of the moment in which it was asked for, since nobody knows
how long it waited for a process that stood still; only a read that ran out speaks of its end. Where the group is
behind, it is looked at in the same transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from consumers.command import Command, Reply
from consumers.groups.ledger import Ledger
from consumers.groups.looks import Looks
from consumers.groups.pending import STREAMS_PER_STEP, Pending, Step, is_of_stream, names
from consumers.groups.record import TAG, Debt, Record, encode_record
from consumers.groups.track import START, Run, Track
from consumers.reading.start import Place, Wish
from wire import Keyspace

BLOCK_S: Final = 0.5
TRUST_S: Final = 0.25
TRUST_MIN_S: Final = 0.01
TRUST_PER_STREAM_S: Final = 0.0005
LOOK_TAKES_S: Final = 1.0
"""For a look that brought nothing may take longer than it would be trusted, and the worker has come to wait."""
BUSY: Final = "BUSYGROUP"


def trust_s(streams: int) -> float:
    """How long it is taken for granted that nothing unread is gone: a loop over few streams can look often."""
    return min(max(streams * TRUST_PER_STREAM_S, TRUST_MIN_S), TRUST_S)


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
        self._prefetch = prefetch
        self._looks = Looks(keys, group, consumer, claim_after_s, chance)
        self._ledger = Ledger(keys, group, consumer, claim_after_s)
        self._pending = Pending(
            group,
            consumer,
            self._ledger,
            claim_after_ms=max(1, int(claim_after_s * 1000)),
            prefetch=prefetch,
            holds=holds,
        )
        self._tracks: dict[str, Track] = {}
        self._certain_at_s: float | None = None
        self._certain_for_s = 0.0
        self._held: list[Run] = []

    @property
    def tracks(self) -> Mapping[str, Track]:
        """What is known of each symbol."""
        return self._tracks

    @property
    def barred(self) -> list[str]:
        """The symbols whose key holds no stream."""
        return [track.symbol for track in self._tracks.values() if track.barred]

    @property
    def holds_back(self) -> bool:
        """Whether entries that were read wait for something to be written down."""
        return bool(self._held)

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

    def told(self, track: Track, debt: Debt) -> None:
        """The strategy has the gap that pays this debt."""
        self._ledger.told(track, debt)

    def handed_over(self) -> None:
        """The strategy has its turn, for as long as it likes: what was only found so far may go meanwhile."""
        self._certain_for_s = 0.0
        for track in self._tracks.values():
            if track.found or track.skipped:
                track.found, track.skipped = [], []

    def lost_touch(self) -> None:
        """The connection is new: answers may have been lost with entries in them, and groups with the server."""
        self._certain_at_s = None
        # Entries that were held back are still pending, and gaps stand in the record.
        for run in self._held:
            if run.debt is not None:
                run.track.mine.discard(run.debt)
        self._held = []
        for track in self._tracks.values():
            track.look_now = True
            track.look_at = 0.0
            track.recover_from = START
            track.claim_from = None
            track.birth, track.birth_step = None, 0
            track.forget_pending()

    def last_step(self, now_s: float) -> Step | None:
        """What to ask before this worker leaves: where its groups stand by now."""
        joined = [track for track in self._tracks.values() if track.joined]
        for track in joined:
            track.look_at = now_s
        return self._read(joined, [], now_s, 0) if joined else None

    def last_words(self, now_s: float) -> list[Command]:
        """What is to be written before this worker leaves; nobody need wait for the answers."""
        return self._ledger.questions(self._ledger.due(self._tracks.values(), now_s)[0])

    def next_step(self, now_s: float, block_s: float = BLOCK_S) -> Step:
        """What to ask now, if there is anything to do; the server may wait `block_s` for entries, from 1 ms on."""
        tracks = list(self._tracks.values())
        if found := [track for track in tracks if track.birth is not None]:
            return self._give_birth(found[:STREAMS_PER_STEP])
        due, runs = self._ledger.due(tracks, now_s)
        self._held[:0] = runs
        if any(track.urgent for track, _ in due) or self._held:
            return self._write(due)
        joined = [track for track in tracks if track.joined]
        step = self._pending.next_step(joined)
        if step is None:
            step = self._read_or_look(tracks, joined, now_s, int(block_s * 1000))
        return self._also_write(due, step) if due else step

    def _give_birth(self, tracks: list[Track]) -> Step:
        """The record first: whoever comes now finds in it where the group is to be made."""
        commands = [self._birth_command(track) for track in tracks]

        def digest(replies: Sequence[Reply], now_s: float) -> list[Run]:
            for track, reply in zip(tracks, replies, strict=True):
                self._born(track, reply, now_s)
            return []

        return Step(commands, digest)

    def _birth_command(self, track: Track) -> Command:
        assert track.birth is not None
        record, after, read = track.birth
        match track.birth_step:
            case 0:
                return self._ledger.write(track.symbol, track.raw, record)
            case 1:
                count: Command = () if read is None else ("ENTRIESREAD", read)
                return ("XGROUP", "CREATE", track.key, self._group, str(after), *count)
            case _:
                name = f"{TAG}{record.generation}"
                return ("XGROUP", "CREATECONSUMER", track.key, self._group, name)

    def _born(self, track: Track, reply: Reply, now_s: float) -> None:
        birth, step = track.birth, track.birth_step
        if birth is None:
            return
        # Another member was faster, or the stream is gone again: the next look tells.
        is_over = step == 2
        if step == 0:
            is_over = reply is not None
            track.raw = track.raw if is_over else encode_record(birth.record)
        if isinstance(reply, Exception):
            if step == 0:
                raise self._ledger.refused(track.symbol, reply)
            if not (str(reply).startswith(BUSY) or is_of_stream(reply)):
                raise reply
            is_over = True
        track.birth_step = 1 if birth.after is not None and step == 0 else 2
        if is_over:
            track.birth, track.birth_step = None, 0
            track.look_now, track.look_at = True, now_s

    def _write(self, due: list[tuple[Track, Record]]) -> Step:
        def digest(replies: Sequence[Reply], now_s: float) -> list[Run]:
            self._held[:0] = self._ledger.digest(due, replies, now_s)
            if any(track.urgent for track, _ in due):
                return []
            held, self._held = self._held, []
            return held

        return Step(self._ledger.questions(due), digest)

    def _also_write(self, due: list[tuple[Track, Record]], step: Step) -> Step:
        def digest(replies: Sequence[Reply], now_s: float) -> list[Run]:
            runs = self._ledger.digest(due, replies[: len(due)], now_s)
            return [*runs, *step.digest(replies[len(due) :], now_s)]

        return Step([*self._ledger.questions(due), *step.commands], digest)

    def _read_or_look(self, tracks: list[Track], joined: list[Track], now_s: float, block_ms: int) -> Step:
        since_s = self._certain_at_s
        if since_s is None or now_s - since_s > max(self._certain_for_s, trust_s(len(joined))):
            for track in joined:
                track.look_now = True
        looked = self._looks.due(tracks, now_s)
        # On a new connection nothing is known of the groups. Else the read goes with the looks.
        return self._read(looked, [] if since_s is None else joined, now_s, block_ms)

    def _read(self, looked: list[Track], joined: list[Track], asked_s: float, block_ms: int) -> Step:
        count = max(1, self._prefetch // max(len(joined), 1))
        looks = [(track, self._looks.questions(track, asked_s)) for track in looked]
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

        def digest(replies: Sequence[Reply], now_s: float) -> list[Run]:
            answers = list(_executed(replies) if looks else replies)
            at, has_gap = 0, False
            for track, questions in looks:
                loss = self._looks.judge(track, answers[at : at + len(questions)], now_s)
                at += len(questions)
                if loss is not None and not track.dropped:
                    self._ledger.lose(track, loss)
                    has_gap = True
            if not joined:
                self._certain_at_s = asked_s
                return []
            waited_s = 0.0 if looks or answers[-1] else block_ms / 1000
            self._certain_for_s = LOOK_TAKES_S if looks and not answers[-1] else 0.0
            runs = self._given(joined, answers[-1], count, min(asked_s + waited_s, now_s), now_s)
            if has_gap:
                self._held, runs = runs, []
            return runs

        return Step(commands, digest)

    def _given(
        self, joined: list[Track], found: Any, count: int, certain_at_s: float, now_s: float
    ) -> list[Run]:
        if isinstance(found, Exception):
            if not is_of_stream(found):
                raise found
            for track in joined:
                track.look_now = True
                if names(found, track.key):
                    # It may be back with the next look, as it was, and the stream that stood in its place gone.
                    track.leave()
                    track.look_at = now_s
            return []
        self._certain_at_s = certain_at_s
        by_key = {track.key: track for track in joined}
        runs = []
        for key, entries in found or ():
            track = by_key[key]
            track.seen = entries[-1][0]
            # A full answer means that the group is behind: the next one is to be read with a look.
            track.look_now = track.look_now or len(entries) >= count
            runs.append(Run(track, None, entries, {}, ()))
        return runs


def _executed(replies: Sequence[Reply]) -> Any:
    """The answers of the transaction; an error of one is raised."""
    if isinstance(replies[-1], Exception):
        raise next(reply for reply in replies if isinstance(reply, Exception))
    return replies[-1]

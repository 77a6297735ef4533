"""Which leases a consumer holds, what to write about them now, and what to tell of it.

Decides from counts, the server's time and its answers. Must never ask Redis, wait, or read a clock: `now_s` is any
monotonic clock of the caller, `server_ms` the unix time of the Redis server. The contract of a lease is in
`wire.keys`: member `SYMBOL@consumer-id`, score = expiry.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

TTL_S: Final = 15.0
"""After this without a sign of life a lease ends; a loop that is blocked for less keeps it."""
BEAT_S: Final = 5.0
"""Two beats may be lost before a lease ends."""
CHUNK: Final = 500
"""Members per command, so that no single one holds up the server."""
REFUSED_RETRY_S: Final = 60.0
"""Between two tries at what no waiting will mend: a right that is missing, a key of another type."""
UNWILLING_RETRY_S: Final = 10.0
"""Between two tries at a server that may change its mind: a replica, memory or disk that is full."""
LOST_RETRY_S: Final = 1.0
SWEEP_EVERY_S: Final = 60.0
SWEEP_AFTER_S: Final = 60.0
"""A member is removed when it expired this long ago: until then an operator can see who crashed."""
TOLD_EVERY_S: Final = 60.0

_ID = re.compile(r"[!-?A-~]{1,128}")


class BadConsumerId(ValueError):
    """A name that cannot stand behind the `@` of a lease; the message says why."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that stands in the place of a reply. `may_change`: whether the server may mend it by itself."""

    why: str
    may_change: bool


class Note(NamedTuple):
    """A line for the log."""

    is_warning: bool
    text: str


@dataclass(frozen=True, slots=True)
class Round:
    """What to send now, and which symbols each part of it is about."""

    commands: tuple[tuple[str | int, ...], ...]
    left: frozenset[str]
    is_beat: bool
    sweeps: bool


def parse_consumer_id(name: str) -> str:
    """The name, if it may be a consumer id: 1 to 128 printable ASCII characters without spaces or `@`.

    An `@` would move the end of the symbol; whatever is not printed would act on an operator's terminal. Raises
    `BadConsumerId`.
    """
    if not _ID.fullmatch(name):
        raise BadConsumerId(
            f"consumer id {name[:60]!r} is not usable: take 1 to 128 printable ASCII characters without spaces or @"
        )
    return name


class LeaseBook:
    """The leases of one consumer. Not to be shared: two that write for one id end each other's leases.

    Ask `wait_s` when something is due; then `next_round` with the server's time; send it, and report what came of
    it to `answered` or `lost`.
    """

    def __init__(self, key: str, consumer_id: str) -> None:
        self._key: Final = key
        self._consumer_id: Final = parse_consumer_id(consumer_id)
        self._held: Counter[str] = Counter()
        self._written: set[str] = set()
        """May be on the server: noted before it is sent, so that an answer that never came is not forgotten."""
        self._beat_due_s = 0.0
        self._blocked_until_s = 0.0
        self._sent_at_s = -math.inf
        self._written_at_s: float | None = None
        self._trouble: str | None = None
        self._sweep_due_s = 0.0
        self._may_sweep = True
        self._told_late_s = -TOLD_EVERY_S

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that somebody here wants."""
        return frozenset(self._held)

    @property
    def trouble(self) -> str | None:
        """Why leases cannot be written at present, or None."""
        return self._trouble

    def hold(self, symbols: Iterable[str]) -> None:
        """One more wants each of these."""
        if not self._held:
            # A pause between two loops is no lateness.
            self._written_at_s = None
        self._held.update(symbols)

    def release(self, symbols: Iterable[str]) -> None:
        """One less wants each of these; a symbol ends with the last. One that nobody holds is ignored."""
        for symbol in symbols:
            if self._held[symbol] > 1:
                self._held[symbol] -= 1
            else:
                del self._held[symbol]

    def release_all(self) -> None:
        """Nobody wants anything any more."""
        self._held.clear()

    def beat_now(self) -> None:
        """Whatever was written may be gone, and who refused may have changed: the server was away."""
        self._beat_due_s = self._blocked_until_s = 0.0

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until there is something to send, 0 for now; None until somebody holds a lease."""
        if not self._held and not self._leaving(now_s):
            return None
        due_s = self._beat_due_s if self._held else now_s
        if self._held.keys() - self._written or self._leaving(now_s):
            due_s = now_s
        return max(0.0, max(due_s, self._blocked_until_s) - now_s)

    def next_round(self, now_s: float, server_ms: int) -> Round:
        """The commands that are due; none when nothing is."""
        is_beat = bool(self._held) and now_s >= self._beat_due_s
        wanted = self._held.keys() if is_beat else self._held.keys() - self._written
        left = self._leaving(now_s)
        expiry_ms = server_ms + int(TTL_S * 1000)
        commands: list[tuple[str | int, ...]] = []
        for some in _chunks(sorted(wanted)):
            pairs = [part for symbol in some for part in (expiry_ms, self._member(symbol))]
            commands.append(("ZADD", self._key, *pairs))
        commands += [("ZREM", self._key, *map(self._member, some)) for some in _chunks(sorted(left))]
        sweeps = is_beat and self._may_sweep and now_s >= self._sweep_due_s
        if sweeps:
            # Other consumers' too: who crashed cannot do it, and the daemon has no right to write here.
            horizon_ms = server_ms - int(SWEEP_AFTER_S * 1000)
            commands.append(("ZREMRANGEBYSCORE", self._key, "-inf", horizon_ms))
        if wanted:
            self._written |= wanted
            self._sent_at_s = now_s
        return Round(tuple(commands), left, is_beat, sweeps)

    def answered(self, sent: Round, replies: Sequence[object], now_s: float) -> list[Note]:
        """Redis answered each command, some perhaps with a `Refusal`. Returns what to tell."""
        if not sent.commands:
            return []  # What was to be given back has ended by itself meanwhile.
        if sent.sweeps:
            *replies, swept = replies
            self._sweep_due_s = now_s + SWEEP_EVERY_S
            # A user made for an older release may not; others sweep, and expired members count for nothing.
            self._may_sweep = not isinstance(swept, Refusal) or swept.may_change
        refusal = next((reply for reply in replies if isinstance(reply, Refusal)), None)
        if refusal is not None:
            return self._refused(refusal, now_s)
        notes = [*self._late(sent, now_s), *self._mended()]
        self._written -= sent.left
        if sent.is_beat:
            self._beat_due_s = now_s + BEAT_S
        if self._held:
            self._written_at_s = now_s
        return notes

    def lost(self, why: str, now_s: float) -> list[Note]:
        """Redis did not answer, so nothing is known of what was sent. Returns what to tell."""
        self._beat_due_s = 0.0
        self._blocked_until_s = now_s + LOST_RETRY_S
        return self._told(f"cannot be written now: {why}; they end {TTL_S:g} s after the last beat")

    def _refused(self, refusal: Refusal, now_s: float) -> list[Note]:
        self._beat_due_s = 0.0
        self._blocked_until_s = now_s + (UNWILLING_RETRY_S if refusal.may_change else REFUSED_RETRY_S)
        return self._told(f"are refused: {refusal.why}")

    def _told(self, trouble: str) -> list[Note]:
        was, self._trouble = self._trouble, trouble
        if was is not None:
            return []
        rest = "reading goes on, but symbols that nobody else wants have no new quotes"
        return [Note(True, f"leases of {self._consumer_id} {trouble} ({rest})")]

    def _mended(self) -> list[Note]:
        if self._trouble is None:
            return []
        self._trouble = None
        return [Note(False, f"leases of {self._consumer_id} are written again")]

    def _late(self, sent: Round, now_s: float) -> list[Note]:
        """Whether leases ended although Redis was there: this program did not get round to renewing them."""
        if not sent.is_beat or self._trouble is not None or self._written_at_s is None:
            return []
        # Until it was sent: how long Redis then took for its answer is no fault of this program's.
        silent_s = self._sent_at_s - self._written_at_s
        if silent_s <= TTL_S or now_s - self._told_late_s < TOLD_EVERY_S:
            return []
        self._told_late_s = now_s
        return [
            Note(
                True,
                f"leases of {self._consumer_id} had ended for {silent_s - TTL_S:.1f} s: this process stopped, or "
                f"its event loop was blocked, for {silent_s:.1f} s; move long work to a thread (asyncio.to_thread)",
            )
        ]

    def _leaving(self, now_s: float) -> frozenset[str]:
        if not self._held and now_s - self._sent_at_s > TTL_S:
            # They have ended by themselves, so a server that is away need not be waited for.
            self._written.clear()
        return frozenset(self._written - self._held.keys())

    def _member(self, symbol: str) -> str:
        return f"{symbol}@{self._consumer_id}"


def _chunks(symbols: Sequence[str]) -> Iterable[Sequence[str]]:
    for at in range(0, len(symbols), CHUNK):
        yield symbols[at : at + CHUNK]

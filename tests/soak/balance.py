"""What a run came to: the books of each daemon's life, its size, and what is wrong with all of it.

Decides what is added up over lives, how growth is measured, and when a balance is not right. Must never know
processes, servers or the clock: everything is told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.scenario.checker import Verdict
from tests.scenario.streams import ledger_is_even

MIB: Final = 1024 * 1024
HOUR_S: Final = 3600.0
SETTLED_S: Final = 0.5
"""Live for so long, a daemon has all connections that it wants."""
BIN_S: Final = 10.0
"""Of each such stretch the smallest size counts: what a fault took for a moment is no growth."""
MOST_BINS: Final = 20_000
PLACES: Final = ("received", "recovered", "stored", "already_stored", "rejected", "dropped", "replayed")
MOST_COMPLAINTS: Final = 8
CAUSED: Final = frozenset({"feed_disconnected", "daemon_stopped", "not_subscribed", "refused_by_redis"})
"""Reasons of markers that the faults bring about. Memory and disk are large enough for everything else."""


@dataclass(frozen=True, slots=True)
class Size:
    """A process from outside."""

    rss_bytes: int
    descriptors: int
    threads: int


@dataclass(slots=True)
class Life:
    """One process of the daemon: its latest books, and its size over time."""

    began_s: float
    books: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[float, Size]] = field(default_factory=list)
    first_live: Size | None = None

    def look(self, at_s: float, size: Size) -> None:
        """Keep the smallest of each stretch."""
        slot = int(at_s / BIN_S)
        if self.sizes and int(self.sizes[-1][0] / BIN_S) == slot:
            if size.rss_bytes < self.sizes[-1][1].rss_bytes:
                self.sizes[-1] = (self.sizes[-1][0], size)
        else:
            self.sizes.append((at_s, size))
            del self.sizes[:-MOST_BINS]

    @property
    def slope_bytes_per_h(self) -> float | None:
        """Growth by least squares over the second half of this life; None for one too short to say."""
        half = self.sizes[len(self.sizes) // 2 :]
        if len(half) < 6:
            return None
        return slope_per_h([(at_s, size.rss_bytes) for at_s, size in half])


def slope_per_h(points: Sequence[tuple[float, float]]) -> float:
    """How much a value grows in an hour, from its size at so many seconds, by least squares.

    `ValueError` for fewer than three points: a line through two says nothing.
    """
    if len(points) < 3:
        raise ValueError(f"{len(points)} points are too few for a slope; measure for longer")
    mean_s = sum(at_s for at_s, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    spread = sum((at_s - mean_s) ** 2 for at_s, _ in points)
    return sum((at_s - mean_s) * (value - mean) for at_s, value in points) / spread * HOUR_S


class Balance:
    """Told what is seen; `line` is the state in one line, `report` the end, `problems` what must not be."""

    def __init__(self) -> None:
        self.sent = 0
        self.faults: Counter[str] = Counter()
        self.feed_connects = 0
        self.redis_connects = 0
        self.log_lines = 0
        self.ledgers = 0
        self.lives: list[Life] = []
        self.latest: Size | None = None
        self.peak_rss_bytes = 0
        self.longest_outage_s = 0.0
        self.longest_ended_s = 0.0
        self._away_since_s: float | None = None
        self._live_since_s: float | None = None
        self.complaints: list[str] = []
        self.complained = 0

    def begin_life(self, at_s: float) -> None:
        """A new process of the daemon."""
        self.lives.append(Life(at_s))
        self._live_since_s = None

    def complain(self, text: str) -> None:
        """Something that must not be; the first ones are kept, the others counted."""
        self.complained += 1
        if len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(text)

    def see_status(self, at_s: float, status: Mapping[str, Any]) -> None:
        """One look at /status."""
        self.ledgers += 1
        if not ledger_is_even(dict(status)):
            books = {place: status[place] for place in (*PLACES, "queued", "unanswered", "spooled")}
            self.complain(f"at {at_s:.1f} s the ledger is not even: {books}")
        self.lives[-1].books = Counter({place: int(status[place]) for place in PLACES})
        self.see_state(at_s, str(status["state"]))

    def see_state(self, at_s: float, state: str) -> None:
        """What the daemon is now; anything but `live` is an outage."""
        if state != "live":
            self._live_since_s = None
            self._away_since_s = at_s if self._away_since_s is None else self._away_since_s
            if at_s - self._away_since_s > self.longest_outage_s:
                self.longest_outage_s, self.longest_ended_s = at_s - self._away_since_s, at_s
        else:
            self._away_since_s = None
            self._live_since_s = at_s if self._live_since_s is None else self._live_since_s

    def see_size(self, at_s: float, size: Size) -> None:
        """How large the process is."""
        self.latest = size
        self.peak_rss_bytes = max(self.peak_rss_bytes, size.rss_bytes)
        life = self.lives[-1]
        life.look(at_s, size)
        if (
            life.first_live is None
            and self._live_since_s is not None
            and at_s - self._live_since_s > SETTLED_S
        ):
            life.first_live = size

    @property
    def totals(self) -> Counter[str]:
        """The books of all lives; of one that was killed, as they were last seen."""
        return sum((life.books for life in self.lives), Counter())

    def problems(self, verdict: Verdict, markers: Iterable[str] = ()) -> list[str]:
        """Why the balance is not right; nothing when it is. `markers` are the reasons of those that were found."""
        wrong = {
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "out of order": verdict.out_of_order,
            "ids that go back": verdict.bad_ids,
            "entries that nobody sent": verdict.foreign,
            "new connections without a marker": verdict.unmarked_breaks,
            "sent and never there": verdict.outstanding,
        }
        found = [f"{n} {name}" for name, n in wrong.items() if n]
        if found:
            found += verdict.examples
        found += [f"a marker {reason!r}, for which there was no cause" for reason in set(markers) - CAUSED]
        if self.complained > len(self.complaints):
            found.append(f"{self.complained - len(self.complaints)} more complaints")
        return [*found, *self.complaints]

    def line(self, at_s: float, verdict: Verdict) -> str:
        """How things stand, in one line."""
        size = self.latest
        return (
            f"{at_s:9.2f} s  sent {self.sent}, there {verdict.arrived}, on the way {verdict.outstanding}, "
            f"in gaps {verdict.missing_in_gaps}, lost {verdict.lost}, doubled {verdict.duplicated}, "
            f"out of order {verdict.out_of_order}; {sum(self.faults.values())} faults; "
            f"RSS {size.rss_bytes / MIB if size else 0:.1f} MiB; ledgers {self.ledgers}"
            + (f"; {self.complained} complaints" if self.complained else "")
        )

    def report(self, verdict: Verdict, markers: Mapping[str, int], missing: Mapping[str, int]) -> str:
        """The end of a run, one fact in a line."""
        totals, life = self.totals, self.lives[-1]
        slope = life.slope_bytes_per_h
        first, last = life.first_live, self.latest
        rows = {
            "sent by the vendor": self.sent,
            "received": f"{totals['received']} by {len(self.lives)} daemons (a killed one as last seen)",
            "recovered from disk": totals["recovered"],
            "there": verdict.arrived,
            "missing inside of markers": f"{verdict.missing_in_gaps}  {_listed(missing)}",
            "markers": f"{verdict.markers}  {_listed(markers)}",
            "markers without need": verdict.unneeded_markers,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "out of order": verdict.out_of_order,
            "sent again after Redis forgot": totals["replayed"],
            "rejected, dropped": f"{totals['rejected']}, {totals['dropped']}",
            "faults": f"{sum(self.faults.values())}  {_listed(self.faults)}",
            "connections": f"{self.feed_connects} to the vendor, {self.redis_connects} to Redis for writing",
            "longest outage": f"{self.longest_outage_s:.1f} s, until {self.longest_ended_s:.1f} s",
            "RSS": f"{last.rss_bytes / MIB if last else 0:.1f} MiB, peak {self.peak_rss_bytes / MIB:.1f} MiB",
            "RSS slope of the last daemon": "too short a life"
            if slope is None
            else f"{slope / MIB:+.2f} MiB/h",
            "descriptors, threads": f"{_both(first)} at the start, {_both(last)} at the end",
            "log lines": self.log_lines,
            "ledger even": f"{self.ledgers - self.complained} of {self.ledgers} looks"
            if self.complained
            else f"at all {self.ledgers} looks",
        }
        return "\n".join(f"  {name:32} {value}" for name, value in rows.items())


def _both(size: Size | None) -> str:
    return f"{size.descriptors}, {size.threads}" if size else "unknown"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: -item[1]) if n)

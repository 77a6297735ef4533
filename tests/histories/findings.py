"""What is wrong with a history, in words that name the kind of defect.

Decides which observation is which finding, and which reasons of markers a history may have. Must never know how
anything was observed: counts and times are arguments.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tests.scenario.checker import Verdict

SPIN_S: Final = 1.0
"""An event loop that answers later than this, by its own doing, does not yield."""
STOP_S: Final = 12.0
"""SIGTERM until the end: 2 s for storing (`drain_s` here), and what putting the rest on a disk may take."""

WEDGED_ON_A_BAD_DISK: Final = "wedged on a bad disk: nothing stored although Redis is up"
WEDGED: Final = "wedged after healing: nothing stored although everything is up"
NOT_LIVE: Final = "not live after healing: the vendor has no subscriber"
UNSETTLED: Final = "unsettled after healing: not all that was sent is stored or marked"
SPIN: Final = "event loop not answering"
STOP: Final = "stop unbounded"
LOST: Final = "lost without a marker"
TWICE: Final = "stored twice"
DISORDER: Final = "out of order"
UNMARKED: Final = "new connection without a marker"
FOREIGN: Final = "entry that nobody sent"
UNTRUE: Final = "marker without a cause"
UNREADY: Final = "not ready although everything is up"
STALE: Final = "cache older than the stream although everything is up"
LEDGER: Final = "ledger not even"
DIED: Final = "daemon ended by itself"
EXIT: Final = "exit code without a cause"
DEFECT: Final = "traceback in the log"

OUTAGE: Final = frozenset({"feed_disconnected", "daemon_stopped"})
DISK: Final = frozenset({"spool_full", "spool_damaged", "spool_hung", "queue_full"})
CAUSES: Final[Mapping[str, frozenset[str]]] = {
    "disk_full": DISK,
    "disk_failing": DISK,
    "disk_hanging": DISK,
    "disk_slow": DISK,
    "disk_vanished": DISK,
    "disk_small": DISK,
    "redis_emptied": frozenset({"redis_lost"}),
    "stream_of_wrong_type": frozenset({"refused_by_redis"}),
    "vendor_cut": OUTAGE,
    "vendor_mute": OUTAGE,
    "vendor_slow": OUTAGE,
    "vendor_nonsense": OUTAGE,
    "symbol_refused": OUTAGE | {"not_subscribed"},
    "daemon_stopped": OUTAGE,
    "daemon_killed": OUTAGE,
    "daemon_frozen": OUTAGE,
}
"""What each kind of fault may bring about. A fault of Redis alone or of the clock brings about nothing."""

RESTARTS: Final = frozenset({"daemon_stopped", "daemon_killed"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: its kind, one of the words above, and what was seen."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def of_streams(verdict: Verdict) -> list[Finding]:
    """What the entries show. A marker that is late, behind quotes that it ought to precede, is counted by whoever
    reads the table: its hole is told."""
    counts = {
        LOST: verdict.lost,
        TWICE: verdict.duplicated,
        DISORDER: verdict.out_of_order + verdict.bad_ids,
        UNMARKED: verdict.unmarked_breaks,
        FOREIGN: verdict.foreign,
        UNSETTLED: verdict.outstanding,
    }
    details = "; ".join(verdict.examples[:3])
    return [Finding(kind, f"{n} ({details})") for kind, n in counts.items() if n]


def of_markers(reasons: Mapping[str, int], kinds: Collection[str], *, is_small: bool) -> list[Finding]:
    """Markers whose reason no fault of this history can have brought about.

    `is_small`: there was so little memory, or so little of the disk was allowed, that an outage may fill it.
    """
    allowed = frozenset().union(*(CAUSES.get(kind, frozenset()) for kind in kinds))
    if is_small:
        allowed |= {"spool_full"}
    if "redis_emptied" in kinds and not RESTARTS.isdisjoint(kinds):
        # What an earlier life of the daemon had stored, this one cannot store again.
        allowed |= {"stream_lost"}
    return [Finding(UNTRUE, f"{n} with {reason!r}") for reason, n in reasons.items() if reason not in allowed]


def of_times(slowest_livez_s: float, stops_s: Collection[float]) -> list[Finding]:
    """What took too long; what the machine's other processes took is left out by whoever measured."""
    found = []
    if slowest_livez_s > SPIN_S:
        found.append(Finding(SPIN, f"/livez took {slowest_livez_s:.1f} s"))
    found += [Finding(STOP, f"{stop_s:.1f} s after SIGTERM") for stop_s in stops_s if stop_s > STOP_S]
    return found

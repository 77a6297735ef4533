"""Which fault befalls what, when, and for how long: all of it from one seed.

Decides kinds, times and sizes. Must never know how a fault is brought about, nor the clock: times count in seconds
from the beginning of the traffic. The same seed, length and choice of kinds give the same schedule.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

ORDINARY_S: Final = (1.0, 5.0)
"""Between two faults, in a run of a minute to an hour."""
MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0
LEAST_SCALE: Final = 0.3
FAULTS_BETWEEN_RESTS: Final = 15
REST_S: Final = 10.0
"""After so many faults everything is left alone for so long, so that what piled up can be stored."""
CALM_END_S: Final = 2.0
HARMED_SHARE: Final = 1 / 3
"""The daemon's process is ended in this part of the run alone; the rest shows whether one process grows."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Faults of one lane never overlap, those of different lanes do. `settles_s` is what it takes beyond its
    end."""

    lane: str
    lasts_s: tuple[float, float]
    settles_s: float = 0.5
    weight: int = 2
    ends_the_daemon: bool = False


KINDS: Final[dict[str, Kind]] = {
    "redis_killed": Kind("redis", (0.2, 4.0)),
    "redis_frozen": Kind("redis", (1.0, 8.0)),
    "clients_killed": Kind("redis", (0.0, 0.0), weight=1),
    "scripts_flushed": Kind("redis", (0.0, 0.0), weight=1),
    "clients_paused": Kind("redis", (0.5, 4.0)),
    "out_of_memory": Kind("redis", (0.5, 4.0)),
    "read_only": Kind("redis", (0.5, 4.0)),
    "failover": Kind("redis", (1.0, 1.5), settles_s=3.0),
    "tail_cut": Kind("redis", (0.3, 1.5), settles_s=1.5),
    "wrong_type": Kind("redis", (0.5, 3.0)),
    "wire_cut": Kind("wire", (0.5, 3.0)),
    "replies_eaten": Kind("wire", (0.5, 4.0)),
    "replies_late": Kind("wire", (3.0, 5.0)),
    "wire_long": Kind("wire", (1.0, 5.0)),
    "wire_narrow": Kind("wire", (1.0, 5.0), weight=1),
    "wire_resets": Kind("wire", (1.0, 5.0)),
    "vendor_cut": Kind("vendor", (0.0, 0.0), settles_s=2.0),
    "vendor_closed": Kind("vendor", (0.0, 0.0), settles_s=2.0),
    "vendor_half_open": Kind("vendor", (10.0, 12.0), weight=1),
    "vendor_mute": Kind("vendor", (1.0, 6.0), settles_s=2.0, weight=1),
    "vendor_garbage": Kind("vendor", (0.0, 0.0)),
    "vendor_half_frame": Kind("vendor", (0.0, 0.0), settles_s=2.0),
    "vendor_slow_to_confirm": Kind("vendor", (0.5, 3.0), settles_s=2.0, weight=1),
    "vendor_slot_taken": Kind("vendor", (0.0, 0.0), settles_s=5.0, weight=1),
    "vendor_too_slow": Kind("vendor", (0.0, 0.0), settles_s=2.0, weight=1),
    "daemon_stopped": Kind("daemon", (0.0, 2.0), settles_s=5.0, ends_the_daemon=True),
    "daemon_killed": Kind("daemon", (0.0, 2.0), settles_s=7.0, weight=3, ends_the_daemon=True),
    "daemon_frozen": Kind("daemon", (1.0, 3.0), settles_s=1.0),
    "symbols_changed": Kind("set", (1.0, 3.0), settles_s=2.0),
    "set_deleted": Kind("set", (0.5, 3.0), settles_s=2.0),
}


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault. `size` is from 0 to 1, and each kind makes its own of it; `seed` is for what it draws itself."""

    number: int
    at_s: float
    kind: str
    lasts_s: float
    size: float
    seed: int

    @property
    def lane(self) -> str:
        """What it befalls."""
        return KINDS[self.kind].lane

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.2f} s" if self.lasts_s else ""
        return f"{self.at_s:9.2f} s  #{self.number} {self.kind}{lasts}, size {self.size:.2f}"


def scale_of(length_s: float) -> float:
    """How far apart faults are, and how long they last, against a run of some minutes: a short run has many short
    ones, a day has a calm stretch after each."""
    return min(1.0, max(LEAST_SCALE, length_s / MINUTE_S)) * max(1.0, length_s / HOUR_S)


def schedule(seed: int, length_s: float, kinds: Collection[str] | None = None) -> list[Strike]:
    """All faults of a run, in order of time; of these kinds, or all that there are.

    Raises `ValueError` for a kind that there is not.
    """
    for unknown in sorted(set(kinds or ()) - set(KINDS)):
        raise ValueError(f"there is no fault {unknown!r}; take any of {', '.join(KINDS)}")
    draw = random.Random(seed)
    scale = scale_of(length_s)
    free_at_s: dict[str, float] = {}
    strikes: list[Strike] = []
    at_s = 0.0
    while True:
        at_s += draw.uniform(*ORDINARY_S) * scale
        if strikes and len(strikes) % FAULTS_BETWEEN_RESTS == 0:
            at_s = max([at_s, *free_at_s.values()]) + REST_S * scale
        possible = [name for name in KINDS if kinds is None or name in kinds]
        possible = [
            name
            for name in possible
            if free_at_s.get(KINDS[name].lane, 0.0) <= at_s
            and not (kinds is None and KINDS[name].ends_the_daemon and at_s > length_s * HARMED_SHARE)
        ]
        # Drawn in any case, so that one lane's length does not change what befalls the others later.
        pick, size, portion, own = draw.random(), draw.random(), draw.random(), draw.getrandbits(32)
        if not possible:
            at_s = max(at_s, min(free_at_s.values()))
            continue
        name = _weighted(possible, pick)
        kind = KINDS[name]
        shortest_s, longest_s = (bound_s * min(1.0, scale) for bound_s in kind.lasts_s)
        lasts_s = shortest_s + (longest_s - shortest_s) * portion
        if at_s + lasts_s + CALM_END_S * min(1.0, scale) > length_s:
            return strikes
        strikes.append(Strike(len(strikes) + 1, at_s, name, lasts_s, size, own))
        free_at_s[kind.lane] = at_s + lasts_s + kind.settles_s


def _weighted(names: list[str], pick: float) -> str:
    total = sum(KINDS[name].weight for name in names)
    left = pick * total
    for name in names:
        left -= KINDS[name].weight
        if left < 0:
            return name
    return names[-1]

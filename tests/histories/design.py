"""Which faults befall which history, when, and for how long: all of it from one seed.

Decides the kinds of each history so that every pair of kinds meets often, and its times, sizes and bounds. Must
never know how a fault is brought about, nor the clock. The same seed and number give the same history, however many
are asked for, because each is designed after those before it.
"""

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from tests.soak.schedule import Strike

KINDS_AT_ONCE: Final = (6, 8)
LENGTH_S: Final = (9.0, 14.0)
CALM_S: Final = 1.0
"""At the beginning of a history, so that something is stored before the first fault."""
RATES: Final = (200.0, 3000.0)
HIGHER: Final = 0.6
"""An exponent below 1: rather many quotes than few."""
SYMBOLS: Final = (5, 20)
MEMORIES: Final = ("1MiB", "1MiB", "2MiB", "8MiB", "64MiB")
SPOOLS: Final = ("1MiB", "4MiB", "1GiB")
SMALL_DISK_S: Final = (0.3, 4.0)
"""A small disk holds so many seconds of quotes."""
QUOTE_BYTES: Final = 120
"""On disk, about."""
SMALLEST_DISK_BYTES: Final = 16 * 1024
STAYS_BAD: Final = 0.5
"""How often the last fault of the disk lasts until everything else is well again."""
ENDS_BAD: Final = 0.5
"""How often, of these, the daemon is then asked to stop while the disk is still bad."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Faults of one lane never overlap, those of different lanes do. `lasts_s` is drawn; no range is an instant."""

    lane: str
    lasts_s: tuple[float, float] = (0.0, 0.0)
    may_stay: bool = False
    """Whether it is a state that the daemon must be able to live with when everything else is well."""


KINDS: Final[dict[str, Kind]] = {
    "disk_full": Kind("disk", (2.0, 6.0), may_stay=True),
    "disk_failing": Kind("disk", (2.0, 6.0), may_stay=True),
    "disk_hanging": Kind("disk", (2.0, 6.0), may_stay=True),
    "disk_slow": Kind("disk", (2.0, 6.0), may_stay=True),
    "disk_vanished": Kind("disk"),
    "disk_small": Kind("disk_size"),
    "redis_killed": Kind("redis", (2.0, 6.0)),
    "redis_emptied": Kind("redis", (0.2, 2.0)),
    "redis_frozen": Kind("redis", (2.0, 7.0)),
    "redis_refusing": Kind("redis", (2.0, 5.0)),
    "stream_of_wrong_type": Kind("redis", (0.5, 3.0)),
    "wire_cut": Kind("wire", (0.5, 3.0)),
    "replies_eaten": Kind("wire", (1.0, 5.0)),
    "vendor_cut": Kind("vendor"),
    "vendor_mute": Kind("vendor", (1.0, 5.0)),
    "vendor_slow": Kind("vendor", (0.5, 3.0)),
    "vendor_nonsense": Kind("vendor"),
    "symbol_refused": Kind("vendor", (0.5, 2.0)),
    "clock_jumped": Kind("clock", (1.0, 5.0)),
    "daemon_stopped": Kind("daemon", (0.0, 1.0)),
    "daemon_killed": Kind("daemon", (0.0, 1.0)),
    "daemon_frozen": Kind("daemon", (0.5, 3.0)),
    "daemon_hung_up": Kind("daemon"),
}


@dataclass(frozen=True, slots=True)
class Blow(Strike):
    """One fault of a history; one that `stays` is healed after everything else is well."""

    stays: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """Everything that is random about one history; sizes in bytes, rates in quotes per second over all symbols."""

    seed: int
    number: int
    length_s: float
    rate: float
    symbols: int
    memory: str
    spool: str
    disk_bytes: int | None
    """The size of the disk, which nothing heals; None is the machine's own."""
    kinds: tuple[str, ...]
    blows: tuple[Blow, ...]
    ends_on_a_bad_disk: bool

    @property
    def name(self) -> str:
        """What repeats it."""
        return f"SEED={self.seed} ONLY={self.number}"

    def __str__(self) -> str:
        disk = "" if self.disk_bytes is None else f", disk {self.disk_bytes} bytes"
        ends = ", stopped on a bad disk" if self.ends_on_a_bad_disk else ""
        head = (
            f"{self.name}: {self.rate:.0f} quotes/s, {self.symbols} symbols, memory {self.memory}, "
            f"spool {self.spool}{disk}, {self.length_s:.1f} s{ends}"
        )
        stays = (" and stays" if blow.stays else "" for blow in self.blows)
        return "\n".join([head, *(f"{blow}{stay}" for blow, stay in zip(self.blows, stays, strict=True))])


def histories(seed: int, count: int) -> list[History]:
    """The first histories of this seed. Of 300, each pair of kinds is in at least 20."""
    met: Counter[tuple[str, str]] = Counter()
    designed = []
    for number in range(1, count + 1):
        draw = random.Random(f"{seed}:{number}")
        kinds = _kinds(met, draw)
        met.update(pairs(kinds))
        designed.append(_history(seed, number, kinds, draw))
    return designed


def pairs(kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each two of them, in the order of their names."""
    return list(itertools.combinations(sorted(kinds), 2))


def coverage(designed: list[History]) -> Counter[tuple[str, str]]:
    """How many of these histories have both kinds, for each pair that there is."""
    met = Counter(dict.fromkeys(pairs(tuple(KINDS)), 0))
    for history in designed:
        met.update(pairs(history.kinds))
    return met


def _kinds(met: Counter[tuple[str, str]], draw: random.Random) -> tuple[str, ...]:
    """The two that met least, and then whatever has met those that are chosen least."""
    every = pairs(tuple(KINDS))
    draw.shuffle(every)
    rarest = min(every, key=lambda pair: met[pair])
    chosen = list(rarest)
    size = draw.randint(*KINDS_AT_ONCE)
    while len(chosen) < size:
        left = [kind for kind in KINDS if kind not in chosen]
        draw.shuffle(left)
        chosen.append(max(left, key=lambda kind: _worth(kind, chosen, met)))
    return tuple(sorted(chosen))


def _worth(kind: str, chosen: list[str], met: Counter[tuple[str, str]]) -> float:
    return sum(1.0 / (1 + met[pair]) ** 2 for other in chosen for pair in pairs((kind, other)))


def _history(seed: int, number: int, kinds: tuple[str, ...], draw: random.Random) -> History:
    length_s = draw.uniform(*LENGTH_S)
    lanes: dict[str, list[str]] = {}
    for kind in kinds:
        lanes.setdefault(KINDS[kind].lane, []).append(kind)
    blows: list[Blow] = []
    for lane, names in sorted(lanes.items()):
        if lane != "disk_size":
            draw.shuffle(names)
            blows += _lane(names, length_s, draw)
    blows.sort(key=lambda blow: blow.at_s)
    rate = RATES[0] * (RATES[1] / RATES[0]) ** draw.random() ** HIGHER
    small_bytes = max(SMALLEST_DISK_BYTES, int(rate * draw.uniform(*SMALL_DISK_S) * QUOTE_BYTES))
    return History(
        seed=seed,
        number=number,
        length_s=length_s,
        rate=rate,
        symbols=draw.randint(*SYMBOLS),
        memory=draw.choice(MEMORIES),
        spool=draw.choice(SPOOLS),
        disk_bytes=small_bytes if "disk_small" in kinds else None,
        kinds=kinds,
        blows=tuple(
            Blow(n, b.at_s, b.kind, b.lasts_s, b.size, b.seed, b.stays) for n, b in enumerate(blows, 1)
        ),
        ends_on_a_bad_disk=any(blow.stays for blow in blows) and draw.random() < ENDS_BAD,
    )


def _lane(names: list[str], length_s: float, draw: random.Random) -> list[Blow]:
    """One after the other, with random pauses; a lane that is too full has shorter faults."""
    lasting_s = [draw.uniform(*KINDS[name].lasts_s) for name in names]
    room_s = length_s - CALM_S
    scale = min(1.0, 0.8 * room_s / max(sum(lasting_s), 0.1))
    lasting_s = [lasts_s * scale for lasts_s in lasting_s]
    cuts = sorted(draw.random() for _ in names)
    pauses_s = [(room_s - sum(lasting_s)) * cut for cut in cuts]
    found, before_s = [], CALM_S
    for name, lasts_s, pause_s in zip(names, lasting_s, pauses_s, strict=True):
        is_last = name == names[-1]
        stays = is_last and KINDS[name].may_stay and draw.random() < STAYS_BAD
        found.append(Blow(0, before_s + pause_s, name, lasts_s, draw.random(), draw.getrandbits(32), stays))
        before_s += lasts_s
    return found

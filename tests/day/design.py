"""Which strategies there are on a day, and in what each is disturbed, drawn from a seed.

Decides names, symbols and seeds. Must never know how a strategy reads.
"""

import random
from typing import Final

import msgspec

SYMBOLS: Final = tuple(f"S{number}" for number in range(8))
WAYS: Final = {
    "for": 8,
    "get": 4,
    "batches": 8,
    "mixed": 4,
    "newest": 8,
    "aged": 1,
    "checkpoint": 4,
    "closed": 4,
    "watched": 4,
    "handed": 4,
    "threads": 4,
    "forks": 4,
    "forks with checkpoint": 4,
}
"""How strategies read, and how many of the symbols."""
WORKERS: Final = 3
OF_GROUP: Final = 2


class Life(msgspec.Struct, frozen=True):
    """One strategy."""

    name: str
    way: str
    symbols: tuple[str, ...]
    seed: int

    @property
    def is_worker(self) -> bool:
        """Whether it shares its work with others."""
        return self.way == "group"


def lives(seed: int) -> list[Life]:
    """The strategies of this seed: each way of reading once, and the workers of one group."""
    chance = random.Random(f"day {seed}")
    found = []
    for way, count in WAYS.items():
        symbols = tuple(sorted(chance.sample(SYMBOLS, count)))
        found.append(Life(way.replace(" ", "-"), way, symbols, chance.randrange(2**32)))
    shared = tuple(sorted(chance.sample(SYMBOLS, OF_GROUP)))
    found += [Life(f"worker-{number}", "group", shared, chance.randrange(2**32)) for number in range(WORKERS)]
    return found

"""What happens in one run of churn, drawn from a seed.

Decides the deeds, their times and their sizes. Must never know how a deed is done.
"""

import random
from typing import Final

import msgspec

OF_WORKERS: Final = (
    *("kill", "start", "freeze", "deploy one", "rename one"),
    *("kill all", "deploy all", "freeze all", "cut connections"),
)
OF_ONE_STREAM: Final = (
    "delete",
    "trim",
    "destroy",
    "destroy and make at $",
    "destroy and make at 0",
    "away and back",
)
OF_ALL: Final = ("flush", "restart with file", "restart without file")
NEWCOMER_FIRST: Final = (
    *("delete and start", "flush and start"),
    *("kill all and delete", "kill all and flush", "kill all and thin out"),
)
"""Several at once, as they have cost entries before."""
KINDS: Final = (*OF_WORKERS, *OF_ONE_STREAM, *OF_ALL, *NEWCOMER_FIRST)
BEGINS_S: Final = 2.5
"""Until then the group is made and at work."""
BETWEEN_S: Final = (0.15, 1.6)


class Deed(msgspec.Struct, frozen=True):
    """One thing that is done: when, to which symbol or worker (by a number), for how long, and how much of it."""

    at_s: float
    kind: str
    which: int
    for_s: float
    amount: int


class Run(msgspec.Struct, frozen=True):
    """One run. `replay_s` is how much the writer sends again to a server that has forgotten it."""

    seed: int
    number: int
    length_s: float
    symbols: int
    workers: int
    rate: float
    replay_s: float
    deeds: tuple[Deed, ...]

    @property
    def name(self) -> str:
        """What repeats it."""
        return f"SEED={self.seed} ONLY={self.number} SECONDS={self.length_s:g}"


def runs(seed: int, count: int, length_s: float) -> list[Run]:
    """So many runs of this seed; the first ones stay the same whatever the count."""
    return [design(seed, number, length_s) for number in range(1, count + 1)]


def design(seed: int, number: int, length_s: float) -> Run:
    """One run. Its first deeds go through all kinds in turn, from run to run, so that each is met soon."""
    chance = random.Random(f"{seed} {number}")
    deeds: list[Deed] = []
    at_s, turn = BEGINS_S, (number - 1) * 5
    while True:
        at_s += chance.uniform(*BETWEEN_S)
        if at_s >= length_s:
            break
        kind = KINDS[turn % len(KINDS)] if len(deeds) % 2 == 0 else chance.choice(KINDS)
        turn += len(deeds) % 2 == 0
        deeds.append(
            Deed(
                at_s=round(at_s, 3),
                kind=kind,
                which=chance.randrange(1_000),
                for_s=round(
                    chance.uniform(0.02, 0.5) if chance.random() < 0.6 else chance.uniform(0.5, 3.0), 3
                ),
                amount=chance.choice((0, 1, 5, 20, 100)),
            )
        )
    return Run(
        seed=seed,
        number=number,
        length_s=length_s,
        symbols=chance.randint(2, 6),
        workers=chance.randint(2, 4),
        rate=chance.choice((200.0, 500.0, 1_000.0)),
        replay_s=chance.choice((0.5, 3.0, 30.0)),
        deeds=tuple(deeds),
    )

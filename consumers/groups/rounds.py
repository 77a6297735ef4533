"""How often a worker looks after one stream of its group: is the group there, and has somebody died with entries.

Decides seconds. Must never draw a random number itself: the chance is an argument.

Each member of a group goes its own rounds, at random times, and the more members there are the longer is the pause
of each: twenty workers on 500 streams ask 20 x 500 / 30 s = 333 times a second with the default of
`claim_after_s`, not 10 000 times. Some member still comes by soon.
"""

from typing import Final

BASE_MIN_S: Final = 0.1
BASE_MAX_S: Final = 10.0
MEMBERS_MAX: Final = 3
"""Beyond so many members the pause of each grows no more: some may be dead, and nobody has removed them."""


def pause_s(claim_after_s: float, members: int, chance: float) -> float:
    """Seconds until this worker looks at the same stream again; `chance` is a random number in [0, 1).

    At most `claim_after_s` (with less than 0.3 s: at most 0.3 s), so that an entry is claimed at the latest after
    twice that time, by whichever worker is not held up by its own strategy.
    """
    base = min(max(claim_after_s / MEMBERS_MAX, BASE_MIN_S), BASE_MAX_S)
    return base * min(max(members, 1), MEMBERS_MAX) * (1 - chance / 2)

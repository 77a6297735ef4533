"""How long to leave a server alone that is away, or that refuses.

Decides a delay from the number of attempts since something was last stored. Must never sleep. Short at first, since
most interruptions are; jittered, so that several clients of one server do not return in step.
"""

import random
from typing import Final

FIRST_S: Final = 0.05
LONGEST_S: Final = 1.0


def pause_s(attempt: int) -> float:
    """The pause before attempt 1, 2, 3, …, in seconds."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(attempt - 1, 20)) * random.uniform(0.5, 1.0)

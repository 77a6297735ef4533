"""Whether a number that a caller gave can be used.

Decides what counts as a number, and in which words another is refused. Must never know what the number is for.
"""

import math
import sys
from numbers import Integral, Real
from typing import Final, cast

NO_LIMIT: Final = ", or None for no limit"


def is_number(given: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether it is a number within these bounds, be it Python's or numpy's; a text that reads as one is none."""
    if isinstance(given, bool) or not isinstance(given, Real):
        return False
    # Not as a float, which the largest whole numbers do not fit.
    return least <= cast("float", given) <= most


def is_count(given: object, least: int, most: float = math.inf) -> bool:
    """Whether it is a whole number within these bounds."""
    return isinstance(given, Integral) and is_number(given, least, most)


def check_seconds(name: str, given: object, *, otherwise: str = "", for_ever: bool = False) -> None:
    """Raise `ValueError` for what is no positive number of seconds; `otherwise` names what else may be given."""
    if not is_number(given) or not 0 < given <= (math.inf if for_ever else sys.float_info.max):  # type: ignore[operator]
        raise ValueError(f"{name}={given!r}: take a positive number of seconds{otherwise}")


def check_timeout_s(timeout_s: object) -> None:
    """Raise `ValueError` for a time to wait that is neither None nor a number; below 0 it is over already."""
    largest = sys.float_info.max
    if timeout_s not in (None, math.inf) and not is_number(timeout_s, -largest, largest):
        raise ValueError(f"timeout_s={timeout_s!r}: take a number of seconds{NO_LIMIT}")


def check_max_age_s(max_age_s: float | None) -> float | None:
    """The limit as given; `ValueError` unless it is None or a positive number of seconds."""
    if max_age_s is not None:
        check_seconds("max_age_s", max_age_s, otherwise=NO_LIMIT)
    return max_age_s


def check_waits(first_delay_s: object, max_delay_s: object, factor: object, jitter: object) -> None:
    """Raise `ValueError` for waits between attempts that cannot be computed with these."""
    is_wait = all(is_number(given, 0, sys.float_info.max) for given in (first_delay_s, max_delay_s))
    if not (is_wait and 0 < first_delay_s <= max_delay_s):  # type: ignore[operator]
        raise ValueError(
            f"first_delay_s={first_delay_s!r} and max_delay_s={max_delay_s!r}: "
            "take 0 < first_delay_s <= max_delay_s, in seconds"
        )
    if not is_number(factor, 1, 100):
        raise ValueError(f"factor={factor!r}: take 1 (always the same wait) to 100")
    if not is_number(jitter, 0, 1):
        raise ValueError(f"jitter={jitter!r}: take 0 (none) to 1 (anything down to no wait)")

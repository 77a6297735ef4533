"""What the values of a quote may be: their kinds and their bounds.

Decides which number is a price, which a size, and what becomes of anything else. Prices make the quote; sizes,
exchanges, conditions and tape are its side fields, and an odd one of them is null rather than the end of the quote.
Must never know where a value comes from. The bounds stand in the types, so that a typed decoder of msgspec checks
them at no cost worth measuring; the functions say the same of a value that was decoded without types.
"""

import math
import sys
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

MAX_SIZE: Final = 2**53
"""The largest size: beyond it a float64 skips whole numbers, and with it every data frame and JavaScript."""
MAX_CODE_LENGTH: Final = 16
MAX_CONDITIONS: Final = 16
"""Far beyond what the vendor sends. A bound on quotes is a bound on memory only where a quote has one itself."""

Price: TypeAlias = Annotated[float, Meta(ge=0.0, le=sys.float_info.max)]
"""Finite and not negative; 0 means that the side has no active quote."""
Size: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_SIZE)] | Annotated[float, Meta(ge=0.0, le=float(MAX_SIZE))]
"""Shares, whole or not."""
MIN_TIME_NS: Final = -(2**63)
MAX_TIME_NS: Final = 2**63 - 1
"""In the year 2262: what 64 bits hold, and with them every data frame. The daemon stores no quote beyond it."""
MAX_DELAY_US: Final = 2**53
TimeNs: TypeAlias = Annotated[int, Meta(ge=MIN_TIME_NS, le=MAX_TIME_NS)]
"""Nanoseconds since the epoch, UTC."""
DelayUs: TypeAlias = Annotated[int, Meta(ge=-MAX_DELAY_US, le=MAX_DELAY_US)]
Code: TypeAlias = Annotated[str, Meta(max_length=MAX_CODE_LENGTH)]
Conditions: TypeAlias = Annotated[list[Code], Meta(max_length=MAX_CONDITIONS)]

WRONG_TYPE: Final = "wrong_type"
OUT_OF_RANGE: Final = "out_of_range"
ODDITIES: Final = (WRONG_TYPE, OUT_OF_RANGE)
SIDE_FIELDS: Final = ("bs", "bx", "as", "ax", "c", "z")
"""What a quote may lack, by its names on the wire."""


class OddValue(ValueError):
    """A value that is none of its field; `oddity` is one of `ODDITIES`, the message says it in words."""

    def __init__(self, oddity: str, words: str) -> None:
        super().__init__(words)
        self.oddity: Final = oddity


def read_price(value: object) -> float | None:
    """The price, or None where there is none; `OddValue` for anything else."""
    if value is None:
        return None
    price = _number(value)
    if not math.isfinite(price):
        raise OddValue(OUT_OF_RANGE, "is not a finite number")
    if price < 0:
        raise OddValue(OUT_OF_RANGE, "is below zero")
    return float(price)


def read_size(value: object) -> int | float | None:
    """The size, or None where there is none; `OddValue` for anything else."""
    if value is None:
        return None
    size = _number(value)
    if not 0 <= size <= MAX_SIZE:
        raise OddValue(OUT_OF_RANGE, f"does not lie between 0 and {MAX_SIZE}")
    return size


def read_code(value: object) -> str | None:
    """The code of an exchange or a tape, or None where there is none; `OddValue` for anything else."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise OddValue(WRONG_TYPE, "is not text")
    if len(value) > MAX_CODE_LENGTH:
        raise OddValue(OUT_OF_RANGE, f"has more than {MAX_CODE_LENGTH} characters")
    return value


def read_conditions(value: object) -> list[str] | None:
    """The conditions, or None where there are none; `OddValue` for anything else."""
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise OddValue(WRONG_TYPE, "is not a list")
    if len(value) > MAX_CONDITIONS:
        raise OddValue(OUT_OF_RANGE, f"has more than {MAX_CONDITIONS} conditions")
    codes = [read_code(code) for code in value]
    if None in codes:
        raise OddValue(WRONG_TYPE, "has a condition that is not text")
    return [code for code in codes if code is not None]


def read_delay_us(value: object) -> int | None:
    """The time from a quote to its receipt, or None where it is not known or none."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and -MAX_DELAY_US <= value <= MAX_DELAY_US else None  # type: ignore[operator,return-value]


READ_SIDE: Final = {
    "bs": read_size,
    "bx": read_code,
    "as": read_size,
    "ax": read_code,
    "c": read_conditions,
    "z": read_code,
}
"""How each side field is read."""


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OddValue(WRONG_TYPE, "is not a number")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise OddValue(OUT_OF_RANGE, "is larger than any float64")
    return value

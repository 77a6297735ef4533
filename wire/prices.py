"""What follows from two prices: halfway between them, and the difference.

Decides that prices are decimal numbers, as exchanges have them, though they are kept in floating point: 233.76 and
233.78 are 0.02 apart, and 233.77 lies halfway. Each result is the float that is nearest to the decimal one; it is
never moved onto a grid, so a price that is there stays as it is. Must never know whose prices these are.
"""

from fractions import Fraction
from math import isfinite
from typing import Final

_SCALE: Final = 10_000.0
"""Ten-thousandths: the finest that US stocks are quoted in."""
_LIMIT: Final = 1e11
"""Below it a ten-thousandth has at most 15 digits, and no two such numbers share a float."""


def midpoint(bid: float, ask: float) -> float:
    """Halfway between the two."""
    if 0.0 <= bid < _LIMIT and 0.0 <= ask < _LIMIT:
        low, high = int(bid * _SCALE + 0.5), int(ask * _SCALE + 0.5)
        if low / _SCALE == bid and high / _SCALE == ask:
            return (low + high) / 20_000
    if isfinite(bid) and isfinite(ask):
        return float((_decimal(bid) + _decimal(ask)) / 2)
    return (bid + ask) / 2


def difference(bid: float, ask: float) -> float:
    """The ask less the bid."""
    if 0.0 <= bid < _LIMIT and 0.0 <= ask < _LIMIT:
        low, high = int(bid * _SCALE + 0.5), int(ask * _SCALE + 0.5)
        if low / _SCALE == bid and high / _SCALE == ask:
            return (high - low) / _SCALE
    if isfinite(bid) and isfinite(ask):
        return float(_decimal(ask) - _decimal(bid))
    return ask - bid


def _decimal(price: float) -> Fraction:
    """The shortest decimal number that this float stands for, which is how it was written."""
    return Fraction(repr(float(price)))

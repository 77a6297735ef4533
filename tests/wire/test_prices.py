"""Halfway between two prices, and their difference: in decimal, as exchanges count."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import Quote
from wire.prices import difference, midpoint

CENTS = st.integers(1, 10**9).map(lambda cents: Decimal(cents) / 100)
TEN_THOUSANDTHS = st.integers(1, 10**10).map(lambda parts: Decimal(parts) / 10_000)
ANY = st.floats(0.0, 1e300, allow_subnormal=True)


@pytest.mark.fault("Q11")
@pytest.mark.parametrize(
    ("bid", "ask", "mid", "spread"),
    [
        (233.76, 233.78, 233.77, 0.02),
        (187.12, 187.13, 187.125, 0.01),
        (0.1, 0.2, 0.15, 0.1),
        (0.0001, 0.0002, 0.00015, 0.0001),
        (700_123.45, 700_123.46, 700_123.455, 0.01),
        (187.13, 187.12, 187.125, -0.01),
        (0.000012345, 0.000012347, 0.000012346, 0.000000002),
        (1e300, 3e300, 2e300, 2e300),
        (1.7e308, 1.7e308, 1.7e308, 0.0),
        (187, 188, 187.5, 1.0),
    ],
)
def test_prices_are_decimal(bid: float, ask: float, mid: float, spread: float) -> None:
    """What a human would say, also where the sum of the floats says 233.76999999999998."""
    assert (midpoint(bid, ask), difference(bid, ask)) == (mid, spread)
    quote = Quote("A", None, bid, 1, "V", ask, 1, "V", None, None, 1, None)
    assert (quote.mid_price, quote.spread) == (mid, spread)


@pytest.mark.fault("Q11")
@given(st.one_of(CENTS, TEN_THOUSANDTHS), st.one_of(CENTS, TEN_THOUSANDTHS))
def test_the_result_is_the_float_nearest_to_the_decimal_one(bid: Decimal, ask: Decimal) -> None:
    """For whatever exchanges quote."""
    assert midpoint(float(bid), float(ask)) == float((bid + ask) / 2)
    assert difference(float(bid), float(ask)) == float(ask - bid)


@given(ANY)
def test_a_price_stays_as_it_is(price: float) -> None:
    """Of one price the middle is itself, to the last bit: nothing is rounded to a grid."""
    assert midpoint(price, price) == price
    assert difference(price, price) == 0.0


@given(ANY, ANY)
def test_the_middle_lies_between(one: float, other: float) -> None:
    """Whatever the prices; and the difference has the right sign."""
    assert min(one, other) <= midpoint(one, other) <= max(one, other)
    assert midpoint(one, other) == midpoint(other, one)
    assert difference(one, other) == -difference(other, one)
    assert (difference(one, other) > 0) == (other > one)


def test_what_is_no_number_raises_nothing() -> None:
    """A quote that somebody makes by hand may have any float."""
    assert math.isnan(midpoint(math.nan, 1.0))
    assert math.isnan(difference(math.inf, math.inf))
    assert midpoint(math.inf, 1.0) == math.inf

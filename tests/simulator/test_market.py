"""The synthetic market: plausible, deterministic, on the grid."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import Market, plausible_symbols
from wire import BadSymbol, parse_symbol


@given(count=st.integers(0, 3_000), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_names_are_symbols(count: int, seed: int) -> None:
    """Any number of generated names are distinct and valid, and the same for the same seed."""
    names = plausible_symbols(count, seed)
    assert len(set(names)) == count
    assert [parse_symbol(name) for name in names] == list(names)
    assert plausible_symbols(count, seed) == names


def test_the_famous_come_first() -> None:
    """A newcomer who asks for a few symbols gets the ones he knows."""
    assert plausible_symbols(4) == ("AAPL", "MSFT", "NVDA", "AMZN")


def test_names_have_a_bound() -> None:
    """Nobody makes the simulator invent names without end."""
    with pytest.raises(ValueError, match="100000"):
        plausible_symbols(100_001)


def test_names_are_checked() -> None:
    """A market of something that is no symbol is refused."""
    with pytest.raises(BadSymbol):
        Market(["AAPL", "no symbol"])


@given(
    count=st.integers(0, 500),
    from_ns=st.integers(0, 2**62),
    span_ns=st.integers(1, 10**9),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=50, deadline=None)
def test_quotes_are_plausible(count: int, from_ns: int, span_ns: int, seed: int) -> None:
    """Every quote lies in its span and in order, on the cent grid, at least a cent wide, with sizes."""
    market = Market(plausible_symbols(30), seed)
    quotes = market.quotes(market.activity(None), count, from_ns, from_ns + span_ns)
    assert len(quotes) == count
    times = [quote.t_ns for quote in quotes]
    assert times == sorted(times)
    for quote in quotes:
        assert from_ns <= quote.t_ns < from_ns + span_ns
        assert round(quote.bid_price * 100) / 100 == quote.bid_price >= 1
        assert round(quote.ask_price * 100) / 100 == quote.ask_price
        assert quote.ask_price > quote.bid_price
        assert min(quote.bid_size, quote.ask_size) > 0
        assert quote.tape in "ABC"


def test_same_seed_same_market() -> None:
    """Two markets of one seed tell the same story, two of different seeds do not."""

    def story(seed: int) -> list[object]:
        market = Market(plausible_symbols(50), seed)
        return list(market.quotes(market.activity(["AAPL", "MSFT", "NVDA"]), 200, 0, 10**9))

    assert story(7) == story(7)
    assert story(7) != story(8)


def test_only_the_wanted_are_quoted() -> None:
    """Activity spreads over the wanted symbols, busiest the first of the list, and last whoever is not on it."""
    market = Market(plausible_symbols(50), 1)
    activity = market.activity(["NVDA", "AAPL", "MSFT", "UNKNOWN"])
    counts = Counter(quote.symbol for quote in market.quotes(activity, 6_000, 0, 10**9))
    assert set(counts) == {"AAPL", "MSFT", "NVDA", "UNKNOWN"}
    assert counts["AAPL"] > counts["MSFT"] > counts["NVDA"] > counts["UNKNOWN"]


def test_nobody_wanted_nothing_made() -> None:
    """Without a wanted symbol there are no quotes."""
    market = Market(["AAPL"])
    assert market.quotes(market.activity([]), 100, 0, 10**9) == []

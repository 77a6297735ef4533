"""What a strategy gets of REST's raw rows."""

import contextlib
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rest.rows import (
    BadAnswer,
    member,
    page,
    read_assets,
    read_bar,
    read_clock,
    read_days,
    read_quote,
)

RAW: dict[str, Any] = {
    "t": "2025-11-13T02:13:24.123825050Z",
    "bp": 187.12,
    "bs": 3,
    "bx": "V",
    "ap": 0,
    "as": 0,
    "ax": " ",
    "c": ["R"],
    "z": "C",
}


def test_a_quote_keeps_its_nanoseconds_and_has_no_id() -> None:
    """A price of 0 is a side without a quote; the receipt is when REST confirmed it."""
    quote = read_quote("AAPL", RAW, 1_763_000_004_999_999_999)
    assert (quote.id, quote.time_ns) == (None, 1_763_000_004_123_825_050)
    assert (quote.bid_price, quote.ask_price, quote.ask_size, quote.mid_price) == (187.12, None, 0, None)
    # To the microsecond, and never later than it was.
    assert quote.received_ns is not None
    assert 0 <= 1_763_000_004_999_999_999 - quote.received_ns < 1_000
    assert read_quote("AAPL", RAW).received_ns is None


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("bs", math.nan),
        ("as", -1),
        ("bs", 2**64 - 1),
        ("bs", "3"),
        ("bx", 12),
        ("c", "R"),
        ("c", [1]),
        ("z", 1),
    ],
)
@pytest.mark.fault("S22", "S23")
def test_an_odd_side_field_costs_only_itself(name: str, odd: Any) -> None:
    """The prices beside it are good."""
    fields = {"bs": "bid_size", "as": "ask_size", "bx": "bid_exchange", "c": "conditions", "z": "tape"}
    found, usual = read_quote("AAPL", RAW | {name: odd}), read_quote("AAPL", RAW)
    assert found == msgspec.structs.replace(usual, **{fields[name]: None})
    assert read_quote("AAPL", RAW | {"bs": 0.5}).bid_size == 0.5


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf, -1.0, "187.12", True])
@pytest.mark.fault("S23", "Q27")
def test_a_price_that_is_none_is_refused(price: Any) -> None:
    """JSON of Python reads NaN, and no strategy should."""
    with pytest.raises(BadAnswer, match="a quote of AAPL is not readable"):
        read_quote("AAPL", RAW | {"bp": price})


@pytest.mark.parametrize(("name", "field"), [("bx", "bid_exchange"), ("ax", "ask_exchange"), ("z", "tape")])
def test_half_a_surrogate_pair_costs_only_its_field(name: str, field: str) -> None:
    """JSON may hold one, and UTF-8, in which quotes are shared, may not."""
    quote = read_quote("AAPL", {**RAW, name: "\ud800"})
    assert getattr(quote, field) is None
    assert quote.bid_price is not None
    assert read_quote("AAPL", {**RAW, "c": ["R", "\udfff"]}).conditions is None


def test_other_rows_are_read() -> None:
    """Bars, clock, calendar and assets, with the session's times in New York turned into nanoseconds."""
    bar = read_bar(
        "AAPL", {"t": "1970-01-01T00:01:00Z", "o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 9, "n": 2, "vw": 1.25}
    )
    assert (bar.time_ns, bar.open, bar.low, bar.volume, bar.vwap) == (60 * 10**9, 1.0, 0.5, 9, 1.25)
    times = ["2025-11-13T09:30:00-05:00", "2025-11-14T09:30:00-05:00", "2025-11-13T16:00:00-05:00"]
    clock = read_clock(
        {"timestamp": times[0], "is_open": True, "next_open": times[1], "next_close": times[2]}
    )
    assert (clock.is_open, clock.next_open_ns - clock.time_ns) == (True, 86_400 * 10**9)
    (day,) = read_days(
        [
            {
                "date": "2025-11-13",
                "open": "09:30",
                "close": "16:00",
                "session_open": "0400",
                "session_close": "2000",
            }
        ]
    )
    assert day.open_ns == clock.time_ns
    assert day.session_open_ns is not None
    assert day.open_ns - day.session_open_ns == 5.5 * 3600 * 10**9
    (asset,) = read_assets([{"symbol": "AAPL", "class": "us_equity", "tradable": True, "more": 1}])
    assert (asset.asset_class, asset.tradable, asset.shortable) == ("us_equity", True, False)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    json
    | st.fixed_dictionaries({}, optional=dict.fromkeys([*RAW, "quotes", "AAPL", "next_page_token"], json))
)
def test_an_answer_of_any_shape_is_read_or_refused(raw: Any) -> None:
    """Nothing but `BadAnswer` comes out of a reader."""
    for read in (
        lambda: read_quote("AAPL", raw, 1),
        lambda: read_bar("AAPL", raw),
        lambda: read_clock(raw),
        lambda: read_days(raw),
        lambda: read_days([raw]),
        lambda: read_assets(raw),
        lambda: member(raw, "quotes"),
        lambda: page(raw, "quotes", "AAPL"),
    ):
        with contextlib.suppress(BadAnswer):
            read()


def test_a_page_without_rows_is_empty() -> None:
    """The service writes null for no quotes at all, and leaves out a symbol that has none."""
    assert page({"quotes": None, "next_page_token": None}, "quotes", "AAPL") == ([], None)
    assert page({"quotes": {}, "next_page_token": "x"}, "quotes", "AAPL") == ([], "x")
    assert page({"quotes": {"AAPL": [1]}}, "quotes", "AAPL") == ([1], None)
    with pytest.raises(BadAnswer, match="no object 'quotes'"):
        page({"message": "?"}, "quotes", "AAPL")

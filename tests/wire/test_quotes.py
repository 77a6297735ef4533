"""Quotes and gaps: what is written is what is read."""

import json
import math
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import (
    BadEntry,
    Gap,
    Quote,
    QuoteRow,
    decode_gap,
    decode_latest,
    decode_quote,
    encode_gap,
    encode_latest,
    encode_quote,
)
from wire.values import MAX_SIZE

NS = st.integers(-(2**63), 2**63 - 1)
PRICES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
SIZES = st.none() | st.integers(0, MAX_SIZE) | st.floats(0, float(MAX_SIZE))
TEXTS = st.none() | st.text(max_size=4)
ROWS = st.tuples(
    PRICES,
    SIZES,
    TEXTS,
    PRICES,
    SIZES,
    TEXTS,
    st.none() | st.lists(st.text(max_size=3), max_size=4),
    TEXTS,
    NS,
    st.none() | st.integers(-(2**53), 2**53),
)


def same(quote: Quote, row: QuoteRow) -> bool:
    """Whether a quote says what the row says, with 0 as no price."""
    bp, bs, bx, ap, as_, ax, c, z, t, r = row
    return (
        quote.bid_price,
        quote.bid_size,
        quote.bid_exchange,
        quote.ask_price,
        quote.ask_size,
        quote.ask_exchange,
        quote.conditions,
        quote.tape,
        quote.time_ns,
        quote.receive_delay_us,
    ) == (bp or None, bs, bx, ap or None, as_, ax, None if c is None else tuple(c), z, t, r)


@given(ROWS)
def test_a_quote_is_read_as_it_was_written(row: QuoteRow) -> None:
    """Bit for bit, in the stream's spelling, from bytes and from text."""
    value = encode_quote(row)
    quote = decode_quote("AAPL", "5-1", value)
    assert (quote.symbol, quote.id) == ("AAPL", "5-1")
    assert same(quote, row)
    assert decode_quote("AAPL", "5-1", value.decode()) == quote


@given(ROWS, st.none() | st.just("5-1"))
def test_the_cache_says_what_the_stream_says(row: QuoteRow, entry_id: str | None) -> None:
    """Both spellings make the same quote."""
    quote = decode_latest("AAPL", encode_latest("AAPL", entry_id, row))
    assert same(quote, row)
    if entry_id is not None:
        assert quote == decode_quote("AAPL", entry_id, encode_quote(row))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_prices_keep_every_bit(price: float) -> None:
    """In a spelling that any JSON reader gives back exactly, and that is not longer than it must be."""
    value = encode_quote((price, 1, "V", price, 1, "N", None, "C", 1, 0))
    read = json.loads(value)[0]
    assert math.copysign(1, read) == math.copysign(1, price)
    assert float(read) == price
    assert len(msgspec.json.encode(price)) <= len(repr(price)) + 2


@given(ROWS)
def test_the_stream_value_is_plain_json(row: QuoteRow) -> None:
    """A reader in another language needs nothing but the order of the positions."""
    assert json.loads(encode_quote(row)) == list(row)


def test_the_spelling_is_the_documented_one() -> None:
    """Golden values, so that both sides cannot be wrong together."""
    row: QuoteRow = (187.12, 300, "V", 187.13, 200, "N", ["R"], "C", 1763000004123825050, 8052)
    assert encode_quote(row) == b'[187.12,300,"V",187.13,200,"N",["R"],"C",1763000004123825050,8052]'
    assert encode_latest("AAPL", "1763000004123-825050000", row) == (
        b'{"id":"1763000004123-825050000","S":"AAPL","bp":187.12,"bs":300,"bx":"V","ap":187.13,"as":200,"ax":"N",'
        b'"c":["R"],"z":"C","t":1763000004123825050,"r":8052}'
    )
    assert (
        encode_gap(1, 2, "feed_disconnected", 7)
        == b'{"from":1,"to":2,"reason":"feed_disconnected","epoch":7}'
    )


@given(ROWS, st.lists(st.integers() | st.text() | st.none(), max_size=3))
def test_positions_of_a_later_contract_are_ignored(row: QuoteRow, more: list[Any]) -> None:
    """A longer array reads as the first ten positions."""
    value = json.dumps([*row, *more]).encode()
    assert same(decode_quote("AAPL", "5-1", value), row)


@given(NS, NS, st.text(max_size=30), st.none() | st.integers(0, 2**63 - 1))
def test_a_gap_is_read_as_it_was_written(from_ns: int, to_ns: int, reason: str, epoch: int | None) -> None:
    """And its length is never negative."""
    written = encode_gap(from_ns, to_ns, reason, epoch)
    assert "missing" not in json.loads(written)
    gap = decode_gap("AAPL", "5-1", written)
    assert gap == Gap(symbol="AAPL", id="5-1", from_ns=from_ns, to_ns=to_ns, reason=reason, epoch=epoch)
    assert gap.duration_s >= 0


@given(st.integers(0, 2**63 - 1))
def test_a_gap_says_how_many_are_missing_where_that_is_known(missing: int) -> None:
    """None lost is a number too, and not the same as nobody knows."""
    written = encode_gap(1, 2, "queue_full", 7, missing=missing)
    assert json.loads(written)["missing"] == missing
    assert decode_gap("AAPL", "5-1", written).missing == missing


@pytest.mark.parametrize("tail", [b"", b',"epoch":7', b',"epoch":7,"missing":null', b',"later":[1]'])
def test_a_gap_of_an_older_or_a_later_contract_is_read(tail: bytes) -> None:
    """Where it does not say how many are missing, nobody knows."""
    gap = decode_gap("AAPL", "5-1", b'{"from":1,"to":2,"reason":"restart"%b}' % tail)
    assert (gap.from_ns, gap.to_ns, gap.reason, gap.missing) == (1, 2, "restart", None)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_noise_is_told_as_an_unreadable_entry(value: bytes | str) -> None:
    """Never as an exception of the codec."""
    errors: list[BadEntry] = []
    for decode in (decode_quote, decode_gap):
        try:
            decode("AAPL", "5-1", value)
        except BadEntry as error:
            errors.append(error)
    try:
        decode_latest("AAPL", value)
    except BadEntry as error:
        errors.append(error)
    assert all(error.symbol == "AAPL" and "AAPL entry" in str(error) for error in errors)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[1,2,3]",
        b'["1",1,"V",1,1,"N",null,"C",1,0]',
        b'[1,1,"V",1,1,"N",null,"C",1.5,0]',
    ],
)
def test_what_is_no_quote_is_refused(value: bytes) -> None:
    """Too short, of wrong types, or something else altogether."""
    with pytest.raises(BadEntry):
        decode_quote("AAPL", "5-1", value)


@pytest.mark.parametrize("position", [1, 2, 4, 5, 6, 7])
@pytest.mark.parametrize("odd", ["300", 12, -1, -0.5, 2**64 - 1, 1e300, True, [1], ["R", None], {"x": 1}])
@pytest.mark.fault("S22")
def test_an_odd_side_field_costs_only_itself(position: int, odd: Any) -> None:
    """As an older daemon or another writer left it, in the stream and in the cache: null where it is none."""
    row: list[Any] = [187.12, 300, "V", 187.13, 200, "N", ["R"], "C", 1763000004123825050, 8052]
    fits = (position in (2, 5, 7) and odd == "300") or (position in (1, 4) and odd == 12 and odd is not True)
    expected = [*row]
    row[position] = odd
    expected[position] = odd if fits else None
    found = decode_quote("AAPL", "5-1", json.dumps(row))
    names = ("bp", "bs", "bx", "ap", "as", "ax", "c", "z", "t", "r")
    cached = json.dumps({"id": "5-1", "S": "AAPL", **dict(zip(names, row, strict=True))})
    assert same(found, cast("QuoteRow", tuple(expected)))
    assert decode_latest("AAPL", cached) == found


@pytest.mark.parametrize("delay", ["8052", 1.5, None, 2**70])
def test_an_odd_delay_is_not_known(delay: Any) -> None:
    """It is no part of the price."""
    value = json.dumps([187.12, 300, "V", 187.13, 200, "N", ["R"], "C", 5, delay])
    assert decode_quote("AAPL", "5-1", value).bid_price == 187.12


@given(st.integers(-(10**18), 4 * 10**18), st.integers(-(10**9), 10**9))
def test_times_are_exact(time_ns: int, delay_us: int) -> None:
    """Integers stay integers; the datetime is cut to microseconds, not rounded."""
    quote = decode_quote("A", "1-1", encode_quote((1, 1, "V", 1, 1, "N", None, "C", time_ns, delay_us)))
    assert quote.time_ns == time_ns
    assert quote.received_ns == time_ns + delay_us * 1000
    since = quote.time - datetime(1970, 1, 1, tzinfo=UTC)
    assert (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds == time_ns // 1000


@pytest.mark.parametrize(
    ("bid", "ask", "mid", "spread"),
    [
        (1.0, 3.0, 2.0, 2.0),
        (3.0, 1.0, 2.0, -2.0),
        (233.76, 233.78, 233.77, 0.02),
        (0.0, 3.0, None, None),
        (1.0, None, None, None),
        (-0.0, 0, None, None),
    ],
)
def test_mid_and_spread_need_both_sides(
    bid: float | None, ask: float | None, mid: float | None, spread: float | None
) -> None:
    """A side without an active quote makes neither."""
    quote = decode_quote("A", "1-1", encode_quote((bid, 1, "V", ask, 1, "N", None, "C", 1, None)))
    assert (quote.mid_price, quote.spread) == (mid, spread)

"""Quotes to entries: ids after the contract's rules, rows as the script reads them, markers where they belong."""

import json
import struct
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.feed.messages import QuoteMessage, time_as_json
from ingestor.publisher.batch import Batch
from ingestor.publisher.intake import REJECTED, Hole, Received
from ingestor.publisher.stamper import Stamper
from tests.ingestor.vendor import message
from wire import ZERO_ID, EntryId, Placement, decode_gap, decode_latest, decode_quote, place
from wire.ids import MAX_AHEAD_NS

NOW_NS = 1_763_000_004_123_825_050
RECEIVED_NS = NOW_NS + 8_052_999
LAST_OF_ALL = EntryId(2**64 - 1, 2**64 - 1)


def stamper(*symbols: str, last: EntryId = ZERO_ID, last_time_ns: int | None = None) -> Stamper:
    """A stamper that knows the tails of these streams."""
    made = Stamper()
    made.epoch = 7
    for symbol in symbols or ("AAPL",):
        made.load(symbol, last, last_time_ns)
    return made


def stamp(made: Stamper, *quotes: QuoteMessage, now_ns: int = NOW_NS) -> Batch:
    """A batch of these quotes, received as one frame."""
    batch = made.stamp([(RECEIVED_NS, list(quotes))], now_ns)
    assert batch is not None
    return batch


def entries(batch: Batch, symbol: str = "AAPL") -> list[tuple[EntryId, str]]:
    """The entries of one symbol: id and payload."""
    for row in batch.rows():
        if row[0] == symbol:
            texts = [str(part) for part in row[2:]]
            return [(EntryId.parse(i), p) for i, p in zip(texts[::2], texts[1::2], strict=True)]
    return []


def ids(batch: Batch, symbol: str = "AAPL") -> list[EntryId]:
    """The ids of one symbol's entries."""
    return [entry_id for entry_id, _ in entries(batch, symbol)]


NO_TIME = "the time is neither a timestamp nor text nor a whole number"


def rfc3339(second: int) -> str:
    """The text of a whole second."""
    return datetime.fromtimestamp(second, UTC).isoformat()


def timed(raw: bytes, **fields: Any) -> QuoteMessage:
    """A quote with this undecoded time."""
    return QuoteMessage("AAPL", msgspec.Raw(raw), **fields)


TIMES = st.one_of(
    st.integers(NOW_NS - 3, NOW_NS + 3),
    st.integers(NOW_NS - 10**9, NOW_NS + 10**9),
    st.sampled_from([0, 1, NOW_NS + MAX_AHEAD_NS, NOW_NS + MAX_AHEAD_NS + 1, 2**62]),
)
LASTS = st.sampled_from([ZERO_ID, EntryId(NOW_NS // 10**6, 999_999_999), EntryId(2**63, 5)])


@given(st.lists(st.tuples(st.sampled_from("ABC"), TIMES), min_size=1, max_size=60), LASTS, st.integers(1, 9))
@settings(max_examples=150)
def test_ids_are_those_that_the_contract_places_one_by_one(
    quotes: list[tuple[str, int]], last: EntryId, size: int
) -> None:
    """Across batches of any size; so they grow strictly, and none depends on how quotes were batched."""
    made = stamper("A", "B", "C", last=last)
    lasts = dict.fromkeys("ABC", last)
    expected: dict[str, list[EntryId]] = {"A": [], "B": [], "C": []}
    found: dict[str, list[EntryId]] = {"A": [], "B": [], "C": []}
    clamped = behind = 0
    for symbol, time_ns in quotes:
        lasts[symbol], how = place(time_ns, lasts[symbol], NOW_NS)
        expected[symbol].append(lasts[symbol])
        clamped += how is Placement.CLAMPED
        behind += how is Placement.AFTER_LAST
    for start in range(0, len(quotes), size):
        batch = stamp(made, *(message(s, t) for s, t in quotes[start : start + size]))
        for symbol in "ABC":
            found[symbol] += ids(batch, symbol)
    assert found == expected
    for row in found.values():
        assert all(a < b for a, b in pairwise(row))
    assert made.counts.stamped == len(quotes)
    assert made.counts.clamped == clamped
    assert made.counts.ties + made.counts.out_of_order == behind


def test_a_batch_says_what_it_holds() -> None:
    """Rows, packed once, symbols, counts, the oldest receipt; a number comes when it is sent."""
    made = stamper("A", "B")
    frames = [(5, [message("A"), message("B")]), (9, [message("A", NOW_NS + 7)])]
    batch = made.stamp(frames, NOW_NS)
    assert batch is not None
    assert msgpack.unpackb(batch.blob) == batch.rows()
    assert batch.symbols == [row[0] for row in batch.rows()] == ["A", "B"]
    assert (batch.number, batch.quotes, batch.markers, batch.entries) == (0, 3, 0, 3)
    assert batch.first_received_ns == 5
    assert (batch.sent_before, batch.recovered, batch.accounted) == (False, False, False)


def test_an_entry_holds_the_whole_quote() -> None:
    """As the contract spells it, with the delay in microseconds."""
    quote = message(bp=187.12, bs=300, bx="V", ap=187.13, as_=200, ax="N", c=["R"], z="C")
    ((entry_id, payload),) = entries(stamp(stamper(), quote))
    assert payload == f'[187.12,300,"V",187.13,200,"N",["R"],"C",{NOW_NS},8052]'
    assert str(entry_id) == "1763000004123-825050000"


def test_the_cache_value_equals_the_newest_entry() -> None:
    """Last in the stream, that is, and not latest in venue time."""
    batch = stamp(stamper(), message(bs=1), message(time_ns=NOW_NS + 50, bs=2), message(bs=3))
    entry_id, payload = entries(batch)[-1]
    cached = decode_latest("AAPL", str(batch.rows()[0][1]))
    assert cached == decode_quote("AAPL", str(entry_id), payload)
    assert cached.bid_size == 3


@pytest.mark.fault("S29")
def test_ties_are_kept_apart_and_counted() -> None:
    """The same nanosecond, the same symbol: both are stored, in order."""
    made = stamper()
    batch = stamp(made, message(bs=1), message(bs=2), message(bs=2))
    first, second, third = ids(batch)
    assert second == first.successor()
    assert third == second.successor()
    assert (made.counts.ties, made.counts.out_of_order) == (2, 0)


@pytest.mark.fault("S28")
def test_a_quote_out_of_order_follows_the_last_and_keeps_its_time() -> None:
    """Stored in the order of arrival."""
    made = stamper()
    batch = stamp(made, message(), message(time_ns=NOW_NS - 10**9))
    assert ids(batch)[1] == ids(batch)[0].successor()
    assert decode_quote("AAPL", "", entries(batch)[1][1]).time_ns == NOW_NS - 10**9
    assert (made.counts.ties, made.counts.out_of_order) == (0, 1)


@pytest.mark.fault("S31")
def test_a_quote_from_the_far_future_does_not_poison_the_stream() -> None:
    """Its id is clamped, its time is kept, and later quotes catch up within seconds."""
    made = stamper()
    year_ns = 365 * 86_400 * 10**9
    batch = stamp(made, message(time_ns=NOW_NS + year_ns), message(time_ns=NOW_NS + 6 * 10**9))
    assert ids(batch)[0].time_ns == NOW_NS + MAX_AHEAD_NS
    assert decode_quote("AAPL", "", entries(batch)[0][1]).time_ns == NOW_NS + year_ns
    assert made.counts.clamped == 2
    later_ns = NOW_NS + MAX_AHEAD_NS + 10**9
    (caught_up,) = ids(stamp(made, message(time_ns=later_ns), now_ns=later_ns))
    assert caught_up.time_ns == later_ns


@pytest.mark.parametrize("time_ns", [0, 1])
@pytest.mark.fault("S31")
def test_times_at_the_beginning_of_1970_are_stored_as_they_came(time_ns: int) -> None:
    """0-0 is no id, so the instant zero follows it."""
    ((entry_id, payload),) = entries(stamp(stamper(), message(time_ns=time_ns)))
    assert decode_quote("AAPL", "", payload).time_ns == time_ns
    assert entry_id == (EntryId(0, 1000) if time_ns == 1 else EntryId(0, 1))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc0",
        b'"soon"',
        b'"12345678"',
        b"\xcf" + bytes(8),
        b"\xd7\x01" + bytes(8),
        b"\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62),
        b"\xc7\x0c\xff" + struct.pack(">Iq", 0, -(2**62)),
        b"\xd7\xff" + struct.pack(">Q", 2**34 - 1),
        b"\xd7\xff" + struct.pack(">Q", 10**9 << 34 | NOW_NS // 10**9),
        b"\xd7\xff" + struct.pack(">Q", (2**30 - 1) << 34 | NOW_NS // 10**9),
        b"\xc7\x0c\xff" + struct.pack(">Iq", 10**9, NOW_NS // 10**9),
        b"\xc7\x0c\xff" + struct.pack(">Iq", 2**32 - 1, NOW_NS // 10**9),
        b"\xc7\x0c\xff" + struct.pack(">Iq", 999_999_999, -1),
        b'"1969-12-31T23:59:59.999999999Z"',
        msgspec.msgpack.encode("1969-07-20T20:17:40Z"),
        b"\xfb",
        b"-5",
    ],
    ids=lambda raw: raw.hex() or "nothing",
)
@pytest.mark.fault("S31")
def test_a_time_that_cannot_be_read_or_held_is_rejected(raw: bytes) -> None:
    """Before 1970, beyond 64 bits of nanoseconds, or with more of them than a second has there is none, in whatever
    form it came; neighbours are stored."""
    made = stamper()
    made.open_gap("AAPL", NOW_NS - 5, "feed_disconnected")
    assert made.stamp([(RECEIVED_NS, [timed(raw)])], NOW_NS) is None
    assert made.counts.rejected == {"bad_time": 1}
    batch = stamp(made, message(bs=1), timed(raw), message(bs=2))
    assert (batch.quotes, batch.markers) == (2, 2)


def test_times_in_every_form_are_stored() -> None:
    """Text, 32, 64 and 96 bits."""
    seconds = NOW_NS // 10**9
    batch = stamp(
        stamper(),
        timed(b"\xd6\xff" + struct.pack(">I", seconds)),
        timed(b"\xc7\x0c\xff" + struct.pack(">Iq", 1, seconds)),
        timed(time_as_json(seconds * 10**9 + 2)),
        message(time_ns=seconds * 10**9 + 3),
    )
    assert [i.time_ns - seconds * 10**9 for i in ids(batch)] == [0, 1, 2, 3]


@given(st.sampled_from(["s", "ms", "us", "ns"]), st.integers(946_684_800, 7_258_118_399), st.booleans())
@settings(max_examples=60)
@pytest.mark.fault("S31")
def test_a_whole_number_or_a_text_is_a_time_as_well(unit: str, second: int, as_text: bool) -> None:
    """To whatever precision it has, and counted by how it was spelt."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    number = second * per_second + per_second // 2
    made = stamper()
    raw = msgspec.msgpack.encode(rfc3339(second)) if as_text else msgspec.msgpack.encode(number)
    batch = stamp(made, timed(raw))
    exact_ns = second * 10**9 if as_text else number * (10**9 // per_second)
    assert json.loads(entries(batch)[0][1])[8] == exact_ns
    assert made.counts.spellings == {"text" if as_text else unit: 1}


@pytest.mark.fault("S22", "S31")
def test_a_rejected_quote_leaves_a_hole_until_the_next_good_one() -> None:
    """Whichever of them it was, and whoever found it; the marker stands in its place, and then all is well."""
    made = stamper()
    hole = Hole(frozenset({"AAPL", "NOPE"}), REJECTED, "bp is below zero")
    bad_time = timed(b"\xc0")
    frames: list[Received] = [(1, [message(bs=1)]), (2, hole), (3, [message(bs=2), bad_time])]
    batch = made.stamp(frames, NOW_NS)
    assert batch is not None
    kinds = [payload[:1] for _, payload in entries(batch)]
    assert kinds == ["[", "{", "["]
    assert json.loads(entries(batch)[1][1])["reason"] == REJECTED
    assert [(s, rejected.words) for s, rejected in made.rejected.items()] == [("AAPL", NO_TIME)]
    assert made.rejections == {"bad_time": ("AAPL", NO_TIME)}
    stamp(made, message(bs=3))
    assert not made.rejected


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=60)
@pytest.mark.fault("S23")
def test_any_finite_price_comes_back_to_the_last_bit(price: float) -> None:
    """Negative zero, the largest, the smallest; zero means no active side."""
    batch = stamp(stamper(), message(bp=price, ap=price))
    stored = json.loads(entries(batch)[0][1])
    for found in (stored[0], stored[3]):
        assert struct.pack(">d", found) == struct.pack(">d", price)
    cached = decode_latest("AAPL", str(batch.rows()[0][1]))
    assert cached.bid_price == (price or None)


@pytest.mark.parametrize("price", [-0.0, 1e308, 5e-324, 0.0])
@pytest.mark.fault("S24")
def test_odd_prices_are_stored_as_they_came(price: float) -> None:
    """It is not ours to judge a market."""
    assert stamp(stamper(), message(bp=price)).quotes == 1


@pytest.mark.parametrize("size", [0, 0.5, 300.0, 2**53])
def test_odd_sizes_are_stored_as_they_came(size: float) -> None:
    """To the last digit."""
    ((_, payload),) = entries(stamp(stamper(), message(bs=size)))
    assert decode_quote("AAPL", "", payload).bid_size == size


@pytest.mark.fault("S26")
def test_a_symbol_that_is_not_subscribed_is_rejected_and_makes_no_stream() -> None:
    """However it is spelt."""
    made = stamper()
    batch = stamp(made, message("NOPE"), message(), message("x:y{z}"), message("A" * 10_000))
    assert batch.symbols == ["AAPL"]
    assert made.counts.rejected == {"not_subscribed": 3}
    assert made.symbols == {"AAPL"}
    made.forget("AAPL")
    assert not made.knows("AAPL")
    assert made.stamp([(1, [message()])], NOW_NS) is None


def test_a_gap_marker_stands_before_the_first_quote_after_the_hole() -> None:
    """From the last quote before it to that one, with an id between theirs."""
    made = stamper()
    before = ids(stamp(made, message()))[0]
    made.open_gap("AAPL", NOW_NS + 77, "feed_disconnected")
    batch = stamp(made, message(time_ns=NOW_NS + 10**9), message(time_ns=NOW_NS + 2 * 10**9))
    (marker_id, marker), (quote_id, _), _ = entries(batch)
    gap = decode_gap("AAPL", str(marker_id), marker)
    assert (gap.from_ns, gap.to_ns, gap.reason, gap.epoch) == (NOW_NS, NOW_NS + 10**9, "feed_disconnected", 7)
    assert before < marker_id < quote_id
    assert (batch.quotes, batch.markers, made.counts.markers) == (2, 1, 1)
    assert stamp(made, message(time_ns=NOW_NS + 3 * 10**9)).markers == 0


def test_a_hole_that_is_open_keeps_its_beginning_and_its_reason() -> None:
    """However often it is opened again; and the marker comes once per symbol."""
    made = stamper("A", "B")
    for reason in ("first", "second"):
        made.open_gap("A", NOW_NS - 5, reason)
    made.open_gap("NOPE", NOW_NS, "nobody's")
    batch = stamp(made, message("A"), message("B"))
    (marker_id, marker), _ = entries(batch, "A")
    gap = decode_gap("A", str(marker_id), marker)
    assert (gap.from_ns, gap.reason) == (NOW_NS - 5, "first")
    assert len(entries(batch, "B")) == 1


@pytest.mark.parametrize("behind_ns", [1, 900 * 10**9, 10**17])
def test_a_hole_begun_by_our_clock_does_not_push_older_quotes_aside(behind_ns: int) -> None:
    """A delayed feed, or an old tape: ids stay made of the venue's time."""
    made = stamper()
    made.open_gap("AAPL", NOW_NS, "feed_disconnected")
    batch = stamp(made, message(time_ns=NOW_NS - behind_ns), message(time_ns=NOW_NS - behind_ns + 1000))
    (marker_id, marker), _, (later_id, _) = entries(batch)
    gap = decode_gap("AAPL", str(marker_id), marker)
    assert gap.from_ns <= gap.to_ns == NOW_NS - behind_ns
    assert later_id.time_ns == NOW_NS - behind_ns + 1000


def test_a_marker_goes_into_a_stream_whose_last_id_lies_ahead() -> None:
    """Its id follows the last one, and the quote's follows the marker's."""
    ahead = EntryId(NOW_NS // 10**6 + 60_000, 3)
    made = stamper(last=ahead, last_time_ns=NOW_NS - 10**9)
    made.open_gap("AAPL", NOW_NS, "restart")
    batch = stamp(made, message())
    assert ids(batch) == [ahead.successor(), ahead.successor().successor()]


def test_an_exhausted_stream_rejects_and_counts() -> None:
    """And harms no other."""
    made = stamper("A", last=LAST_OF_ALL)
    made.load("B", ZERO_ID, None)
    made.open_gap("A", NOW_NS, "x")
    batch = stamp(made, message("A"), message("B"), message("A"))
    assert batch.symbols == ["B"]
    assert (batch.quotes, batch.markers) == (1, 0)
    assert made.counts.rejected == {"stream_exhausted": 2}


def test_no_marker_takes_the_last_id_that_a_stream_has() -> None:
    """One without a quote behind it would never be sent, and yet be counted."""
    made = stamper(last=EntryId(2**64 - 1, 2**64 - 2))
    made.open_gap("AAPL", NOW_NS, "x")
    assert made.stamp([(1, [message()])], NOW_NS) is None
    assert made.counts.rejected == {"stream_exhausted": 1}
    assert made.counts.markers == 0


def test_nothing_to_store_makes_no_batch() -> None:
    """A call with nothing in it would be sent, and answered, for nothing."""
    made = stamper()
    assert made.stamp([], NOW_NS) is None
    assert made.stamp([(1, [message("NOPE")])], NOW_NS) is None
    assert made.stamp([(1, Hole(frozenset({"AAPL"}), "x"))], NOW_NS) is None


@given(st.lists(st.sampled_from("AB"), min_size=1, max_size=30), st.data())
@settings(max_examples=50)
def test_what_is_received_is_stamped_or_rejected(symbols: list[str], data: st.DataObject) -> None:
    """The ledger adds up, whatever comes."""
    made = stamper("A")
    oddities = st.sampled_from([message("A"), message("B"), timed(b"\xc0")])
    quotes = [data.draw(oddities) for _ in symbols]
    made.stamp([(1, quotes)], NOW_NS)
    assert made.counts.stamped + sum(made.counts.rejected.values()) == len(quotes)

"""Frames to messages: what is readable is read, and nothing unreadable does harm."""

import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.feed.codec import (
    BAD_PRICE,
    BAD_SYMBOL,
    BAD_TIME,
    MAX_MESSAGE_TYPES_COUNTED,
    Frame,
    FrameCodec,
    Refused,
)
from ingestor.feed.messages import (
    Authenticate,
    Error,
    QuoteMessage,
    Subscribe,
    Subscription,
    Success,
    Unsubscribe,
    read_time,
    time_as_json,
    time_as_msgpack,
    time_ns_of,
)
from tests.ingestor.vendor import T0_NS, packed, quote
from wire.values import MAX_SIZE, OUT_OF_RANGE, WRONG_TYPE

# One codec for all examples, as one serves all frames of a connection.
CODEC = FrameCodec()
JSON = FrameCodec("json")


CONTROLS: list[dict[str, Any]] = [
    {"T": "success", "msg": "connected"},
    {"T": "subscription", "quotes": ["A"]},
    {"T": "error", "code": 400, "msg": "invalid syntax"},
    {"T": "t", "S": "A"},
]


def read(frame: bytes, codec: FrameCodec = CODEC) -> list[tuple[Any, ...]]:
    """The quotes of a frame, as values that compare."""
    return [row(q) for q in codec.decode(frame).quotes]


def row(q: QuoteMessage) -> tuple[Any, ...]:
    """One quote, as values that compare."""
    return (q.S, time_ns_of(bytes(q.t)), q.bp, q.bs, q.bx, q.ap, q.as_, q.ax, q.c, q.z)


prices = st.floats(0, allow_infinity=False) | st.none()
sizes = st.integers(0, MAX_SIZE) | st.floats(0, float(MAX_SIZE)) | st.none()
letters = st.text(max_size=3) | st.none()
quotes = st.builds(
    quote,
    st.text(max_size=8),
    st.integers(-(10**18), 2**62),
    bp=prices,
    bs=sizes,
    bx=letters,
    ap=prices,
    ax=letters,
    c=st.lists(st.text(max_size=2), max_size=3) | st.none(),
    z=letters,
)


@given(st.lists(quotes, min_size=1, max_size=5))
@settings(max_examples=60)
def test_both_gears_read_the_same_quotes(elements: list[dict[str, Any]]) -> None:
    """A message of another kind in the frame forces the slow gear, and changes no quote."""
    fast = CODEC.decode(packed(*elements))
    slow = CODEC.decode(packed(*elements, {"T": "success", "msg": "connected"}))
    assert not fast.controls
    assert slow.controls
    assert [row(q) for q in fast.quotes] == [row(q) for q in slow.quotes]
    assert len(fast.quotes) == len(elements)


def test_every_field_arrives() -> None:
    """Each value of a usual quote stands where it belongs."""
    assert read(packed(quote())) == [("AAPL", T0_NS, 187.12, 300, "V", 187.13, 200, "N", ["R"], "C")]


@pytest.mark.parametrize(
    "bad",
    [
        {"S": "AAPL"},
        {"T": None},
        {"T": b"q"},
        {1: 2},
        {"T": "success"},
        {"T": "subscription", "quotes": "AAPL"},
        {"T": "subscription", "quotes": [1]},
        None,
        7,
        "q",
        [],
        [quote()],
    ],
    ids=repr,
)
@pytest.mark.fault("S22", "S25")
def test_one_bad_element_takes_no_neighbour_along(bad: Any) -> None:
    """The bad one is reported with a reason, those before and after it are read."""
    frame = CODEC.decode(packed(quote("A"), bad, quote("B")))
    assert [q.S for q in frame.quotes] == ["A", "B"]
    assert not frame.controls
    assert len(frame.unreadable) == 1
    assert 0 < len(frame.unreadable[0]) < 200
    assert not frame.broken_quotes
    says_what_it_is = isinstance(bad, dict) and isinstance(bad.get("T"), str)
    assert frame.unclear == (not says_what_it_is)


@pytest.mark.parametrize(
    ("odd", "oddity"),
    [
        ({"bs": math.nan}, OUT_OF_RANGE),
        ({"bs": math.inf}, OUT_OF_RANGE),
        ({"bs": -1}, OUT_OF_RANGE),
        ({"bs": -0.5}, OUT_OF_RANGE),
        ({"bs": 2**64 - 1}, OUT_OF_RANGE),
        ({"bs": 2**53 + 1}, OUT_OF_RANGE),
        ({"as": 1e300}, OUT_OF_RANGE),
        ({"bs": "300"}, WRONG_TYPE),
        ({"as": "9" * 2000}, OUT_OF_RANGE),
        ({"as": True}, WRONG_TYPE),
        ({"bs": msgpack.Timestamp(1, 0)}, WRONG_TYPE),
        ({"bs": [1] * 5000}, OUT_OF_RANGE),
        ({"bx": 12}, WRONG_TYPE),
        ({"ax": b"N"}, WRONG_TYPE),
        ({"ax": "N" * 17}, OUT_OF_RANGE),
        ({"c": "R"}, WRONG_TYPE),
        ({"c": ["R", None]}, WRONG_TYPE),
        ({"c": ["R", 1]}, WRONG_TYPE),
        ({"c": ["R"] * 17}, OUT_OF_RANGE),
        ({"c": {"R": 1}}, WRONG_TYPE),
        ({"z": 1}, WRONG_TYPE),
        ({"z": False}, WRONG_TYPE),
    ],
    ids=repr,
)
@pytest.mark.fault("S22", "S23")
def test_an_odd_side_field_is_null_and_counted_and_costs_nothing_else(
    odd: dict[str, Any], oddity: str
) -> None:
    """Prices and time are not lost for it, nor another side field, nor a neighbour."""
    frame = CODEC.decode(packed(quote("A"), quote("X", **odd), quote("B")))
    assert [q.S for q in frame.quotes] == ["A", "X", "B"]
    ((name, _),) = odd.items()
    assert frame.odd_fields == {(name, oddity): 1}
    assert not frame.refused
    assert not frame.unreadable
    found = msgspec.to_builtins(frame.quotes[1], builtin_types=(msgspec.Raw,))
    assert {**found, "t": None} == {**quote("X"), name: None, "t": None}
    assert frame.sample


@pytest.mark.parametrize("size", [0, 0.5, 300.0, 2**53, float(2**53)])
def test_a_size_is_whole_or_not(size: float) -> None:
    """In shares, read as it came."""
    sizes: dict[str, Any] = {"bs": size, "as": size}
    frame = CODEC.decode(packed(quote(**sizes)))
    assert [(q.bs, q.as_) for q in frame.quotes] == [(size, size)]
    assert not frame.odd_fields


@pytest.mark.parametrize(
    ("bad", "reason", "words"),
    [
        (quote("X", bp=math.nan), BAD_PRICE, "bp is not a finite number"),
        (quote("X", ap=math.inf), BAD_PRICE, "ap is not a finite number"),
        (quote("X", ap=-math.inf), BAD_PRICE, "ap is not a finite number"),
        (quote("X", bp=-1.0), BAD_PRICE, "bp is below zero"),
        (quote("X", bp=-1), BAD_PRICE, "bp is below zero"),
        (quote("X", bp="187.12"), BAD_PRICE, "bp is not a number"),
        (quote("X", bp=True), BAD_PRICE, "bp is not a number"),
        (quote("X", ap=[1.0]), BAD_PRICE, "ap is not a number"),
        (quote("X", bp=b"1"), BAD_PRICE, "bp is not a number"),
        ({"T": "q", "S": "X"}, BAD_TIME, "there is no time"),
        (quote("X", bp=math.nan, bs=-1, bx=7), BAD_PRICE, "bp is not a finite number"),
        (quote(S=None), BAD_SYMBOL, "S is not text"),
        (quote(S=7), BAD_SYMBOL, "S is not text"),
        (quote(S=b"AAPL"), BAD_SYMBOL, "S is not text"),
        (quote(S="A" * 65), BAD_SYMBOL, "S has more than 64 characters"),
        ({"T": "q", "t": msgpack.Timestamp(1, 0)}, BAD_SYMBOL, "S is not text"),
    ],
    ids=repr,
)
@pytest.mark.fault("S22", "S23")
def test_a_quote_without_a_symbol_or_with_a_bad_price_is_refused_in_its_place(
    bad: dict[str, Any], reason: str, words: str
) -> None:
    """With its symbol where it has one, a reason to count, and words to read; its neighbours are read."""
    frame = CODEC.decode(packed(quote("A"), bad, quote("B")))
    assert [q.S for q in frame.quotes] == ["A", "B"]
    symbol = None if reason == BAD_SYMBOL else "X"
    assert frame.refused == [Refused(symbol, reason, words, 1)]
    assert not frame.unreadable


@pytest.mark.fault("S23")
def test_json_is_read_field_by_field_as_well() -> None:
    """A size out of range, conditions that are no list, and a price below zero."""
    good = b'"T":"q","S":"A","t":"2025-01-01T00:00:00Z","bp":1.5'
    frame = JSON.decode(b'[{%b,"bs":-1,"c":"R"},{%b,"ap":-1}]' % (good, good))
    assert [(q.bp, q.bs, q.c) for q in frame.quotes] == [(1.5, None, None)]
    assert frame.odd_fields == {("bs", OUT_OF_RANGE): 1, ("c", WRONG_TYPE): 1}
    assert [one.words for one in frame.refused] == ["ap is below zero"]


@pytest.mark.parametrize("where", [b"SYMB", b"EXCH", b"COND"])
@pytest.mark.fault("S22")
def test_text_that_is_not_utf8_is_no_text(where: bytes) -> None:
    """A side field is null for it; a quote without a name is refused; a message without a type is unreadable."""
    fields = {"S": "SYMB", "bx": "EXCH", "c": ["COND"], "t": msgpack.Timestamp(1, 0), "T": "q"}
    frame = CODEC.decode(packed(quote("A"), fields, quote("B")).replace(where, b"\xff\xfe\xff\xfe"))
    assert [q.S for q in frame.quotes] == (["A", "B"] if where == b"SYMB" else ["A", "SYMB", "B"])
    assert len(frame.refused) + frame.odd_fields.total() == 1
    assert not frame.unreadable


@pytest.mark.parametrize("where", [b"TYPE"])
@pytest.mark.fault("S22")
def test_a_type_that_is_not_utf8_is_one_bad_element(where: bytes) -> None:
    """Nobody can say what it is."""
    fields = {"S": "SYMB", "t": msgpack.Timestamp(1, 0), "T": "TYPE"}
    bad = packed(quote("A"), fields, quote("B")).replace(where, b"\xff\xfe\xff\xfe")
    frame = CODEC.decode(bad)
    assert [q.S for q in frame.quotes] == ["A", "B"]
    assert len(frame.unreadable) == 1


def test_text_that_is_not_utf8_spoils_no_json_frame_loudly() -> None:
    """It is reported there, too."""
    assert JSON.decode(b'[{"T":"q","S":"\xff","t":"2025-01-01T00:00:00Z"}]').refused


@pytest.mark.fault("S25")
def test_what_the_vendor_leaves_out_is_none_and_what_it_adds_is_ignored() -> None:
    """Only symbol and time are needed."""
    frame = packed({"T": "q", "S": "A", "t": msgpack.Timestamp(0, 5), "new": {"deep": [1, 2]}, "bp": None})
    assert read(frame) == [("A", 5, None, None, None, None, None, None, None, None)]


@pytest.mark.fault("S25")
def test_messages_of_other_types_are_counted_by_their_letter() -> None:
    """Trades and bars that nobody asked for are passed over."""
    frame = CODEC.decode(packed({"T": "t", "S": "A"}, quote(), {"T": "b"}, {"T": "t"}))
    assert frame.unknown == {"t": 2, "b": 1}
    assert len(frame.quotes) == 1
    assert not frame.unreadable


def test_invented_types_cannot_grow_the_count_without_end() -> None:
    """Beyond a bound they share one name, within a frame and over many."""
    codec = FrameCodec()
    names: set[str] = set()
    total = 0
    for i in range(20):
        unknown = codec.decode(packed(*({"T": f"type-{i}-{j}" * 9} for j in range(20)))).unknown
        names |= set(unknown)
        total += sum(unknown.values())
    assert len(names) == MAX_MESSAGE_TYPES_COUNTED + 1
    assert "other" in names
    assert max(map(len, names)) <= 16
    assert total == 400


def test_controls_are_read_in_both_encodings() -> None:
    """Greeting, refusal and acknowledgement, whatever stands beside the expected fields."""
    elements = [
        {"T": "success", "msg": "connected", "x": 1},
        {"T": "error", "code": 405},
        {"T": "subscription", "quotes": ["A"], "corrections": None},
    ]
    expected = [Success("connected"), Error(405), Subscription(quotes=["A"])]
    assert CODEC.decode(packed(*elements)).controls == expected
    assert JSON.decode(msgspec.json.encode(elements)).controls == expected


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'[{"T":"success","msg":"connected"}]',
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 100_000,
        b"\xdc\xff\xff" * 50_000,
        b"\x91" + b"\x81\xa1T" * 50_000,
        b"\x91\x84\xa1T\xa1q\xa1S\xa1A\xa1t" + b"\x91" * 50_000,
        b"\xc1",
        packed(quote()) + b"\x00",
        bytes(range(256)),
    ],
    ids=lambda payload: payload[:8].hex() or "nothing",
)
@pytest.mark.fault("S17", "S18", "S21")
def test_a_frame_that_is_none_is_reported_and_nothing_more(payload: bytes) -> None:
    """Empty, JSON where msgpack was agreed, sizes beyond all memory, nested without end, rubbish behind it."""
    frame = CODEC.decode(payload)
    assert (frame.quotes, frame.controls, frame.unknown) == ([], [], {})
    assert len(frame.unreadable) == 1
    assert len(frame.unreadable[0]) < 200


@pytest.mark.fault("S18")
def test_msgpack_in_a_json_session_is_reported() -> None:
    """And so is JSON without end."""
    assert JSON.decode(packed(quote())).unreadable
    assert JSON.decode(b"[" * 100_000).unreadable


@pytest.mark.parametrize("payload", [packed(), packed([], [[]])], ids=["empty", "nested"])
@pytest.mark.fault("S19")
def test_empty_lists_are_harmless(payload: bytes) -> None:
    """They hold no quote."""
    assert not CODEC.decode(payload).quotes


@pytest.mark.fault("S17")
def test_a_frame_cut_short_anywhere_is_reported() -> None:
    """At every offset."""
    whole = packed(quote("A"), {"T": "success", "msg": "connected"}, quote("B"))
    for end in range(len(whole)):
        assert CODEC.decode(whole[:end]).unreadable, end


@given(st.binary(max_size=200))
@settings(max_examples=150)
def test_no_bytes_can_make_it_raise(payload: bytes) -> None:
    """In either encoding."""
    assert isinstance(CODEC.decode(payload), Frame)
    assert isinstance(JSON.decode(payload), Frame)


@given(st.data())
@settings(max_examples=150)
def test_no_damage_to_a_good_frame_can_make_it_raise(data: st.DataObject) -> None:
    """Some bytes overwritten, so that most of the structure stays."""
    frame = bytearray(packed(quote("A"), quote("B"), {"T": "subscription", "quotes": ["A"]}))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    found = CODEC.decode(bytes(frame))
    for q in found.quotes:
        try:
            time_ns_of(bytes(q.t))
        except ValueError:
            continue


@given(st.integers(0, 2**34 * 10**9 - 1))
@example(0)
@example(T0_NS)
@example(2**32 * 10**9)
def test_a_time_comes_back_to_the_nanosecond(time_ns: int) -> None:
    """From the 64-bit form."""
    assert time_ns_of(time_as_msgpack(time_ns)) == time_ns


@given(st.integers(-(2**63), 2**63 - 1))
@example(-1)
def test_a_time_that_another_library_wrote_is_read(time_ns: int) -> None:
    """The reference implementation picks the shortest of the three forms, and reads ours."""
    seconds, ns = divmod(time_ns, 10**9)
    written = msgpack.packb(msgpack.Timestamp(seconds, ns))
    assert time_ns_of(written) == time_ns
    assert msgpack.unpackb(time_as_msgpack(time_ns), timestamp=0).to_unix_nano() == time_ns


@pytest.mark.parametrize(
    ("raw", "time_ns"),
    [
        (b"\xd6\xff" + struct.pack(">I", 2**32 - 1), (2**32 - 1) * 10**9),
        (b"\xd7\xff" + struct.pack(">Q", 999_999_999 << 34 | 2**34 - 1), (2**34 - 1) * 10**9 + 999_999_999),
        (b"\xc7\x0c\xff" + struct.pack(">Iq", 1, -1), -999_999_999),
    ],
)
def test_each_form_of_a_time_is_read_at_its_edge(raw: bytes, time_ns: int) -> None:
    """Largest seconds, largest fraction, before the epoch."""
    assert time_ns_of(raw) == time_ns


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)).map(lambda d: d.replace(microsecond=0)),
    st.integers(0, 9).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n)),
    st.integers(-23 * 60, 23 * 60) | st.none(),
)
def test_a_time_in_text_is_read_to_the_nanosecond(
    moment: datetime, fraction: str, offset_min: int | None
) -> None:
    """None to nine fractional digits, in UTC or with an offset."""
    zone = UTC if offset_min is None else timezone(timedelta(minutes=offset_min))
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + ("." + fraction if fraction else "")
    if offset_min is None:
        text += "Z"
    else:
        text += f"{'-' if offset_min < 0 else '+'}{abs(offset_min) // 60:02d}:{abs(offset_min) % 60:02d}"
    seconds = int(moment.replace(tzinfo=zone).timestamp())
    assert time_ns_of(f'"{text}"'.encode()) == seconds * 10**9 + int(fraction.ljust(9, "0") or 0)


@pytest.mark.parametrize("codec", [msgspec.msgpack, msgspec.json], ids=["msgpack", "json"])
@pytest.mark.fault("S31")
def test_a_whole_number_is_a_time_by_its_size(codec: Any) -> None:
    """The years 2000 to 2200 are apart in every unit; whatever lies outside of them is no time."""
    for unit, per_second in {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}.items():
        for second in (946_684_800, 1_763_000_004, 7_258_118_399):
            number = second * per_second + (per_second - 1)
            assert read_time(codec.encode(number)) == (number * (10**9 // per_second), unit)
        for second in (946_684_799, 7_258_118_400):
            with pytest.raises(ValueError, match="years 2000 to 2200"):
                read_time(codec.encode(second * per_second))


@pytest.mark.parametrize("digits", range(10))
@pytest.mark.fault("S31")
def test_a_text_in_msgpack_is_a_time_as_well(digits: int) -> None:
    """With any number of decimals, in UTC or with an offset."""
    fraction = ("." + "123456789"[:digits]) if digits else ""
    ns = int("123456789"[:digits].ljust(9, "0"))
    for zone, ahead_s in (("Z", 0), ("+00:00", 0), ("-05:00", -18_000), ("+05:30", 19_800)):
        raw = msgspec.msgpack.encode(f"2025-11-13T02:13:24{fraction}{zone}")
        assert read_time(raw) == ((1_763_000_004 - ahead_s) * 10**9 + ns, "text")


@given(st.integers(0, 2**62))
def test_a_time_written_as_text_comes_back(time_ns: int) -> None:
    """All nine digits of it."""
    assert time_ns_of(time_as_json(time_ns)) == time_ns


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc0",
        b"null",
        b"17",
        b"1.5",
        b"-1",
        b"946684799",
        b"7258118400000000000",
        b"9" * 65,
        b"\xcb" + struct.pack(">d", 1.763e18),
        b'""',
        b'"',
        b'"2025-13-01T00:00:00Z"',
        b'"2025-01-01T00:00:00"',
        b'"2025-01-01T00:00:00+99:00"',
        b'"2025-01-01 00:00:00"',
        b'"\xff"',
        b"\xd7\xff\x00",
        b"\xd7\x01" + bytes(8),
        b"\xcf" + bytes(8),
        b"\xc7\x0c\xff",
        b'"12345678"',
    ],
)
def test_what_is_no_time_is_a_value_error(raw: bytes) -> None:
    """And nothing else."""
    with pytest.raises(ValueError, match=r"time|month|day|years"):
        time_ns_of(raw)


@pytest.mark.parametrize(
    ("action", "spelt"),
    [
        (Authenticate("k", "s"), {"action": "auth", "key": "k", "secret": "s"}),
        (Subscribe(quotes=["A", "B"]), {"action": "subscribe", "quotes": ["A", "B"]}),
        (Unsubscribe(quotes=["A"]), {"action": "unsubscribe", "quotes": ["A"]}),
    ],
)
def test_what_we_say_is_spelt_as_the_vendor_reads_it(action: Any, spelt: dict[str, Any]) -> None:
    """Nothing that was left empty is sent."""
    assert msgpack.unpackb(CODEC.encode(action)) == spelt
    assert msgspec.json.decode(JSON.encode(action)) == spelt


@given(st.lists(quotes, min_size=1, max_size=3))
@settings(max_examples=40)
def test_a_quote_that_is_written_again_is_the_same(elements: list[dict[str, Any]]) -> None:
    """The types serve both ends."""
    found = CODEC.decode(packed(*elements)).quotes
    assert read(msgspec.msgpack.encode(found)) == [row(q) for q in found]


@given(st.lists(quotes, max_size=5), st.lists(st.sampled_from(CONTROLS), max_size=2))
def test_the_short_way_takes_frames_of_nothing_but_quotes_and_reads_them_alike(
    found: list[dict[str, Any]], controls: list[dict[str, Any]]
) -> None:
    """Any other frame is left to the long way, whole."""
    frame = packed(*found, *controls)
    short = CODEC.quotes_in(frame)
    if controls:
        assert short is None
    elif short is not None:
        assert [row(q) for q in short] == read(frame)


@given(st.binary(max_size=200))
def test_the_short_way_never_raises(frame: bytes) -> None:
    """Whatever the bytes."""
    CODEC.quotes_in(frame)

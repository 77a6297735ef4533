"""The decoder under fire: bytes and structures that nobody would send, in either encoding.

Whatever comes, it answers with a frame, in time and memory that go with the size of what came, and every good
quote that stands as an element of its own is found.
"""

import math
import struct
import time
import tracemalloc
from typing import Any, Final

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.feed.codec import MAX_ELEMENTS, SAMPLE_BYTES, Frame, FrameCodec
from ingestor.feed.messages import time_ns_of
from tests.ingestor.vendor import T0_NS, packed, quote
from wire.values import MAX_SIZE

MSGPACK: Final = FrameCodec("msgpack")
JSON: Final = FrameCodec("json")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["q", "T", "S", "t", "AAPL", "success", "error", "subscription", "connected"])
)
binaries = st.binary(max_size=20) | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
names = st.sampled_from(
    ["T", "S", "t", "bp", "bs", "bx", "ap", "as", "ax", "c", "z", "msg", "code", "quotes"]
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """These, and lists and maps of them."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=5), inner, max_size=5)
        ),
        max_leaves=12,
    )


def good(n: int) -> dict[str, Any]:
    """A quote in JSON's words, with a number to find it by."""
    return {
        "T": "q",
        "S": "AAPL",
        "bp": 1.5,
        "bs": n,
        "ap": 1.6,
        "as": 1,
        "t": "2025-11-13T00:00:00.123456789Z",
    }


def looked_at(codec: FrameCodec, payload: bytes) -> Frame:
    """Decoded both ways; what can be asked of every frame is asked."""
    short = codec.quotes_in(payload)
    frame = codec.decode(payload)
    assert isinstance(frame, Frame)
    assert short is None or [q.S for q in short] == [q.S for q in frame.quotes]
    assert len(frame.sample) <= SAMPLE_BYTES
    assert bool(frame.sample) <= bool(frame.unreadable or frame.refused or frame.odd_fields)
    for found in frame.quotes:
        assert isinstance(found.S, str)
        assert found.bp is None or (type(found.bp) is float and math.isfinite(found.bp) and found.bp >= 0)
        assert found.bs is None or (type(found.bs) in (int, float) and 0 <= found.bs <= MAX_SIZE)
        try:
            time_ns_of(bytes(found.t))
        except ValueError:
            continue
    return frame


@pytest.mark.fault("S17", "S21")
@given(st.binary(max_size=2000))
@settings(max_examples=300, deadline=None)
@example(b"\xc1")
@example(b"\x91\x81")
def test_no_bytes_make_it_raise(payload: bytes) -> None:
    """In neither encoding, in neither gear."""
    looked_at(MSGPACK, payload)
    looked_at(JSON, payload)


@pytest.mark.fault("S22")
@given(st.lists(nested(scalars | binaries), max_size=6), st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_no_structure_takes_a_good_quote_along_in_msgpack(elements: list[Any], place: int) -> None:
    """Anything that msgpack can say around it: the quote in the middle is found."""
    elements.insert(place, quote("AAPL", T0_NS, bs=4711))
    frame = looked_at(MSGPACK, packed(*elements))
    assert [q.bs for q in frame.quotes if q.bs == 4711] == [4711]


@pytest.mark.fault("S22")
@given(
    st.lists(nested(scalars.filter(lambda v: not isinstance(v, float) or math.isfinite(v))), max_size=6),
    st.integers(0, 6),
)
@settings(max_examples=200, deadline=None)
def test_no_structure_takes_a_good_quote_along_in_json(elements: list[Any], place: int) -> None:
    """And anything that JSON can say."""
    elements.insert(place, good(4711))
    frame = looked_at(JSON, msgspec.json.encode(elements))
    assert [q.bs for q in frame.quotes if q.bs == 4711] == [4711]


@pytest.mark.fault("S22", "S23")
@given(
    st.dictionaries(
        names,
        nested(scalars | binaries),
        max_size=10,
    )
)
@settings(max_examples=300, deadline=None)
def test_a_quote_of_arbitrary_values_is_read_or_counted(fields: dict[str, Any]) -> None:
    """Once, and never both; its neighbours stay."""
    element = {**quote("AAPL", T0_NS, bs=1), **fields}
    frame = looked_at(MSGPACK, packed(quote(bs=4711), element, quote(bs=4712)))
    between = len(frame.quotes) - 2 + len(frame.refused) + len(frame.controls)
    assert between + frame.unknown.total() + len(frame.unreadable) == 1
    assert all(one.before == 1 for one in frame.refused)
    assert (frame.quotes[0].bs, frame.quotes[-1].bs) == (4711, 4712)


@pytest.mark.fault("S17")
@given(st.integers(1, 5), st.data())
@settings(max_examples=200, deadline=None)
def test_a_map_that_ends_too_early_or_promises_too_much_is_reported(count: int, data: st.DataObject) -> None:
    """Cut anywhere, or with more keys, elements or bytes announced than there are."""
    whole = packed(*(quote(bs=n) for n in range(count)))
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert looked_at(MSGPACK, whole[:cut]).unreadable
    head = data.draw(
        st.sampled_from([0x8F, 0x9F, 0xBF, 0xC4, 0xC6, 0xC9, 0xD9, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF])
    )
    place = data.draw(st.integers(0, len(whole) - 1))
    looked_at(MSGPACK, whole[:place] + bytes([head]) + whole[place + 1 :])


BOMBS: Final = {
    "lists": b"\x91" * 1_000_000,
    "maps": b"\x91" + b"\x81\xa1T" * 300_000,
    "maps as keys": b"\x91" + b"\x81" * 500_000,
    "a list of all memory": b"\xdd\xff\xff\xff\xff",
    "a map of all memory": b"\x91\xdf\xff\xff\xff\xff" + b"\xa1T\xa1q" * 1000,
    "text of all memory": b"\x91\xdb\xff\xff\xff\xffAAPL",
    "bytes of all memory": b"\x91\xc6\xff\xff\xff\xff\x00",
    "an extension of all memory": b"\x91\xc9\xff\xff\xff\xff\xff" + bytes(12),
    "an extension as time": b"\x91\x83\xa1T\xa1q\xa1S\xa1A\xa1t\xc9\x00\x0f\x42\x40\xff" + bytes(1_000_000),
    "nesting as time": b"\x91\x83\xa1T\xa1q\xa1S\xa1A\xa1t" + b"\x91" * 1_000_000 + b"\xc0",
    "nothing, a million times": b"\xdd" + struct.pack(">I", 1_000_000) + b"\xc0" * 1_000_000,
    "bars, a million times": b"\xdd" + struct.pack(">I", 1_000_000) + b"\x81\xa1T\xa1b" * 1_000_000,
    "conditions without end": b"\x91\x84\xa1T\xa1q\xa1S\xa1A\xa1t\xd6\xff\0\0\0\1\xa1c\xdd\x00\x0f\x42\x40"
    + b"\xa1R" * 1_000_000,
    "one key a million times": b"\x91\xdf\x00\x0f\x42\x40" + b"\xa1T\xa1q" * 1_000_000,
}


@pytest.mark.fault("S21")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_time_and_no_more_memory_than_its_size(name: str) -> None:
    """Refused or passed over within a tenth of a second, at a few times its own bytes."""
    payload = BOMBS[name]
    began_s = time.process_time()  # of this process, whatever others do
    frame = looked_at(MSGPACK, payload)
    took_s = time.process_time() - began_s
    tracemalloc.start()
    try:
        MSGPACK.decode(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took_s < 0.5  # in both gears
    assert peak < 3 * len(payload) + 2**20
    assert len(frame.quotes) + len(frame.refused) + len(frame.unreadable) == 1
    assert all(len(reason) < 200 for reason in frame.unreadable)


@pytest.mark.fault("S21")
def test_json_without_end_is_reported() -> None:
    """Lists, maps, digits and a text."""
    for payload in (
        b"[" * 1_000_000,
        b'[{"T":' * 100_000,
        b"[" + b"9" * 100_000 + b"]",
        b'["' + b"x" * 1_000_000,
    ):
        assert looked_at(JSON, payload).unreadable


@pytest.mark.fault("S20", "S21")
def test_the_bound_on_elements_is_on_both_gears() -> None:
    """As many quotes as the bound are read, one more are refused whole, with a reason that names the bound."""
    element = msgspec.msgpack.encode({"T": "q", "S": "A", "t": 1})
    for gear in (element, b"\xc0"):
        for extra in (0, 1):
            head = b"\xdd" + struct.pack(">I", MAX_ELEMENTS + extra)
            frame = MSGPACK.decode(head + gear + element * (MAX_ELEMENTS + extra - 1))
            if extra:
                assert not frame.quotes
                assert [str(MAX_ELEMENTS) in reason for reason in frame.unreadable] == [True]
            else:
                assert len(frame.quotes) + len(frame.unreadable) == MAX_ELEMENTS

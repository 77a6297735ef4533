"""Spelling quotes: both encodings, exact to the nanosecond."""

import msgpack
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ingestor.feed.messages import Encoding, QuoteMessage, time_ns_of
from simulator import SimQuote
from simulator.frames import Batch, encode_items, join_items


@given(
    times=st.lists(st.integers(0, 4_000_000_000 * 10**9), max_size=40),
    encoding=st.sampled_from(["msgpack", "json"]),
)
def test_frames_are_read_back(times: list[int], encoding: Encoding) -> None:
    """A joined frame is one array of the vendor's quote messages, with every nanosecond."""
    made = [SimQuote("AAPL", t, 1.25, 100, 1.5, 200, conditions=("R", "W")) for t in times]
    frame = join_items(encode_items(made, encoding), encoding)
    read: list[QuoteMessage] = (
        msgspec.msgpack.decode(frame, type=list[QuoteMessage])
        if isinstance(frame, bytes)
        else msgspec.json.decode(frame, type=list[QuoteMessage])
    )
    assert [time_ns_of(bytes(message.t)) for message in read] == times
    assert all((m.bp, m.bs, m.ap, m.as_, m.c) == (1.25, 100, 1.5, 200, ["R", "W"]) for m in read)


def test_long_arrays() -> None:
    """The array's head is right at each of its three widths."""
    for count in (0, 15, 16, 65_535, 65_536):
        frame = join_items([b"\x01"] * count, "msgpack")
        assert isinstance(frame, bytes)
        assert len(msgpack.unpackb(frame)) == count


def test_selection() -> None:
    """Each session gets the quotes of its symbols, in order, spelt once."""
    batch = Batch([SimQuote(s, t, 1.0, 1, 2.0, 1) for t, s in enumerate("ABABC")])
    everything = batch.items("msgpack", None)
    assert batch.items("msgpack", frozenset("ABC")) is everything
    assert batch.items("msgpack", frozenset("B")) == [everything[1], everything[3]]
    assert batch.items("msgpack", frozenset("Z")) == []

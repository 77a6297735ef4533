"""What a forgetful server is missing: markers where something is, none where nothing can be."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.publisher.recovery import ends_found, markers_of_losses
from ingestor.publisher.stamper import Stamper
from tests.ingestor.entries import batch_with, entries_of, gap, quote
from tests.ingestor.vendor import T0_NS, message
from wire import ZERO_ID, EntryId, entry_id_at


def stamper_at(**ordinals: int) -> Stamper:
    """One that has stamped quotes 1 to n of each symbol, a microsecond apart."""
    stamper = Stamper()
    stamper.epoch = 9
    for symbol, most in ordinals.items():
        stamper.load(symbol, ZERO_ID, None)
        for n in range(1, most + 1):
            stamper.stamp([(T0_NS, [message(symbol, T0_NS + 1000 * n)])], T0_NS)
    return stamper


def id_of(ordinal: int) -> EntryId:
    """Where the n-th quote stands."""
    return entry_id_at(T0_NS + 1000 * ordinal)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12))
def test_a_marker_stands_behind_what_is_left_and_before_what_is_sent_again(
    left: int, kept: int, made: int
) -> None:
    """Of quotes 1 to `made` the server still has the first `left`, and the last `kept` are sent again: exactly
    where some are in neither, and only there, one marker tells of them, in a place that nobody else takes."""
    left, kept = min(left, made), min(kept, made)
    first_again = made - kept + 1
    again = [batch_with(quote("A", n)) for n in range(first_again, made + 1)]
    ends = {"A": id_of(left) if left else None}
    batch = markers_of_losses(stamper_at(A=made), ends, again)
    found = entries_of([batch])
    assert (batch.quotes, batch.markers) == (0, len(found))
    if left + 1 >= first_again:
        # Nothing is missing, and a marker may only say so where its place is free and before what follows.
        assert all(id_of(left) < entry[1] < id_of(first_again) for entry in found)
        return
    ((marker),) = found
    assert (id_of(left) if left else ZERO_ID) < marker[1] < id_of(first_again)
    said = gap(marker)
    assert said.from_ns <= T0_NS + 1000 * (left + 1)
    assert said.to_ns >= T0_NS + 1000 * (first_again - 1)
    assert (said.reason, said.epoch, said.missing) == ("redis_lost", 9, None)


def test_nothing_is_said_of_streams_that_lost_nothing() -> None:
    """The server has all that was ever stamped; or the stream never had a quote."""
    stamper = stamper_at(A=5, B=0)
    ends: dict[str, EntryId | None] = {"A": id_of(5), "B": None}
    assert markers_of_losses(stamper, ends, []).entries == 0
    ends["A"] = id_of(9)
    assert markers_of_losses(stamper, ends, []).entries == 0


def test_nothing_is_said_where_all_is_sent_again() -> None:
    """A stream that begins anew with its own first entry has lost nothing."""
    again = [batch_with(*(quote("A", n) for n in range(1, 6)))]
    assert markers_of_losses(stamper_at(A=5), {"A": None}, again).entries == 0


def test_the_first_of_several_batches_counts() -> None:
    """A symbol's later entries are no reason to place its marker later."""
    again = [batch_with(quote("B", 3)), batch_with(quote("A", 3)), batch_with(quote("A", 4))]
    found = entries_of([markers_of_losses(stamper_at(A=4, B=3), {"A": None, "B": id_of(1)}, again)])
    assert [entry[0] for entry in found] == ["A", "B"]
    assert all(entry[1] < id_of(3) for entry in found)
    assert [(gap(e).from_ns - T0_NS, gap(e).to_ns - T0_NS) for e in found] == [(1000, 3000)] * 2


def test_a_stream_of_an_earlier_life_that_is_gone_is_told_from_its_last_known_quote() -> None:
    """How far back it reached, nobody knows any more."""
    stamper = Stamper()
    stamper.load("A", id_of(4), T0_NS + 4000)
    stamper.stamp([(T0_NS, [message("A", T0_NS + 9000)])], T0_NS)
    (marker,) = entries_of([markers_of_losses(stamper, {"A": None}, [batch_with(quote("A", 9))])])
    assert marker[1] == id_of(4)
    assert (gap(marker).from_ns - T0_NS, gap(marker).to_ns - T0_NS) == (4000, 9000)


def test_a_symbol_that_was_forgotten_meanwhile_needs_no_marker() -> None:
    """Its stream has expired while the server was asked."""
    assert markers_of_losses(stamper_at(A=1), {"A": id_of(1), "GONE": id_of(1)}, []).entries == 0


def test_a_stream_at_its_very_end_gets_no_marker() -> None:
    """There is no id behind the last."""
    last = EntryId(2**64 - 1, 2**64 - 2)
    stamper = Stamper()
    stamper.load("A", EntryId(2**64 - 1, 2**64 - 1), T0_NS)
    assert markers_of_losses(stamper, {"A": last}, []).markers == 1
    assert markers_of_losses(stamper, {"A": last.successor()}, []).markers == 0


def test_a_marker_never_takes_the_id_that_is_none() -> None:
    """A stream that began at the instant zero has its first entry at 0-1."""
    for time_ns in (0,):
        stamper = Stamper()
        stamper.load("A", ZERO_ID, None)
        first = stamper.stamp([(T0_NS, [message("A", time_ns)])], T0_NS)
        assert first is not None
        stamper.stamp([(T0_NS, [message("A", T0_NS + 5000)])], T0_NS)
        assert markers_of_losses(stamper, {"A": None}, [first]).entries == 0
        (marker,) = entries_of([markers_of_losses(stamper, {"A": None}, [batch_with(quote("A", 5))])])
        assert marker[1] == EntryId(0, 1)


def test_a_server_names_its_ends_in_the_order_in_which_it_was_asked() -> None:
    """Nothing for a stream that is not there."""
    assert ends_found(["A", "B"], [b"5-1", b""]) == {"A": EntryId(5, 1), "B": None}

"""Entry ids: as the rules of streams want them, whatever the times."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis

from simulator.redis_server import RedisServer
from wire import ZERO_ID, EntryId, Placement, entry_id_at, place
from wire.ids import MAX_AHEAD_NS, NS_PER_MS

U64 = st.integers(0, 2**64 - 1)
IDS = st.builds(EntryId, U64, U64)
NOW_NS = 1_763_000_000_000_000_000
# Around now, long ago, before the epoch, far ahead, and a few instants again and again.
TIMES = st.one_of(
    st.integers(NOW_NS - 10**9, NOW_NS + 10**9),
    st.integers(-(10**18), 10**18),
    st.integers(NOW_NS, 2**80),
    st.sampled_from([NOW_NS, NOW_NS + 1, NOW_NS + MAX_AHEAD_NS, NOW_NS + MAX_AHEAD_NS + 1, 0, -1]),
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A real server, which is the judge of what an id is."""
    with RedisServer() as running:
        yield running


@given(st.lists(TIMES, min_size=1, max_size=200))
def test_ids_grow_strictly_whatever_the_times(times: list[int]) -> None:
    """Out of order, tied, before the epoch or far ahead: each id is greater than the last."""
    last = ZERO_ID
    for time_ns in times:
        entry_id, _ = place(time_ns, last, NOW_NS)
        assert entry_id > last
        assert max(entry_id) < 2**64
        last = entry_id


@given(TIMES, IDS.filter(lambda i: i < EntryId(2**64 - 1, 2**64 - 1)))
def test_an_id_is_greater_than_any_last_one(time_ns: int, last: EntryId) -> None:
    """Even in a stream that somebody else has filled."""
    assert place(time_ns, last, NOW_NS)[0] > last


@given(TIMES)
def test_a_stream_that_is_exhausted_says_so(time_ns: int) -> None:
    """There is no id after the largest."""
    with pytest.raises(OverflowError):
        place(time_ns, EntryId(2**64 - 1, 2**64 - 1), NOW_NS)


@given(st.integers(0, NOW_NS), st.integers(1_001, 3_000))
@example(999_999, 1_001)
@settings(max_examples=20)
def test_more_ties_than_fit_in_a_nanosecond_still_grow(time_ns: int, ties: int) -> None:
    """They run over into the next nanosecond's ids, and the quote of that one follows them.

    Unless that one lies in the next millisecond, whose ids are free whatever the ties.
    """
    last = ZERO_ID
    for _ in range(ties):
        last, _ = place(time_ns, last, NOW_NS)
    after, how = place(time_ns + 1, last, NOW_NS)
    assert after > last
    next_ms = (time_ns + 1) % 1_000_000 == 0
    assert how is (Placement.IN_TIME if next_ms else Placement.AFTER_LAST)


@given(st.integers(1, NOW_NS))
def test_an_id_keeps_its_time_to_the_nanosecond(time_ns: int) -> None:
    """Of an entry in time, and of the first id of an instant."""
    entry_id, how = place(time_ns, ZERO_ID, NOW_NS)
    assert (entry_id.time_ns, how) == (time_ns, Placement.IN_TIME)
    assert entry_id_at(time_ns) == entry_id


@given(st.integers(NOW_NS + MAX_AHEAD_NS + 1, 2**80))
def test_a_time_far_ahead_does_not_lead_the_stream_there(time_ns: int) -> None:
    """The id stays within the bound, and the placement says why."""
    entry_id, how = place(time_ns, ZERO_ID, NOW_NS)
    assert (entry_id.time_ns, how) == (NOW_NS + MAX_AHEAD_NS, Placement.CLAMPED)


@given(st.integers(0, NOW_NS), st.integers(0, NOW_NS))
def test_ids_of_instants_are_ordered_as_the_instants(one_ns: int, other_ns: int) -> None:
    """So that a range by time is a range by id."""
    assert (entry_id_at(one_ns) < entry_id_at(other_ns)) is (one_ns < other_ns)


@given(IDS)
def test_an_id_is_read_as_it_is_written(entry_id: EntryId) -> None:
    """As text and as bytes; the second half may be left out when it is 0."""
    assert EntryId.parse(str(entry_id)) == EntryId.parse(str(entry_id).encode()) == entry_id
    assert EntryId.parse(str(entry_id.ms)) == EntryId(entry_id.ms, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1-",
        "-1",
        "1-2-3",
        "a-1",
        "1-b",
        "+",
        "$",
        "*",
        "1-*",
        " 1-1",
        "1-1\n",
        "٣-1",
        "²-1",
        f"{2**64}-0",
        f"0-{2**64}",
        b"\xff",
    ],
)
def test_what_is_no_id_is_refused(text: str | bytes) -> None:
    """Nothing that only looks like one passes."""
    with pytest.raises(ValueError, match="is not an entry id"):
        EntryId.parse(text)


@given(IDS.filter(lambda i: i < EntryId(2**64 - 1, 2**64 - 1)))
def test_nothing_stands_between_an_id_and_its_successor(entry_id: EntryId) -> None:
    """The next id carries over into the first half only at its end."""
    after = entry_id.successor()
    assert after > entry_id
    assert (after.ms - entry_id.ms, after.n) in {(0, entry_id.n + 1), (1, 0)}


def test_a_real_server_takes_the_ids_in_their_order(server: RedisServer) -> None:
    """Each XADD is accepted, the second of the same id is refused, and XRANGE gives them back in order."""

    @given(st.lists(TIMES, min_size=1, max_size=60))
    @settings(max_examples=30, deadline=None)
    def check(times: list[int]) -> None:
        client.flushdb()
        last, ids = ZERO_ID, []
        pipe = client.pipeline(transaction=False)
        for time_ns in times:
            last, _ = place(time_ns, last, NOW_NS)
            ids.append(str(last).encode())
            pipe.xadd("s", {"q": "1"}, id=str(last))
        pipe.xadd("s", {"q": "1"}, id=str(last))
        replies = pipe.execute(raise_on_error=False)
        assert replies[:-1] == ids
        assert "equal or smaller" in str(replies[-1])
        found = client.xrange("s")
        assert [entry[0] for entry in found] == ids

    with Redis.from_url(server.url, protocol=2) as client:
        check()


def test_a_real_server_orders_ids_as_they_compare(server: RedisServer) -> None:
    """An id is accepted after another exactly if it is greater."""

    @given(IDS, IDS)
    @settings(max_examples=50, deadline=None)
    def check(one: EntryId, other: EntryId) -> None:
        client.flushdb()
        if one == ZERO_ID:
            return
        pipe = client.pipeline(transaction=False)
        pipe.xadd("s", {"q": "1"}, id=str(one))
        pipe.xadd("s", {"q": "1"}, id=str(other))
        accepted = pipe.execute(raise_on_error=False)[1] == str(other).encode()
        assert accepted is (other > one)

    with Redis.from_url(server.url, protocol=2) as client:
        check()


@given(st.integers(0, NOW_NS), st.integers(0, 999))
def test_the_time_of_an_id_survives_ties(time_ns: int, tie: int) -> None:
    """Up to a thousand entries of one nanosecond stand for that nanosecond."""
    first = entry_id_at(time_ns)
    assert EntryId(first.ms, first.n + tie).time_ns == time_ns


def test_a_second_half_beyond_the_millisecond_stays_within_it() -> None:
    """An id that somebody else wrote tells no time of the next millisecond."""
    assert EntryId(5, 2**64 - 1).time_ns == 6 * NS_PER_MS - 1

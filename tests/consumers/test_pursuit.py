"""The rules of going on: when an answer is trusted, and when the stream is looked at first."""

import time
from typing import Any

from redis.exceptions import ResponseError

from consumers.reading.gaps import Anchor
from consumers.reading.pursuit import COUNT_MAX, ENTRIES_PER_READ, LOOKS_AT_ONCE, PROMPT_S, Pursuit
from consumers.reading.start import Place
from consumers.reading.track import Read, Run
from wire import EntryId, Keyspace

KEY = b"quotes:stream:A"


def pursuit_of(*symbols: str, after: int = 50) -> Pursuit:
    """One that stands at the same id in each stream, and saw it there."""
    pursuit = Pursuit(Keyspace())
    for symbol in symbols:
        pursuit.follow(symbol, Place(EntryId(after, 0), Anchor.SEEN))
    return pursuit


def entries(*ids: int) -> list[Any]:
    """Raw entries with these first halves."""
    return [[f"{ms}-0".encode(), [b"q", b"[]"]] for ms in ids]


def info(first: int, last: int, length: int, added: int) -> list[Any]:
    """A reply of XINFO STREAM."""
    fields = [b"length", length, b"last-generated-id", f"{last}-0".encode(), b"entries-added", added]
    return [*fields, b"first-entry", entries(first)[0]]


def looked(read: Read, *answers: Any, stands: bool = True) -> list[Any]:
    """The replies to a transaction; `stands` says whether there is an entry at each position."""
    at, behind = len(read.looked), list(answers)
    here: list[Any] = [[[b"50-0", [b"q", b"[]"]]] if stands else [] for _ in read.looked]
    here = [
        answer if isinstance(answer, Exception) else part for answer, part in zip(behind, here, strict=False)
    ]
    return [b"OK", *[b"QUEUED"] * (len(read.commands) - 2), [*behind[:at], *here, *behind[at:]]]


def settled(pursuit: Pursuit, now_s: float) -> None:
    """Let the first look find everything as it should be."""
    read = pursuit.next_read(now_s)
    pursuit.digest(read, looked(read, *[info(10, 50, 5, 5) for _ in read.looked], None), now_s)


def names(read: Read) -> list[Any]:
    """The names of the commands."""
    return [command[0] for command in read.commands]


def test_a_new_connection_looks_before_it_reads() -> None:
    """In one transaction, which does not block."""
    read = pursuit_of("A").next_read(0.0)
    assert names(read) == ["MULTI", "XINFO", "XRANGE", "XREAD", "EXEC"]
    assert "BLOCK" not in read.commands[3]


def test_a_reader_that_keeps_up_waits_in_one_plain_command() -> None:
    """No look costs it anything, and no proof."""
    pursuit = pursuit_of("A")
    settled(pursuit, 0.0)
    read = pursuit.next_read(PROMPT_S / 2)
    assert names(read) == ["XREAD"]
    assert read.commands[0][3] == "BLOCK"
    replies = [[[KEY, entries(60)]]]
    assert pursuit.proofs(read, replies) == ()
    assert pursuit.digest(read, replies, 0.02) == [Run(read.tracks[0], None, entries(60))]


def test_after_a_pause_an_answer_is_believed_with_proof() -> None:
    """The entry at the position still stands; without it the stream is looked at first."""
    for proof in (entries(50), []):
        pursuit = pursuit_of("A")
        settled(pursuit, 0.0)
        read = pursuit.next_read(0.01)
        assert names(read) == ["XREAD"]
        replies = [[[KEY, entries(60)]]]
        assert pursuit.proofs(read, replies) == (("XRANGE", KEY, "50-0", "50-0"),)
        runs = pursuit.digest(read, replies, 0.02, [proof])
        assert [run.entries for run in runs] == ([entries(60)] if proof else [])
        # What was proven holds for as long as nothing pauses.
        read = pursuit.next_read(0.02 + PROMPT_S / 2)
        assert names(read) == (["XREAD"] if proof else ["MULTI", "XINFO", "XRANGE", "XREAD", "EXEC"])


def test_a_pause_is_remembered_for_a_stream_that_was_silent_after_it() -> None:
    """The read behind the pause brought something of another one, and so proves nothing here."""
    pursuit = pursuit_of("A", "B")
    settled(pursuit, 0.0)
    read = pursuit.next_read(0.01)
    replies = [[[KEY, entries(60)]]]
    assert len(pursuit.proofs(read, replies)) == 1
    pursuit.digest(read, replies, 0.02, [entries(50)])
    read = pursuit.next_read(0.02 + PROMPT_S / 2)
    replies = [[[b"quotes:stream:B", entries(60)]]]
    assert len(pursuit.proofs(read, replies)) == 1
    assert pursuit.digest(read, replies, 0.03, [[]]) == []


def test_a_pause_of_the_strategy_ends_the_trust() -> None:
    """Meanwhile anything may have been trimmed."""
    pursuit = pursuit_of("A")
    settled(pursuit, 0.0)
    assert names(pursuit.next_read(0.5)) == ["MULTI", "XINFO", "XRANGE", "XREAD", "EXEC"]


def test_a_full_answer_without_a_look_is_asked_for_again() -> None:
    """It might begin behind a hole."""
    pursuit = pursuit_of("A")
    settled(pursuit, 0.0)
    read = pursuit.next_read(0.01)
    full = entries(*range(60, 60 + COUNT_MAX))
    assert pursuit.digest(read, [[[KEY, full]]], 0.02) == []
    read = pursuit.next_read(0.03)
    assert names(read) == ["MULTI", "XINFO", "XRANGE", "XREAD", "EXEC"]
    (run,) = pursuit.digest(read, looked(read, info(60, 9_999, 2_000, 5_000), [[KEY, full]]), 0.04)
    assert run.gap is not None
    assert run.gap.reason == "trimmed"
    assert run.entries == full
    # Still behind, and so looked at again without the detour.
    assert names(pursuit.next_read(0.05)) == ["MULTI", "XINFO", "XRANGE", "XREAD", "EXEC"]


def test_a_missing_stream_is_not_trusted_when_it_comes_back() -> None:
    """Its first entries are looked at, and told as those of another stream."""
    pursuit = pursuit_of("A")
    read = pursuit.next_read(0.0)
    assert pursuit.digest(read, looked(read, ResponseError("no such key"), None), 0.0) == []
    read = pursuit.next_read(0.01)
    assert names(read) == ["XREAD"]
    assert pursuit.digest(read, [[[KEY, entries(60)]]], 0.02) == []
    read = pursuit.next_read(0.03)
    (run,) = pursuit.digest(read, looked(read, info(60, 60, 1, 1), [[KEY, entries(60)]]), 0.04)
    assert run.gap is not None
    assert run.gap.reason == "stream_recreated"


def test_a_stream_that_only_passes_through_older_ids_is_not_taken_for_new() -> None:
    """A daemon may be sending its spool again to an emptied server."""
    pursuit = pursuit_of("A")
    read = pursuit.next_read(0.0)
    assert pursuit.digest(read, looked(read, info(10, 40, 4, 4), None), 0.0) == []
    read = pursuit.next_read(0.5)
    (run,) = pursuit.digest(read, looked(read, info(10, 60, 6, 6), [[KEY, entries(60)]]), 0.5)
    assert run.gap is None


def test_a_stream_that_stays_behind_is_begun_anew() -> None:
    """With a gap, and from its first entry."""
    pursuit = pursuit_of("A")
    for now_s in (0.0, 0.5):
        read = pursuit.next_read(now_s)
        assert pursuit.digest(read, looked(read, info(10, 40, 4, 4), None), now_s) == []
    read = pursuit.next_read(1.0)
    (run,) = pursuit.digest(read, looked(read, info(10, 40, 4, 4), None), 1.0)
    assert run.gap is not None
    assert (run.gap.reason, run.gap.to_ns) == ("stream_recreated", 10_000_000)
    assert pursuit.positions == {"A": "50-0"}
    run.pass_gap()
    assert pursuit.positions == {"A": "0-0"}


def test_a_gap_that_was_not_handed_over_is_found_again() -> None:
    """A loop may be left between finding it and telling it: the position moves with the telling."""
    pursuit = pursuit_of("A")
    for _ in range(3):
        pursuit.lost_touch()
        read = pursuit.next_read(0.0)
        (run,) = pursuit.digest(read, looked(read, info(60, 90, 4, 9), [[KEY, entries(60)]]), 0.0)
        assert run.gap is not None
    run.pass_gap()
    pursuit.lost_touch()
    read = pursuit.next_read(0.0)
    (run,) = pursuit.digest(read, looked(read, info(60, 90, 4, 9), [[KEY, entries(60)]]), 0.0)
    assert run.gap is None


def test_a_stream_trimmed_to_nothing_moves_the_position_with_the_telling() -> None:
    """Nothing else could."""
    pursuit = pursuit_of("A")
    empty = [b"length", 0, b"last-generated-id", b"90-0", b"entries-added", 9, b"first-entry", None]
    read = pursuit.next_read(0.0)
    (run,) = pursuit.digest(read, looked(read, empty, None), 0.0)
    assert pursuit.positions == {"A": "50-0"}
    run.pass_gap()
    assert pursuit.positions == {"A": "90-0"}


def test_streams_beside_one_that_became_something_else_are_not_skipped() -> None:
    """The XREAD of all fails for one: what the look says of the others proves nothing about what they hold."""
    pursuit = pursuit_of("A", "B")
    wrong = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    read = pursuit.next_read(0.0)
    assert pursuit.digest(read, looked(read, info(60, 90, 4, 9), wrong, wrong), 0.0) == []
    assert pursuit.positions == {"A": "50-0", "B": "50-0"}
    assert pursuit.barred == ["B"]
    read = pursuit.next_read(0.1)
    (run,) = pursuit.digest(read, looked(read, info(60, 90, 4, 9), wrong, [[KEY, entries(60)]]), 0.1)
    assert run.gap is not None


def test_a_key_that_is_a_stream_again_is_looked_at_when_it_is_read() -> None:
    """The look that finds it a stream read nothing of it."""
    pursuit = pursuit_of("A")
    wrong = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    read = pursuit.next_read(0.0)
    pursuit.digest(read, looked(read, wrong, wrong), 0.0)
    read = pursuit.next_read(1.5)
    assert names(read) == ["MULTI", "XINFO", "XRANGE", "EXEC"]
    assert pursuit.digest(read, looked(read, info(60, 90, 4, 9)), 1.5) == []
    assert pursuit.positions == {"A": "50-0"}
    read = pursuit.next_read(1.6)
    (run,) = pursuit.digest(read, looked(read, info(60, 90, 4, 9), [[KEY, entries(60)]]), 1.6)
    assert run.gap is not None


def test_quiet_streams_are_looked_at_in_turn() -> None:
    """A bounded number at a time, so that thousands of symbols do not load the server."""
    symbols = [f"S{k}" for k in range(600)]
    pursuit = pursuit_of(*symbols)
    settled(pursuit, 0.0)
    seen: list[str] = []
    now_s = 0.0
    while len(set(seen)) < 600:
        now_s += 0.2
        read = pursuit.next_read(now_s)
        assert len(read.looked) <= LOOKS_AT_ONCE
        seen += [track.symbol for track in read.looked]
        answers = looked(read, *[info(10, 50, 5, 5) for _ in read.looked], None) if read.looked else [None]
        pursuit.digest(read, answers, now_s)
    assert now_s < 5


def test_a_reply_stays_bounded_however_many_symbols_there_are() -> None:
    """Entries per stream shrink with the number of streams."""
    read = pursuit_of(*[f"S{k}" for k in range(1_000)]).next_read(0.0)
    assert read.per_stream * 1_000 <= ENTRIES_PER_READ


def test_a_symbol_that_was_replaced_meanwhile_gets_nothing_of_its_former_self() -> None:
    """Removed and added again while an answer was on its way."""
    pursuit = pursuit_of("A")
    settled(pursuit, 0.0)
    read = pursuit.next_read(0.01)
    pursuit.drop("A")
    pursuit.follow("A", Place(EntryId(90, 0), Anchor.SEEN))
    assert pursuit.digest(read, [[[KEY, entries(60)]]], 0.02) == []
    assert pursuit.positions == {"A": "90-0"}


def test_twenty_thousand_symbols_come_and_go_at_once() -> None:
    """Each costs the same, however many there are; with the square of their number it would be some 10 s."""
    symbols = [f"S{k}" for k in range(20_000)]
    began_s = time.perf_counter()
    pursuit = pursuit_of(*symbols)
    read = pursuit.next_read(0.0)
    for symbol in symbols:
        pursuit.drop(symbol)
    assert time.perf_counter() - began_s < 3
    assert len(read.by_key) == len(symbols)
    assert pursuit.next_read(0.0).by_key == {}

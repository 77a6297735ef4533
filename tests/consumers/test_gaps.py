"""The verdict on a position, by the table and by simulation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.reading.gaps import Anchor, StreamFacts, Verdict, hole, judge, read_facts
from wire import ZERO_ID, EntryId

P = EntryId(50, 0)


def facts(first: int | None, last: int, length: int, added: int | None) -> StreamFacts:
    """A stream whose ids have only a first half."""
    return StreamFacts(None if first is None else EntryId(first, 0), EntryId(last, 0), length, added)


@pytest.mark.parametrize(
    ("anchor", "stream", "verdict"),
    [
        (Anchor.SEEN, None, Verdict.MISSING),
        (Anchor.SEEN, facts(10, 90, 9, 9), Verdict.INTACT),
        (Anchor.SEEN, facts(50, 90, 5, 9), Verdict.INTACT),
        (Anchor.SEEN, facts(60, 90, 4, 9), Verdict.TRIMMED),
        (Anchor.SEEN, facts(60, 90, 4, None), Verdict.TRIMMED),
        (Anchor.SEEN, facts(None, 50, 0, 9), Verdict.INTACT),
        (Anchor.SEEN, facts(None, 90, 0, 9), Verdict.TRIMMED),
        (Anchor.SEEN, facts(60, 90, 4, 4), Verdict.REPLACED),
        (Anchor.CLAIMED, facts(60, 90, 4, 4), Verdict.INTACT),
        (Anchor.CHOSEN, facts(60, 90, 4, 4), Verdict.INTACT),
        (Anchor.CHOSEN, facts(60, 90, 4, 9), Verdict.TRIMMED),
        (Anchor.SEEN, facts(10, 40, 4, 4), Verdict.REWOUND),
        (Anchor.CLAIMED, facts(None, 40, 0, 4), Verdict.REWOUND),
        (Anchor.CHOSEN, facts(10, 40, 4, 4), Verdict.INTACT),
    ],
)
def test_the_verdict_follows_from_position_and_facts(
    anchor: Anchor, stream: StreamFacts | None, verdict: Verdict
) -> None:
    """Each row is one history that a stream may have had."""
    assert judge(P, anchor, stream) is verdict


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_entries_that_are_gone_are_never_overlooked(count: int, position: int, trimmed: int) -> None:
    """In a stream trimmed from the front, the verdict is intact only if all after the position is there."""
    held = list(range(1, count + 1))[trimmed:]
    stream = facts(held[0] if held else None, count, len(held), count)
    position = min(position, count)
    lost = [entry for entry in range(position + 1, count + 1) if entry not in held]
    verdict = judge(EntryId(position, 0), Anchor.SEEN, stream)
    if lost and position:
        assert verdict is Verdict.TRIMMED
    if verdict is Verdict.INTACT:
        assert not lost or position == 0


def test_what_is_gone_before_the_very_beginning_is_no_gap() -> None:
    """Who asks for everything there is misses nothing."""
    assert judge(ZERO_ID, Anchor.CHOSEN, facts(60, 90, 4, 9)) is Verdict.INTACT


def test_a_hole_reaches_from_the_position_to_the_first_entry() -> None:
    """Both ends are venue times."""
    gap = hole("AAPL", EntryId(5, 3000), facts(60, 90, 4, 9), Verdict.TRIMMED)
    assert (gap.from_ns, gap.to_ns, gap.reason, gap.id) == (5_000_003, 60_000_000, "trimmed", None)


def test_a_server_before_7_tells_no_count() -> None:
    """The reply of Redis 6.2 lacks entries-added."""
    reply = [
        b"length",
        1,
        b"last-generated-id",
        b"9-1",
        b"groups",
        0,
        b"first-entry",
        [b"9-1", [b"q", b"[]"]],
    ]
    assert read_facts(reply) == StreamFacts(EntryId(9, 1), EntryId(9, 1), 1, None)

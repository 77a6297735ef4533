"""What operators and strategies want, out of whatever stands in Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.subscriptions.desired import (
    CHURN_SETTLE_S,
    LEASES_HELD_S,
    MAX_JUNK_SHOWN,
    SETTLE_S,
    ChurnGuard,
    Desired,
    DesiredSet,
    Reading,
)

GRACE_S = 60.0


def reading(*members: str | bytes, leases: tuple[str, ...] = (), writer_present: bool = True) -> Reading:
    """A look at Redis that found these."""
    raw = frozenset(m.encode() if isinstance(m, str) else m for m in members)
    return Reading(raw, frozenset(lease.encode() for lease in leases), writer_present)


def look(*members: str | bytes, leases: tuple[str, ...] = ()) -> Desired:
    """What a first look makes of these."""
    return DesiredSet(GRACE_S).observe(reading(*members, leases=leases), 0.0)


def due_s(wanted: DesiredSet) -> float | None:
    """When to look again, asked anew."""
    return wanted.look_again_at_s


WRONG_TYPE = Reading(None, frozenset(), True)

JUNK: list[str | bytes] = [
    "AAPL ",
    "aapl",
    "",
    "🚀",
    "\x00",
    "AA\nPL",
    "\x1b[31mRED",
    "AAPL\u200b",
    "\u202eLPAA",
    "АAPL",
    "A*",
    "A:B",
    "A{B}",
    "A" * 5_000,
    "A" * 1_000_000,
    "€" * 300,
    b"\xff",
    b"\xff\xfe" * 100,
    "AAPL\r\nSET x y",
]


@pytest.mark.parametrize("member", JUNK, ids=lambda member: ascii(member[:12]))
@pytest.mark.fault("C01", "C02", "C03")
def test_junk_is_refused_beside_what_is_good(member: str | bytes) -> None:
    """With a reason and a name that is safe to show, of bounded length."""
    desired = look("MSFT", member)
    assert desired.symbols == ("MSFT",)
    assert desired.junk_total == 1
    ((shown, reason),) = desired.junk.items()
    assert shown
    assert shown.isprintable()
    assert len(shown) < 500
    assert reason
    assert reason.isprintable()
    assert len(reason) < 200


def test_all_junk_at_once_is_shown_and_counted() -> None:
    """None hides another, except where the shown names are cut at the same place."""
    desired = look("MSFT", *JUNK)
    assert desired.symbols == ("MSFT",)
    assert desired.junk_total == len(JUNK)
    # The two long runs of A look alike after the cut.
    assert len(desired.junk) == len(JUNK) - 1
    assert "(empty)" in desired.junk


def test_no_amount_of_junk_grows_the_list() -> None:
    """All are counted, and the same ones are shown whatever the order in which they were read."""
    members = [f"junk {i}" for i in range(1000)]
    desired = look(*members)
    assert desired.junk_total == 1000
    assert len(desired.junk) == MAX_JUNK_SHOWN
    assert desired == look(*reversed(members))


@given(st.frozensets(st.binary(max_size=30), max_size=20), st.lists(st.binary(max_size=30), max_size=5))
def test_no_bytes_can_make_it_raise(members: frozenset[bytes], leases: list[bytes]) -> None:
    """Nor show anything that a terminal would act upon."""
    desired = DesiredSet(GRACE_S).observe(Reading(members, frozenset(leases), True), 0.0)
    assert all(shown.isprintable() for shown in desired.junk)
    assert all(symbol.isascii() for symbol in desired.symbols)


def test_operators_come_before_strategies_and_each_by_name() -> None:
    """A limit then cuts at the same place on every start."""
    desired = look("TSLA", "MSFT", leases=("ZM@x:1", "AAPL@x:1", "MSFT@y:2", "AAPL@y:2"))
    assert desired.symbols == ("MSFT", "TSLA", "AAPL", "ZM")
    assert desired.leased == {"AAPL", "ZM"}


def test_leases_that_an_emptied_database_lost_are_missed_until_their_holders_have_written_again() -> None:
    """Else the first newcomer would find every place free; whoever is silent for a lease's time is gone."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading(leases=("AMD@old", "ZM@old")), 0.0)
    emptied = wanted.observe(reading(leases=("AAA@new",), writer_present=False), 10.0)
    assert emptied.symbols == ("AAA", "AMD", "ZM")
    assert due_s(wanted) == 10.0 + LEASES_HELD_S
    back = wanted.observe(reading(leases=("AAA@new", "AMD@old"), writer_present=False), 14.0)
    assert back.symbols == ("AAA", "AMD", "ZM")
    over = wanted.observe(reading(leases=("AAA@new", "AMD@old"), writer_present=False), 10.0 + LEASES_HELD_S)
    assert over.symbols == ("AAA", "AMD")
    assert due_s(wanted) is None


def test_a_lease_that_ends_is_believed_at_once_where_the_daemons_mark_stands() -> None:
    """Nothing was emptied."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading(leases=("AMD@old", "ZM@old")), 0.0)
    assert wanted.observe(reading(leases=("ZM@old",)), 1.0).symbols == ("ZM",)


@pytest.mark.parametrize(
    ("lease", "symbol"), [("AAPL@host:1", "AAPL"), ("AAPL", "AAPL"), ("BRK.B@x", "BRK.B"), ("A@", "A")]
)
def test_a_lease_names_its_symbol(lease: str, symbol: str) -> None:
    """With or without somebody behind it."""
    assert look(leases=(lease,)).symbols == (symbol,)


def test_a_bad_lease_is_shown_whole() -> None:
    """So that its owner can be found."""
    desired = look(leases=("aapl@host:1", "@host", "A@B@c"))
    assert set(desired.junk) == {"aapl@host:1", "@host", "A@B@c"}
    assert desired.symbols == ()


@pytest.mark.fault("C06")
def test_a_set_that_vanishes_is_held_for_the_grace_period() -> None:
    """And it is told when to look again; then it is believed."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading("A", "B"), 0.0)
    assert due_s(wanted) is None
    held = wanted.observe(reading(), 100.0)
    assert held.symbols == ("A", "B")
    assert held.held is not None
    assert "2 members" in held.held
    assert due_s(wanted) == 160.0
    assert wanted.observe(reading(), 159.9).symbols == ("A", "B")
    assert wanted.observe(reading(), 160.0) == Desired()
    assert due_s(wanted) is None
    assert wanted.observe(reading(), 170.0) == Desired()


def test_the_last_symbol_removed_by_hand_is_believed_at_once() -> None:
    """One by one, down to none."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading("A", "B"), 0.0)
    assert wanted.observe(reading("A"), 1.0).symbols == ("A",)
    assert wanted.observe(reading(), 2.0) == Desired()


def test_a_single_symbol_is_held_when_the_database_was_emptied() -> None:
    """The daemon's own key is gone, too."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading("A"), 0.0)
    held = wanted.observe(reading(writer_present=False), 1.0)
    assert held.symbols == ("A",)
    # The daemon writes its key again; that does not make the loss an operator's wish.
    assert wanted.observe(reading(writer_present=True), 2.0) == held
    assert wanted.observe(reading(writer_present=True), 1.0 + GRACE_S) == Desired()


def test_an_empty_start_is_believed() -> None:
    """Nothing was there to vanish."""
    assert DesiredSet(GRACE_S).observe(reading(writer_present=False), 0.0) == Desired()


@pytest.mark.fault("C05")
def test_a_key_of_another_type_keeps_the_last_good_set_for_ever() -> None:
    """Until somebody mends it."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading("A"), 0.0)
    for now_s in (1.0, 1e6):
        held = wanted.observe(WRONG_TYPE, now_s)
        assert held.symbols == ("A",)
        assert held.held is not None
        assert "another type" in held.held
    assert wanted.observe(reading("B"), 1e6 + 1) == Desired(("B",))  # type: ignore[arg-type]


def test_a_set_filled_again_within_the_grace_period_is_believed() -> None:
    """And a later loss has a grace period of its own."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading("A", "B"), 0.0)
    wanted.observe(reading(), 10.0)
    back = wanted.observe(reading("B", "C"), 20.0)
    assert (back.symbols, back.held) == (("B", "C"), None)
    assert due_s(wanted) is None
    wanted.observe(reading(), 1000.0)
    assert due_s(wanted) == 1060.0


def test_leases_go_on_while_the_operators_set_is_held() -> None:
    """They end by themselves."""
    wanted = DesiredSet(GRACE_S)
    wanted.observe(reading("A", "B", leases=("X@1",)), 0.0)
    assert wanted.observe(reading(leases=("Y@1",)), 1.0).symbols == ("A", "B", "Y")


def test_no_grace_means_none() -> None:
    """Zero is a choice."""
    wanted = DesiredSet(0.0)
    wanted.observe(reading("A", "B"), 0.0)
    assert wanted.observe(reading(), 1.0) == Desired()


def test_a_symbol_that_flaps_slows_the_looking_down() -> None:
    """Four changes of one symbol within five seconds are borne; the fifth makes every look wait a second."""
    guard = ChurnGuard()
    waits = [guard.settle_s(["A"], now_s) for now_s in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert waits == [SETTLE_S] * 4 + [CHURN_SETTLE_S]
    assert guard.settle_s(["A"], 6.0) == SETTLE_S


def test_many_symbols_changed_once_each_slow_nothing_down() -> None:
    """A list typed in one by one is no churn."""
    guard = ChurnGuard()
    assert {guard.settle_s([f"S{i}"], i / 100) for i in range(400)} == {SETTLE_S}

"""The smallest change from what is confirmed to what is wanted."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.subscriptions.plan import Plan, plan
from ingestor.subscriptions.seniority import Seniority
from wire import Symbol

SYMBOLS = st.sampled_from([f"S{i}" for i in range(12)])
DESIRED = st.lists(SYMBOLS, unique=True)
SETS = st.frozensets(SYMBOLS)
LIMITS = st.none() | st.integers(0, 14)


@given(DESIRED, SETS, SETS, LIMITS)
def test_what_is_applied_is_the_first_of_what_is_wanted(
    desired: list[str], confirmed: frozenset[str], refused: frozenset[str], limit: int | None
) -> None:
    """The refused take no place, the limit cuts the rest, and each symbol is accounted for."""
    found = plan(desired, confirmed, refused, limit)
    accepted = [symbol for symbol in desired if symbol not in refused]
    after = (confirmed - set(found.unsubscribe)) | set(found.subscribe)
    assert after == set(accepted[:limit])
    assert found.waiting == tuple(accepted[len(after) :])


@given(DESIRED, SETS, SETS, LIMITS)
def test_nothing_superfluous_is_asked(
    desired: list[str], confirmed: frozenset[str], refused: frozenset[str], limit: int | None
) -> None:
    """Only what is missing is added, only what is there is removed."""
    found = plan(desired, confirmed, refused, limit)
    assert not set(found.subscribe) & confirmed
    assert set(found.unsubscribe) <= confirmed
    assert not set(found.subscribe) & set(found.unsubscribe)


@given(DESIRED, SETS, SETS, LIMITS)
def test_a_plan_that_was_applied_leaves_nothing_to_do(
    desired: list[str], confirmed: frozenset[str], refused: frozenset[str], limit: int | None
) -> None:
    """The second plan is empty, apart from those that go on waiting."""
    first = plan(desired, confirmed, refused, limit)
    after = (confirmed - set(first.unsubscribe)) | set(first.subscribe)
    assert plan(desired, after, refused, limit) == Plan((), (), first.waiting)


@given(DESIRED, st.lists(SYMBOLS, unique=True), LIMITS)
def test_the_order_follows_from_the_arguments_alone(
    desired: list[str], confirmed: list[str], limit: int | None
) -> None:
    """Not from how a set came about."""
    found = plan(desired, set(confirmed), (), limit)
    assert found == plan(desired, dict.fromkeys(reversed(confirmed)).keys(), (), limit)
    assert list(found.subscribe) == sorted(found.subscribe, key=desired.index)
    assert list(found.unsubscribe) == sorted(found.unsubscribe)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[Seniority, tuple[Symbol, ...], frozenset[Symbol]]:
    """Ranks that came about in some way, and what operators and leases want now."""
    ranks = Seniority()
    for _ in range(draw(st.integers(0, 6))):
        ranks.wanted(draw(DESIRED))
        ranks.live(draw(SETS))
    operators, leases = draw(SETS), draw(SETS)
    rest = leases - operators
    symbols = (*sorted(operators), *sorted(rest))
    ranks.wanted(symbols)
    return ranks, tuple(map(Symbol, symbols)), frozenset(map(Symbol, rest))


@given(ranked(), LIMITS)
def test_operators_come_first_and_leased_ones_as_they_became_live(
    wish: tuple[Seniority, tuple[Symbol, ...], frozenset[Symbol]], limit: int | None
) -> None:
    """Those that were live before those that never were; nobody is left out, and nobody twice."""
    ranks, symbols, leased = wish
    order = ranks.in_order(symbols, leased)
    assert sorted(order) == sorted(symbols)
    assert [s in leased for s in order] == sorted(s in leased for s in order)
    assert [s for s in order if s not in leased] == [s for s in symbols if s not in leased]
    were_live = [ranks.was_live(s) for s in order if s in leased]
    assert were_live == sorted(were_live, reverse=True)


@given(ranked(), LIMITS, SETS)
def test_a_plan_once_carried_out_stands_until_a_wish_changes(
    wish: tuple[Seniority, tuple[Symbol, ...], frozenset[Symbol]], limit: int | None, refused: frozenset[str]
) -> None:
    """Also from an empty set, as after a reconnection: the same symbols are live."""
    ranks, symbols, leased = wish
    first = plan(ranks.in_order(symbols, leased), frozenset(), refused, limit)
    ranks.live(first.subscribe)
    order = ranks.in_order(symbols, leased)
    assert plan(order, frozenset(first.subscribe), refused, limit) == Plan((), (), first.waiting)
    assert set(plan(order, frozenset(), refused, limit).subscribe) == set(first.subscribe)


@given(ranked(), SYMBOLS, st.integers(0, 14))
def test_a_new_lease_puts_nobody_out(
    wish: tuple[Seniority, tuple[Symbol, ...], frozenset[Symbol]], newcomer: str, limit: int
) -> None:
    """Nor does a lower limit spare a younger one."""
    ranks, symbols, leased = wish
    live = frozenset(plan(ranks.in_order(symbols, leased), frozenset(), (), limit).subscribe)
    ranks.live(live)
    if newcomer not in symbols:
        symbols, leased = (*symbols, Symbol(newcomer)), leased | {Symbol(newcomer)}
        ranks.wanted(symbols)
    order = ranks.in_order(symbols, leased)
    assert plan(order, live, (), limit).unsubscribe == ()
    lower = plan(order, live, (), max(0, limit - 1))
    assert len(lower.unsubscribe) == (len(live) == limit > 0)
    assert set(lower.unsubscribe) <= set(order[max(0, limit - 1) :])


def test_a_newcomer_of_higher_rank_takes_the_place_of_the_last() -> None:
    """Operators' symbols go by name, whoever was first."""
    assert plan(["A", "B", "C"], {"B", "C"}, (), 2) == Plan(("A",), ("C",), ("C",))

"""The smallest change from what is confirmed to what is wanted."""

from hypothesis import given
from hypothesis import strategies as st

from ingestor.subscriptions.plan import Plan, plan

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


def test_a_newcomer_of_higher_rank_takes_the_place_of_the_last() -> None:
    """The order decides, not who was first."""
    assert plan(["A", "B", "C"], {"B", "C"}, (), 2) == Plan(("A",), ("C",), ("C",))

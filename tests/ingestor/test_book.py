"""The subscription book against vendors of every temper: it settles, and it stops asking."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.feed.codes import code_of
from ingestor.feed.events import MAX_CHANGE_SYMBOLS, Change
from ingestor.subscriptions.book import SubscriptionBook
from ingestor.subscriptions.desired import Desired
from ingestor.subscriptions.refusals import RETRY_REFUSED_AFTER_S
from ingestor.subscriptions.seniority import Earlier
from ingestor.subscriptions.states import SymbolState, read_earlier
from wire.quality import SYMBOL_STATES


@dataclass
class Vendor:
    """A model of the vendor: a set, a limit, symbols it cannot read, and bad habits in numbers.

    `loses`, `forgets` and `ignores` count down: requests never answered (though obeyed), acknowledgements that lack
    a symbol which was asked for, removals acknowledged and not obeyed.
    """

    limit: int | None = None
    malformed: frozenset[str] = frozenset()
    limit_first: bool = False
    loses: int = 0
    forgets: int = 0
    ignores: int = 0
    subscribed: set[str] = field(default_factory=set)
    requests: list[Change] = field(default_factory=list)

    def answer(self, change: Change) -> int | frozenset[str] | None:
        """An error code, the whole set, or silence."""
        self.requests.append(change)
        assert len(change.subscribe) <= MAX_CHANGE_SYMBOLS
        answer = self._obey(change)
        if self.loses:
            self.loses -= 1
            return None
        return answer

    def _obey(self, change: Change) -> int | frozenset[str]:
        if change.unsubscribe:
            if self.ignores:
                self.ignores -= 1
            else:
                self.subscribed -= set(change.unsubscribe)
            return frozenset(self.subscribed)
        too_many = self.limit is not None and len(self.subscribed | set(change.subscribe)) > self.limit
        if too_many and self.limit_first:
            return 405
        if self.malformed & set(change.subscribe):
            return 400
        if too_many:
            return 405
        added = list(change.subscribe)
        if self.forgets:
            self.forgets -= 1
            added.pop()
        self.subscribed |= set(added)
        return frozenset(self.subscribed)


class Desk:
    """A book and its vendor, wired together as the feed does it."""

    def __init__(self, vendor: Vendor, limit: int | None = None) -> None:
        self.vendor = vendor
        self.book = SubscriptionBook(limit)
        self.now_s = 1000.0
        self.reconnects = 0

    def want(self, *symbols: str, leased: Iterable[str] = ()) -> None:
        """What operators desire, in this order, and what only a lease asks for."""
        rest = sorted(set(leased).difference(symbols))
        self.book.desire(Desired((*symbols, *rest), leased=frozenset(rest)))  # type: ignore[arg-type]

    def connect(self) -> None:
        """A new session: the vendor's set is empty."""
        self.book.disconnected()
        self.vendor.subscribed.clear()
        self.book.connected()

    def settle(self, most: int = 10_000) -> int:
        """Ask until there is nothing more to ask; the number of requests."""
        asked = 0
        while True:
            if self.book.must_end is not None:
                self.reconnects += 1
                self.connect()
            change = self.book.next_change(self.now_s)
            if change is None:
                assert self.book.settled
                return asked
            assert self.book.next_change(self.now_s) is None, "one change at a time"
            asked += 1
            assert asked <= most, "an error loop"
            answer = self.vendor.answer(change)
            if answer is None:
                self.book.expire(change, self.now_s)
            elif isinstance(answer, int):
                self.book.refuse(change, code_of(answer), self.now_s)
            else:
                self.book.confirm(answer, change, self.now_s)

    def states(self) -> dict[str, str]:
        """The state of each symbol."""
        return {s: status.state.value for s, status in self.book.statuses(self.now_s).items()}

    def live(self) -> list[str]:
        """The live ones, in order."""
        return [s for s, state in self.states().items() if state == "live"]


def desk(*symbols: str, vendor: Vendor | None = None, limit: int | None = None) -> Desk:
    """A connected desk that wants these."""
    made = Desk(vendor or Vendor(), limit)
    made.want(*symbols)
    made.connect()
    return made


def names(count: int) -> list[str]:
    """So many symbols, in order."""
    return [f"S{i:05d}" for i in range(count)]


vendors = st.builds(
    Vendor,
    limit=st.none() | st.integers(0, 12),
    malformed=st.frozensets(st.sampled_from(names(20)), max_size=4),
    limit_first=st.booleans(),
    loses=st.integers(0, 5),
    forgets=st.integers(0, 2),
    ignores=st.integers(0, 4),
)
wishes = st.lists(st.lists(st.sampled_from(names(20)), unique=True), min_size=1, max_size=4)


@given(vendors, wishes, st.none() | st.integers(1, 15))
@settings(max_examples=150)
def test_it_always_settles_on_what_the_vendor_grants(
    vendor: Vendor, wanted: list[list[str]], limit: int | None
) -> None:
    """The first readable symbols up to the limit, after a bounded number of requests."""
    made = desk(vendor=vendor, limit=limit)
    for symbols in wanted:
        made.want(*symbols)
        made.settle(most=300)
    # A vendor that left out symbols may have made them look refused; the hour heals that.
    made.now_s += RETRY_REFUSED_AFTER_S
    made.settle(most=300)
    made.now_s += RETRY_REFUSED_AFTER_S
    made.settle(most=300)
    readable = [s for s in wanted[-1] if s not in vendor.malformed]
    bounds = [b for b in (limit, vendor.limit) if b is not None]
    expected = readable[: min(bounds)] if bounds else readable
    assert made.live() == expected
    assert vendor.subscribed == set(expected)
    for symbol, state in made.states().items():
        if symbol in expected:
            assert state == "live"
        elif symbol in vendor.malformed:
            assert state in {"refused", "waiting"}
        else:
            assert state == "waiting"


@given(vendors, wishes)
@settings(max_examples=50)
def test_once_settled_it_is_silent(vendor: Vendor, wanted: list[list[str]]) -> None:
    """Until a retry is due, and it says when that is."""
    made = desk(*wanted[-1], vendor=vendor)
    made.settle(most=300)
    due_s = made.book.retry_at_s
    made.now_s = made.now_s + 1e6 if due_s is None else due_s - 0.001
    assert made.settle() == 0


def test_one_malformed_symbol_among_500_costs_its_neighbours_nothing() -> None:
    """It is found by halving."""
    symbols = names(500)
    for bad in (0, 250, 499, 137):
        made = desk(*symbols, vendor=Vendor(malformed=frozenset([symbols[bad]])))
        assert made.settle() <= 2 * math.ceil(math.log2(500)) + 1
        assert made.live() == [s for s in symbols if s != symbols[bad]]
        status = made.book.statuses(0.0)[symbols[bad]]
        assert status.state is SymbolState.REFUSED
        assert status.reason is not None
        assert "400" in status.reason


def test_several_malformed_symbols_are_found_one_by_one() -> None:
    """Each costs a logarithm."""
    symbols = names(500)
    bad = frozenset(random.Random(7).sample(symbols, 8))
    made = desk(*symbols, vendor=Vendor(malformed=bad))
    assert made.settle() <= 8 * (2 * math.ceil(math.log2(500)) + 1)
    assert set(made.live()) == set(symbols) - bad


@pytest.mark.parametrize("configured", [None, 30, 40])
@pytest.mark.parametrize("limit_first", [True, False])
def test_a_limit_of_30_is_filled_in_order(configured: int | None, limit_first: bool) -> None:
    """The rest waits with a reason; known beforehand, the limit costs no refusal."""
    symbols = names(45)
    made = desk(*symbols, vendor=Vendor(limit=30, limit_first=limit_first), limit=configured)
    requests = made.settle()
    assert requests == 1 if configured == 30 else requests <= 12
    assert made.live() == symbols[:30]
    states = made.states()
    assert [states[s] for s in symbols[30:]] == ["waiting"] * 15
    assert made.book.statuses(0.0)[symbols[44]].reason == "waits behind the limit of 30 symbols"
    assert made.book.limit == 30


@pytest.mark.parametrize("limit_first", [True, False])
def test_a_limit_and_a_malformed_symbol_do_not_confuse_each_other(limit_first: bool) -> None:
    """Both are found, whichever the vendor checks first."""
    symbols = names(500)
    vendor = Vendor(limit=30, malformed=frozenset([symbols[3]]), limit_first=limit_first)
    made = desk(*symbols, vendor=vendor)
    assert made.settle() <= 60
    assert made.live() == [s for s in symbols[:31] if s != symbols[3]]


def test_ten_thousand_symbols_go_in_twenty_requests() -> None:
    """Of 500 each, in order."""
    made = desk(*names(10_000))
    assert made.settle() == 20
    assert [len(change.subscribe) for change in made.vendor.requests] == [500] * 20
    assert [s for change in made.vendor.requests for s in change.subscribe] == names(10_000)


def test_room_is_made_before_it_is_filled() -> None:
    """At the limit, the other order would be refused."""
    made = desk("B", "C", vendor=Vendor(limit=2), limit=2)
    made.settle()
    made.want("A", "B", "C")
    assert made.settle() == 2
    assert made.vendor.requests[-2:] == [Change(unsubscribe=("C",)), Change(subscribe=("A",))]
    assert made.states() == {"A": "live", "B": "live", "C": "waiting"}


def test_a_refused_symbol_is_tried_again_after_an_hour() -> None:
    """Not before, and once."""
    made = desk("A", "X", vendor=Vendor(malformed=frozenset("X")))
    made.settle()
    assert made.book.retry_at_s == 1000.0 + RETRY_REFUSED_AFTER_S
    made.now_s += RETRY_REFUSED_AFTER_S - 1
    assert made.settle() == 0
    made.now_s += 1
    assert made.settle() == 1
    made.vendor.malformed = frozenset()
    made.now_s += RETRY_REFUSED_AFTER_S
    assert made.settle() == 1
    assert made.live() == ["A", "X"]
    assert made.book.retry_at_s is None


def test_removing_a_refused_symbol_and_adding_it_again_tries_at_once() -> None:
    """That is how an operator asks for it."""
    made = desk("A", "X", vendor=Vendor(malformed=frozenset("X")))
    made.settle()
    made.vendor.malformed = frozenset()
    made.want("A", "X")
    assert made.settle() == 0
    made.want("A")
    made.want("A", "X")
    assert made.settle() == 1
    assert made.live() == ["A", "X"]


def test_a_larger_plan_is_noticed_within_a_quarter_of_an_hour() -> None:
    """The learnt limit is tried after a minute, then after twice as long each time, up to a quarter of an hour."""
    made = desk(*names(45), vendor=Vendor(limit=30))
    made.settle()
    for wait_s in (60, 120, 240, 480, 900, 900):
        made.now_s += wait_s - 1
        assert made.settle() == 0
        made.now_s += 1
        assert made.settle() == 1
        assert made.live() == names(30)
    made.vendor.limit = 1000
    made.now_s += 900
    assert made.settle() == 2, "one more, and then the rest"
    assert made.live() == names(45)
    assert made.book.limit is None


def test_a_learnt_limit_outlives_a_reconnection() -> None:
    """It is the account's, not the session's."""
    made = desk(*names(45), vendor=Vendor(limit=30))
    made.settle()
    made.connect()
    before = len(made.vendor.requests)
    assert made.settle() <= 6
    assert made.live() == names(30)
    # Not one symbol was asked for in vain.
    assert sum(len(change.subscribe) for change in made.vendor.requests[before:]) == 30


def test_a_configured_limit_is_never_exceeded() -> None:
    """Even where the vendor would grant more."""
    made = desk(*names(45), limit=30)
    assert made.settle() == 1
    assert len(made.vendor.subscribed) == 30


def test_nothing_is_asked_before_the_session_or_after_it() -> None:
    """A request under way is lost with its session, and asked again in the next."""
    made = Desk(Vendor())
    made.want("A")
    assert made.book.next_change(0.0) is None
    assert made.states() == {"A": "requested"}
    assert made.book.statuses(0.0)["A"].reason == "not connected to the vendor"
    made.connect()
    assert made.book.next_change(0.0) == Change(subscribe=("A",))
    assert made.book.statuses(0.0)["A"].reason is None
    made.book.disconnected()
    assert made.book.in_flight is None
    assert not made.book.settled
    made.book.connected()
    assert made.book.next_change(0.0) == Change(subscribe=("A",))


def test_two_requests_without_an_answer_cost_the_session() -> None:
    """One does not: the next acknowledgement tells the whole set."""
    made = desk("A", vendor=Vendor(loses=1))
    made.settle()
    assert made.reconnects == 0
    made = desk("A", vendor=Vendor(loses=2))
    made.settle()
    assert made.reconnects == 1
    assert made.live() == ["A"]


def test_only_requests_in_a_row_without_an_answer_count() -> None:
    """Any answer in between proves that the session lives."""
    made = desk()
    for number in range(1, 6):
        made.want(*names(number))
        made.vendor.loses = 1
        made.settle()
    assert made.reconnects == 0
    assert made.live() == names(5)


def test_the_reason_for_a_reconnection_is_told_and_then_forgotten() -> None:
    """While it stands, nothing is asked."""
    made = desk("A")
    for _ in range(2):
        change = made.book.next_change(0.0)
        assert change is not None
        made.book.expire(change, made.now_s)
    assert made.book.must_end is not None
    assert made.book.must_end.reason == "no acknowledgement for adding symbols, 2 times"
    assert made.book.next_change(0.0) is None
    made.connect()
    assert made.book.must_end is None


@pytest.mark.fault("S36")
def test_a_vendor_that_ignores_removals_is_left_after_three() -> None:
    """The new session's set is empty, which removes them all."""
    made = desk("A", "B", vendor=Vendor(ignores=3))
    made.settle()
    made.want("A")
    made.settle()
    assert made.reconnects == 1
    assert made.vendor.subscribed == {"A"}


def test_a_vendor_that_refuses_removals_is_left_after_three() -> None:
    """Whatever its code."""
    made = desk("A", "B")
    made.settle()
    made.want("A")
    for _ in range(3):
        change = made.book.next_change(0.0)
        assert change == Change(unsubscribe=("B",))
        made.book.refuse(change, code_of(410), 0.0)
    assert made.book.must_end is not None
    assert made.book.must_end.reason == "the vendor refuses removals (code 410)"


@pytest.mark.fault("S34")
def test_a_partial_acknowledgement_is_made_up_for() -> None:
    """What it lacks is asked for again, and after three times counts as refused."""
    made = desk("A", "B", "C", vendor=Vendor(forgets=1))
    assert made.settle() == 2
    assert made.live() == ["A", "B", "C"]
    made = desk("A", "B", vendor=Vendor(forgets=99))
    assert made.settle() <= 7
    assert made.states()["B"] == "refused"


@pytest.mark.fault("S35")
def test_what_the_vendor_adds_on_its_own_is_taken_away() -> None:
    """The acknowledgement is the truth, even where nobody asked."""
    made = desk("A")
    made.settle()
    made.vendor.subscribed |= {"Z"}
    made.book.confirm(frozenset({"A", "Z"}), None, 0.0)
    assert made.states() == {"A": "live", "Z": "leaving"}
    assert made.settle() == 1
    assert made.vendor.subscribed == {"A"}


@pytest.mark.fault("S38")
def test_acknowledgements_that_come_twice_refuse_nothing_for_long() -> None:
    """Each answers the next request with the set before it, until the vendor falls silent."""
    made = desk(*names(2500))
    queue: list[frozenset[str]] = []
    for _ in range(100):
        change = made.book.next_change(0.0)
        if change is not None:
            queue += [made.vendor.answer(change)] * 2  # type: ignore[list-item]
        elif not queue:
            break
        made.book.confirm(queue.pop(0), made.book.in_flight, 0.0)
    assert made.book.settled
    assert made.live() == names(2500)


@given(st.data())
@settings(max_examples=150)
def test_no_lease_takes_the_place_of_a_leased_symbol_that_is_live(data: st.DataObject) -> None:
    """Whatever comes, goes, reconnects and changes: a place is lost to an operator, or with the limit.

    An operator's symbol need not be new for that: it may have waited for the place that another one gave up.
    """
    made = desk(vendor=Vendor(limit=data.draw(st.integers(1, 6), "limit")))
    operators, leased = set[str](), set[str]()
    for _ in range(data.draw(st.integers(1, 12), "steps")):
        before, limit = set(made.live()), made.vendor.limit or 0
        what = data.draw(
            st.sampled_from(("lease", "lease", "end", "add", "remove", "reconnect", "limit", "wait"))
        )
        some = set(data.draw(st.lists(st.sampled_from(names(10)), max_size=3), "symbols"))
        match what:
            case "lease":
                leased |= some
            case "end":
                leased -= some
            case "add":
                operators |= some
            case "remove":
                operators -= some
            case "limit":
                made.vendor.limit = data.draw(st.integers(1, 6), "limit")
            case "wait":
                made.now_s += 3600
        if what in ("reconnect", "limit"):
            made.connect()
        made.want(*sorted(operators), leased=leased)
        made.settle(most=300)
        live = set(made.live())
        lost = {symbol for symbol in before - live if symbol in leased and symbol not in operators}
        if (made.vendor.limit or 0) >= limit:
            assert len(lost) <= len((live - before) & operators)
        states = made.book.statuses(made.now_s)
        assert all("put out" in (states[symbol].reason or "") for symbol in lost)
        if operators - live:
            assert live <= operators, "operators' symbols come first"


@given(st.lists(st.sampled_from(names(12)), unique=True, min_size=1), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=60)
def test_operators_put_out_those_who_came_last(arrivals: list[str], limit: int, count: int) -> None:
    """In the order in which they became live, the youngest first; and when operators leave they come back."""
    made = desk(vendor=Vendor(limit=limit))
    for n in range(len(arrivals)):
        made.want(leased=arrivals[: n + 1])
        made.settle()
    taken = [f"OP{n}" for n in range(count)]
    made.want(*taken, leased=arrivals)
    made.settle()
    assert set(made.live()) == set([*taken, *arrivals][:limit])
    made.want(leased=arrivals)
    made.settle()
    assert set(made.live()) == set(arrivals[:limit])


def test_an_operators_symbol_that_is_given_up_stays_live_for_who_leases_it() -> None:
    """Whom it had put out comes back when there is room, before who never was in; the youngest go first again."""
    made = desk(vendor=Vendor(limit=2))
    made.want(leased=["AMD"])
    made.settle()
    made.want(leased=["AMD", "ZM"])
    made.settle()
    leased = ["AAA", "AMD", "IBM", "QQQ", "ZM"]
    for operators in (["IBM", "QQQ"], []):
        made.want(*operators, leased=leased)
        made.settle()
        assert set(made.live()) == {"IBM", "QQQ"}
    made.connect()
    made.settle()
    assert set(made.live()) == {"IBM", "QQQ"}
    made.want(leased=["AAA", "AMD", "QQQ", "ZM"])
    made.settle()
    assert set(made.live()) == {"AMD", "QQQ"}
    made.want("OP", leased=["AAA", "AMD", "QQQ", "ZM"])
    made.settle()
    assert set(made.live()) == {"OP", "AMD"}
    assert "put out by an operator's symbol" in (reasons(made)["QQQ"] or "")


def test_who_is_put_out_and_who_waits_are_told_apart() -> None:
    """By an operator's symbol, when the limit fell, or because it came too late."""
    made = desk(vendor=Vendor(limit=2))
    made.want(leased=["AMD"])
    made.settle()
    made.want(leased=["AMD", "ZM"])
    made.settle()
    made.want(leased=["AAA", "AMD", "ZM"])
    made.settle()
    assert reasons(made) == {"AMD": None, "ZM": None, "AAA": "waits behind the limit of 2 symbols"}
    made.want("QQQ", leased=["AAA", "AMD", "ZM"])
    made.settle()
    assert reasons(made) == {
        "QQQ": None,
        "AMD": None,
        "ZM": "put out by an operator's symbol; waits behind the limit of 2 symbols",
        "AAA": "waits behind the limit of 2 symbols",
    }
    made.vendor.limit = 1
    made.connect()
    made.settle()
    assert reasons(made)["AMD"] == "put out when the limit fell; waits behind the limit of 1 symbols"
    assert "put out by an operator's symbol" in (reasons(made)["ZM"] or "")
    made.want(leased=["AAA", "AMD", "ZM"])
    made.settle()
    assert reasons(made)["AMD"] is None
    made.want(leased=["AAA", "ZM"])
    made.settle()
    assert made.live() == ["ZM"], "who was live before comes before who never was"


def test_those_that_come_at_once_go_by_name_and_those_that_wait_by_arrival() -> None:
    """However the leases were read."""
    made = desk(vendor=Vendor(limit=2))
    made.want(leased=["D", "B", "C"])
    made.settle()
    assert made.live() == ["B", "C"]
    made.want(leased=["A", "B", "C", "D"])
    made.settle()
    made.want(leased=["A", "C", "D"])
    made.settle()
    assert made.live() == ["C", "D"]


def test_a_restart_keeps_the_places_that_were_written() -> None:
    """The next run is told what the last one wrote, also by a release that did not write when each became live."""
    first = desk(vendor=Vendor(limit=2))
    for leased in (["ZM"], ["ZM", "AMD"], ["ZM", "AMD", "MSFT"], ["ZM", "AMD", "MSFT", "IBM"]):
        first.want(leased=leased)
        first.settle()
        first.states()
        first.now_s += 1
    statuses = first.book.statuses(first.now_s)
    written = {symbol: status.as_json(as_iso).encode() for symbol, status in statuses.items()}
    first.want("QQQ", leased=["ZM", "AMD", "MSFT", "IBM"])
    first.settle()
    put_out = first.book.statuses(first.now_s)["AMD"].as_json(as_iso).encode()
    assert read_earlier(put_out) == Earlier(1001.0, 1004.0, "put out by an operator's symbol")
    old = b'{"state": "live", "reason": null, "since": "1970-01-01T00:00:09.000+00:00"}'
    assert read_earlier(old) == Earlier(9.0, 9.0, None)
    for values in (written, written | {"AMD": put_out}):
        second = Desk(Vendor(limit=2))
        earlier = {symbol: read_earlier(value) for symbol, value in values.items()}
        second.book.recall({symbol: seen for symbol, seen in earlier.items() if seen is not None})
        second.want(leased=["AAA", "AMD", "IBM", "MSFT", "ZM"])
        second.connect()
        second.settle()
        assert second.live() == ["AMD", "ZM"]
        second.want(leased=["AAA", "IBM", "MSFT"])
        second.settle()
        assert second.live() == ["IBM", "MSFT"], "those that waited come before who is new"


@pytest.mark.parametrize(
    "value",
    [None, b"", b"x", b"[]", b"null", b'{"state":"live"}', b'{"state":1,"since":2,"reason":[]}', b"\xff"],
)
def test_what_an_earlier_run_did_not_write_is_no_claim(value: bytes | None) -> None:
    """Whatever stands there."""
    assert read_earlier(value) is None


def test_a_refused_symbol_takes_no_live_ones_place_for_its_hourly_trial() -> None:
    """What is known to be bad is tried again where there is room, and asks nobody to leave."""
    vendor = Vendor(limit=2, malformed=frozenset(["BAD"]))
    made = desk("BAD", vendor=vendor)
    made.want("BAD", leased=["AMD", "ZM"])
    made.settle()
    assert set(made.live()) == {"AMD", "ZM"}
    del vendor.requests[:]
    for _ in range(3):
        made.now_s += RETRY_REFUSED_AFTER_S
        made.settle()
    assert not any(change.unsubscribe for change in vendor.requests)
    assert made.states() == {"BAD": "refused", "AMD": "live", "ZM": "live"}
    vendor.malformed = frozenset()
    made.want("BAD", leased=["AMD"])
    made.settle()
    made.now_s += RETRY_REFUSED_AFTER_S
    made.settle()
    assert set(made.live()) == {"BAD", "AMD"}


def test_looking_whether_the_limit_still_holds_costs_one_request_and_no_state() -> None:
    """One symbol more is asked for; until that is granted, nobody is told anything else than before."""
    made = desk(*names(45), vendor=Vendor(limit=30))
    made.settle()
    before = dict(made.book.statuses(0.0))
    made.now_s += 60
    change = made.book.next_change(made.now_s)
    assert change == Change(subscribe=(names(31)[-1],))
    assert made.book.statuses(0.0) == before
    made.book.refuse(change, code_of(405), made.now_s)
    assert made.book.next_change(made.now_s) is None
    assert made.book.statuses(0.0) == before


def reasons(made: Desk) -> dict[str, str | None]:
    """The reason of each symbol."""
    return {symbol: status.reason for symbol, status in made.book.statuses(made.now_s).items()}


def as_iso(unix_s: float) -> str:
    """As the reporter writes it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


def test_states_come_with_reasons_and_a_time_that_stands_still() -> None:
    """`since` moves when the state or its reason does, and only then."""
    made = desk("A", "X", "B", vendor=Vendor(limit=1, malformed=frozenset("X")), limit=1)
    made.book.desire(Desired(("A", "X", "B"), {"a b": "no symbol"}, 1))  # type: ignore[arg-type]
    before = made.book.statuses(10.0)
    assert {s: status.state.value for s, status in before.items()} == {
        "A": "requested",
        "X": "waiting",
        "B": "waiting",
        "a b": "refused",
    }
    made.settle()
    after = dict(made.book.statuses(20.0))
    assert (after["A"].state, after["A"].reason, after["A"].since_s) == (SymbolState.LIVE, None, 20.0)
    assert after["B"] == before["B"]
    assert after["a b"].since_s == 10.0
    assert made.book.statuses(30.0) == after
    made.want("B")
    assert {s: v.state.value for s, v in made.book.statuses(40.0).items()} == {
        "B": "requested",
        "A": "leaving",
    }


def test_a_state_is_written_as_json() -> None:
    """As `quotes:subscriptions` holds it."""
    status = desk("A").book.statuses(5.0)["A"]
    assert status.as_json(lambda s: f"at {s:g}") == (
        '{"state": "requested", "reason": null, "since": "at 5", "live_since": null}'
    )


@given(vendors, wishes, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_reconnections_at_any_moment_do_no_harm(
    vendor: Vendor, wanted: list[list[str]], rng: random.Random
) -> None:
    """In the middle of a search for the culprit, or of the limit."""
    made = desk(vendor=vendor)
    for symbols in wanted:
        made.want(*symbols)
        for _ in range(rng.randrange(6)):
            change = made.book.next_change(made.now_s)
            if change is None:
                break
            answer = vendor.answer(change)
            if isinstance(answer, int):
                made.book.refuse(change, code_of(answer), made.now_s)
            elif answer is not None:
                made.book.confirm(answer, change, made.now_s)
            else:
                made.book.expire(change, made.now_s)
        made.connect()
    made.settle(most=300)
    for _ in range(2):
        made.now_s += RETRY_REFUSED_AFTER_S
        made.settle(most=300)
    readable = [s for s in wanted[-1] if s not in vendor.malformed]
    assert made.live() == (readable if vendor.limit is None else readable[: vendor.limit])


def test_the_states_are_those_that_readers_know() -> None:
    """A name that one side alone has would be read as an unknown one."""
    assert {str(state.value) for state in SymbolState} == SYMBOL_STATES

"""The book of leases: what is written when, whatever the server answers."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumers.leases.book import (
    BEAT_S,
    CHUNK,
    REFUSED_RETRY_S,
    SWEEP_AFTER_S,
    TTL_S,
    UNWILLING_RETRY_S,
    BadConsumerId,
    LeaseBook,
    Note,
    Refusal,
    parse_consumer_id,
)

KEY = "quotes:interest"
NOW_MS = 1_763_000_000_000
AAPL, MSFT = "AAPL", "MSFT"
DENIED = Refusal("NOPERM", may_change=False)
FULL = Refusal("OOM", may_change=True)


def book() -> LeaseBook:
    """A book of one consumer."""
    return LeaseBook(KEY, "desk:7")


def turn(leases: LeaseBook, now_s: float, answer: Any = 1) -> tuple[list[tuple[Any, ...]], list[Note]]:
    """One round that gets the same answer to each command; its commands, and what was told."""
    due = leases.next_round(now_s, NOW_MS + int(now_s * 1000))
    return list(due.commands), leases.answered(due, [answer] * len(due.commands), now_s)


def test_a_lease_is_the_symbol_at_the_consumer_until_fifteen_seconds_from_the_servers_now() -> None:
    """One ZADD with the expiry in unix ms."""
    leases = book()
    leases.hold([AAPL])
    assert leases.wait_s(0.0) == 0
    commands, told = turn(leases, 0.0)
    assert commands[0] == ("ZADD", KEY, NOW_MS + 15_000, "AAPL@desk:7")
    assert told == []


def test_nothing_is_due_while_nobody_wants_anything() -> None:
    """A bus that only asks for the newest quote never writes."""
    assert book().wait_s(0.0) is None


def test_it_beats_every_five_seconds() -> None:
    """All symbols again, with a later expiry."""
    leases = book()
    leases.hold([AAPL, MSFT])
    turn(leases, 0.0)
    assert leases.wait_s(1.0) == BEAT_S - 1
    commands, _ = turn(leases, BEAT_S)
    assert commands == [("ZADD", KEY, NOW_MS + 20_000, "AAPL@desk:7", NOW_MS + 20_000, "MSFT@desk:7")]


def test_a_symbol_that_joins_is_written_at_once_and_alone() -> None:
    """Others wait for the beat."""
    leases = book()
    leases.hold([AAPL])
    turn(leases, 0.0)
    leases.hold([MSFT])
    assert leases.wait_s(1.0) == 0
    assert turn(leases, 1.0)[0] == [("ZADD", KEY, NOW_MS + 16_000, "MSFT@desk:7")]
    assert leases.wait_s(1.0) == BEAT_S - 1


def test_a_symbol_ends_with_the_last_who_wants_it() -> None:
    """Two streams of one bus share the lease."""
    leases = book()
    leases.hold([AAPL])
    leases.hold([AAPL])
    turn(leases, 0.0)
    leases.release([AAPL])
    assert leases.wait_s(1.0) == BEAT_S - 1
    leases.release([AAPL])
    assert turn(leases, 1.0)[0] == [("ZREM", KEY, "AAPL@desk:7")]
    assert leases.wait_s(1.0) is None


def test_giving_back_what_nobody_holds_does_nothing() -> None:
    """Also what another consumer holds."""
    leases = book()
    leases.release([AAPL])
    assert leases.wait_s(0.0) is None


def test_one_that_returns_while_it_is_removed_is_written_again() -> None:
    """The answer to the removal does not hide that it is wanted."""
    leases = book()
    leases.hold([AAPL])
    turn(leases, 0.0)
    leases.release([AAPL])
    due = leases.next_round(1.0, NOW_MS)
    leases.hold([AAPL])
    leases.answered(due, [1], 1.0)
    assert leases.wait_s(1.0) == 0
    assert turn(leases, 1.0)[0][0][0] == "ZADD"


def test_thousands_of_symbols_go_in_commands_of_a_few_hundred() -> None:
    """Both ways."""
    leases = book()
    symbols = [f"S{n}" for n in range(5_000)]
    leases.hold(symbols)
    commands, _ = turn(leases, 0.0)
    added = [command for command in commands if command[0] == "ZADD"]
    assert [len(command) for command in added] == [2 + 2 * CHUNK] * 10
    leases.release_all()
    removed, _ = turn(leases, 1.0)
    assert [len(command) for command in removed] == [2 + CHUNK] * 10


@pytest.mark.parametrize(("refusal", "after_s"), [(DENIED, REFUSED_RETRY_S), (FULL, UNWILLING_RETRY_S)])
def test_a_refusal_is_told_once_and_tried_again_rarely(refusal: Refusal, after_s: float) -> None:
    """And told once more when it is over."""
    leases = book()
    leases.hold([AAPL])
    _, told = turn(leases, 0.0, refusal)
    assert [note.is_warning for note in told] == [True]
    assert refusal.why in told[0].text
    assert leases.trouble is not None
    assert leases.wait_s(0.0) == after_s
    assert turn(leases, after_s, refusal)[1] == []
    _, told = turn(leases, 2 * after_s)
    assert [note.is_warning for note in told] == [False]
    assert leases.trouble is None


def test_what_had_no_answer_is_sent_again_soon_and_removed_when_it_is_left() -> None:
    """It may have been written."""
    leases = book()
    leases.hold([AAPL])
    leases.next_round(0.0, NOW_MS)
    assert [note.is_warning for note in leases.lost("away", 0.0)] == [True]
    assert leases.lost("away", 0.0) == []
    assert leases.wait_s(0.0) == 1.0
    leases.release([AAPL])
    assert turn(leases, 1.0)[0] == [("ZREM", KEY, "AAPL@desk:7")]


def test_leaving_does_not_wait_for_a_server_that_is_away() -> None:
    """After their time leases have ended without us."""
    leases = book()
    leases.hold([AAPL])
    turn(leases, 0.0)
    leases.release_all()
    leases.lost("away", 1.0)
    assert leases.wait_s(TTL_S + 0.1) is None


def test_a_server_that_is_back_gets_a_beat_at_once() -> None:
    """Even one that had refused: it may be another."""
    leases = book()
    leases.hold([AAPL])
    turn(leases, 0.0, DENIED)
    leases.beat_now()
    assert leases.wait_s(0.5) == 0
    turn(leases, 0.5)
    assert leases.wait_s(0.5) == BEAT_S


def test_who_was_too_busy_to_renew_is_told_so() -> None:
    """With how long the leases had ended, and not once more for the next time within a minute."""
    leases = book()
    leases.hold([AAPL])
    turn(leases, 0.0)
    _, told = turn(leases, 20.0)
    assert "had ended for 5.0 s" in told[0].text
    assert turn(leases, 40.0)[1] == []


def test_who_waited_for_a_slow_answer_was_not_too_busy() -> None:
    """A Redis that stood still is no fault of the program's, which asked in time."""
    leases = book()
    leases.hold([AAPL])
    turn(leases, 0.0)
    due = leases.next_round(BEAT_S, NOW_MS)
    assert leases.answered(due, [1] * len(due.commands), BEAT_S + 17.0) == []


def test_who_wanted_nothing_for_long_was_not_too_busy() -> None:
    """A pause between two loops is not a blocked loop."""
    leases = book()
    leases.hold([AAPL])
    turn(leases, 0.0)
    leases.release_all()
    turn(leases, 1.0)
    leases.hold([AAPL])
    assert turn(leases, 1_000.0)[1] == []


def test_what_expired_a_minute_ago_is_swept_now_and_then() -> None:
    """Whoever it was; with a beat, and once a minute at most."""
    leases = book()
    leases.hold([AAPL])
    commands, _ = turn(leases, 0.0)
    assert commands[-1] == ("ZREMRANGEBYSCORE", KEY, "-inf", NOW_MS - int(SWEEP_AFTER_S * 1000))
    assert not [c for t in range(5, 60, 5) for c in turn(leases, float(t))[0] if c[0] != "ZADD"]
    assert turn(leases, 60.0)[0][-1][0] == "ZREMRANGEBYSCORE"


def test_who_may_not_sweep_keeps_its_leases_and_tries_no_more() -> None:
    """A user made for an older release."""
    leases = book()
    leases.hold([AAPL])
    due = leases.next_round(0.0, NOW_MS)
    assert leases.answered(due, [1, DENIED], 0.0) == []
    assert leases.trouble is None
    assert [command[0] for command in turn(leases, 60.0)[0]] == ["ZADD"]


@pytest.mark.parametrize("name", ["a", "desk:7", "host.example:1234:9f3a", "desk#9f", "-x"])
def test_ordinary_names_are_consumer_ids(name: str) -> None:
    """Program, host and process."""
    assert parse_consumer_id(name) == name


@pytest.mark.parametrize("name", ["", "a@b", "a b", "é", "a\x1b[31m", "a\n", "x" * 129])
def test_a_name_that_would_move_the_symbol_or_act_on_a_terminal_is_no_consumer_id(name: str) -> None:
    """The reason names it, and nothing in it acts on a terminal either."""
    with pytest.raises(BadConsumerId, match="not usable") as error:
        parse_consumer_id(name)
    assert str(error.value).isprintable()


def test_what_has_ended_by_itself_is_not_given_back() -> None:
    """And the log does not say of a server that refuses that it takes leases again."""
    leases = book()
    leases.hold({"AAPL"})
    first = leases.next_round(100.0, NOW_MS)
    leases.answered(first, [1] * len(first.commands), 100.0)
    leases.release({"AAPL"})
    second = leases.next_round(101.0, NOW_MS)
    leases.answered(second, [DENIED], 101.0)
    third = leases.next_round(101.0 + 2 * TTL_S, NOW_MS)
    assert third.commands == ()
    assert leases.answered(third, [], 101.0 + 2 * TTL_S) == []
    assert leases.wait_s(101.0 + 2 * TTL_S) is None


class LeasesMachine(RuleBasedStateMachine):
    """Streams come and go, time passes, the server forgets, is away or refuses; in the end it has what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.book = book()
        self.now_s = 100.0
        self.streams: list[frozenset[str]] = []
        self.forgot = False
        self.server: dict[str, int] = {"AAPL@other": NOW_MS + 10**9, "LONG@dead": 0}

    @rule(some=st.frozensets(st.sampled_from("ABCDEF"), min_size=1))
    def hold(self, some: frozenset[str]) -> None:
        """A stream begins."""
        self.streams.append(some)
        self.book.hold(some)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A stream ends."""
        self.book.release(self.streams.pop(data.draw(st.integers(0, len(self.streams) - 1))))

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        """Time passes without the keeper having a turn."""
        self.now_s += seconds

    @rule()
    def forget(self) -> None:
        """The server loses everything, and a reader notices."""
        self.server.clear()
        self.forgot = True
        self.book.beat_now()

    @rule(kind=st.sampled_from(["denied", "full", "lost before", "lost after"]))
    def fail(self, kind: str) -> None:
        """The server refuses, or the connection ends before or after the commands were applied."""
        if self.book.wait_s(self.now_s) != 0:
            return
        due = self.book.next_round(self.now_s, self.server_ms)
        if kind == "lost after":
            self.apply(due.commands)
        if kind.startswith("lost"):
            self.book.lost("away", self.now_s)
        else:
            refusal = DENIED if kind == "denied" else FULL
            self.book.answered(due, [refusal] * len(due.commands), self.now_s)

    @rule()
    def settle(self) -> None:
        """The server answers, for as long as something is due."""
        for _ in range(5):
            wait_s = self.book.wait_s(self.now_s)
            if wait_s is None or (wait_s > 0 and self.book.trouble is None):
                break
            self.now_s += wait_s
            due = self.book.next_round(self.now_s, self.server_ms)
            assert due.commands or not self.book.symbols
            self.apply(due.commands)
            self.book.answered(due, [1] * len(due.commands), self.now_s)
        else:
            raise AssertionError("it never has enough")
        held = frozenset[str]().union(*self.streams)
        assert self.book.symbols == held
        mine = {m for m, until in self.server.items() if m.endswith("@desk:7") and until > self.server_ms}
        assert mine == {f"{symbol}@desk:7" for symbol in held}
        # Another beat may be lost from here on, and the leases live.
        assert all(self.server[m] >= self.server_ms + (TTL_S - BEAT_S) * 1000 - 1 for m in mine)

    @invariant()
    def others_are_left_alone(self) -> None:
        """Only the server itself forgets what another consumer holds."""
        assert self.forgot or "AAPL@other" in self.server

    @property
    def server_ms(self) -> int:
        """The clock of the server."""
        return NOW_MS + int(self.now_s * 1000)

    def apply(self, commands: tuple[tuple[str | int, ...], ...]) -> None:
        """What the server does."""
        for name, key, *rest in commands:
            assert key == KEY
            if name == "ZADD":
                self.server |= {str(m): int(s) for s, m in zip(rest[::2], rest[1::2], strict=True)}
            elif name == "ZREM":
                assert all(str(member).endswith("@desk:7") for member in rest)
                for member in rest:
                    self.server.pop(str(member), None)
            else:
                assert name == "ZREMRANGEBYSCORE"
                self.server = {m: s for m, s in self.server.items() if s > int(rest[1])}


TestLeases = LeasesMachine.TestCase
TestLeases.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)

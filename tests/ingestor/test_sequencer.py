"""From frames to streams through every fault in any order, on a real server: nothing lost unsaid, nothing twice."""

import contextlib
import json
from collections import defaultdict
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis, ResponseError

from tests.ingestor.sequencer import Sequencer
from tests.ingestor.vendor import T0_NS, message
from tests.ingestor.writer import KEYS
from wire import decode_latest

SYMBOLS = "ABC"
NO_TIME: Final = msgspec.Raw(b"\xc0")


class Market(RuleBasedStateMachine):
    """Quotes bear their ordinals as bid sizes; what is accepted of each symbol is remembered in its order."""

    redis: Redis
    may_forget = False
    may_intrude = False
    memory_bytes = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.redis.config_set("maxmemory", 0)
        self.redis.flushall()
        self.made = Sequencer(
            self.redis,
            *SYMBOLS,
            memory_bytes=self.memory_bytes,
            replay_bytes=2500 if self.may_forget else 10**9,
        )
        self.ordinal = 0
        self.time_ns = T0_NS
        self.accepted: dict[str, list[int]] = defaultdict(list)
        self.images: list[dict[bytes, Any]] = [{}]

    @rule(
        symbols=st.text(SYMBOLS + "?", min_size=1, max_size=12),
        step_ns=st.sampled_from([0, 1, 1000, 10**6, -5000]),
        odd=st.integers(0, 30),
    )
    def receive(self, symbols: str, step_ns: int, odd: int) -> None:
        """A frame; some of its quotes cannot be stored, some tie, some come out of order."""
        quotes = []
        for position, symbol in enumerate(symbols):
            self.ordinal += 1
            self.time_ns += step_ns
            made = message(symbol, self.time_ns, bs=self.ordinal, bp=1.5)
            quotes.append(made if position != odd else msgspec.structs.replace(made, t=NO_TIME))
            if position != odd and symbol in SYMBOLS:
                self.accepted[symbol].append(self.ordinal)
        self.made.receive(*quotes)
        self.made.pump()

    @rule(symbols=st.sets(st.sampled_from(SYMBOLS), min_size=1))
    def lose_the_feed(self, symbols: set[str]) -> None:
        """Markers of the daemon's own."""
        self.made.note_hole(*sorted(symbols))

    @precondition(lambda self: self.made.on_the_wire)
    @rule(most=st.integers(1, 3))
    def arrive(self, most: int) -> None:
        """Batches reach the server."""
        for _ in range(min(most, len(self.made.on_the_wire))):
            self.made.arrive()

    @precondition(lambda self: self.made.answers)
    @rule(most=st.integers(1, 3))
    def hear(self, most: int) -> None:
        """Answers reach us."""
        while most and self.made.answers:
            self.made.hear()
            self.made.pump()
            most -= 1

    @precondition(lambda self: self.made.is_connected)
    @rule()
    def go_on(self) -> None:
        """Some time after a refusal."""
        if self.made.outbox.is_refused_whole:
            self.made.outbox.go_on()
            self.made.pump()

    @precondition(lambda self: self.made.is_connected)
    @rule()
    def cut(self) -> None:
        """The connection is reset; what was applied stays applied, unheard."""
        self.made.cut()

    @precondition(lambda self: not self.made.is_connected)
    @rule()
    def connect(self) -> None:
        """Another connection, which a server without memory refuses."""
        self.made.connect()
        self.made.pump()

    @rule(bytes_=st.sampled_from([0, 1]))
    def turn_memory(self, bytes_: int) -> None:
        """The server runs out of memory, or has some again."""
        self.redis.config_set("maxmemory", bytes_)

    @precondition(lambda self: self.may_intrude)
    @rule(symbol=st.sampled_from(SYMBOLS), ahead_ms=st.sampled_from([-(10**6), 10**6, 10**9]))
    def intrude(self, symbol: str, ahead_ms: int) -> None:
        """Somebody else writes: where quotes stand already, or ahead of all that are under way.

        Between two that are under way it costs their order, since the second is stored before it is known that the
        first was not.
        """
        with contextlib.suppress(ResponseError):
            self.redis.xadd(KEYS.stream(symbol), {"x": "y"}, id=f"{self.time_ns // 10**6 + ahead_ms}-7")

    @precondition(lambda self: self.may_forget)
    @rule()
    def remember(self) -> None:
        """The server saves what it has."""
        found: Any = self.redis.keys("*")
        self.images.append({key: self.redis.dump(key) for key in found})

    @precondition(lambda self: self.may_forget)
    @rule(data=st.data(), is_told=st.booleans())
    def forget(self, data: st.DataObject, is_told: bool) -> None:
        """It comes back with what it had saved at some time, or is emptied under our hands."""
        image = data.draw(st.sampled_from(self.images[-3:]))
        if is_told and self.made.is_connected:
            self.made.cut()
        self.redis.config_set("maxmemory", 0)
        self.redis.flushall()
        for key, dump in image.items():
            self.redis.restore(key, 0, dump)

    @invariant()
    def accounts_add_up(self) -> None:
        """At all times."""
        assert self.made.counts.received == self.made.settled + self.made.held
        assert self.made.backlog.bytes <= self.memory_bytes

    def teardown(self) -> None:
        """When all troubles are over, each quote is in its stream once, in order, or a marker is."""
        self.redis.config_set("maxmemory", 0)
        self.made.cut()
        self.made.settle_all()
        counts, stamped = self.made.counts, self.made.stamper.counts
        assert counts.received == self.ordinal == self.made.settled
        assert sum(counts.rejected.values()) == 0
        assert sum(stamped.rejected.values()) == self.ordinal - sum(map(len, self.accepted.values()))
        missing = 0
        for symbol in SYMBOLS:
            missing += self.check(symbol)
        if not self.may_forget:
            assert missing == counts.dropped_total
            assert (counts.replayed, counts.lost_by_redis, counts.already_stored) == (0, 0, 0)

    def check(self, symbol: str) -> int:
        """One stream and its field of the cache; how many quotes it has not."""
        entries: Any = self.redis.xrange(KEYS.stream(symbol))
        rest, missing = list(self.accepted[symbol]), 0
        found: list[tuple[bool, Any]] = [
            (b"q" in fields, json.loads(fields.get(b"q") or fields[b"gap"]))
            for _, fields in entries
            if b"x" not in fields
        ]
        told: list[Any] = []
        for is_quote, body in [*found, (True, None)]:
            if not is_quote:
                told.append(body)
                continue
            hole = rest.index(body[1]) if body is not None else len(rest)
            said = [marker for marker in told if marker["reason"] in ("queue_full", "redis_lost")]
            if hole:
                said = [m for m in told if "missing" in m or m["reason"] in ("queue_full", "redis_lost")]
                assert said, f"{hole} quotes of {symbol} are missing without a word"
            if not self.may_forget:
                assert sum(marker.get("missing", 0) for marker in told) == hole
            missing += hole
            del rest[: hole + 1]
            told = []
        newest = [entry_id.decode() for entry_id, fields in entries if b"q" in fields][-1:]
        held: Any = self.redis.hget(KEYS.latest, symbol)
        assert [decode_latest(symbol, held).id] if held else newest == []
        return missing


LIGHT = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def machine(redis: Redis, **traits: Any) -> type[RuleBasedStateMachine]:
    """A kind of market on this server."""
    return type("Market", (Market,), {"redis": redis, **traits})


@pytest.mark.fault("K05", "K07", "K12", "K14")
def test_lost_answers_and_refusals_leave_no_hole_and_no_double(redis: Redis) -> None:
    """Connections cut anywhere, memory that comes and goes: every quote is stored once, in order."""
    run_state_machine_as_test(machine(redis), settings=LIGHT)


@pytest.mark.fault("K28")
def test_entries_of_somebody_else_cost_neither_a_quote_nor_the_order(redis: Redis) -> None:
    """Wherever they stand, and whatever waits: every quote is stored once, in order, behind them."""
    run_state_machine_as_test(machine(redis, may_intrude=True), settings=LIGHT)


@pytest.mark.fault("K08")
def test_what_does_not_fit_into_memory_is_marked_in_its_place_and_counted(redis: Redis) -> None:
    """To the quote: markers say how many are missing where they stand, and the accounts say the same."""
    run_state_machine_as_test(machine(redis, memory_bytes=2000), settings=LIGHT)


@pytest.mark.fault("K03", "K04", "K17", "K32")
def test_what_a_server_forgets_is_sent_again_or_marked(redis: Redis) -> None:
    """However often it comes back with less, with or without a word: in order, once, or behind a marker."""
    run_state_machine_as_test(machine(redis, may_forget=True), settings=LIGHT)


@pytest.mark.fault("K04", "K08")
def test_a_forgetful_server_and_full_memory_together_hide_nothing(redis: Redis) -> None:
    """Both kinds of markers keep their places."""
    run_state_machine_as_test(machine(redis, may_forget=True, memory_bytes=2000), settings=LIGHT)

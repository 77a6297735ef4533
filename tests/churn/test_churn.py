"""A little churn (`make random`), and the account of it; `make churn` lives through hundreds."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from simulator.redis_server import RedisServer
from tests.churn import crew, live
from tests.churn.accounts import (
    AWAY,
    BEHIND,
    FORGOTTEN,
    IN_HAND,
    NEEDLESS,
    NOT_ACKNOWLEDGED,
    NOT_WRITTEN,
    PENDING,
    SENT_AGAIN,
    SET_BACK,
    WITHOUT_NEED,
    WRITTEN_LATE,
    Blow,
    account,
)
from tests.churn.design import KINDS, Deed, runs
from tests.churn.worker import GROUP
from tests.churn.writer import KEYS, Writer
from tests.programs import outcome
from wire import entry_id_at


@pytest.mark.random
@pytest.mark.fault("Q21")
@pytest.mark.timeout(240)
async def test_whatever_befalls_a_group_each_entry_is_handled_or_told() -> None:
    """Real workers that are killed, frozen and started, and a real server that loses things under them."""
    code, said = await outcome("tests.churn", "--seed", "1", "--count", "2", "--seconds", "8")
    assert code == 0, said


def test_a_seed_and_a_number_stand_for_one_run() -> None:
    """Whatever the count; and a few runs meet every kind of deed."""
    assert runs(7, 3, 20.0) == runs(7, 9, 20.0)[:3]
    assert {deed.kind for run in runs(1, 6, 60.0) for deed in run.deeds} == set(KINDS)


def note(what: str, at: float, **more: Any) -> dict[str, Any]:
    """A line of a worker."""
    return {"what": what, "at": at, "symbol": "A", **more}


def test_the_account_tells_what_was_lost() -> None:
    """Handled by nobody, and in no gap of its own symbol."""
    notes = [
        note("handled", 1.0, id="1-0", time=10),
        note("told", 2.0, since=15, to=20, why="trimmed"),
        {**note("told", 2.0, since=30, to=40, why="trimmed"), "symbol": "B"},
    ]
    found = account({"A": [10, 20, 30]}, notes, [])
    assert (found.entries, found.handled, found.told, found.lost) == (3, 1, 1, 1)
    assert found.missing == ["A 30"]


T0_NS: Final = 1_800_000_000_000_000_000


def entry(number: int) -> tuple[int, str]:
    """The time and the id of this entry."""
    time_ns = T0_NS + number * 1_000
    return time_ns, str(entry_id_at(time_ns))


def handled(number: int, at: float, **more: Any) -> dict[str, Any]:
    """A worker was handed this entry."""
    time_ns, entry_id = entry(number)
    return note("handled", at, id=entry_id, time=time_ns, **more)


def acked(number: int, at: float) -> dict[str, Any]:
    """Redis has acknowledged it."""
    return note("acked", at, asked=at - 0.01, ids=[["A", entry(number)[1]]])


def reasons(
    blows: list[Blow], *notes: dict[str, Any], sent_again: dict[tuple[str, int], list[float]] | None = None
) -> dict[str, int]:
    """Why entries came again."""
    sent = {"A": [entry(number)[0] for number in range(1, 9)]}
    found = account(sent, notes, blows, sent_again)
    assert found.needless == sum(count for why, count in found.again.items() if why in NEEDLESS)
    return found.again


def destroyed(floor: int, *, written: float, at: float = 8.0, pending: tuple[int, ...] = ()) -> Blow:
    """The group was destroyed when Redis knew this of it."""
    return Blow(
        *(NOT_WRITTEN, at, at, "A"),
        floor=entry(floor)[1],
        written=written,
        pending=frozenset(entry(number)[1] for number in pending),
    )


@pytest.mark.parametrize(
    ("blows", "why"),
    [
        ([], WITHOUT_NEED),
        ([Blow(SET_BACK, 8.0, 8.1, "A")], SET_BACK),
        ([Blow(SET_BACK, 8.0, 8.1, "B")], WITHOUT_NEED),
        ([Blow(SET_BACK, 9.5, 9.6, "A")], WITHOUT_NEED),
        ([Blow(AWAY, 1.5, 2.5, "A")], AWAY),
        ([Blow(AWAY, 2.5, 3.5, "A")], WITHOUT_NEED),
        ([Blow(FORGOTTEN, 3.5, 4.5)], FORGOTTEN),
        ([Blow(FORGOTTEN, 5.0, 6.0)], WITHOUT_NEED),
    ],
)
def test_an_entry_that_came_again_has_a_reason_or_came_without_need(blows: list[Blow], why: str) -> None:
    """Acknowledged at 2 and handled again at 9: a blow explains it only where Redis could not know."""
    assert reasons(blows, handled(2, 1.0), acked(2, 2.0), handled(2, 9.0)) == {why: 1}


@pytest.mark.parametrize(
    ("blow", "why"),
    [
        (Blow(SET_BACK, 1.5, 1.6, "A"), SET_BACK),
        (destroyed(1, written=1.2, at=1.5), NOT_WRITTEN),
        (Blow(SET_BACK, 0.5, 0.6, "A"), WITHOUT_NEED),
    ],
)
def test_an_acknowledgement_may_meet_a_group_that_was_made_since(blow: Blow, why: str) -> None:
    """Handed out at 1 and acknowledged at 2: in between the group was made anew, where nothing of it is pending."""
    assert reasons([blow], handled(2, 1.0), acked(2, 2.0), handled(2, 9.0)) == {why: 1}


def test_what_nobody_had_acknowledged_comes_again() -> None:
    """Also when it was acknowledged later, or just before by another worker that had been too slow."""
    assert reasons([], handled(2, 1.0), handled(2, 9.0), acked(2, 9.5)) == {NOT_ACKNOWLEDGED: 1}
    assert reasons([], handled(2, 1.0), acked(2, 8.5), handled(2, 9.0)) == {IN_HAND: 1}


def test_each_acknowledgement_counts() -> None:
    """What explains that an entry came again does not explain that it came once more after that."""
    notes = [handled(2, 1.0), acked(2, 2.0), handled(2, 9.0), acked(2, 9.1), handled(2, 19.0)]
    assert reasons([Blow(SET_BACK, 8.0, 8.1, "A")], *notes) == {SET_BACK: 1, WITHOUT_NEED: 1}


@pytest.mark.parametrize(
    ("blow", "why"),
    [
        (destroyed(1, written=1.5), NOT_WRITTEN),
        (destroyed(2, written=1.5), WITHOUT_NEED),
        (destroyed(1, written=7.0), WITHOUT_NEED),
        (destroyed(1, written=7.0, pending=(2,)), PENDING),
    ],
)
def test_what_the_record_knows_does_not_come_again_after_the_group_was_destroyed(
    blow: Blow, why: str
) -> None:
    """What lies behind its floor does, if it was acknowledged after the record was written."""
    notes = [handled(1, 0.5), acked(1, 0.6), handled(2, 1.0), acked(2, 2.0), handled(2, 9.0)]
    assert reasons([blow], *notes) == {why: 1}


@pytest.mark.parametrize(("acknowledged", "why"), [(7.5, BEHIND), (1.0, WITHOUT_NEED)])
def test_one_that_is_not_acknowledged_holds_those_behind_it(acknowledged: float, why: str) -> None:
    """As long as it is pending the record can say nothing of them."""
    notes = [handled(2, 0.5), acked(2, acknowledged), handled(3, 1.0), acked(3, 2.0), handled(3, 9.0)]
    assert reasons([destroyed(1, written=7.0)], *notes) == {why: 1}


def test_a_record_that_workers_do_not_write_explains_nothing() -> None:
    """One of them was at work on that stream all the time, and its round did not come."""
    working = [handled(4, 2.0 + step / 10, worker="w") for step in range(60)]
    notes = [handled(2, 1.0), acked(2, 2.0), handled(2, 9.0)]
    found = reasons([destroyed(1, written=1.5)], *notes, *working)
    assert found[WRITTEN_LATE] == 1


def test_what_the_writer_sent_again_comes_again() -> None:
    """As a new entry of a server that had lost it."""
    notes = [handled(2, 1.0), acked(2, 2.0), handled(2, 9.0)]
    assert reasons([], *notes, sent_again={("A", entry(2)[0]): [8.0]}) == {SENT_AGAIN: 1}
    assert reasons([], *notes, sent_again={("A", entry(2)[0]): [1.5]}) == {WITHOUT_NEED: 1}
    # Acknowledged while there was the entry again, and not yet the group.
    soon = [handled(2, 2.0), acked(2, 3.0), handled(2, 5.2)]
    assert reasons([], *soon, sent_again={("A", entry(2)[0]): [2.5]}) == {SENT_AGAIN: 1}
    # Or handed out before it was sent again, and acknowledged behind that.
    assert reasons([], *soon, sent_again={("A", entry(2)[0]): [1.5]}) == {SENT_AGAIN: 1}
    assert reasons([], *soon, sent_again={("A", entry(2)[0]): [1.1]}) == {WITHOUT_NEED: 1}


STUBBORN: Final = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize(("machine_takes", "leaves_after_s", "failures"), [(0, 60.0, 1), (1, 1.0, 0)])
def test_a_worker_that_hangs_is_told_from_one_that_has_no_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine_takes: int, leaves_after_s: float, failures: int
) -> None:
    """What the machine takes from it does not count as time that it needs to leave."""
    monkeypatch.setattr(crew, "END_S", 0.3)
    monkeypatch.setattr(crew, "_kept_waiting_s", lambda _: machine_takes * time.monotonic())
    some = crew.Crew("", tmp_path, [], random.Random(1), None)
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(leaves_after_s)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        some.running.append(("stubborn", process))
        some.dismiss(0)
    assert len(some.failures) == failures


async def done(play: live.Play, deed: Deed) -> None:
    """A deed, and what goes on behind it."""
    async with asyncio.TaskGroup() as tasks:
        await play.do(deed, tasks)


@pytest.mark.parametrize("kind", ["trim", "delete", "away and back", "flush", "restart without file"])
async def test_the_last_trace_of_a_group_that_redis_lost_is_left_alone(tmp_path: Path, kind: str) -> None:
    """While nobody knows it, what the marker in the stream tells would be told by nobody; afterwards it goes."""
    (run,), deed = runs(1, 1, 20.0), Deed(at_s=0.0, kind=kind, which=0, for_s=0.02, amount=0)
    with RedisServer(appendonly=True) as server:
        async with Redis.from_url(server.url, protocol=2) as redis:
            writer = Writer(redis, ["S0"], 1.0, 1.0, random.Random(1))
            play = live.Play(run, server, redis, crew.Crew("", tmp_path, [], random.Random(1), None), writer)
            await redis.xadd(KEYS.stream("S0"), {"gap": b"{}"})
            await done(play, deed)
            assert await redis.xlen(KEYS.stream("S0")) == 1
            assert [line for line in play.diary if "left alone" in line]
            await redis.zadd(KEYS.group(GROUP, "S0"), {b"known": 0})
            await done(play, deed)
            assert bool(await redis.exists(KEYS.stream("S0"))) == (kind in {"trim", "away and back"})
            assert len(play.diary) == 1

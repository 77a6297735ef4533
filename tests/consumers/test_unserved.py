"""A loop that waits because of its symbol's state says so."""

import asyncio
import itertools
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumers import Bus
from consumers.reading.unserved import TOLD_EVERY_S, Unserved
from tests.consumers.conftest import KEYS, Writer, blocked, numbers, take, until

BEHIND = "waits behind the limit of 30 symbols"
PUT_OUT = f"put out by an operator's symbol; {BEHIND}"
LOOKED_AGAIN_S = 5.0


def state(name: str, reason: str | None = None) -> bytes:
    """A field of `quotes:subscriptions`."""
    return json.dumps({"state": name, "reason": reason, "since": "2026-01-01T00:00:00.000Z"}).encode()


def texts(watch: Unserved, now_s: float, **states: bytes | None) -> list[str]:
    """What is told of these at this time."""
    return [told.text for told in watch.look(states, now_s)]


def test_who_waits_is_told_once_with_state_and_reason() -> None:
    """And nothing more for as long as nothing changes, however often it is looked."""
    watch = Unserved()
    assert texts(watch, 0.0, AMD=state("waiting", BEHIND)) == [f"AMD: waiting, no quotes come: {BEHIND}"]
    assert all(texts(watch, now_s, AMD=state("waiting", BEHIND)) == [] for now_s in (2.0, 100.0, 1e6))


def test_a_change_is_told_again_but_at_most_once_a_minute() -> None:
    """What it is by then: what was in between is not told."""
    watch = Unserved()
    texts(watch, 0.0, AMD=state("waiting", BEHIND))
    assert texts(watch, 2.0, AMD=state("waiting", PUT_OUT)) == []
    assert texts(watch, 30.0, AMD=state("refused", "no")) == []
    (text,) = texts(watch, TOLD_EVERY_S, AMD=state("waiting", PUT_OUT))
    assert PUT_OUT in text
    assert texts(watch, TOLD_EVERY_S + 10, AMD=state("live")) == []
    (told,) = watch.look({"AMD": state("live")}, 2 * TOLD_EVERY_S)
    assert (told.is_warning, told.text) == (False, "AMD: live, quotes come again")
    assert texts(watch, 9 * TOLD_EVERY_S, AMD=state("live")) == []


def test_symbols_with_the_same_reason_share_a_line_of_bounded_length() -> None:
    """The first twenty by name, and how many more."""
    states: dict[str, bytes | None] = {f"S{n:02}": state("waiting", BEHIND) for n in range(45)}
    (told,) = Unserved().look(states | {"LIVE": state("live")}, 0.0)
    assert told.text.startswith("S00, S01, ")
    assert "S19 and 25 more: waiting, no quotes come: " in told.text
    (told,) = Unserved().look({"AMD": state("refused", "x" * 10_000)}, 0.0)
    assert len(told.text) < 400


@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"\xff", b"[1]", state("requested"), state("leaving"), state("?")]
)
def test_what_is_not_known_or_passes_by_itself_is_not_told(value: bytes | None) -> None:
    """Nor is a symbol that is live from the beginning."""
    assert texts(Unserved(), 0.0, AMD=value) == []
    assert texts(Unserved(), 0.0, AMD=state("live")) == []


def test_a_loop_that_begins_again_within_the_minute_is_not_told_anew() -> None:
    """And what nobody follows is forgotten."""
    watch = Unserved()
    texts(watch, 0.0, AMD=state("waiting", BEHIND))
    assert texts(watch, 10.0) == []
    assert texts(watch, 20.0, AMD=state("waiting", BEHIND)) == []
    assert texts(watch, TOLD_EVERY_S) == []
    assert len(texts(watch, TOLD_EVERY_S + 1, AMD=state("waiting", BEHIND))) == 1


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 40),
            st.sampled_from(
                [None, state("live"), state("waiting", "a"), state("waiting", "b"), state("refused", "c")]
            ),
        ),
        max_size=40,
    )
)
def test_however_states_flap_a_symbol_has_one_line_a_minute(steps: list[tuple[float, bytes | None]]) -> None:
    """And the last word is right a minute after things have come to rest."""
    watch, now_s, told_at = Unserved(), 0.0, []
    last: bytes | None = None
    words = ""
    for pause_s, value in steps:
        now_s += pause_s
        last = value or last
        for text in texts(watch, now_s, AMD=value):
            told_at.append(now_s)
            words = text
    assert all(b - a >= TOLD_EVERY_S for a, b in itertools.pairwise(told_at))
    words = next(iter(texts(watch, now_s + TOLD_EVERY_S, AMD=last)), words)
    reason = json.loads(last)["reason"] if last else None
    assert (reason in words) if reason else ("waiting" not in words and "refused" not in words)


@pytest.mark.parametrize("lease", [True, False])
async def test_a_loop_is_told_within_seconds_and_reads_on(
    bus: Bus, redis: Redis, writer: Writer, caplog: pytest.LogCaptureFixture, lease: bool
) -> None:
    """When it begins on a symbol that waits, and when one that it reads is put out; with a lease or without."""
    caplog.set_level(logging.INFO, logger="consumers")
    await redis.hset(KEYS.subscriptions, mapping={"AMD": state("waiting", BEHIND), "MSFT": state("live")})

    async def told(text: str) -> None:
        async def is_so() -> bool:
            return any(
                text in record.message for record in caplog.records if record.levelno == logging.WARNING
            )

        await until(is_so, LOOKED_AGAIN_S)

    async with asyncio.TaskGroup() as group:
        stream = bus.quotes("AMD", "MSFT", lease=lease)
        loop = group.create_task(take(aiter(stream), 2))
        await told(f"AMD: waiting, no quotes come: {BEHIND}")
        await redis.hset(KEYS.subscriptions, "MSFT", state("waiting", PUT_OUT))
        await told(f"MSFT: waiting, no quotes come: {PUT_OUT}")
        await blocked(redis)
        await writer.quotes("MSFT", 2)
        assert numbers(await loop) == [0, 1]
    await stream.aclose()


async def test_every_way_of_following_is_told_of(
    bus: Bus, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Newest quotes, groups, and a symbol that is added while a loop runs."""
    for symbol in ("ONE", "TWO", "LATER"):
        await redis.hset(KEYS.subscriptions, symbol, state("refused", "no such thing"))
    newest, workers = bus.newest("ONE"), bus.group("g", "TWO")
    async with asyncio.TaskGroup() as group:
        loops = [
            group.create_task(newest.get(timeout_s=20)),
            group.create_task(workers.get(timeout_s=20)),
        ]

        async def both() -> bool:
            return {"ONE", "TWO"} <= {
                r.message.partition(":")[0].partition(",")[0] for r in caplog.records
            } or any(r.message.startswith("ONE, TWO: refused") for r in caplog.records)

        await until(both, LOOKED_AGAIN_S)
        newest.add("LATER")

        async def later() -> bool:
            return any(r.message.startswith("LATER: refused") for r in caplog.records)

        await until(later, LOOKED_AGAIN_S)
        for loop in loops:
            loop.cancel()
    await newest.aclose()
    await workers.aclose()

"""Somebody trims, deletes, renames and forgets at random beside readers on a real server: all that went is told."""

import asyncio
from typing import NamedTuple

import pytest
from redis.asyncio import Redis

from simulator.redis_server import RedisServer
from tests.losses.history import KINDS, PATIENCE_S, History
from tests.losses.reader import Balance

SEEDS_OF_A_KIND = 2
SEEDS_OF_ALL = 8
UNTOLD_MAX = 2
"""Of the histories with all damage, in how many something may stay untold: `make losses` finds 7 in 600."""


class Found(NamedTuple):
    """The balance of each history."""

    of_a_kind: dict[tuple[str, int], Balance]
    of_all: dict[int, Balance]


@pytest.fixture(scope="module")
def found() -> Found:
    """All histories at a time, for they wait most of it; on a server of their own, as they cut connections."""
    with RedisServer() as server:
        return asyncio.run(_live(server.url))


async def _live(url: str) -> Found:
    async with Redis.from_url(url, protocol=2, socket_timeout=PATIENCE_S) as redis:
        of_a_kind = {
            (kind, seed): History(1_000 * (1 + number) + seed, redis, url, deeds=40, kinds=(kind,))
            for number, kind in enumerate(KINDS)
            for seed in range(SEEDS_OF_A_KIND)
        }
        of_all = {seed: History(seed, redis, url) for seed in range(1, 1 + SEEDS_OF_ALL)}
        histories = (*of_a_kind.values(), *of_all.values())
        balances = iter(await asyncio.gather(*(history.run() for history in histories)))
        return Found(
            {key: next(balances) for key in of_a_kind},
            {seed: next(balances) for seed in of_all},
        )


@pytest.mark.random
@pytest.mark.fault("Q01", "Q02", "Q09")
def test_whoever_spoils_streams_in_one_way_is_told_of_each_time(found: Found) -> None:
    """Each kind of damage alone, at any moment, with quick readers and slow: no entry is missed in silence."""
    assert {key: its.untold for key, its in found.of_a_kind.items() if its.untold} == {}
    assert {key: its.twice for key, its in found.of_a_kind.items() if its.twice} == {}
    lossy = {kind for (kind, _), its in found.of_a_kind.items() if its.missing}
    assert lossy >= {"trim", "trim to nothing", "delete entries", "delete the stream"}


@pytest.mark.random
@pytest.mark.fault("Q01", "Q02", "Q09")
def test_of_all_damage_at_once_next_to_nothing_stays_untold(found: Found) -> None:
    """Where one hides the other within a second, such as an entry deleted from a stream that is then replaced."""
    untold = {seed: its.untold for seed, its in found.of_all.items() if its.untold}
    assert len(untold) <= UNTOLD_MAX, untold
    assert {seed: its.twice for seed, its in found.of_all.items() if its.twice} == {}
    assert sum(its.missing for its in found.of_all.values()) > 0

"""Somebody trims, deletes, renames and forgets at random beside readers on a real server: all that went is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from simulator.redis_server import RedisServer
from tests.losses.history import KINDS, History
from tests.losses.reader import Balance

SEEDS_OF_A_KIND = 2
SEEDS_OF_ALL = 8


@pytest.fixture
async def place() -> AsyncIterator[tuple[str, Redis]]:
    """A server of its own, because others would see their connections cut."""
    with RedisServer() as server:
        async with Redis.from_url(server.url, protocol=2) as redis:
            yield server.url, redis


@pytest.mark.fault("Q01", "Q02")
async def test_whoever_spoils_streams_in_one_way_is_told_of_each_time(place: tuple[str, Redis]) -> None:
    """Each kind of damage alone, at any moment, with quick readers and slow: no entry is missed in silence."""
    url, redis = place
    histories = {
        (kind, seed): History(1_000 * number + seed, redis, url, deeds=40, kinds=(kind,))
        for number, kind in enumerate(KINDS)
        for seed in range(SEEDS_OF_A_KIND)
    }
    found = dict(zip(histories, await asyncio.gather(*(h.run() for h in histories.values())), strict=True))
    assert {key: its.untold for key, its in found.items() if its.untold} == {}
    assert {key: its.twice for key, its in found.items() if its.twice} == {}
    assert sum(its.missing for its in found.values()) > 0


@pytest.mark.fault("Q01", "Q02")
async def test_of_all_damage_at_once_next_to_nothing_stays_untold(place: tuple[str, Redis]) -> None:
    """Where one hides the other within a second, such as an entry deleted from a stream that is then replaced."""
    url, redis = place
    histories = [History(seed, redis, url) for seed in range(1, 1 + SEEDS_OF_ALL)]
    total = sum(await asyncio.gather(*(history.run() for history in histories)), Balance())
    assert total.missing > 100
    assert len(total.untold) <= total.missing / 50
    assert total.twice == 0

"""What befalls Redis: each fault brought about, kept up for its time, and healed.

Decides how a fault is done to a real server. Must never know when it is due, nor what it does to the daemon.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import RedisError

from simulator.redis_server import RedisServer
from tests.scenario.proxy import Fault, Way
from tests.scenario.streams import KEYS
from tests.soak.schedule import Strike
from tests.soak.world import World

Deed: TypeAlias = Callable[[World, Strike], Awaitable[None]]

LAG_S: Final = 1.0
SYNC_S: Final = 30.0
SMALL_BYTES: Final = 1_000_000
NOWHERE: Final = ("127.0.0.1", "1")


async def redis_killed(world: World, strike: Strike) -> None:
    """SIGKILL, and a start from what its file has."""
    await asyncio.to_thread(world.primary.kill)
    await asyncio.sleep(strike.lasts_s)
    await asyncio.to_thread(world.primary.start)


async def redis_frozen(world: World, strike: Strike) -> None:
    """It stands still; its connections stay open."""
    world.primary.pause()
    try:
        await asyncio.sleep(strike.lasts_s)
    finally:
        world.primary.resume()


async def clients_killed(world: World, strike: Strike) -> None:
    """Every connection to it ends."""
    for kind in "normal", "pubsub":
        await world.insist(lambda redis, kind=kind: redis.client_kill_filter(_type=kind))  # type: ignore[misc]


async def scripts_flushed(world: World, strike: Strike) -> None:
    """It forgets every script."""
    await world.insist(lambda redis: redis.script_flush("SYNC"))


async def clients_paused(world: World, strike: Strike) -> None:
    """It answers nobody, or no writer, for a while."""
    ms = int(strike.lasts_s * 1000)
    await world.insist(lambda redis: redis.client_pause(ms, all=strike.size < 0.5))
    await asyncio.sleep(strike.lasts_s)


async def out_of_memory(world: World, strike: Strike) -> None:
    """No memory for any write."""
    await world.insist(lambda redis: redis.config_set("maxmemory", SMALL_BYTES))
    await asyncio.sleep(strike.lasts_s)
    await world.insist(lambda redis: redis.config_set("maxmemory", 0))


async def read_only(world: World, strike: Strike) -> None:
    """It becomes a replica of nobody, and the primary again."""
    await world.insist(lambda redis: redis.replicaof(*NOWHERE))
    await asyncio.sleep(strike.lasts_s)
    await world.insist(lambda redis: redis.replicaof("NO", "ONE"))


async def failover(world: World, strike: Strike) -> None:
    """The primary dies, and a replica takes over that is late by the time the fault lasts."""
    if world.replica is None:
        await world.attach_replica()
    # What the replica has may be read. What it will not have must not be, or it would be missed afterwards.
    async with world.checking:
        if not await world.until(world.replica_has_all, "a replica that has everything", SYNC_S):
            return
        if strike.size < 0.5:
            world.replica_wire.bend(Fault(replies=Way(delay_s=strike.lasts_s + 0.2)))
            await asyncio.sleep(2 * strike.lasts_s)
        else:
            assert world.replica is not None
            world.replica_wire.cut()
            await world.client(world.replica).replicaof(*NOWHERE)
            await asyncio.sleep(strike.lasts_s)
        await asyncio.to_thread(world.primary.kill)
        await world.promote()


async def tail_cut(world: World, strike: Strike) -> None:
    """Its file loses a part of what was written last, in the middle of a command, and it starts from that."""
    async with world.checking:
        before = _last_file(world.primary)
        await asyncio.sleep(strike.lasts_s)
        await asyncio.to_thread(world.primary.kill)
        path, size_bytes = _last_file(world.primary)
        # Only what nobody has read: before this fault began the whole file counts.
        least_bytes = before[1] if path == before[0] else 0
        with path.open("r+b") as file:
            file.truncate(least_bytes + int((size_bytes - least_bytes) * strike.size))
        await asyncio.to_thread(world.primary.start)


async def wrong_type(world: World, strike: Strike) -> None:
    """One stream's key holds a text for a while; then the stream is back."""
    symbol = world.symbols[int(strike.size * len(world.symbols)) % len(world.symbols)]
    stream, aside = KEYS.stream(symbol), f"aside:{symbol}"

    async def spoil(redis: Redis) -> None:
        pipe = redis.pipeline(transaction=True)
        # Of a server that was emptied there may be no stream yet.
        if await redis.exists(stream):
            pipe.rename(stream, aside)
        pipe.set(stream, "oops")
        await pipe.execute()

    async def heal(redis: Redis) -> None:
        pipe = redis.pipeline(transaction=True)
        if await redis.type(stream) == "string":
            pipe.delete(stream)
        if await redis.exists(aside):
            pipe.delete(stream)
            pipe.rename(aside, stream)
        await pipe.execute()

    # An answer may have been lost: spoilt twice, the stream would be gone.
    with contextlib.suppress(RedisError, OSError):
        await spoil(world.redis)
    await asyncio.sleep(strike.lasts_s)
    await world.insist(heal)


def _last_file(server: RedisServer) -> tuple[Path, int]:
    files = (server.folder / "appendonlydir").glob("*.incr.aof")
    path = max(files, key=lambda found: int(found.name.split(".")[-3]))
    return path, path.stat().st_size


DEEDS: Final[dict[str, Deed]] = {
    deed.__name__: deed
    for deed in (
        redis_killed,
        redis_frozen,
        clients_killed,
        scripts_flushed,
        clients_paused,
        out_of_memory,
        read_only,
        failover,
        tail_cut,
        wrong_type,
    )
}

"""What befalls the disk, the clock, Redis, the vendor and the daemon's process in a history.

Decides how each fault is brought about and healed; what the soak does already is taken from there. Must never know
when it is due, nor what it does to the daemon.
"""

import asyncio
import contextlib
import errno
import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import RedisError

from simulator.faults import RefuseRequest
from tests.histories.design import Blow
from tests.histories.stage import Stage, heeds
from tests.preload.control import Call
from tests.scenario.streams import KEYS
from tests.soak import other_faults, redis_faults
from tests.soak.world import World

Deed: TypeAlias = Callable[[Stage, Blow], Awaitable[None]]
SoakDeed: TypeAlias = Callable[[World, Blow], Awaitable[None]]

WRITING: Final = (errno.EIO, errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ESTALE, errno.EACCES)
READING: Final = (errno.EIO, errno.EIO, errno.ESTALE)
FAILING: Final[dict[Call, tuple[int, ...]]] = {
    Call.OPEN: (*WRITING, errno.EMFILE, errno.ENOENT),
    Call.READ: READING,
    Call.WRITE: WRITING,
    Call.SYNC: WRITING,
    Call.UNLINK: (errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES),
    Call.RENAME: WRITING,
    Call.TRUNCATE: WRITING,
    Call.LIST: (*READING, errno.EACCES, errno.EMFILE),
}
"""Calls that fail, and the errors that the system may give for each."""
HANGING: Final = (Call.WRITE, Call.SYNC, Call.OPEN, Call.READ, Call.UNLINK, Call.RENAME)
HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
JUMPS_S: Final = (-2 * DAY_S, -3 * HOUR_S, -60.0, -3.0, 3.0, 60.0, 3 * HOUR_S, 2 * DAY_S)
BUSY_AFTER_MS: Final = 50
REFUSED: Final = 409
"""Alpaca's code for what the account may not have."""


async def _disk(stage: Stage, blow: Blow, *calls: Call) -> None:
    await asyncio.sleep(blow.lasts_s)
    if not blow.stays:
        stage.faults.heal(*calls)


async def disk_full(stage: Stage, blow: Blow) -> None:
    """A neighbour fills it; in half of the cases it comes and goes."""
    capacity_bytes = stage.disk_bytes or 64 * 1024 * 1024
    times = 1 if blow.size < 0.5 else 4
    for n in range(times):
        stage.faults.resize(capacity_bytes, hog_bytes=capacity_bytes)
        await asyncio.sleep(blow.lasts_s / times * 0.7)
        if not (blow.stays and n == times - 1):
            stage.faults.resize(stage.disk_bytes)
        await asyncio.sleep(blow.lasts_s / times * 0.3)


async def disk_failing(stage: Stage, blow: Blow) -> None:
    """One or several kinds of calls fail, with one error or another; writes may be short."""
    draw = random.Random(blow.seed)
    calls = draw.sample(tuple(FAILING), draw.choice((1, 1, 2, 4, len(FAILING))))
    for call in calls:
        error = draw.choice(FAILING[call])
        stage.note(f"{call.name} fails with {errno.errorcode[error]}")
        stage.faults.fail(call, error, skip=draw.choice((0, 0, 3)))
    if draw.random() < 0.3:
        stage.faults.shorten(Call.WRITE, draw.choice((1, 100, 5000)))
        calls.append(Call.WRITE)
    await _disk(stage, blow, *calls)


async def disk_hanging(stage: Stage, blow: Blow) -> None:
    """One kind of call does not come back; or all do not."""
    draw = random.Random(blow.seed)
    calls = draw.sample(HANGING, draw.choice((1, 1, 2, len(HANGING))))
    stage.note(f"hanging: {', '.join(call.name for call in calls)}")
    for call in calls:
        stage.faults.hang(call)
    await _disk(stage, blow, *calls)


async def disk_slow(stage: Stage, blow: Blow) -> None:
    """Each write, sync and open takes up to half a second."""
    calls = (Call.WRITE, Call.SYNC, Call.OPEN)
    for call in calls:
        stage.faults.slow(call, 0.01 + 0.5 * blow.size**2)
    await _disk(stage, blow, *calls)


async def disk_vanished(stage: Stage, blow: Blow) -> None:
    """The spool's folder is deleted under the daemon."""
    await asyncio.to_thread(shutil.rmtree, stage.world.daemon.spool, ignore_errors=True)


async def clock_jumped(stage: Stage, blow: Blow) -> None:
    """The wall clock jumps ahead or back by seconds to days, and is set right again."""
    by_s = JUMPS_S[int(blow.size * len(JUMPS_S)) % len(JUMPS_S)]
    stage.note(f"by {by_s:+.0f} s")
    stage.faults.jump_clock(by_s)
    await asyncio.sleep(blow.lasts_s)
    stage.faults.jump_clock(0)


async def redis_emptied(stage: Stage, blow: Blow) -> None:
    """It is killed and comes back with nothing, or everything in it is deleted."""
    world = stage.world
    async with world.checking:
        world.checker.forgive(stage.before_this_life)
        stage.emptied_s = float("inf")
        if blow.size < 0.5:
            await asyncio.to_thread(world.primary.kill)
            await asyncio.sleep(blow.lasts_s)
            shutil.rmtree(world.primary.folder / "appendonlydir", ignore_errors=True)
            (world.primary.folder / "dump.rdb").unlink(missing_ok=True)
            await asyncio.to_thread(world.primary.start)
        else:
            await world.insist(lambda redis: redis.flushall())
        stage.emptied_s = world.now_s
        world.checker.begin_again()
    await world.insist(lambda redis: redis.sadd(KEYS.symbols, *world.symbols))


async def redis_refusing(stage: Stage, blow: Blow) -> None:
    """Out of memory, read-only, paused for writers, or busy with somebody's script."""
    deeds: tuple[SoakDeed, ...] = (
        redis_faults.out_of_memory,
        redis_faults.read_only,
        redis_faults.clients_paused,
        _busy,
    )
    deed = deeds[blow.seed % len(deeds)]
    stage.note(deed.__name__.strip("_"))
    await deed(stage.world, blow)


async def _busy(world: World, blow: Blow) -> None:
    await world.insist(lambda redis: redis.config_set("lua-time-limit", BUSY_AFTER_MS))
    redis = Redis.from_url(world.primary.url, protocol=2, socket_timeout=30.0)
    script = (
        f"local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < {1 + int(blow.lasts_s)} do end"
    )
    async with redis:
        with contextlib.suppress(RedisError, OSError):
            await redis.eval(script, 0)


async def vendor_nonsense(stage: Stage, blow: Blow) -> None:
    """Frames that nobody can read, or half a frame and the end of the connection."""
    deed = other_faults.vendor_garbage if blow.seed % 2 else other_faults.vendor_half_frame
    await deed(stage.world, blow)


async def vendor_slow(stage: Stage, blow: Blow) -> None:
    """Its confirmation is late, or its slot is taken when the daemon comes back, or it does not read."""
    deeds: tuple[SoakDeed, ...] = (other_faults.vendor_slow_to_confirm, other_faults.vendor_slot_taken)
    await deeds[blow.seed % len(deeds)](stage.world, blow)


async def symbol_refused(stage: Stage, blow: Blow) -> None:
    """A symbol that comes back to the set is refused for a while, and comes back again."""
    world = stage.world
    symbol = world.symbols[int(blow.size * len(world.symbols)) % len(world.symbols)]
    await world.insist(lambda redis: redis.srem(KEYS.symbols, symbol))
    await asyncio.sleep(0.3)
    world.vendor.arm(RefuseRequest(REFUSED), for_s=blow.lasts_s)
    await world.insist(lambda redis: redis.sadd(KEYS.symbols, symbol))
    await asyncio.sleep(blow.lasts_s)
    stage.refused = True


async def daemon_stopped(stage: Stage, blow: Blow) -> None:
    """SIGTERM, and a start."""
    await stage.stop()
    await asyncio.sleep(blow.lasts_s)
    stage.world.start_daemon()


async def daemon_killed(stage: Stage, blow: Blow) -> None:
    """SIGKILL, and a start."""
    await stage.world.end_daemon(signal.SIGKILL)
    await asyncio.sleep(blow.lasts_s)
    stage.world.start_daemon()


async def daemon_frozen(stage: Stage, blow: Blow) -> None:
    """It stands still, and goes on."""
    with stage.not_its_fault():
        await other_faults.daemon_frozen(stage.world, blow)


async def daemon_hung_up(stage: Stage, blow: Blow) -> None:
    """SIGHUP: it reads its settings again. Before its first lines ran, the system would end it for that."""
    process = stage.world.daemon.process
    assert process is not None
    async with asyncio.timeout(60.0):
        while process.poll() is None and not heeds(process.pid, signal.SIGHUP):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    stage.world.daemon.signal(signal.SIGHUP)


def _of_the_soak(deed: SoakDeed) -> Deed:
    async def done(stage: Stage, blow: Blow) -> None:
        await deed(stage.world, blow)

    return done


DEEDS: Final[dict[str, Deed]] = {
    **{
        deed.__name__: deed
        for deed in (
            disk_full,
            disk_failing,
            disk_hanging,
            disk_slow,
            disk_vanished,
            redis_emptied,
            redis_refusing,
            vendor_nonsense,
            vendor_slow,
            symbol_refused,
            clock_jumped,
            daemon_stopped,
            daemon_killed,
            daemon_frozen,
            daemon_hung_up,
        )
    },
    "redis_killed": _of_the_soak(redis_faults.redis_killed),
    "redis_frozen": _of_the_soak(redis_faults.redis_frozen),
    "stream_of_wrong_type": _of_the_soak(redis_faults.wrong_type),
    "wire_cut": _of_the_soak(other_faults.wire_cut),
    "replies_eaten": _of_the_soak(other_faults.replies_eaten),
    "vendor_cut": _of_the_soak(other_faults.vendor_cut),
    "vendor_mute": _of_the_soak(other_faults.vendor_mute),
}

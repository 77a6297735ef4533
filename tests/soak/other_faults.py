"""What befalls the wire, the vendor, the daemon and the set of symbols.

Decides how each fault is brought about and healed. Must never know when it is due, nor what it does to the daemon.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from simulator import DelayAck
from tests.scenario.proxy import Fault, Way
from tests.scenario.streams import KEYS
from tests.soak.schedule import Strike
from tests.soak.world import World

Deed: TypeAlias = Callable[[World, Strike], Awaitable[None]]

LATE_S: Final = 2.5
"""Beyond the daemon's bound of 2 s for an answer."""
CLOSE_CODES: Final = (1000, 1001, 1011, 1012, 1013)
MEMORIES: Final = ("1MiB", "2MiB", "64MiB")
ENDINGS: Final = frozenset({0, 3})
"""Stored everything, or left it on disk."""


async def _bent(world: World, strike: Strike, fault: Fault, *, with_cut: bool = False) -> None:
    world.proxy.bend(fault)
    try:
        await asyncio.sleep(strike.lasts_s)
    finally:
        world.proxy.straighten()
        if with_cut:
            # What was eaten never comes: a connection that lost an answer is no connection any more.
            world.proxy.cut()


async def wire_cut(world: World, strike: Strike) -> None:
    """Each connection is reset after so many bytes of commands, and again after as many."""
    await _bent(world, strike, Fault(commands=Way(cut_after_bytes=1 + int(strike.size * 100_000))))


async def replies_eaten(world: World, strike: Strike) -> None:
    """Commands arrive, and their answers do not."""
    await _bent(world, strike, Fault(replies=Way(swallow=True)), with_cut=True)


async def replies_late(world: World, strike: Strike) -> None:
    """Answers come when they were given up."""
    await _bent(world, strike, Fault(replies=Way(delay_s=LATE_S)))


async def wire_long(world: World, strike: Strike) -> None:
    """Each way takes up to 0.3 s."""
    way = Way(delay_s=0.005 + 0.3 * strike.size)
    await _bent(world, strike, Fault(way, way))


async def wire_narrow(world: World, strike: Strike) -> None:
    """So narrow that quotes may come faster than they fit through."""
    way = Way(bytes_per_s=100_000 + 400_000 * strike.size)
    await _bent(world, strike, Fault(way, way))


async def wire_resets(world: World, strike: Strike) -> None:
    """Any piece may be the last of its connection."""
    way = Way(reset_chance=0.002 + 0.05 * strike.size)
    await _bent(world, strike, Fault(way, way))


async def vendor_cut(world: World, strike: Strike) -> None:
    """The connection vanishes; its slot may stay taken for a moment."""
    world.vendor.drop(ghost=strike.size < 0.5)


async def vendor_closed(world: World, strike: Strike) -> None:
    """The vendor closes, with one code or another."""
    world.vendor.close(CLOSE_CODES[int(strike.size * len(CLOSE_CODES)) % len(CLOSE_CODES)])


async def vendor_half_open(world: World, strike: Strike) -> None:
    """Nothing comes, nothing is read, and nothing is closed."""
    world.vendor.half_open()
    world.vendor.heal()
    await asyncio.sleep(strike.lasts_s)


async def vendor_mute(world: World, strike: Strike) -> None:
    """Connected, and silent."""
    world.vendor.mute(for_s=strike.lasts_s)
    await asyncio.sleep(strike.lasts_s)


async def vendor_garbage(world: World, strike: Strike) -> None:
    """Frames that nobody can read."""
    for _ in range(1 + int(strike.size * 5)):
        world.vendor.garbage()


async def vendor_half_frame(world: World, strike: Strike) -> None:
    """The connection ends within a frame."""
    world.vendor.half_frame(ghost=strike.size < 0.5)


async def vendor_slow_to_confirm(world: World, strike: Strike) -> None:
    """A new session, whose subscription is confirmed late."""
    world.vendor.arm(DelayAck(strike.lasts_s), times=1)
    world.vendor.drop(ghost=False)
    await asyncio.sleep(strike.lasts_s)


async def vendor_slot_taken(world: World, strike: Strike) -> None:
    """406: somebody else has the account's connection."""
    world.vendor.refuse(406, times=1)
    world.vendor.drop(ghost=False)


async def vendor_too_slow(world: World, strike: Strike) -> None:
    """407: the vendor finds us too slow."""
    world.vendor.error(407)


async def daemon_stopped(world: World, strike: Strike) -> None:
    """SIGTERM, and a start, perhaps with another bound of memory."""
    code = await world.end_daemon(signal.SIGTERM)
    if code not in ENDINGS:
        world.balance.complain(
            f"at {world.now_s:.1f} s the daemon ended with {code}\n{world.daemon.log[-1500:]}"
        )
    await _start_again(world, strike)


async def daemon_killed(world: World, strike: Strike) -> None:
    """SIGKILL, and a start, perhaps with another bound of memory."""
    await world.end_daemon(signal.SIGKILL)
    await _start_again(world, strike)


async def _start_again(world: World, strike: Strike) -> None:
    await asyncio.sleep(strike.lasts_s)
    world.start_daemon(memory_bytes=MEMORIES[int(strike.size * len(MEMORIES)) % len(MEMORIES)])


async def daemon_frozen(world: World, strike: Strike) -> None:
    """It stands still, and goes on."""
    world.daemon.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(strike.lasts_s)
    finally:
        world.daemon.signal(signal.SIGCONT)


async def symbols_changed(world: World, strike: Strike) -> None:
    """Some symbols leave the set, and come back."""
    count = 1 + int(strike.size * (len(world.symbols) - 2))
    some = random.Random(strike.seed).sample(list(world.symbols), count)
    await world.insist(lambda redis: redis.srem(KEYS.symbols, *some))
    await asyncio.sleep(strike.lasts_s)
    await world.insist(lambda redis: redis.sadd(KEYS.symbols, *world.symbols))


async def set_deleted(world: World, strike: Strike) -> None:
    """The set vanishes, and comes back."""
    await world.insist(lambda redis: redis.delete(KEYS.symbols))
    await asyncio.sleep(strike.lasts_s)
    await world.insist(lambda redis: redis.sadd(KEYS.symbols, *world.symbols))


DEEDS: Final[dict[str, Deed]] = {
    deed.__name__: deed
    for deed in (
        wire_cut,
        replies_eaten,
        replies_late,
        wire_long,
        wire_narrow,
        wire_resets,
        vendor_cut,
        vendor_closed,
        vendor_half_open,
        vendor_mute,
        vendor_garbage,
        vendor_half_frame,
        vendor_slow_to_confirm,
        vendor_slot_taken,
        vendor_too_slow,
        daemon_stopped,
        daemon_killed,
        daemon_frozen,
        symbols_changed,
        set_deleted,
    )
}

"""The world of one history: the soak's, with a disk and a clock that can be bent, and with what was observed.

Decides how the daemon is stopped and how long that may take at all, and what of the daemon's time others took. Must
never know which fault comes next, nor what is wrong.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from tests.histories.design import History
from tests.histories.livez import Probe, starved_s
from tests.preload.control import Faults
from tests.scenario.streams import KEYS, state_is
from tests.soak.world import World

STOP_PATIENCE_S: Final = 25.0
"""Then it is killed; how long it would have taken is not of interest."""
PATIENCE_S: Final = 120.0
"""For the beginning, and for Redis to do what a fault asks of it, on a machine with other things to do."""
MOST_STARVED_S: Final = 60.0
AFTER_EXCUSE_S: Final = 0.3
NOTICED_S: Final = 3.0
"""By then a daemon has noticed that its Redis was emptied, if it can reach it."""
MEANWHILE_S: Final = 0.05
UNHURT: Final = {"drain_s": "2", "mute_after_s": "3", "stream_maxlen": "0"}


class Stage:
    """Handed to each fault; made by `stage`."""

    def __init__(self, world: World, faults: Faults, probe: Probe, disk_bytes: int | None) -> None:
        self.world = world
        self.faults = faults
        self.disk_bytes = disk_bytes
        self.emptied_s: float | None = None
        """When Redis was emptied, for as long as it may lack what the daemon remembers. A daemon that begins
        meanwhile cannot know of it."""
        self.before_this_life: dict[str, int] = {}
        """The highest number of each symbol that was sent before the daemon's present process began."""
        self.refused = False
        """Whether the vendor refused a symbol, which may be in quarantine since."""
        self.stops_s: list[float] = []
        self.exit_codes: list[int] = []
        self.notes: list[str] = []
        self.excused: list[tuple[float, float]] = []
        """Stretches of monotonic time in which the daemon cannot answer, and need not."""
        self._probe = probe
        self._starved: dict[int, float] = {}

    @property
    def slowest_livez_s(self) -> float:
        """The slowest answer to /livez that is the daemon's fault; known when the probe has ended."""
        return self._probe.slowest_s(self.excused)

    def note(self, text: str) -> None:
        """Something worth reading beside the schedule."""
        self.notes.append(f"{self.world.now_s:9.2f} s  {text}")

    async def watch(self) -> None:
        """Point the probe at whatever process is the daemon; never returns."""
        port = int(self.world.daemon.environment["QUOTEBUS_HTTP"].rpartition(":")[2])
        watched = 0
        while True:
            process = self.world.daemon.process
            if process is not None and process.pid != watched:
                watched = process.pid
                self.before_this_life = self.world.sending.numbers
                if self.emptied_s is not None:
                    self.world.checker.forgive(self.before_this_life)
            if self.emptied_s is not None and self._has_again_what_is_remembered(self.emptied_s):
                self.emptied_s = None
                self._probe.watch(port, watched)
            await asyncio.sleep(MEANWHILE_S)

    def _has_again_what_is_remembered(self, emptied_s: float) -> bool:
        status = self.world.latest_status
        is_done = status is not None and status["state"] == "live" and not status["replaying"]
        return is_done and self.world.now_s > emptied_s + NOTICED_S

    @contextlib.contextmanager
    def not_its_fault(self) -> Iterator[None]:
        """While this lasts, no answer is no fault of the daemon's."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.excused.append((began_s, time.monotonic() + AFTER_EXCUSE_S))

    def others_took_s(self) -> float:
        """How long daemon or runner could have run and were not let, whichever is more; it never goes back."""
        process = self.world.daemon.process
        pids = [os.getpid(), *([process.pid] if process is not None else [])]
        for pid in pids:
            now_s = starved_s(pid)
            self._starved[pid] = max(now_s, self._starved.get(pid, 0.0))
        own_s = self._starved[os.getpid()]
        return max(own_s, sum(self._starved.values()) - own_s)

    async def stop(self) -> int | None:
        """SIGTERM, and the exit code; None for one that had to be killed, or was not running."""
        world = self.world
        process = world.daemon.process
        assert process is not None
        world.is_ended_on_purpose = True
        if process.poll() is not None:
            return None
        began_s, before_s, excused_s = time.monotonic(), starved_s(process.pid), 0.0
        world.daemon.signal(signal.SIGTERM)
        while (code := process.poll()) is None:
            now_starved_s = starved_s(process.pid)
            excused_s = min(MOST_STARVED_S, max(excused_s, now_starved_s - before_s))
            if time.monotonic() - began_s > STOP_PATIENCE_S + excused_s:
                break
            await asyncio.sleep(MEANWHILE_S / 5)
        took_s = max(0.0, time.monotonic() - began_s - excused_s)
        self.stops_s.append(took_s)
        self.note(f"stopped in {took_s:.2f} s (others took {excused_s:.2f} s) with {code}")
        if code is None:
            await world.end_daemon(signal.SIGKILL)
        else:
            self.exit_codes.append(code)
        return code

    async def restore_refused(self) -> None:
        """A symbol in quarantine is tried again when it is removed and added."""
        if not self.refused:
            return
        world = self.world
        for symbol in world.symbols:
            with contextlib.suppress(RedisError, OSError):
                if await state_is(world.redis, symbol, "refused"):
                    await world.insist(lambda redis, symbol=symbol: redis.srem(KEYS.symbols, symbol))  # type: ignore[misc]
        await asyncio.sleep(1.0)
        await world.insist(lambda redis: redis.sadd(KEYS.symbols, *world.symbols))


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether a process catches or ignores this signal; what it does not, ends it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigIgn:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


@asynccontextmanager
async def stage(history: History, library: Path, tree: Path | None) -> AsyncIterator[Stage]:
    """A daemon that is live and has stored a quote of each symbol, on the disk that the history says.

    `tree` is another checkout whose daemon is run.
    """
    async with Probe() as probe:
        world = World(
            rate=history.rate,
            symbols=history.symbols,
            seed=history.seed,
            with_replica=False,
            library=library,
            tree=tree,
            patience_s=PATIENCE_S,
            **UNHURT,
            memory_bytes=history.memory,
            spool_bytes=history.spool,
        )
        async with world:
            assert world.faults is not None
            found = Stage(world, world.faults, probe, history.disk_bytes)
            found.faults.resize(history.disk_bytes)
            try:
                yield found
            finally:
                # A process that hangs in a call could not be reaped before.
                found.faults.heal()

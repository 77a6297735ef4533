"""One history from its beginning to its verdict.

Decides in which order things are healed, how long the daemon may take to be well again, and what is looked at in
the end. Must never know how a fault is brought about, nor by whom it was asked for.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from tests.histories import findings as words
from tests.histories.deeds import DEEDS
from tests.histories.design import KINDS, Blow, History
from tests.histories.findings import Finding
from tests.histories.stage import Stage, stage
from tests.scenario.streams import KEYS
from tests.soak.balance import Balance
from wire import EntryId

STANDSTILL_S: Final = 30.0
"""When all is well again, or all but the disk: nothing stored for so long is a wedge."""
MOST_S: Final = 150.0
"""As long as something is stored, until fresh quotes of every symbol are, or all that was sent is."""
LEAST_SHARE: Final = 0.25
"""A daemon that spins can always run: so much of the time counts, whatever the others took."""
BEGINS_S: Final = 60.0
"""A daemon that begins on a disk that does not answer gives it up after so long, as a human has to look."""
MOST_WELL_S: Final = 20.0
"""When quotes flow again, until the daemon calls itself ready, and the cache is as new as the streams."""
QUIETLY: Final = frozenset({0, 3, -15})
"""Exit codes after SIGTERM: everything stored, the rest left on disk, or not begun yet."""
LAST_LOG_BYTES: Final = 400_000


class Outcome(msgspec.Struct):
    """What became of one history; `log` is the end of the daemon's own."""

    number: int
    findings: list[tuple[str, str]]
    sent: int = 0
    stored: int = 0
    in_markers: int = 0
    late_markers: int = 0
    lost: int = 0
    twice: int = 0
    out_of_order: int = 0
    unmarked: int = 0
    slowest_livez_s: float = 0.0
    slowest_stop_s: float = 0.0
    took_s: float = 0.0
    markers: dict[str, int] = {}
    notes: list[str] = []
    log: str = ""

    @property
    def is_wedged(self) -> bool:
        """Whether the daemon did not do its work again, although it could have."""
        return any(
            kind in (words.WEDGED, words.WEDGED_ON_A_BAD_DISK, words.NOT_LIVE) for kind, _ in self.findings
        )


async def live(history: History, library: Path, tree: Path | None = None) -> Outcome:
    """Live through it."""
    began_s = time.monotonic()
    found: list[Finding] = []
    async with stage(history, library, tree) as world_of_it:
        await _Play(world_of_it, history, found).run()
        outcome = _judged(world_of_it, history, found)
    # The probe has ended: what it saw is there now.
    outcome.slowest_livez_s = world_of_it.slowest_livez_s
    found += words.of_times(outcome.slowest_livez_s, world_of_it.stops_s)
    outcome.findings = [(finding.kind, finding.detail) for finding in found]
    outcome.took_s = time.monotonic() - began_s
    return outcome


class _Play:
    def __init__(self, stage_: Stage, history: History, found: list[Finding]) -> None:
        self._stage = stage_
        self._history = history
        self._found = found
        self._excused_s = -1.0
        stage_.world.excuse_of_an_end = self._excuse

    async def run(self) -> None:
        stage_, world = self._stage, self._stage.world
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(stage_.watch())
            async with world.flowing():
                await self._strike_all()
                await self._heal_all_but_the_disk()
                if any(blow.stays for blow in self._history.blows):
                    await self._outlive_the_disk()
                await self._be_well_again()
            await self._settle()
            await stage_.stop()
            watching.cancel()

    async def _strike_all(self) -> None:
        world = self._stage.world
        lanes = {kind.lane: asyncio.Lock() for kind in KINDS.values()}
        async with asyncio.TaskGroup() as group:
            for blow in self._history.blows:
                await asyncio.sleep(max(0.0, blow.at_s - world.now_s))
                group.create_task(self._strike(blow, lanes[KINDS[blow.kind].lane]))
            await asyncio.sleep(max(0.0, self._history.length_s - world.now_s))

    async def _strike(self, blow: Blow, lane: asyncio.Lock) -> None:
        async with lane:
            self._stage.note(f"{blow.kind} begins")
            await DEEDS[blow.kind](self._stage, blow)
            self._stage.note(f"{blow.kind} " + ("stays" if blow.stays else "is over"))

    async def _heal_all_but_the_disk(self) -> None:
        stage_, world = self._stage, self._stage.world
        world.vendor.heal()
        world.proxy.straighten()
        await stage_.restore_refused()
        stage_.note("all is well" + (" but the disk" if self._history.ends_on_a_bad_disk else ""))

    async def _outlive_the_disk(self) -> None:
        """Redis and the vendor are well: quotes flow around a disk that is not, and the daemon can be stopped."""
        stage_ = self._stage
        began_s = stage_.world.now_s

        async def has_given_up() -> bool:
            return self._excused_s >= began_s

        if await self._flows() or await has_given_up():
            pass
        elif not (await self._is_starting() and await self._until(has_given_up, BEGINS_S, BEGINS_S)):
            self._found.append(Finding(words.WEDGED_ON_A_BAD_DISK, await self._state()))
        if self._history.ends_on_a_bad_disk:
            code = await stage_.stop()
            self._heal_the_disk()
            stage_.note(f"ended with {code} on a bad disk")
            stage_.world.start_daemon()
        else:
            self._heal_the_disk()

    def _heal_the_disk(self) -> None:
        self._stage.faults.heal()
        self._stage.faults.resize(self._history.disk_bytes)
        self._stage.note("the disk is well")

    async def _be_well_again(self) -> None:
        world = self._stage.world
        if not await self._flows():
            is_heard = world.vendor.symbols == set(world.symbols)
            self._found.append(Finding(words.WEDGED if is_heard else words.NOT_LIVE, await self._state()))
            return
        if not await self._until(self._is_ready, MOST_WELL_S):
            self._found.append(Finding(words.UNREADY, (await world.daemon.page("/readyz"))[1]))
        if not await self._until(self._is_fresh, MOST_WELL_S):
            self._found.append(Finding(words.STALE, await self._state()))

    async def _is_ready(self) -> bool:
        try:
            return (await self._stage.world.daemon.page("/readyz"))[0] == 200
        except AssertionError:
            return False

    async def _is_fresh(self) -> bool:
        """Whether the cache has at least what the stream had a moment before."""
        redis, symbols = self._stage.world.redis, self._stage.world.symbols
        for symbol in symbols:
            entries: Any = await redis.xrevrange(KEYS.stream(symbol), count=5)
            newest = next((EntryId.parse(entry_id) for entry_id, body in entries if "q" in body), None)
            value = await redis.hget(KEYS.latest, symbol)
            if newest is not None and (value is None or EntryId.parse(json.loads(value)["id"]) < newest):
                return False
        return True

    async def _flows(self) -> bool:
        """Whether quotes that are sent from now on are stored, of every symbol."""
        world = self._stage.world
        before = world.sending.numbers

        async def are_stored() -> bool:
            await world.redis.ping()
            return all(world.checker.highest(symbol) > number for symbol, number in before.items())

        return await self._until(are_stored)

    async def _settle(self) -> None:
        """One quote more of each symbol, and all that was sent is stored or marked."""
        world = self._stage.world

        async def is_heard() -> bool:
            return world.vendor.symbols == set(world.symbols)

        await self._until(is_heard)
        world.sending.send(1)

        async def is_settled() -> bool:
            await world.follow()
            status = await world.status()
            held = ("queued", "unanswered", "spooled", "replaying")
            if status is None or any(status[place] for place in held):
                return False
            world.balance.see_status(world.now_s, status)
            return world.checker.verdict().outstanding == 0

        if not await self._until(is_settled):
            self._found.append(Finding(words.UNSETTLED, await self._state()))

    async def _is_starting(self) -> bool:
        """Reading a spool may take its time, and ends with a daemon that gives the disk up."""
        status = await self._stage.world.status()
        return status is None or status["state"] == "starting"

    async def _until(
        self,
        condition: Callable[[], Awaitable[bool]],
        most_s: float = MOST_S,
        most_standstill_s: float = STANDSTILL_S,
    ) -> bool:
        """Wait until it holds, as long as there is progress; what other processes took counts for nothing."""
        stage_ = self._stage
        passed_s = standstill_s = 0.0
        arrived = stage_.world.checker.verdict().arrived
        before_s, taken_s = time.monotonic(), stage_.others_took_s()
        while passed_s < most_s and standstill_s < most_standstill_s:
            now_s, now_taken_s = time.monotonic(), stage_.others_took_s()
            passes_s = now_s - before_s
            own_s = max(LEAST_SHARE * passes_s, passes_s - (now_taken_s - taken_s))
            before_s, taken_s = now_s, now_taken_s
            passed_s, standstill_s = passed_s + own_s, standstill_s + own_s
            if (now_arrived := stage_.world.checker.verdict().arrived) > arrived:
                arrived, standstill_s = now_arrived, 0.0
            try:
                if await condition():
                    return True
            except (RedisError, OSError):
                pass
            await asyncio.sleep(0.05)
        return False

    async def _state(self) -> str:
        status = await self._stage.world.status()
        if status is None:
            return "the daemon does not answer"
        names = ("state", "stored", "received", "queued", "unanswered", "spooled", "dropped", "rejected")
        return ", ".join(f"{name} {status.get(name)!r}" for name in names)

    def _excuse(self, code: int, last: str) -> bool:
        """A disk on which a daemon cannot begin is for a human to mend, and a supervisor tries again."""
        has_bad_disk = any(kind.startswith("disk") for kind in self._history.kinds)
        is_excused = code == 2 and "spool_unusable" in last and has_bad_disk
        if is_excused:
            self._excused_s = self._stage.world.now_s
            self._stage.note("it does not begin on this disk")
        return is_excused


def _judged(stage_: Stage, history: History, found: list[Finding]) -> Outcome:
    world = stage_.world
    verdict, log = world.checker.verdict(), world.daemon.log
    is_settled = not any(finding.kind == words.UNSETTLED for finding in found)
    found += [f for f in words.of_streams(verdict) if is_settled or f.kind != words.UNSETTLED]
    reasons = world.checker.markers_by_reason
    stops = ("daemon_stopped",) if history.ends_on_a_bad_disk else ()
    found += words.of_markers(reasons, (*history.kinds, *stops), is_small=history.spool != "1GiB")
    found += _complaints(world.balance)
    has_bad_disk = any(kind.startswith("disk") for kind in history.kinds)
    quietly = QUIETLY | ({4} if has_bad_disk or history.spool != "1GiB" else set())
    codes = stage_.exit_codes
    found += [Finding(words.EXIT, f"{code}") for code in codes[:-1] if code not in quietly]
    found += [Finding(words.EXIT, f"{code} at the end") for code in codes[-1:] if code != 0]
    if "Traceback" in log:
        found.append(Finding(words.DEFECT, log[log.index("Traceback") :][:1500]))
    return Outcome(
        number=history.number,
        findings=[],
        sent=world.sending.sent,
        stored=verdict.arrived,
        in_markers=verdict.missing_in_gaps,
        late_markers=verdict.late_markers,
        lost=verdict.lost + verdict.outstanding,
        twice=verdict.duplicated,
        out_of_order=verdict.out_of_order + verdict.bad_ids,
        unmarked=verdict.unmarked_breaks,
        slowest_stop_s=max(stage_.stops_s, default=0.0),
        markers=dict(reasons),
        notes=stage_.notes,
        log=log[-LAST_LOG_BYTES:],
    )


def _complaints(balance: Balance) -> list[Finding]:
    kinds = {"ledger": words.LEDGER, "the daemon ended": words.DIED}
    return [
        Finding(next((kind for text, kind in kinds.items() if text in complaint), words.NOT_LIVE), complaint)
        for complaint in balance.complaints
    ]

"""Memory, disk and server in any order of events: nothing lost, nothing twice, nothing out of its place."""

import asyncio
import errno
import shutil
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.ingestor.disk_model import SYMBOLS, Life, Server, found


class Machine(RuleBasedStateMachine):
    """A publisher whose disk and server take their time, fail, forget, and whose daemon is stopped and started."""

    memory_bytes = 1 << 26
    spool_bytes = 1 << 28
    segment_bytes: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="quotebus-"))
        self.server = Server()
        self.ordinal = 0
        self.lost = self.dropped = 0
        self.has_unheard_loss = False
        self.received: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}
        self.life = self.begin()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Within the loop."""
        return self.loop.run_until_complete(work)

    def begin(self) -> Life:
        """A new life over the same folder and server."""

        async def make() -> Life:
            life = Life(
                self.folder,
                self.server,
                memory_bytes=self.memory_bytes,
                spool_bytes=self.spool_bytes,
                segment_bytes=self.segment_bytes,
            )
            life.received = self.received
            await life.begin(time.time_ns())
            return life

        life: Life = self.do(make())
        return life

    @rule(symbols=st.sampled_from(["A", "B", "AB"]), frames=st.integers(1, 4), is_old=st.booleans())
    def receive(self, symbols: str, frames: int, is_old: bool) -> None:
        """Quotes come, now or some time ago."""
        for _ in range(frames):
            self.ordinal += 1
            received_ns = time.time_ns() - is_old * 10_000_000_000
            self.do(self.life.receive(self.ordinal, symbols, received_ns))

    @precondition(lambda self: self.life.link is None)
    @rule()
    def connect(self) -> None:
        """Redis is there again."""
        self.do(self.life.connect())
        self.has_unheard_loss = False

    @precondition(lambda self: self.life.link is not None)
    @rule(arrived=st.integers(0, 3))
    def cut(self, arrived: int) -> None:
        """The connection ends; of what was sent, some arrived."""
        self.do(self.life.arrive(arrived))
        self.do(self.life.cut())

    @precondition(lambda self: self.life.link is not None)
    @rule(arrive=st.integers(0, 3), hear=st.integers(0, 3))
    def answer(self, arrive: int, hear: int) -> None:
        """The server works."""
        self.do(self.life.arrive(arrive))
        self.do(self.life.hear(hear))

    @rule(is_full=st.booleans())
    def fill(self, is_full: bool) -> None:
        """The server begins or ends to refuse."""
        self.server.is_full = is_full

    @precondition(lambda self: self.life.link is not None)
    @rule()
    def go_on(self) -> None:
        """The pause after a refusal is over."""
        self.life.publisher._go_on(self.life.link)  # type: ignore[arg-type]

    @precondition(lambda self: self.life.link is None)
    @rule(steps=st.integers(1, 6))
    def forget(self, steps: int) -> None:
        """The server comes back with less."""
        self.server.forget(steps)
        self.has_unheard_loss = True

    @rule()
    def round(self) -> None:
        """A round of the spool begins."""
        self.do(self.life.begin_step())

    @rule(operations=st.integers(1, 4))
    def disk(self, operations: int) -> None:
        """The disk works."""
        for _ in range(operations):
            self.do(self.life.disk_does())

    @rule()
    def disk_fails(self) -> None:
        """The disk is full for a moment."""
        # No precondition, here and below: whether something is asked of the disk depends on the machine's time as
        # well. And what is void is forgotten, whether its files can be deleted or not.
        if self.life.disk.asked and not self.life.publisher.spooling._medium.is_void:
            self.do(self.life.disk_does(OSError(errno.ENOSPC, "No space left on device")))
            self.life.publisher.spooling._medium.health.hurry()

    # What was forgotten unheard, a daemon that stops cannot know.
    @precondition(lambda self: not self.has_unheard_loss)
    @rule()
    def stop_and_start(self) -> None:
        """A stop while things are as they are; what is not stored is saved."""
        self.mend_the_disk()
        assert self.do(self.life.stop())
        self.bury()
        self.begin_anew()

    @precondition(lambda self: not self.has_unheard_loss)
    @rule()
    def kill_and_start(self) -> None:
        """A sudden end: what was neither sent nor on disk is gone, and nothing else."""
        if not self.may_be_killed:
            return
        on_disk = self.life.on_disk()
        for symbol in SYMBOLS:
            safe = on_disk[symbol].union(found(self.server, symbol))
            self.received[symbol][:] = [ordinal for ordinal in self.received[symbol] if ordinal in safe]
        self.do(self.life.kill())
        self.bury()
        self.begin_anew()

    @property
    def may_be_killed(self) -> bool:
        """Whether the next life can know all that this one has lost."""
        return True

    def mend_the_disk(self) -> None:
        """It does everything again."""

    def bury(self) -> None:
        """What a life that is over has lost."""
        self.lost += self.life.publisher.counts.lost_by_redis
        self.dropped += self.life.publisher.counts.dropped_total

    def begin_anew(self) -> None:
        """The next life."""
        self.server.is_full = False
        # What an earlier life had stored, nobody keeps any more.
        del self.server.history[:-1]
        self.life = self.begin()

    @invariant()
    def the_ledger_adds_up(self) -> None:
        """At any time."""
        assert self.life.imbalance == 0

    @invariant()
    def the_disk_has_what_it_is_trusted_with(self) -> None:
        """Batches that have a copy have one that is not given up, and copies lie in the order of sending."""
        spooling, outbox = self.life.publisher.spooling, self.life.publisher._outbox
        handed = {entry.position for entry in self.life.spool._shelf._handed}
        if self.life.disk.asked:
            return
        trusted = [b.position for b in [*outbox.unsettled, *spooling._back.ahead] if b.position is not None]
        assert set(trusted) <= handed
        assert trusted == sorted(set(trusted))

    def teardown(self) -> None:
        """In the end every quote is in its stream, once and in order."""
        self.mend_the_disk()
        try:
            self.do(self.life.rest())
            self.bury()
            for symbol in SYMBOLS:
                entries = found(self.server, symbol)
                ordinals = [entry for entry in entries if isinstance(entry, int)]
                self.check(symbol, ordinals, entries)
            assert self.lost == 0
            assert self.life.imbalance == 0
            self.do(self.life.close())
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            shutil.rmtree(self.folder)

    def check(self, symbol: str, ordinals: list[int], entries: list[int | str]) -> None:
        """The entries of one stream."""
        assert ordinals == self.received[symbol], (symbol, entries)
        assert self.dropped == 0


class TightMachine(Machine):
    """The same, with memory for some few batches only, so that the oldest have to go."""

    memory_bytes = 1500

    def check(self, symbol: str, ordinals: list[int], entries: list[int | str]) -> None:
        """What is missing is counted, and lies behind a marker; the rest is in order."""
        assert ordinals == [ordinal for ordinal in self.received[symbol] if ordinal in set(ordinals)]
        markers = 0
        last = 0
        for entry in entries:
            if isinstance(entry, str):
                markers += 1
                continue
            between = [o for o in self.received[symbol] if last < o < entry]
            assert markers or not between, (symbol, entries, between)
            last, markers = entry, 0
        assert markers or all(ordinal <= last for ordinal in self.received[symbol]), (symbol, entries)


class WornMachine(TightMachine):
    """A disk with room for some few batches, that hangs for so long that the way leads around it, and that at times
    takes nothing which is to stand in the place of another file."""

    memory_bytes = 1 << 26
    spool_bytes = 1000
    segment_bytes = 400

    @rule()
    def go_around(self) -> None:
        """The disk hangs, and Redis would take what is on it."""
        spooling = self.life.publisher.spooling
        if not spooling._medium.is_void:
            self.do(spooling._go_around("spool_hung"))

    @rule()
    def wear_out(self) -> None:
        """No file can be put in the place of another any more."""

        def fail(*_: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        self.life.spool._folder.put = fail  # type: ignore[assignment, method-assign]

    @rule()
    def mend_the_disk(self) -> None:
        """Or it can again."""
        self.life.spool._folder.__dict__.pop("put", None)

    @property
    def may_be_killed(self) -> bool:
        """Markers that the disk did not take die with the process."""
        return not self.life.spool.has_digests_to_put


TestWornMachine = WornMachine.TestCase
TestWornMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestTightMachine = TightMachine.TestCase
TestTightMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)

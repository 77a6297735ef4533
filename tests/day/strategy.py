"""One strategy, a process of its own that is interrupted (SIGINT) at any moment and goes on from where it stood.

Decides nothing about what is right: it reads in its way until it stands at the end, and writes down what it is
handed. Run by its path, so that it is started as a strategy is.
"""

import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from consumers import BusClosed, BusError, Reconnect
from consumers.sync import Bus, Delivery, GroupStream, connect
from tests.day.design import Life
from tests.day.notes import Lines, Notes
from wire import EntryId

GROUP: Final = "day"
CLAIM_AFTER_S: Final = 2.0
KEEP_AT: Final = 5_000
CHILD_ENDS_WITHIN_S: Final = 60
DEPTH: Final = 10
FAST: Final = Reconnect(first_delay_s=0.01, max_delay_s=0.2)


class Place:
    """Where and as whom a strategy runs."""

    def __init__(self, url: str, folder: Path, life: Life) -> None:
        self.url: Final = url
        self.folder: Final = folder
        self.life: Final = life
        self.chance: Final = random.Random(life.seed)

    def connect(self) -> Bus:
        """A bus of its own, opened."""
        return connect(self.url, reconnect=FAST, name=self.life.name).open()

    def ends(self) -> dict[str, str] | None:
        """The last entry of each symbol, once all is sent."""
        with contextlib.suppress(FileNotFoundError):
            return dict(msgspec.json.decode((self.folder / "ends").read_bytes(), type=dict[str, str]))
        return None


class Reader:
    """What goes on in one symbol set: a stream, and the notes of what it handed out."""

    def __init__(self, place: Place, symbols: tuple[str, ...]) -> None:
        self.place: Final = place
        self.symbols: Final = symbols
        self.chance: Final = random.Random(f"{place.life.seed} {symbols}")
        self.notes: Final = Notes(
            place.folder / place.life.name / "-".join(symbols), dict.fromkeys(symbols, "0-0")
        )
        self.bus: Bus | None = None
        self.stream: Any = None

    def open(self, bus: Bus | None = None, start: dict[str, str] | None = None) -> None:
        """Read on another bus, or anew on this one, from a start or from where it stands."""
        places = self.positions() if start is None else start
        if bus is None:
            bus = self.bus if self.bus is not None and self.bus._portal.is_open else self.place.connect()
        self.bus, self.stream = bus, self.fresh(places, bus)

    def fresh(self, places: dict[str, str], bus: Bus) -> Any:
        """Another stream on this bus."""
        if self.place.life.way == "newest":
            return bus.newest(*self.symbols, start=places)
        max_age_s = 3_600.0 if self.place.life.way == "aged" else None
        return bus.quotes(*self.symbols, start=places, max_age_s=max_age_s)

    @property
    def is_open(self) -> bool:
        """Whether there is a stream to read."""
        return self.stream is not None and not self.stream._is_closed

    def positions(self) -> dict[str, str]:
        """Where it stands; a symbol that was not asked for yet stands at its beginning."""
        known = {} if self.stream is None else self.stream.positions
        return self.notes.saved | known

    def open_anew(self) -> None:
        """In a child: nothing that was inherited is used."""
        self.bus = self.stream = None
        self.notes.drop()

    def keep(self) -> bool:
        """Write down what was taken; whether that is all there will be."""
        positions = self.positions()
        handed = self.notes.handed()
        if positions != handed:
            raise RuntimeError(f"positions {positions} are not those of what was handed out, {handed}")
        self.notes.keep(positions)
        return self.is_at_end(positions)

    def is_at_end(self, positions: dict[str, str] | None = None) -> bool:
        """Whether it stands behind the last entry of each symbol."""
        ends = self.place.ends()
        if ends is None:
            return False
        found = positions or self.positions()
        return all(found[symbol] == ends[symbol] for symbol in self.symbols)

    def take(self, how: str) -> None:
        """Take what comes, until enough is there to be written down. One call without a Python frame takes what was
        handed out, so that an interrupt comes before it or after it."""
        stream, taken = self.stream, self.notes.taken
        match how:
            case "batches":
                for batch in stream.batches():
                    taken.append(batch)
                    if len(taken) >= 50:
                        break
            case "get":
                while len(taken) < KEEP_AT and (item := stream.get(0.2)) is not None:
                    taken.append(item)
            case _:
                for item in stream:
                    taken.append(item)
                    if len(taken) >= KEEP_AT:
                        break


class Aside:
    """Work in another thread. Interrupts meet this one, which waits on: what was begun is to be seen to end.

    Not with `join` and `is_alive`: until Python 3.13 a thread counts as ended that is waited for in an interrupt.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Final = work
        self._is_begun = False
        self._is_interrupted = False
        self.is_over = False
        self.found: Any = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Start it, whole."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._is_begun = True
        threading.Thread(target=self._run).start()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait(self, look: Callable[[], None] = lambda: None) -> None:
        """Until it is over; raises what it has raised, or that this was interrupted meanwhile."""
        self._wait(look, DEPTH)
        if self._error is not None:
            raise self._error
        if self._is_interrupted:
            raise KeyboardInterrupt

    def _wait(self, look: Callable[[], None], depth: int) -> None:
        while self._is_begun and not self.is_over:
            try:
                if depth:
                    self._wait(look, depth - 1)
                    continue
                look()
                time.sleep(0.005)
            except KeyboardInterrupt:
                self._is_interrupted = True

    def _run(self) -> None:
        try:
            self.found = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self.is_over = True


class Strategy:
    """The ways of reading. `step` is called again and again, also after an interrupt, until it returns True."""

    def __init__(self, place: Place) -> None:
        self.place: Final = place
        self.chance: Final = place.chance
        self.is_interrupted = False
        self.reader: Final = Reader(place, place.life.symbols)

    def step(self) -> bool:
        """Read for a while; whether all was read."""
        reader = self.reader
        if reader.stream is None:
            reader.open(None, reader.notes.saved)
        if self.is_interrupted:
            self._go_on()
        if not reader.is_open:
            # An interrupt came between the closing and what was to follow.
            reader.open()
        if reader.keep():
            return True
        self._read()
        return False

    def end(self) -> None:
        """Close what is open."""
        if self.reader.bus is not None:
            self.reader.bus.close()

    def _read(self) -> None:
        match self.place.life.way:
            case "newest":
                how = "for"
            case "aged":
                how = self.chance.choice(["for", "get"])
            case "for" | "get" | "batches" as how:
                pass
            case _:
                how = self.chance.choice(["for", "get", "batches"])
        self.reader.take(how)

    def _go_on(self) -> None:
        """After an interrupt: with the same stream, with another, or on another bus."""
        if self.chance.random() < 0.2:
            self.reader.open(self._another_bus() if self.chance.random() < 0.5 else None)
        self.is_interrupted = False

    def _another_bus(self) -> Bus:
        if self.reader.bus is not None:
            self.reader.bus.close()
        self.reader.bus = self.place.connect()
        return self.reader.bus


class WithCheckpoints(Strategy):
    """The work takes lines of its own; what was begun and not saved is done again, from where it was saved."""

    def step(self) -> bool:
        reader = self.reader
        if reader.is_at_end(reader.notes.saved):
            # All was saved before the end was known, or before an interrupt: nothing more would come.
            return True
        if reader.stream is None or self.is_interrupted:
            reader.notes.drop()
            reader.open(self._another_bus() if self.chance.random() < 0.3 else None, reader.notes.saved)
            self.is_interrupted = False
        every = self.chance.choice([1, 20, 300, 2_000])
        # Not as many as one read brings, so that a loop is left in the midst of it, too.
        until = every * self.chance.randint(1, 20)
        for count, item in enumerate(reader.stream, 1):
            work = [item]
            time.sleep(0)
            reader.notes.taken += work
            if count % every == 0:
                if reader.keep():
                    return True
                if count >= until:
                    return False
        return False


class Closed(Strategy):
    """Another thread closes the stream, or the bus, while this one reads."""

    def _read(self) -> None:
        reader, waited_s = self.reader, self.chance.random() ** 2 * 0.3
        is_bus = self.chance.random() < 0.3
        closing: Any = reader.bus if is_bus else reader.stream

        def close() -> None:
            time.sleep(waited_s)
            closing.close()

        closer = Aside(close)
        how = self.chance.choice(["for", "get", "batches"])
        try:
            closer.begin()
            with contextlib.suppress(BusClosed):
                while not closer.is_over:
                    reader.take(how)
                    reader.keep()
        finally:
            closer.wait()
        reader.open(self._another_bus() if is_bus else None)


class Watched(Strategy):
    """Another thread saves the positions while this one reads; what was handed out behind them comes again."""

    def _read(self) -> None:
        reader, watches_s = self.reader, self.chance.random() * 0.1
        assert reader.bus is not None
        stream, taken = reader.stream, reader.notes.taken
        saved: list[dict[str, str]] = []

        def watch() -> None:
            until_s = time.monotonic() + watches_s
            while time.monotonic() < until_s or not saved:
                saved[:] = [stream.positions]

        watcher = Aside(watch)
        try:
            watcher.begin()
            while not watcher.is_over:
                item = stream.get(0.05)
                if item is not None:
                    taken.append(item)
        finally:
            watcher.wait()
        places = reader.notes.saved | saved[0]
        kept = [item for item in taken if not _is_behind(item.id, places[item.symbol])]
        fresh = reader.fresh(places, reader.bus)
        # No call between these, so that an interrupt comes before all or after all.
        reader.notes.taken, reader.stream = kept, fresh


class Handed(Strategy):
    """One loop that goes from thread to thread, the main one among them."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._hand: Iterator[Any] | None = None
        self._hand_stream: Any = None

    def _read(self) -> None:
        reader = self.reader
        if self._hand is None or self._hand_stream is not reader.stream:
            self._hand_stream, self._hand = reader.stream, iter(reader.stream)
        hand, taken, count = self._hand, reader.notes.taken, self.chance.randint(1, 2_000)

        def some() -> int:
            before = len(taken)
            for item in islice(hand, count):
                taken.append(item)
            return len(taken) - before

        found: int | None = None
        if self.chance.random() < 0.4:
            try:
                found = some()
            except KeyboardInterrupt:
                # That has ended the loop; the next goes on over the same stream.
                self._hand = None
                raise
        else:
            helper = Aside(some)
            try:
                helper.begin()
            finally:
                helper.wait(self._is_over)
            found = helper.found
        if found is None or found < count:
            self._hand = None

    def _is_over(self) -> None:
        """Asked while another thread reads: that would wait for ever where nothing more comes."""
        if self.reader.is_at_end():
            self.reader.stream.close()


class Threads(Strategy):
    """A loop of its own for each symbol, each in a thread, on one bus; any of them may be closed from here."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._readers: Final = [Reader(place, (symbol,)) for symbol in place.life.symbols]
        self._running: Final[dict[int, Aside]] = {}
        self._done: Final[set[int]] = set()

    def step(self) -> bool:
        if self.reader.bus is None or not self.reader.bus._portal.is_open:
            self.reader.bus = self.place.connect()
        for number, reader in enumerate(self._readers):
            thread = self._running.get(number)
            if number in self._done or (thread is not None and not thread.is_over):
                if reader.stream is not None and reader.is_at_end():
                    reader.stream.close()
                continue
            if thread is not None:
                thread.wait()
            if reader.stream is not None and reader.keep():
                self._done.add(number)
                continue
            reader.open(self.reader.bus)
            self._running[number] = thread = Aside(partial(self._run, reader))
            thread.begin()
        if self.is_interrupted:
            self.is_interrupted = False
            self._disturb()
        time.sleep(0.01)
        return len(self._done) == len(self._readers)

    def _run(self, reader: Reader) -> None:
        how = reader.chance.choice(["for", "get", "batches"])
        with contextlib.suppress(BusClosed):
            while reader.is_open:
                reader.take(how)
                reader.keep()

    def _disturb(self) -> None:
        if self.chance.random() < 0.3:
            self.chance.choice(self._readers).stream.close()
        elif self.chance.random() < 0.1:
            self._another_bus()


class Worker(Strategy):
    """One of a group: it writes down what it handled, acknowledges it, and writes down what was confirmed."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._lines: Final = Lines(place.folder / place.life.name)
        self._stream: GroupStream | None = None
        self._in_hand: list[Delivery] = []

    def step(self) -> bool:
        stream = self._stream
        if self.is_interrupted:
            self.is_interrupted = False
            if stream is not None and self.chance.random() < 0.3:
                # Under its name it has at once what it had not acknowledged.
                self._stream, self._in_hand = None, []
                stream.close()
        if self._stream is None:
            if self.reader.bus is None:
                self.reader.bus = self.place.connect()
            bus = self.reader.bus
            self._stream = stream = bus.group(
                GROUP,
                *self.place.life.symbols,
                consumer=self.place.life.name,
                start="earliest",
                claim_after_s=CLAIM_AFTER_S,
                prefetch=self.chance.choice([20, 500]),
            )
        assert stream is not None
        if self.place.ends() is not None and not any(
            lag.entries or lag.pending for lag in stream.lag().values()
        ):
            return True
        size = self.chance.choice([1, 20, 200])
        for _ in range(1_000 // size):
            self._in_hand = []
            while len(self._in_hand) < size and (delivery := stream.get(0.05)) is not None:
                self._in_hand.append(delivery)
            self._lines.write(self._in_hand, is_acknowledged=False)
            stream.ack(*self._in_hand)
            if not stream.acks_waiting:
                self._lines.write(self._in_hand, is_acknowledged=True)
            if not self._in_hand:
                break
        return False


def _is_behind(entry_id: str | None, place: str) -> bool:
    return entry_id is not None and EntryId.parse(entry_id) > EntryId.parse(place)


KINDS: Final[dict[str, type[Strategy]]] = {
    "checkpoint": WithCheckpoints,
    "forks with checkpoint": WithCheckpoints,
    "closed": Closed,
    "watched": Watched,
    "handed": Handed,
    "threads": Threads,
    "group": Worker,
}


def fork(strategy: Strategy) -> None:
    """Go on here or in the child, as chance has it; returns in the one that goes on."""
    reader, chance = strategy.reader, strategy.chance
    is_parent = chance.random() < 0.5
    # What a Ctrl-C in the instant of a fork leaves behind is not the library's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid = os.fork()
    if (pid != 0) == is_parent:
        if pid == 0:
            reader.open_anew()
        else:
            _reap(pid)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return
    if pid == 0:
        signal.alarm(CHILD_ENDS_WITHIN_S)
        _be_refused(reader)
        sys.stdout.flush()
        os._exit(0)
    if chance.random() < 0.5:
        strategy.end()
    os._exit(_reap(pid))


def _reap(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise RuntimeError(f"the other half of a fork ended with {code}")
    return code


def _be_refused(reader: Reader) -> None:
    """In a child everything that asks is refused with the remedy; what was read may be handed out, and no more."""
    bus, stream = reader.bus, reader.stream
    assert bus is not None
    asks: list[Callable[[], Any]] = [
        lambda: bus.latest("S0"),
        lambda: list(stream),
        lambda: list(iter(stream.get, None)),
        lambda: bus.quotes("S0"),
    ]
    for ask in asks:
        try:
            ask()
        except BusError as error:
            if "after the fork" not in str(error):
                raise
        else:
            raise RuntimeError("not refused in a child")
    stream.close()
    bus.close()


def live(strategy: Strategy, forks: bool, depth: int = DEPTH) -> None:
    """Read to the end, whatever interrupts; one within the other because an interrupt may come where the one
    before is taken note of."""
    while True:
        try:
            if depth:
                return live(strategy, forks, depth - 1)
            if forks and strategy.chance.random() < 0.1 and strategy.reader.is_open:
                fork(strategy)
            if strategy.step():
                return None
        except KeyboardInterrupt:
            strategy.is_interrupted = True


def main(url: str, folder: str, life: str) -> None:
    """Be this strategy."""
    faulthandler.register(signal.SIGUSR1)
    # A fork of a process with threads is what this is about.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
    place = Place(url, Path(folder), msgspec.json.decode(life, type=Life))
    strategy = KINDS.get(place.life.way, Strategy)(place)
    (place.folder / f"{place.life.name}.ready").touch()
    live(strategy, place.life.way.startswith("forks"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    strategy.end()


if __name__ == "__main__":
    main(*sys.argv[1:])

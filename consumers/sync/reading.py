"""What every twin of a stream has in common: plain `for` loops, and `get` with a time limit.

Decides what was handed out, item by item, while the loop reads in batches. Must never know Redis: whatever is
asked of it is asked of the twin in the loop.
"""

import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from consumers import bus as native
from consumers.arguments import check_timeout_s
from consumers.errors import BusClosed, BusError
from consumers.reading.start import parse_symbols
from consumers.reading.unserved import Unserved
from consumers.sync.portal import Portal
from consumers.sync.pump import Pump

T = TypeVar("T")
R = TypeVar("R")


class Reading(Generic[T]):
    """What every kind of stream has in common; made by the bus.

    One thread at a time reads it; any thread may ask it something, change its symbols, or close it.
    """

    def __init__(self, owner: object, portal: Portal[native.Bus], source: Any) -> None:
        # A bus that nobody holds any more closes itself: not while this is read.
        self._owner: Final = owner
        self._portal: Final = portal
        self._source: Final = source
        self._pump: Pump[T] | None = None
        self._batch: list[T | None] = []
        self._index = 0
        self._turn = 0
        # Threads that wait for a batch, the first with right. Not a lock: a Ctrl-C between its acquiring and the
        # `try` behind it would leave it closed for every other thread.
        self._takers: Final[list[int]] = []
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        # A generator: Python closes one that a loop has left, by break as by exception.
        return self._items()

    def get(self, timeout_s: float | None = None) -> T | None:
        """The next item, or None when there is none within so many seconds (None: wait for ever).

        It leaves the connection and the lease in place until `close`, the end of `with`, or the end of a `for`
        loop. Raises `BusClosed` when the stream is closed, and what the iteration raises.
        """
        check_timeout_s(timeout_s)
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            item = self._hand_out()
            if item is not None:
                return item
            wait_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            try:
                if not self._refill(wait_s):
                    raise BusClosed("the stream is closed: ask the bus for another")
            except TimeoutError:
                return None

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""
        return frozenset(self._even_closed(lambda: self._source.symbols))

    @property
    def unreadable(self) -> int:
        """Entries skipped because they were neither quote nor gap of this contract."""
        return int(self._source.unreadable)

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to Redis at this moment; only a loop that runs has one."""
        return bool(self._source.is_connected)

    @property
    def failures(self) -> int:
        """Failures in a row since Redis answered last; 0 while it does."""
        return int(self._source.failures)

    @property
    def unserved(self) -> dict[str, Unserved]:
        """The symbols that get no quotes now, each with its state and the reason, as of about a second ago.

        Empty while no loop runs. The log says the same, once and when it changes.
        """
        return dict(self._even_closed(lambda: self._source.unserved))

    @property
    def subscribed(self) -> frozenset[str]:
        """The symbols of which the daemon says that Alpaca has confirmed them, as of about a second ago."""
        return frozenset(self._even_closed(lambda: self._source.subscribed))

    def add(self, *symbols: str, start: object = "now") -> None:
        """Follow more symbols, from the next read on (within half a second). One that is followed stays as it is.

        Raises `BadSymbol` and `BadStart`.
        """
        self._on_loop(lambda: self._source.add(*symbols, start=start))

    def remove(self, *symbols: str) -> None:
        """Follow these symbols no more, at once; one that is not followed is ignored. Raises `BadSymbol`."""
        gone = set(parse_symbols(symbols))

        def drop() -> None:
            self._source.remove(*symbols)
            brought: list[Any] = [] if self._pump is None else self._pump.waiting
            batches: tuple[list[Any], ...] = (self._batch, brought)
            for batch in batches:
                for index, item in enumerate(batch):
                    if item is not None and item.symbol in gone:
                        batch[index] = None
            self._forget(gone)

        self._on_loop(drop)

    def close(self) -> None:
        """End the iteration, wherever it waits, and close its connection. May be called again."""
        self._closed = True
        if self._portal.is_open and not self._portal.is_elsewhere:
            self._portal.call(lambda _: self._source.aclose())
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        pump = getattr(self, "_pump", None)
        if pump is not None:
            pump.abandon()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, a twin of {self._source!r}>"

    @property
    def _is_closed(self) -> bool:
        return self._closed or self._portal.is_closed

    def _on_loop(self, ask: Callable[[], Any]) -> Any:
        async def answer(_: native.Bus) -> Any:
            return ask()

        return self._portal.call(answer)

    def _even_closed(self, ask: Callable[[], R]) -> R:
        try:
            return cast("R", self._on_loop(ask))
        except BusClosed:
            # When the loop is over nothing changes any more; before, its place may lie ahead of what it brought.
            self._portal.finish()
            return ask()

    @staticmethod
    def _batches_of(source: Any) -> AsyncGenerator[list[T], None]:
        return singly(source)

    def _items(self) -> Generator[T, None, None]:
        turn = self._take_over()
        portal = self._portal
        try:
            while True:
                batch = self._batch
                # Not a loop over the list: `get` and `batches` may take from it between two items.
                while self._index < len(batch) and not (self._closed or portal.is_closed):
                    item = batch[self._index]
                    if item is None:
                        self._index += 1
                        continue
                    # No call between here and the hand-over, so that a Ctrl-C comes before both or after both.
                    self._note(item)
                    self._index += 1
                    yield item
                    if turn != self._turn:
                        raise self._taken_over()
                    batch = self._batch
                if not self._refill(None):
                    return
        finally:
            self._leave(turn)

    def _forget(self, symbols: Iterable[str]) -> None:
        """These are followed no more."""

    def _begin(self) -> None:
        """Reading begins, or begins anew."""

    def _note(self, item: T) -> None:
        """This is handed out now."""

    def _look_again(self, batch: list[T]) -> None:
        """This batch was asked for by a `get` that gave up, so that it may have waited here."""

    def _hand_out(self) -> T | None:
        while self._index < len(self._batch) and not self._is_closed:
            item = self._batch[self._index]
            if item is not None:
                self._note(item)
                self._index += 1
                return item
            self._index += 1
        return None

    def _waiting(self) -> Iterable[T]:
        """What was read and not handed out, in order."""
        # No call between these, so that they belong together whichever thread reads meanwhile.
        batch, index, pump = self._batch, self._index, self._pump
        batches = [batch[index:]]
        if pump is not None and pump.waiting is not batch:
            batches.append([*pump.waiting])
        return [item for batch in batches for item in batch if item is not None]

    def _refill(self, timeout_s: float | None) -> bool:
        me, takers = threading.get_ident(), self._takers
        try:
            takers.append(me)
            if takers[0] != me:
                self._portal.check()
                raise BusError(f"{self!r} is read by another thread: ask the bus for a second one")
            if self._is_closed:
                return False
            if self._pump is not None and self._pump.is_over:
                if not self._end():
                    self._portal.check()
                    raise self._portal.too_long()
                if self._index < len(self._batch):
                    return True
            if self._pump is None:
                self._begin()
                # Nothing of the loop may hold this object, or it would never be forgotten.
                self._pump = Pump(self._portal, partial(self._batches_of, self._source), self._batch)
            pump = self._pump
            was_brought = pump.is_asked or pump.waiting is not self._batch
            try:
                found = pump.take(self._batch, timeout_s)
            except BusClosed:
                # Another thread closes the bus, and this one has met it half way.
                if not (self._closed or self._portal.is_closed):
                    raise
                found = None
            if found is None or self._is_closed:
                # A loop that was left long ago may end only now, and with it what this one waits for.
                goes_on = pump.is_over and not self._is_closed
                self._end()
                return goes_on
            if was_brought:
                self._look_again(found)
            self._batch, self._index = found, 0  # type: ignore[assignment]
            return True
        finally:
            takers.remove(me)

    def _take_over(self) -> int:
        self._portal.check()
        self._turn += 1
        return self._turn

    def _leave(self, turn: int) -> None:
        # Without waiting: that may be within a destructor, where Python swallows a Ctrl-C.
        if turn == self._turn and self._pump is not None:
            self._pump.abandon()

    def _end(self) -> bool:
        pump = self._pump
        if pump is not None:
            if not pump.stop():
                # It stays, so that what it still brings counts as read and not handed out.
                return False
            # Together: a thread that had looked before another one closed this may take the batch meanwhile.
            batch, index = self._batch, self._index
            rest = batch[index:]
            if pump.waiting is not batch:
                rest = [*rest, *pump.waiting]
            self._batch, self._index, self._pump = rest, 0, None
        return True

    def _taken_over(self) -> BusError:
        return BusError(f"{self!r} is read by another loop: ask the bus for a second one")


async def singly(items: AsyncIterable[T]) -> AsyncGenerator[list[T], None]:
    """Each item as a batch of its own."""
    inner = aiter(items)
    try:
        async for item in inner:
            yield [item]
    finally:
        if isinstance(inner, AsyncGenerator):
            await inner.aclose()


async def in_chunks(items: AsyncGenerator[T, None], count: int) -> AsyncGenerator[list[T], None]:
    """So many items as a batch, fewer at the end."""
    chunk: list[T] = []
    try:
        async for item in items:
            chunk.append(item)
            if len(chunk) >= count:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
    finally:
        await items.aclose()

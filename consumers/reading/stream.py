"""What everything that is read with `async for` has in common: its symbols, one loop at a time, and its end.

Decides who may read, and when a loop begins and ends for those who attend to it. Must never know what is handed
over, nor how it is asked for (a `Line` does).
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import ClassVar, Final, Generic, Protocol, Self, TypeVar, cast

from consumers.arguments import check_timeout_s
from consumers.errors import BusClosed, BusError
from consumers.reading.line import Line
from consumers.reading.start import parse_starts, parse_symbols
from consumers.reading.unserved import Unserved
from consumers.shared_link import SharedLink
from wire import BadEntry

_log = logging.getLogger(__name__)

T = TypeVar("T")

LOG_EVERY_S: Final = 60.0


class Holding(Protocol):
    """Whoever must know which symbols are being read, such as a lease. No call may block or raise.

    A symbol is told when its place in its stream is known, and not before: whoever brings quotes about by it would
    otherwise have them written before the place where reading begins.
    """

    def began(self, symbols: frozenset[str]) -> None:
        """A loop begins to read these symbols."""

    def changed(self, added: frozenset[str], removed: frozenset[str]) -> None:
        """Symbols came or went while a loop reads."""

    def ended(self) -> None:
        """No loop reads any more; another may begin later."""


class Attendance(Holding, Protocol):
    """The same, for who also says why a loop waits."""

    def follows(self, symbols: frozenset[str]) -> None:
        """A loop waits for quotes of these, whether or not their place is known; of none, when it has ended."""

    @property
    def unserved(self) -> dict[str, Unserved]:
        """Those of them that get no quotes now, and why."""

    @property
    def subscribed(self) -> frozenset[str]:
        """Those of them that Alpaca has confirmed."""


class Stream(ABC, Generic[T]):
    """The common half of `Reader` and `GroupStream`."""

    _SKIPPED: ClassVar[str] = "skipped"
    """What the log says of an unreadable entry."""

    def __init__(
        self,
        line: Line,
        shared: SharedLink,
        symbols: tuple[object, ...],
        start: object,
        *,
        attendance: Attendance | None = None,
    ) -> None:
        self._line: Final = line
        self._shared: Final = shared
        """For short questions beside the reading."""
        self._attendance: Final = attendance
        self._is_attended = False
        self._turn = 0
        self._getting: AsyncGenerator[T | None, None] | None = None
        self._getting_turn = 0
        self._is_getting = False
        self._unreadable = 0
        self._unreadable_logged_at_s = -LOG_EVERY_S
        line.on_settled = self._settled
        line.begin(parse_starts(parse_symbols(symbols), start))

    def __aiter__(self) -> AsyncIterator[T]:
        # A generator and not __anext__: Python closes a generator that a loop has left, and nothing else. None
        # comes only to who waits with a limit.
        return cast("AsyncIterator[T]", self._steps())

    @abstractmethod
    def _steps(self) -> AsyncGenerator[T | None, None]:
        """One loop over the items; None when a read brought nothing and the line is due."""

    async def get(self, timeout_s: float | None = None) -> T | None:
        """The next item, or None when there is none within so many seconds (None: wait for ever; 0: what one read
        brings).

        Unlike a time limit around the iteration it ends nothing: connection and lease stay until `aclose`, until
        it raises or is cancelled, or until a loop over the same stream ends. Whichever way, the next `get` or loop
        goes on after the last item. A loop that was running elsewhere raises `BusError` with its next step; while
        it waits, `get` does. While Redis is silent it takes up to the `timeout_s` of the bus longer. Raises
        `BusClosed` when the stream is closed, `ValueError`, and what the iteration raises.
        """
        check_timeout_s(timeout_s)
        getting = self._getting
        if self._line.is_reading or self._is_getting:
            raise self._taken_over()
        if getting is None or self._getting_turn != self._turn:
            if getting is not None:
                await getting.aclose()
            self._getting = getting = self._steps()
        self._line.until_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        self._is_getting = True
        try:
            item = await anext(getting)
        except BaseException as error:
            self._getting = None
            if isinstance(error, StopAsyncIteration):
                raise BusClosed("the stream is closed: ask the bus for another") from None
            raise
        finally:
            self._line.until_s, self._is_getting = None, False
        self._getting_turn = self._turn
        return item

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""
        return self._line.symbols

    @property
    def unreadable(self) -> int:
        """Entries skipped because they were neither quote nor gap of this contract; the log names some."""
        return self._unreadable

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to Redis at this moment; only a loop that runs has one."""
        return self._line.is_connected

    @property
    def failures(self) -> int:
        """Failures in a row since Redis answered last; 0 while it does."""
        return self._line.failures

    @property
    def unserved(self) -> dict[str, Unserved]:
        """The symbols that get no quotes now, each with its state and the reason, as of about a second ago.

        Empty while no loop runs. The log says the same, once and when it changes.
        """
        return {} if self._attendance is None else self._attendance.unserved

    @property
    def subscribed(self) -> frozenset[str]:
        """The symbols of which the daemon says that Alpaca has confirmed them, as of about a second ago."""
        return frozenset() if self._attendance is None else self._attendance.subscribed

    def add(self, *symbols: str, start: object = "now") -> None:
        """Follow more symbols, from the next read on (within half a second). One that is followed stays as it is.

        A lease on a symbol that begins `"now"` or with a `"snapshot"` is taken with that read, when its place is
        known: no quote that the lease brings about is missed. Raises `BadSymbol` and `BadStart`.
        """
        starts = parse_starts(parse_symbols(symbols), start)
        known = self.symbols
        added = {symbol: origin for symbol, origin in starts.items() if symbol not in known}
        self._line.begin(added)
        self._settled(self._line.settled.intersection(added))
        if self._is_attended and self._attendance is not None:
            self._attendance.follows(self.symbols)

    def remove(self, *symbols: str) -> None:
        """Follow these symbols no more, at once; one that is not followed is ignored. Raises `BadSymbol`.

        What a worker of a group had read of them and not handed over waits there for `claim_after_s`.
        """
        removed = frozenset(parse_symbols(symbols)) & self.symbols
        for symbol in removed:
            self._line.drop(symbol)
            self._forget(symbol)
        if removed and self._is_attended and self._attendance is not None:
            self._attendance.changed(frozenset(), removed)
            self._attendance.follows(self.symbols)

    async def aclose(self) -> None:
        """End the iteration, wherever it waits, and close its connection. May be called again."""
        self._unattend()
        await self._line.close()
        getting, self._getting = self._getting, None
        if getting is not None and not self._is_getting:
            await getting.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self.symbols)} symbols at {self._line.target.address}>"

    def _forget(self, symbol: str) -> None:
        """Hand nothing of this symbol out any more."""

    async def _enter(self) -> int:
        """Begin a loop; its number, by which it finds out whether another has taken over."""
        self._line.check_process()
        self._shared.check_loop()
        if self._line.is_reading:
            raise self._taken_over()
        self._turn += 1
        turn = self._turn
        await self._line.rewind()
        if self._attendance is not None and not self._is_attended and not self._line.is_closed:
            self._is_attended = True
            self._attendance.began(self._line.settled)
            self._attendance.follows(self.symbols)
        return turn

    async def _leave(self, turn: int) -> None:
        if turn == self._turn:
            self._unattend()
            await self._line.hang_up()

    def _settled(self, symbols: frozenset[str]) -> None:
        if symbols and self._is_attended and self._attendance is not None:
            self._attendance.changed(symbols, frozenset())

    def _unattend(self) -> None:
        if self._is_attended and self._attendance is not None:
            self._is_attended = False
            self._attendance.ended()
            self._attendance.follows(frozenset())

    def _taken_over(self) -> BusError:
        return BusError(f"{self!r} is read by another loop: ask the bus for a second one")

    def _skipped(self, error: BadEntry) -> None:
        self._unreadable += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._unreadable_logged_at_s >= LOG_EVERY_S:
            self._unreadable_logged_at_s = now_s
            _log.warning(
                "%s: %s (%d so far; told at most once a minute)",
                self._SKIPPED,
                str(error)[:300],
                self._unreadable,
            )

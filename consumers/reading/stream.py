"""What everything that is read with `async for` has in common: its symbols, one loop at a time, and its end.

Decides who may read, and when a loop begins and ends for those who attend to it. Must never know what is handed
over, nor how it is asked for (a `Line` does).
"""

import asyncio
import logging
from types import TracebackType
from typing import ClassVar, Final, Protocol, Self

from consumers.errors import BusError
from consumers.reading.line import Line
from consumers.reading.start import parse_starts, parse_symbols
from consumers.shared_link import SharedLink
from wire import BadEntry

_log = logging.getLogger(__name__)

LOG_EVERY_S: Final = 60.0


class Attendance(Protocol):
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


class Stream:
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
        self._unreadable = 0
        self._unreadable_logged_at_s = -LOG_EVERY_S
        line.on_settled = self._settled
        line.begin(parse_starts(parse_symbols(symbols), start))

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

    def remove(self, *symbols: str) -> None:
        """Follow these symbols no more, at once; one that is not followed is ignored. Raises `BadSymbol`."""
        removed = frozenset(parse_symbols(symbols)) & self.symbols
        for symbol in removed:
            self._line.drop(symbol)
            self._forget(symbol)
        if removed and self._is_attended and self._attendance is not None:
            self._attendance.changed(frozenset(), removed)

    async def aclose(self) -> None:
        """End the iteration, wherever it waits, and close its connection. May be called again."""
        self._unattend()
        await self._line.close()

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

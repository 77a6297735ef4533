"""Hands quotes to their handlers and gaps to whoever asked for them, one at a time.

Decides which handler an item goes to, and that one which fails costs itself alone: a line in the log. Must never
keep to itself what is meant to end a program or its task (`SystemExit`, `KeyboardInterrupt`, `CancelledError`), nor
read anything.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from consumers.alpaca.failures import Failures, Kind
from consumers.alpaca.shapes import model, raw
from wire import Gap, Quote

Handler: TypeAlias = Callable[[Any], Awaitable[None]]
OnGap: TypeAlias = Callable[[Gap], object]

_log = logging.getLogger(__name__)

EVERYTHING: Final = "*"
GAP_LINES: Final = 20
"""Gaps told one by one per `GAP_LINES_S`; the rest is counted."""
GAP_LINES_S: Final = 10.0


class Handing:
    """The handlers of one stream, by symbol."""

    def __init__(self, on_gap: OnGap | None, *, raw_data: bool) -> None:
        self._on_gap: Final = on_gap
        self._shape: Final[Callable[[Quote], Any]] = raw if raw_data else model
        # Replaced, never changed: the loop looks into it without a lock.
        self.handlers: dict[str, Handler] = {}
        self._failures: Final = Failures()
        self._gaps_since_s = 0.0
        self._gaps_told = 0

    async def hand_over(self, item: Quote | Gap) -> None:
        """Call who is to be called, and wait for it. Raises only what is no `Exception`."""
        handlers = self.handlers
        handler = handlers.get(item.symbol) or handlers.get(EVERYTHING)
        if handler is None:
            return
        try:
            if isinstance(item, Gap):
                await self._tell(item)
            else:
                await handler(self._shape(item))
        except Exception as error:
            called: Any = self._on_gap if isinstance(item, Gap) else handler
            kind = Kind(getattr(called, "__qualname__", type(called).__name__), type(error).__name__)
            if self._failures.note(kind, asyncio.get_running_loop().time()):
                _log.exception(
                    "a handler failed with %s; the next item goes on, and failures like this one are counted",
                    item,
                )

    def tell_counts(self, *, all_of_them: bool = False) -> None:
        """Log how many failures and gaps were counted instead of told, where that is due, or `all_of_them`."""
        now_s = asyncio.get_running_loop().time()
        for kind, count in self._failures.due(now_s, all_of_them=all_of_them).items():
            _log.error("%s failed %d more times with %s", kind.handler, count, kind.error)
        if all_of_them or now_s - self._gaps_since_s >= GAP_LINES_S:
            if self._gaps_told > GAP_LINES:
                _log.warning("%d more gaps", self._gaps_told - GAP_LINES)
            self._gaps_since_s, self._gaps_told = now_s, 0

    async def _tell(self, gap: Gap) -> None:
        if self._on_gap is not None:
            told = self._on_gap(gap)
            if inspect.isawaitable(told):
                await told
            return
        self.tell_counts()
        self._gaps_told += 1
        if self._gaps_told <= GAP_LINES:
            missing = "" if gap.missing is None else f", {gap.missing} quotes"
            _log.warning("%s: %.3f s are missing%s (%s)", gap.symbol, gap.duration_s, missing, gap.reason)

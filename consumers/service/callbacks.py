"""Calls the callbacks, one after the other, and survives them.

Decides what a failing or a slow callback costs: itself, and a line in the log. Must never run two calls for one
quote at once, nor keep quotes for a callback that is slow: its stream waits for it, so that memory is bounded by
one read and Redis holds the rest.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

from consumers.service.book import CallbackBook, OnceEach, Seldom
from wire import Gap, Quote

_log = logging.getLogger(__name__)

CALLBACK_TIMEOUT_S: Final = 30.0
LOG_EVERY_S: Final = 60.0


class Caller:
    """Calls whatever it is given, and counts what failed.

    `timeout_s` bounds each call that is awaited; None waits for ever. A call that blocks without awaiting cannot be
    bounded by anybody.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s: Final = timeout_s
        self._seldom: Final = Seldom(LOG_EVERY_S)
        self.errors = 0

    async def call(self, callback: Callable[[Any], Any], item: Quote | Gap) -> None:
        """Call it, and await what it returns if that can be awaited.

        Raises only what ends the program or this task: KeyboardInterrupt, SystemExit, and a cancellation that
        somebody asked this task for.
        """
        try:
            result = callback(item)
            if inspect.isawaitable(result):
                async with asyncio.timeout(self._timeout_s):
                    await result
        except asyncio.CancelledError as error:
            # A callback that awaited a cancelled task of its own raises this too; nobody asked us to end.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(callback, item, error)
        except Exception as error:
            self._failed(callback, item, error)

    def _failed(self, callback: Callable[[Any], Any], item: Quote | Gap, error: BaseException) -> None:
        self.errors += 1
        held_back = self._seldom.lets_pass((callback, type(error)), asyncio.get_running_loop().time())
        if held_back is not None:
            _log.error(
                "callback %s failed on a %s of %s, and is called again with the next one: %r "
                "(%d like it not logged since the last line; told at most once a minute)",
                getattr(callback, "__qualname__", type(callback).__name__),
                type(item).__name__.lower(),
                item.symbol,
                error,
                held_back,
                exc_info=error,
            )


class SharedCallbacks:
    """The callbacks of a service: told of each entry once, though several streams may bring it."""

    def __init__(self, caller: Caller) -> None:
        self._caller: Final = caller
        self._once: Final = OnceEach()
        self._locks: Final[dict[str, asyncio.Lock]] = {}
        self.book: Final = CallbackBook()

    async def tell(self, quote: Quote) -> None:
        """Call the symbol's callbacks, unless another stream has brought this quote; raises as `Caller.call`."""
        callbacks = self.book.of(quote.symbol)
        if not callbacks or not self._once.lets_pass(quote):
            return
        # Without the lock a second stream would call a slow callback again before it has ended.
        async with self._locks.setdefault(quote.symbol, asyncio.Lock()):
            for callback in callbacks:
                await self._caller.call(callback, quote)

    def begin_anew(self, symbol: str) -> None:
        """The symbol's stream was replaced: smaller ids are news."""
        self._once.begin_anew(symbol)

    def clear(self) -> None:
        """Forget all callbacks, and what they have been told."""
        self.book.clear()
        self._once.clear()

"""Calls the callbacks, one after the other, and survives them.

Decides what a failing or a slow callback costs: itself, and a line in the log. Must never run two calls for one
quote at once, nor keep quotes for a callback that is slow: its stream waits for it, so that memory is bounded by
one read and Redis holds the rest.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Hashable
from typing import Any, Final
from weakref import WeakMethod

from consumers.service.book import Callback, CallbackBook, OnceEach, Seldom
from wire import EntryId, Gap, Quote, Symbol

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
                "(told at most once a minute%s)",
                getattr(callback, "__qualname__", type(callback).__name__),
                type(item).__name__.lower(),
                item.symbol,
                error,
                f"; {held_back} like it since the last line" if held_back else "",
                exc_info=error,
            )


class SharedCallbacks:
    """The callbacks of a service: each is told of each entry once, though several streams may bring it.

    `reader` is any name of a stream that is its own; for `following` see `OnceEach`. Who brings an item has to ask
    for it before anything else is called: a callback may end it.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller: Final = caller
        self._once: Final[dict[str, dict[int, OnceEach]]] = {}
        """By symbol, and by the identity of the callback in the book, which may have no hash."""
        self._followings: Final[dict[Hashable, WeakMethod[Callable[[str], Hashable]]]] = {}
        """By reader. Weak, for a stream that nobody holds any more ends."""
        self._locks: Final[dict[str, asyncio.Lock]] = {}
        self._book: Final = CallbackBook()

    def __len__(self) -> int:
        return len(self._book)

    def add(self, symbol: Symbol, callback: Callback) -> None:
        """Tell this callback of what is brought from now on; one that is there already stays as it is."""
        self._book.add(symbol, callback)
        self._tidy(symbol)

    def remove(self, symbol: Symbol, callback: Callback | None = None) -> int:
        """Tell this callback no more, or None of them where it is None; how many that were."""
        removed = self._book.remove(symbol, callback)
        self._tidy(symbol)
        return removed

    def join(self, reader: Hashable, following: Callable[[str], Hashable]) -> None:
        """This stream begins. The method tells its following of a symbol, None where it does not follow it."""
        self._followings[reader] = WeakMethod(following)

    async def tell(self, reader: Hashable, following: Hashable, quote: Quote) -> None:
        """Call the symbol's callbacks, each unless it was told of this quote; raises as `Caller.call`."""
        if not self._book.of(quote.symbol):
            return
        # Without the lock a second stream would call a slow callback again before it has ended. What has passed is
        # asked under it: a stream that ends while it waits has told nobody.
        async with self._locks.setdefault(quote.symbol, asyncio.Lock()):
            for callback in self._book.of(quote.symbol):
                once = self._once.get(quote.symbol, {}).get(id(callback))
                if once is None:
                    continue  # removed meanwhile
                if quote.id is None or once.lets_pass(reader, following, EntryId.parse(quote.id)):
                    await self._caller.call(callback, quote)

    def skipped(self, reader: Hashable, symbol: str) -> None:
        """This stream may not bring every entry up to its next one; another one may."""
        for once in self._once.get(symbol, {}).values():
            once.skipped(reader)

    def begin_anew(self, reader: Hashable, following: Hashable, symbol: str) -> None:
        """What this stream reads of the symbol was replaced: smaller ids are news."""
        asked = {
            name: ask for name, method in self._followings.items() if (ask := method()) and name != reader
        }
        known = {name: ask(symbol) for name, ask in asked.items()}
        others = [(name, theirs) for name, theirs in known.items() if theirs is not None]
        for once in self._once.get(symbol, {}).values():
            once.begin_anew(reader, following, others)

    def forget(self, reader: Hashable) -> None:
        """This stream has ended."""
        self._followings.pop(reader, None)
        for callbacks in self._once.values():
            for once in callbacks.values():
                once.forget(reader)

    def clear(self) -> None:
        """Forget all callbacks, and what they have been told."""
        self._book.clear()
        self._once.clear()

    def _tidy(self, symbol: Symbol) -> None:
        """Keep account for the callbacks that are in the book, and for no others."""
        known = self._once.get(symbol, {})
        kept = {id(callback): known.get(id(callback)) or OnceEach() for callback in self._book.of(symbol)}
        if kept:
            self._once[symbol] = kept
        else:
            self._once.pop(symbol, None)

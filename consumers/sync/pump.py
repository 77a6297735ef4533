"""The handing of batches from the loop's thread to the strategy's, at most one ahead.

Decides when the next batch is asked for, and that leaving ends the reading. Must never know what a batch holds.
"""

import asyncio
import contextlib
import queue
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

from consumers.errors import BusClosed, BusError
from consumers.sync.portal import WATCH_S, Call, Portal

T = TypeVar("T")


class Pump(Generic[T]):
    """One task of the loop that goes through `source` as far as it is asked to. One thread at a time takes.

    A batch is taken by keeping it: it is brought again for as long as the taker says that its last one is another.
    So a Ctrl-C, which may strike between any two lines of the taker, loses none.
    """

    def __init__(
        self, portal: Portal[Any], source: Callable[[], AsyncGenerator[list[T], None]], last: Any = None
    ) -> None:
        self._portal: Final = portal
        self._source: Final = source
        self._demand: Final = asyncio.Event()
        self._wanted = 0
        # In one piece, because two threads look at it.
        self._brought: tuple[int, list[T]] = 0, last
        self._news: Final[queue.SimpleQueue[None]] = queue.SimpleQueue()
        self._task: asyncio.Task[Any] | None = None
        self._error: Exception | None = None
        self._is_begun = False
        self._call: Final[Call[None]] = Call(self._news)
        self.is_over = False
        """Whether it was stopped, or has failed and said so."""
        self.is_whole = False
        """Whether the source has come to its own end."""

    @property
    def waiting(self) -> list[T]:
        """The batch that was brought last; whether it was taken is for the taker to know."""
        return self._brought[1]

    @property
    def is_asked(self) -> bool:
        """Whether a batch was asked for that has not been brought."""
        return self._wanted > self._brought[0]

    def take(self, last: Any, timeout_s: float | None = None) -> list[T] | None:
        """The batch after `last`, or None at the end; `TimeoutError` when there is none in time.

        Raises what the source raises, `BusClosed` when the loop is gone, `BusError` when somebody else ended it.
        """
        is_asked = False
        if not self._is_begun:
            # Not when it is made: who is interrupted there would leave one behind of which nobody knows.
            self._portal.submit(self._run, self._call)
            self._is_begun = True
        while True:
            number, batch = self._brought
            if batch is not last:
                return batch
            if self._error is not None:
                self.is_over = True
                raise self._error
            if self._call.is_given:
                if self._call.is_cancelled and not (self.is_over or self._portal.is_closed):
                    self.is_over = True
                    raise BusError(
                        "the task that reads was cancelled by somebody else; what was not handed out comes again"
                    )
                return None
            if not is_asked:
                # Said by number, so that it may be said twice.
                self._portal.tell(partial(self._want, number + 1))
                is_asked = True
            wait_s = WATCH_S if timeout_s is None else min(WATCH_S, timeout_s)
            try:
                if wait_s > 0:
                    self._news.get(timeout=wait_s)
                else:
                    self._news.get_nowait()
            except queue.Empty:
                if timeout_s is not None:
                    timeout_s -= wait_s
                    if timeout_s <= 0:
                        raise TimeoutError from None
                self._portal.check()

    def stop(self) -> bool:
        """End the reading and wait until its connection is closed; from the loop's own thread, without waiting.

        Whether it has ended. One that has not, because the loop stands still, may yet bring what was asked for.
        """
        self.is_over = True
        if self._portal.is_elsewhere:
            return True
        if self._portal.is_here:
            self.abandon()
            return False
        try:
            self._portal.call(self._end)
        except BusClosed:
            return self._portal.settle()
        except BusError:
            return False
        return True

    def abandon(self) -> None:
        """End the reading some time soon."""
        # No call between these, so that an interrupt comes before both or after both.
        self.is_over = True
        self._call.is_given_up = True
        self._portal.tell(self._cancel)

    def _want(self, number: int) -> None:
        self._wanted = max(self._wanted, number)
        self._demand.set()

    def _cancel(self) -> None:
        self.is_over = True
        if self._task is not None:
            self._task.cancel()

    async def _end(self, _: object) -> None:
        self._cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self, _: object) -> None:
        self._task = asyncio.current_task()
        async with contextlib.aclosing(self._source()) as batches:
            # A cancellation that comes as an answer does may be lost below us, so the flag has the last word.
            while not self.is_over:
                await self._demand.wait()
                self._demand.clear()
                if not self.is_asked:
                    continue
                try:
                    batch = await anext(batches)
                except StopAsyncIteration:
                    self.is_whole = True
                    return
                except Exception as error:
                    self._error = error
                    return
                self._brought = self._brought[0] + 1, batch
                self._news.put(None)

"""The handing of batches from the loop's thread to the strategy's, at most one ahead.

Decides when the next batch is asked for, and that leaving ends the reading. Must never know what a batch holds.
"""

import asyncio
import contextlib
import queue
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Generic, TypeVar

from consumers.errors import BusClosed, BusError, BusUnavailable
from consumers.sync.portal import Portal

T = TypeVar("T")

WATCH_S: Final = 1.0
"""How often a thread that waits looks whether the loop is still there."""


class Pump(Generic[T]):
    """One task of the loop that goes through `source` as far as it is asked to. One thread at a time takes."""

    def __init__(self, portal: Portal[Any], source: Callable[[], AsyncGenerator[list[T], None]]) -> None:
        self._portal: Final = portal
        self._source: Final = source
        self._demand: Final = asyncio.Event()
        self._queue: Final[queue.SimpleQueue[list[T] | BaseException | None]] = queue.SimpleQueue()
        self._task: asyncio.Task[Any] | None = None
        self.is_asked = False
        """Whether a batch was asked for that has not been taken."""
        self._is_stopped = False
        self.waiting: list[T] = []
        """The batch that was brought last; whether it was taken is for the taker to know."""
        self._future: Final = portal.submit(self._run)
        self._future.add_done_callback(lambda _: self._queue.put(None))

    def take(self, timeout_s: float | None = None) -> list[T] | None:
        """The next batch, or None at the end; `TimeoutError` when there is none in time, and nothing is lost then.

        Raises what the source raises, `BusClosed` when the loop is gone.
        """
        if not self.is_asked:
            self.is_asked = True
            self._portal.tell(self._demand.set)
        while True:
            wait_s = WATCH_S if timeout_s is None else min(WATCH_S, timeout_s)
            try:
                found = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
                break
            except queue.Empty:
                if timeout_s is not None:
                    timeout_s -= wait_s
                    if timeout_s <= 0:
                        raise TimeoutError from None
                self._portal.check()
        self.is_asked = False
        if isinstance(found, BaseException):
            raise found
        return found

    def left_over(self) -> list[T]:
        """What was brought and not taken, after `stop`."""
        left: list[T] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found = self._queue.get_nowait()
                if isinstance(found, list):
                    left = found
        # Another thread may still be waiting for the end.
        self._queue.put(None)
        return left

    def stop(self) -> None:
        """End the reading and wait until its connection is closed; from the loop's own thread, without waiting."""
        if self._portal.is_elsewhere:
            return
        if self._portal.is_here:
            self.abandon()
            return
        with contextlib.suppress(BusClosed, BusError, BusUnavailable):
            self._portal.call(self._end)

    def abandon(self) -> None:
        """End the reading some time soon."""
        self._portal.tell(self._cancel)

    def _cancel(self) -> None:
        self._is_stopped = True
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
            while not self._is_stopped:
                await self._demand.wait()
                self._demand.clear()
                try:
                    batch = await anext(batches)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    self._queue.put(error)
                    return
                self.waiting = batch
                self._queue.put(batch)

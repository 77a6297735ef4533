"""A private event loop in a thread of its own, and the way for other threads to have things done there.

Decides that every wait for the loop ends: by its result, by a limit, by Ctrl-C, or because the loop is gone. Must
never know what is asked of the bus.
"""

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, TypeVar

from consumers.errors import BusClosed, BusError, BusUnavailable

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger(__name__)

LEAVE_S: Final = 5.0
"""How long leaving waits for connections to close, before it goes without."""


class Portal(Generic[T]):
    """The loop, its thread, and one thing of the loop (`T`) that is entered first and left last.

    The thing is entered and left in one task, as task groups and time limits ask for. Any thread may `call`.
    """

    def __init__(
        self, name: str, manager: AbstractAsyncContextManager[T], address: str, limit_s: float
    ) -> None:
        self._manager: Final = manager
        self.address: Final = address
        self._name: Final = name
        self._limit_s: Final = limit_s
        self._pid: Final = os.getpid()
        self._thread: Final = threading.Thread(target=self._live, name=name, daemon=True)
        self._entered: Final[concurrent.futures.Future[None]] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_closed = False
        """Whether it is open no more, or is being closed."""

    @property
    def is_open(self) -> bool:
        """Whether it may be called."""
        return self._thread.is_alive() and not self.is_closed and self._entered.done()

    @property
    def thing(self) -> T:
        """What was entered. To be used on the loop, and nowhere else."""
        return self._thing

    def open(self) -> None:
        """Start the thread and enter the thing; raises what entering raises, and leaves no thread then."""
        try:
            self._thread.start()
        except RuntimeError:
            raise BusError("a bus is opened once: connect again") from None
        try:
            self._entered.result(self._limit_s)
        except TimeoutError:
            self.close()
            raise self._too_long() from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the thing, end the loop, and wait for its thread for at most `LEAVE_S`. May be called again."""
        if self.is_elsewhere:
            return
        self.is_closed = True
        loop, leaving, task = self._loop, self._leaving, self._task
        if loop is not None and leaving is not None and task is not None and self._thread.is_alive():
            _tell(loop, leaving.set if self._entered.done() else task.cancel)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(LEAVE_S)
            if self._thread.is_alive():
                _log.warning("%s: connections did not close within %g s", self._name, LEAVE_S)

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a forked child of the one that has the thread."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise `BusClosed` or `BusError` unless it may be called from here."""
        if self.is_elsewhere:
            raise BusError(
                f"this bus was opened in process {self._pid}, and process {os.getpid()} is a fork of it: "
                "its connections stayed there; open a bus of its own in each process, after the fork"
            )
        if not self.is_open:
            raise BusClosed("the bus is not open: use it inside `with connect(url) as bus:`")
        if threading.current_thread() is self._thread:
            raise BusError(
                "the bus was called from its own loop, which would wait for itself: use `consumers.connect`"
            )

    def call(self, ask: Callable[[T], Awaitable[R]]) -> R:
        """What `ask` brings when it is awaited on the loop; cancelled there when this thread stops waiting.

        Raises what it raises; `BusUnavailable` after the limit, `BusClosed`.
        """
        future = self.submit(ask)
        try:
            return future.result(self._limit_s)
        except concurrent.futures.CancelledError:
            raise BusClosed("the bus was closed meanwhile") from None
        except TimeoutError:
            if future.done():
                raise  # it is the answer
            raise self._too_long() from None
        finally:
            future.cancel()

    def submit(self, ask: Callable[[T], Awaitable[R]]) -> "concurrent.futures.Future[R]":
        """Have it awaited on the loop, without waiting for it here. Raises as `check` does."""
        self.check()
        assert self._loop is not None

        async def answer() -> R:
            return await ask(self._thing)

        coroutine = answer()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise BusClosed("the bus was closed meanwhile") from None

    def tell(self, told: Callable[[], object]) -> None:
        """Have a quick function run on the loop some time soon; nothing happens when the loop is gone."""
        if self._loop is not None and not self.is_elsewhere:
            _tell(self._loop, told)

    @property
    def is_here(self) -> bool:
        """Whether this is the loop's own thread, where waiting for the loop would be for ever."""
        return threading.current_thread() is self._thread

    def _too_long(self) -> BusUnavailable:
        return BusUnavailable(self.address, f"no answer within {self._limit_s:g} s")

    def _live(self) -> None:
        try:
            asyncio.run(self._host())
        except BaseException as error:
            if not self._entered.done():
                self._entered.set_exception(error)
            else:
                _log.error("%s ended with %r", self._name, error)

    async def _host(self) -> None:
        self._task = asyncio.current_task()
        self._leaving = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self.is_closed:
            raise BusClosed("the bus was closed while it was opened")
        async with self._manager as thing:
            self._thing = thing
            self._entered.set_result(None)
            await self._leaving.wait()


def _tell(loop: asyncio.AbstractEventLoop, told: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(told)
    except RuntimeError:
        _log.debug("the loop of the bus is gone")

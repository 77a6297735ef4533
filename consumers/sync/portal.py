"""A private event loop in a thread of its own, and the way for other threads to have things done there.

Decides that every wait for the loop ends: by its result, by a limit, by Ctrl-C, or because the loop is gone. Must
never know what is asked of the bus.
"""

import _thread
import asyncio
import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, Generic, TypeVar

from consumers.errors import BusClosed, BusError, BusUnavailable
from consumers.sync.answer import Answer

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger(__name__)

LEAVE_S: Final = 5.0
"""How long leaving waits for connections to close, before it goes without."""
WATCH_S: Final = 1.0
"""How often a thread that waits looks whether the loop is still there."""


class Call(Answer[R]):
    """Something that is asked of the loop, once, however often it is submitted."""

    def __init__(self, news: "queue.SimpleQueue[None] | None" = None) -> None:
        super().__init__(news)
        self.task: asyncio.Task[R] | None = None
        """What answers it."""
        self.is_cancelled = False
        """Whether that was cancelled."""
        self.is_given_up = False
        """Whether nobody waits for it any more."""


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
        self._entered: Final[Answer[None]] = Answer()
        # Not `is_alive` and `join`: until Python 3.13 an interrupt within them makes a thread count as ended.
        self._ended: Final[Answer[None]] = Answer()
        self._is_begun = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        # Also because the loop itself remembers a task that waits by a weak reference alone.
        self._calls: Final[set[Call[Any]]] = set()
        self.is_closed = False
        """Whether it is open no more, or is being closed."""

    @property
    def is_open(self) -> bool:
        """Whether it may be called."""
        return self._entered.is_given and not (self._ended.is_given or self.is_closed)

    @property
    def thing(self) -> T:
        """What was entered. To be used on the loop, and nowhere else."""
        return self._thing

    def open(self) -> None:
        """Start the thread and enter the thing; raises what entering raises, and leaves no thread then."""
        if self._is_begun:
            raise BusError("a bus is opened once: connect again")
        try:
            # No call between these, so that an interrupt comes before both or after both. Not started from here: an
            # interrupt there leaves locks of `threading` closed, or a thread that it does not know.
            self._is_begun = True
            _thread.start_new_thread(self._start, ())
            if self._waited(self._entered):
                self._entered.get()
                return
        except BaseException:
            self.close()
            raise
        self.close()
        raise self.too_long()

    def close(self) -> None:
        """Leave the thing, end the loop, and wait for its thread for at most `LEAVE_S`. May be called again."""
        if self.is_elsewhere:
            return
        self.is_closed = True
        loop, leaving, task = self._loop, self._leaving, self._task
        if loop is not None and leaving is not None and task is not None and not self._ended.is_given:
            _tell(loop, leaving.set if self._entered.is_given else task.cancel)
        if not (self.is_here or self.settle()):
            _log.warning("%s: connections did not close within %g s", self._name, LEAVE_S)

    def settle(self, limit_s: float | None = None) -> bool:
        """Wait until a loop that is being closed is over, for `LEAVE_S` unless told otherwise; whether it is."""
        if not self._is_begun:
            return True
        if not self._ended.wait(LEAVE_S if limit_s is None else limit_s):
            return False
        if self._thread.ident is not None:
            self._thread.join(LEAVE_S)
        return True

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
        if self.is_here:
            raise BusError(
                "the bus was called from its own loop, which would wait for itself: use `consumers.connect`"
            )

    def finish(self) -> None:
        """Wait until a loop that is being closed is over: only then may others look at what is its own.

        Raises `BusUnavailable` after the limit.
        """
        if not (self.is_here or self.settle(self._limit_s)):
            raise self.too_long()

    def call(self, ask: Callable[[T], Awaitable[R]]) -> R:
        """What `ask` brings when it is awaited on the loop; cancelled there when this thread stops waiting.

        Raises what it raises; `BusUnavailable` after the limit, `BusClosed`.
        """
        call: Call[R] = Call()
        try:
            self.submit(ask, call)
            if not self._waited(call):
                if self._ended.is_given:
                    raise BusClosed("the bus was closed meanwhile")
                raise self.too_long()
            return call.get()
        except asyncio.CancelledError:
            raise BusClosed("the bus was closed meanwhile") from None
        finally:
            if not call.is_given:
                call.is_given_up = True
                self.tell(partial(_cancel, call))
            # Else an error would hold this frame, and by it itself.
            del call

    def submit(self, ask: Callable[[T], Awaitable[R]], call: Call[R]) -> None:
        """Have it awaited on the loop, without waiting for it here. Raises as `check` does."""
        self.check()
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(partial(self._begin, ask, call))
        except RuntimeError:
            raise BusClosed("the bus was closed meanwhile") from None

    def tell(self, told: Callable[[], object]) -> None:
        """Have a quick function run on the loop some time soon; nothing happens when the loop is gone."""
        if self._loop is not None and not self.is_elsewhere:
            _tell(self._loop, told)

    @property
    def is_here(self) -> bool:
        """Whether this is the loop's own thread, where waiting for the loop would be for ever."""
        return threading.current_thread() is self._thread

    def _waited(self, answer: Answer[Any]) -> bool:
        until_s = time.monotonic() + self._limit_s
        while not answer.wait(min(WATCH_S, max(0.0, until_s - time.monotonic()))):
            if self._ended.is_given or time.monotonic() >= until_s:
                return answer.is_given
        return True

    def too_long(self) -> BusUnavailable:
        """What is raised when the loop has not answered."""
        return BusUnavailable(self.address, f"no answer within {self._limit_s:g} s")

    def _begin(self, ask: Callable[[T], Awaitable[R]], call: Call[R]) -> None:
        if call.is_given_up or call.task is not None:
            return
        assert self._loop is not None

        async def answer() -> R:
            return await ask(self._thing)

        call.task = self._loop.create_task(answer())
        self._calls.add(call)
        call.task.add_done_callback(partial(self._answered, call))

    def _start(self) -> None:
        try:
            self._thread.start()
        except BaseException as error:
            self._entered.fail(error)
            self._ended.give(None)

    def _live(self) -> None:
        try:
            asyncio.run(self._host())
        except BaseException as error:
            if not self._entered.is_given:
                self._entered.fail(error)
            else:
                _log.error("%s ended with %r", self._name, error)
        finally:
            self._ended.give(None)

    async def _host(self) -> None:
        self._task = asyncio.current_task()
        self._leaving = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self.is_closed:
            raise BusClosed("the bus was closed while it was opened")
        async with self._manager as thing:
            self._thing = thing
            self._entered.give(None)
            while not self.is_closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_S):
                        await self._leaving.wait()
                # Whoever was interrupted after its decision has not told.
                for call in self._calls:
                    if call.is_given_up:
                        _cancel(call)

    def _answered(self, call: Call[R], task: "asyncio.Task[R]") -> None:
        self._calls.discard(call)
        if task.cancelled():
            call.is_cancelled = True
            call.fail(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            call.fail(error)
        else:
            call.give(task.result())


def _cancel(call: Call[Any]) -> None:
    if call.task is not None:
        call.task.cancel()


def _tell(loop: asyncio.AbstractEventLoop, told: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(told)
    except RuntimeError:
        _log.debug("the loop of the bus is gone")

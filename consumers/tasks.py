"""Tasks of the library, and somebody who sees each of them end.

Decides what follows when a task ends that was not meant to, whether it failed, was cancelled by somebody else, or
simply returned: a `Companion` begins again, what lives `together` ends together. A task group alone misses the
last two. Must never know what a task does. `tests/repo/test_tasks.py` sees to it that no other module starts one.
"""

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

_log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
"""A companion that fails again and again is begun again after a pause of one second, doubling up to this."""


class TaskEnded(Exception):
    """A task ended that was to run for as long as the others; `was_cancelled` says whether by a cancellation."""

    def __init__(self, name: str, *, was_cancelled: bool) -> None:
        super().__init__(
            f"the task {name} {'was cancelled by somebody else' if was_cancelled else 'has ended'}, and must not"
        )
        self.was_cancelled = was_cancelled


class Together:
    """The tasks of one `together`."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group: Final = group
        self._running: Final[set[asyncio.Task[None]]] = set()
        self.is_ending = False
        """Whether all of them are being ended."""

    def start(
        self, coroutine: Coroutine[Any, Any, None], name: str, *, may_end: bool = False
    ) -> "asyncio.Task[None]":
        """Run this beside the others. With `may_end` it may return; cancelled by somebody else it may not be."""
        task = self._group.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(partial(self._ended, may_end))
        return task

    def end(self) -> None:
        """Cancel all of them; nobody is missed any more."""
        self.is_ending = True
        for task in self._running:
            task.cancel()

    def _ended(self, may_end: bool, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        has_returned = not task.cancelled() and task.exception() is None
        if self.is_ending or (has_returned and may_end):
            return
        self.is_ending = True
        if has_returned or task.cancelled():
            # The group ends for a task that fails, and for no other.
            self._group.create_task(_fail(TaskEnded(task.get_name(), was_cancelled=task.cancelled())))


async def all_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Each of these to its end, side by side, whatever becomes of the others; then raises the first failure."""
    for outcome in await asyncio.gather(*coroutines, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _fail(error: Exception) -> None:
    raise error


@contextlib.asynccontextmanager
async def together() -> AsyncIterator[Together]:
    """Tasks that end with the context, and the context with the first of them that fails, or ends unasked.

    Raises that one's own error, or `TaskEnded`.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = Together(group)
            try:
                yield tasks
            finally:
                tasks.end()
    except BaseExceptionGroup as failures:
        # One failure is the reason; others on the way out are its consequence.
        raise failures.exceptions[0] from failures


class Companion:
    """One task beside the loops of a bus: it takes a step, waits for as long as the step says, and takes the next.

    `step` is a method of its owner and returns seconds, or None until `wake`. One that fails is logged, and the
    next comes after a pause. It ends with `aclose`, with its event loop, or when nobody has the owner any more,
    which it therefore does not hold between two steps. Cancelled by somebody else it begins again, and says so. Not
    a task group: a bus may be closed by another task than the one that opened it, as in a notebook, where each cell
    is a task.
    """

    def __init__(self, step: Callable[[], Awaitable[float | None]], name: str) -> None:
        self._name: Final = name
        self._woken = asyncio.Event()
        self._is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._failures = 0
        self._pid: Final = os.getpid()
        # Last: an interrupt before the end of this leaves nobody to be called back who is half made.
        self._step: Final = weakref.WeakMethod(step, self._forgotten)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not closed, nor its event loop."""
        is_begun = self._task is not None or self._again is not None
        return is_begun and self._loop is not None and not self._loop.is_closed()

    def wake(self) -> None:
        """Let the next step come now; it is started for it, if need be. Nothing happens in a forked process."""
        if self._pid != os.getpid():
            return
        self._woken.set()
        if not self.is_running:
            self._begin()

    async def aclose(self, grace_s: float = 0.0) -> None:
        """End it: at once, or when a step wants to wait, but within so many seconds. It may be woken again."""
        task, self._task = self._task, None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        # In a forked process the task is the parent's.
        if task is None or self._pid != os.getpid():
            return
        self._is_ending = True
        self._woken.set()
        try:
            if grace_s:
                await asyncio.wait((task,), timeout=grace_s)
        finally:
            task.cancel()
            self._is_ending = False
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()

    def _begin(self) -> None:
        self._woken, self._again = asyncio.Event(), None
        self._loop = asyncio.get_running_loop()
        self._task = task = self._loop.create_task(self._run(), name=self._name)
        # The event loop holds tasks weakly, and one that is collected while it waits is noise.
        _running.add(task)
        task.add_done_callback(self._ended)

    async def _run(self) -> None:
        while self._pid == os.getpid():
            self._woken.clear()
            step = self._step()
            if step is None:
                return
            wait_s = await self._stepped(step)
            del step
            if self._pid != os.getpid() or (self._is_ending and wait_s != 0):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    async def _stepped(self, step: Callable[[], Awaitable[float | None]]) -> float | None:
        try:
            wait_s = await step()
        except Exception:
            if self._pid != os.getpid():
                return None
            wait_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
            self._failures += 1
            _log.exception("the task %s failed, which is a defect; it goes on in %g s", self._name, wait_s)
        else:
            self._failures = 0
        return wait_s

    def _forgotten(self, _: object) -> None:
        # By the garbage collector, in any thread.
        if self._loop is not None and self._pid == os.getpid():
            # The loop may be closed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._woken.set)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        _running.discard(task)
        if not task.cancelled():
            task.exception()  # Seen: what ends the program is raised to it as well.
        if task is not self._task or self._pid != os.getpid():
            return
        self._task = None
        if self._step() is not None:
            # Not at once, and not told before: whoever cancels every task there is wants the program to end.
            self._again = task.get_loop().call_later(FIRST_PAUSE_S, self._begin_again, task)

    def _begin_again(self, ended: "asyncio.Task[None]") -> None:
        self._again = None
        if self._step() is not None:
            how = "was cancelled by somebody else" if ended.cancelled() else "has ended"
            _log.warning("the task %s %s, and is still needed; it begins again", self._name, how)
            self._begin()


_running: Final[set["asyncio.Task[None]"]] = set()
"""Every companion of this process, and in a forked one those of its parent."""

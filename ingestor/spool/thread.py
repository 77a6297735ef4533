"""A thread for work that may never come back: operations of a disk.

Decides that no such work keeps the process alive. Must never know what the work is. The interpreter joins the
threads of `concurrent.futures` when it ends, and a write to a dying disk would keep it there for ever; a daemon
thread is left behind.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeAlias

_Work: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class DiskThread(Executor):
    """Runs one thing after the other, in the order in which they were handed over."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As that of any executor."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._queue.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """End the thread once it has done what was handed over. Never waits for it, whatever is asked."""
        self._queue.put(None)

    def _run(self) -> None:
        while (handed := self._queue.get()) is not None:
            future, work = handed
            # Whoever asked may have gone; the work is done even so.
            is_wanted = future.set_running_or_notify_cancel()
            try:
                done = work()
            except BaseException as error:
                if is_wanted:
                    future.set_exception(error)
            else:
                if is_wanted:
                    future.set_result(done)
            # Not held until the next work comes: results can be large.
            del handed, future, work

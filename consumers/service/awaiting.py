"""What makes something that runs a coroutine as well: it can be awaited, and given to `asyncio.create_task`.

Decides nothing: all goes to `run()`. Must never know what runs.
"""

from abc import abstractmethod
from collections.abc import Coroutine, Generator
from typing import Any


class RunsWhenAwaited(Coroutine[Any, Any, None]):
    """Its `run` is what an `await`, a task or `asyncio.run` runs; `send`, `throw` and `close` are for these."""

    _run: Coroutine[Any, Any, None] | None = None

    @abstractmethod
    async def run(self) -> None:
        """Run to the end."""

    @abstractmethod
    def _let_go(self) -> None:
        """It will not run any more; does not wait."""

    def __await__(self) -> Generator[Any, Any, None]:
        return self.run().__await__()

    def send(self, value: Any, /) -> Any:
        """Go on until it waits next; for the event loop."""
        return self._begun().send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with this error, such as a cancellation; for the event loop."""
        if self._run is None:
            # A coroutine that was not begun has no `finally` yet.
            self._let_go()
        return self._begun().throw(*error)

    def close(self) -> None:
        """End where it stands, or before it has begun; for the event loop. `aclose` is the way for programs."""
        if self._run is None:
            self._let_go()
        else:
            self._run.close()

    def _begun(self) -> Coroutine[Any, Any, None]:
        if self._run is None:
            self._run = self.run()
        return self._run

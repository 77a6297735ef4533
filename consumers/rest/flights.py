"""One call for everybody in this process who asks the same at the same time.

Decides who asks and who waits for the answer. Must never know what is asked. Each waits in its own task and may be
cancelled alone: when the one who asks is, one of the others asks instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from consumers.rest.errors import RestError

_Result = TypeVar("_Result")


class Flights(Generic[_Result]):
    """The questions on their way, of one event loop."""

    def __init__(self) -> None:
        self._landings: Final[dict[Hashable, asyncio.Future[_Result | RestError | None]]] = {}

    async def join(self, question: Hashable, ask: Callable[[], Awaitable[_Result]]) -> _Result:
        """The answer of whoever asks this now, else of `ask`; raises what that raises, to all of them."""
        while (landing := self._landings.get(question)) is not None:
            outcome = await asyncio.shield(landing)
            if isinstance(outcome, RestError):
                raise outcome.with_traceback(None)
            if outcome is not None:
                return outcome
        landing = asyncio.get_running_loop().create_future()
        self._landings[question] = landing
        outcome = None
        try:
            outcome = await ask()
        except RestError as error:
            outcome = error
            raise
        finally:
            del self._landings[question]
            # None: the one who asked was cancelled, and another has to.
            landing.set_result(outcome)
        return outcome

"""The pytest fixture `alpaca_simulator`, found by pytest through an entry point wherever quotebus is installed.

Decides where the double of the vendor runs while a test uses it: in a thread with an event loop of its own, so that
it serves plain and asynchronous tests alike. It is loaded by every pytest run of that environment, so it imports
the simulator when the fixture is asked for. PYTEST_DONT_REWRITE
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from simulator.frames import SimQuote
    from simulator.server import AlpacaSimulator

_T = TypeVar("_T")
TIMEOUT_S: Final = 30.0


class SimulatorThread:
    """A running `AlpacaSimulator`, to be used from any thread and any event loop.

    `call` reaches everything that the simulator itself offers. What is here raises `TimeoutError` when its thread
    does not answer within `TIMEOUT_S`.
    """

    def __init__(self, simulator: "AlpacaSimulator", loop: asyncio.AbstractEventLoop) -> None:
        self._simulator: Final = simulator
        self._loop: Final = loop

    def call(self, function: "Callable[[AlpacaSimulator], _T]") -> _T:
        """The result of this function of the simulator, called in the simulator's own thread."""
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(function(self._simulator))
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(TIMEOUT_S)

    def url(self, feed: str = "iex") -> str:
        """The websocket address of a feed."""
        return self.call(lambda simulator: simulator.url(feed))

    @property
    def symbols(self) -> frozenset[str]:
        """Every symbol whose quotes some session has subscribed."""
        return self.call(lambda simulator: simulator.symbols)

    def send(self, *quotes: "SimQuote") -> int:
        """Publish these quotes to the sessions that subscribed them; returns how many went to the one with most."""
        return self.call(lambda simulator: simulator.send(quotes))

    def wait_for(self, predicate: "Callable[[AlpacaSimulator], bool]", timeout_s: float = 5.0) -> None:
        """Return as soon as it holds of the simulator; `TimeoutError`, with what is there, after `timeout_s`."""
        simulator = self._simulator
        waiting = asyncio.run_coroutine_threadsafe(
            simulator.wait_for(lambda: predicate(simulator), timeout_s), self._loop
        )
        waiting.result(timeout_s + TIMEOUT_S)


@pytest.fixture
def alpaca_simulator() -> Iterator[SimulatorThread]:
    """The double of Alpaca on a free port of this machine, which sends what the test tells it to."""
    try:
        from simulator.server import AlpacaSimulator
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        pytest.fail(
            f'{package} is needed for the simulator: pip install "quotebus[simulator]"',
            pytrace=False,
        )
    begun: Future[tuple[AlpacaSimulator, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live() -> None:
        ended = asyncio.Event()
        try:
            async with AlpacaSimulator() as simulator:
                begun.set_result((simulator, asyncio.get_running_loop(), ended))
                await ended.wait()
        except BaseException as error:
            if not begun.done():
                begun.set_exception(error)
            raise

    thread = threading.Thread(target=_run, args=(live,), name="alpaca-simulator", daemon=True)
    thread.start()
    simulator, loop, ended = begun.result(TIMEOUT_S)
    try:
        yield SimulatorThread(simulator, loop)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(TIMEOUT_S)


def _run(main: Callable[[], Any]) -> None:
    asyncio.run(main())

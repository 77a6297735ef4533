"""The stand-in beside alpaca-py's own class: whatever a handler or another thread does, and what becomes of `run`.

Each row of a table is tried on both. Where they differ, the guide's table says so: the difference is meant.
"""

import asyncio
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import pytest
from alpaca.data.live import StockDataStream as Original
from redis.asyncio import Redis

from consumers.alpaca import StockDataStream
from simulator import AlpacaSimulator, SimQuote
from simulator.redis_server import RedisServer
from tests.consumers.conftest import T0_NS, Writer, until

GUIDE: Final = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
GOES_ON: Final = "goes on"
RETURNS: Final = "returns"
HANGS: Final = "hangs"


class Ending(NamedTuple):
    """What a handler does with the second quote, and how `run` ends then, there and here."""

    does: Callable[[Any], Any]
    theirs: str
    ours: str


class Side(Protocol):
    """One of the two classes, and whoever sends it quotes."""

    name: str
    stream: Any

    async def ready(self, *symbols: str) -> None:
        """Wait until the stream would hear of these."""

    async def send(self, symbol: str = "AAPL") -> None:
        """One quote, numbered on by its bid size."""


class Theirs:
    """alpaca-py's class, on the double of Alpaca."""

    name = "theirs"

    def __init__(self, simulator: AlpacaSimulator) -> None:
        self._simulator = simulator
        # A short farewell, or each `run` that ends by an exception takes ten seconds more.
        self.stream = Original(
            "key",
            "secret",
            raw_data=True,
            url_override=simulator.url("iex"),
            websocket_params={"close_timeout": 0.1},
        )
        self._count = 0

    async def ready(self, *symbols: str) -> None:
        await self._simulator.wait_for(
            lambda: self._simulator.symbols >= set(symbols) and self.stream._running, timeout_s=15
        )

    async def send(self, symbol: str = "AAPL") -> None:
        self._simulator.send([SimQuote(symbol, T0_NS + self._count, 187.12, self._count, 187.13, 200)])
        self._count += 1


class Ours:
    """The stand-in, on a real server."""

    name = "ours"

    def __init__(self, server: RedisServer, writer: Writer) -> None:
        self._writer = writer
        self.stream = StockDataStream("key", "secret", raw_data=True, redis_url=server.url)

    async def ready(self, *symbols: str) -> None:
        async def known() -> bool:
            streams = list(self.stream._streams.values())
            return {name for each in streams for name in each.positions} >= set(symbols)

        await until(known)

    async def send(self, symbol: str = "AAPL") -> None:
        await self._writer.quotes(symbol)


@pytest.fixture(params=["theirs", "ours"])
async def side(
    request: pytest.FixtureRequest, server: RedisServer, redis: Redis, writer: Writer
) -> AsyncIterator[Side]:
    """Both, one after the other."""
    if request.param == "ours":
        yield Ours(server, writer)
    else:
        async with AlpacaSimulator() as simulator:
            yield Theirs(simulator)


class Run:
    """`run` in a thread of its own, and how it ended."""

    def __init__(self, side: Side) -> None:
        self.outcome: BaseException | str | None = None
        self.side = side
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.side.stream.run()
        except BaseException as ending:
            self.outcome = ending
        else:
            self.outcome = RETURNS

    @property
    def how(self) -> str:
        """In a word."""
        return self.outcome if isinstance(self.outcome, str) else type(self.outcome).__name__

    async def ended(self) -> bool:
        """Whether it has."""
        return not self.thread.is_alive()

    async def end(self) -> None:
        """Stop it, whatever the other class needs for that."""
        if not await self.ended():
            await asyncio.to_thread(self.side.stream.stop)
        while not await self.ended():
            # Theirs looks for the stop only between two receipts.
            await self.side.send()
            await asyncio.sleep(0.02)


async def cancelled_elsewhere(_: Any) -> None:
    """Awaits something of its own that somebody has cancelled: the usual way to a CancelledError in a handler."""
    waiting = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, waiting.cancel)
    await waiting


def raising(error: BaseException) -> Callable[[Any], None]:
    """A handler that raises this."""

    def work(_: Any) -> None:
        raise error

    return work


async def cancels_itself(_: Any) -> None:
    """Cancels the task that runs it."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


class Unheard(BaseException):
    """An exception that `except Exception` does not see."""


ENDINGS: Final[dict[str, Ending]] = {
    "raises": Ending(raising(ValueError("oops")), GOES_ON, GOES_ON),
    "raises `TimeoutError`": Ending(raising(TimeoutError()), GOES_ON, GOES_ON),
    "raises `ValueError` with the words `insufficient subscription`": Ending(
        raising(ValueError("insufficient subscription")), RETURNS, GOES_ON
    ),
    "raises `CancelledError`": Ending(raising(asyncio.CancelledError()), "CancelledError", "CancelledError"),
    "awaits what is cancelled": Ending(cancelled_elsewhere, "CancelledError", "CancelledError"),
    "cancels its own task": Ending(cancels_itself, "CancelledError", "CancelledError"),
    "calls `sys.exit`": Ending(lambda _: sys.exit(3), "SystemExit", "SystemExit"),
    "raises `KeyboardInterrupt`": Ending(raising(KeyboardInterrupt()), RETURNS, RETURNS),
    "raises another `BaseException`": Ending(raising(Unheard()), "Unheard", "Unheard"),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=list(ENDINGS))
async def test_run_ends_as_there_however_a_handler_ends(
    side: Side, ending: Ending, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing falls silent: either the next quote comes, or `run` ends in the same way, without noise."""
    got: list[int] = []

    async def handler(quote: Any) -> None:
        got.append(quote["bs"])
        if quote["bs"] == 1:
            done = ending.does(quote)
            if inspect.isawaitable(done):
                await done

    side.stream.subscribe_quotes(handler, "AAPL")
    run = Run(side)
    try:
        await side.ready("AAPL")
        expected = ending.theirs if side.name == "theirs" else ending.ours
        await side.send()
        await side.send()

        async def over() -> bool:
            return len(got) >= 2 and (expected == GOES_ON or await run.ended())

        await until(over, 10)
        if expected == GOES_ON:
            await side.send()

            async def heard() -> bool:
                return got == [0, 1, 2]

            await until(heard, 10)
            assert not await run.ended()
        else:
            assert run.how == expected
    finally:
        await run.end()
    if side.name == "ours":
        assert "Task was destroyed" not in capfd.readouterr().err

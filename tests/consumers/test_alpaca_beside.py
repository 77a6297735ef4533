"""The stand-in beside alpaca-py's own class: whatever a handler or another thread does, and what becomes of `run`.

Each row of a table is tried on both. Where they differ, the guide's table says so: the difference is meant.
"""

import asyncio
import inspect
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from unittest.mock import AsyncMock

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
PATIENCE_S: Final = {"theirs": 2.0, "ours": 15.0}
"""So long what does not come is waited for. Nothing hangs here, so here it may take as long as it does."""
SILENCE_S: Final = 1.0
"""Long enough for a quote that nobody is to hear."""


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

    def unstick(self) -> None:
        """End the calls that wait for themselves."""


class Theirs:
    """alpaca-py's class, on the double of Alpaca."""

    name = "theirs"

    def __init__(self, simulator: AlpacaSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self._simulator = simulator
        self._calls: list[Any] = []
        submit = asyncio.run_coroutine_threadsafe

        def noted(*arguments: Any) -> Any:
            self._calls.append(submit(*arguments))
            return self._calls[-1]

        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", noted)
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

    def unstick(self) -> None:
        for call in self._calls:
            call.cancel()


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

    def unstick(self) -> None:
        """Nothing waits for itself here."""


@pytest.fixture(params=["theirs", "ours"])
async def side(
    request: pytest.FixtureRequest,
    server: RedisServer,
    redis: Redis,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Side]:
    """Both, one after the other."""
    if request.param == "ours":
        yield Ours(server, writer)
    else:
        async with AlpacaSimulator() as simulator:
            yield Theirs(simulator, monkeypatch)


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


@pytest.mark.fault("Q19")
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


class Scene:
    """A stream that runs, with a handler of AAPL, for something to be done to it."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.stream = side.stream
        self.got: list[str] = []
        self.run: Run | None = None
        self.does: Callable[[], Any] | None = None
        self.outcome: str | None = None

    async def handle(self, quote: Any) -> None:
        """The handler: with its first quote it does what is to be done in one."""
        self.got.append(quote["S"])
        does, self.does = self.does, None
        if does is not None:
            try:
                done = does()
                if inspect.isawaitable(done):
                    await done
            except Exception as error:
                self.outcome = type(error).__name__
            else:
                self.outcome = "works"

    async def begin(self) -> Run:
        """Run, and wait until it would hear of a quote."""
        self.stream.subscribe_quotes(self.handle, "AAPL")
        self.run = Run(self.side)
        await self.side.ready("AAPL")
        return self.run

    async def in_a_handler(self, does: Callable[[], Any]) -> str:
        """How that ends when a handler does it."""
        await self.begin()
        self.does = does
        await self.side.send()

        async def done() -> bool:
            return self.outcome is not None

        try:
            await until(done, PATIENCE_S[self.side.name])
        except TimeoutError:
            self.side.unstick()
            await until(done, 10)
            return HANGS
        return str(self.outcome)

    async def has_heard(self, symbol: str, within_s: float = 15.0) -> bool:
        """Whether a quote of it comes to the handler, if one is sent."""
        before = self.got.count(symbol)
        await self.side.send(symbol)
        try:
            await until(lambda: self._more(symbol, before), within_s)
        except TimeoutError:
            return False
        return True

    async def ends(self, within_s: float | None = None) -> str:
        """How `run` ends, while quotes come: theirs looks for a stop only with one."""
        assert self.run is not None
        until_s = time.monotonic() + (within_s or PATIENCE_S[self.side.name])
        while not await self.run.ended():
            if time.monotonic() > until_s:
                return GOES_ON
            await self.side.send()
            await asyncio.sleep(0.02)
        return self.run.how

    async def _more(self, symbol: str, before: int) -> bool:
        return self.got.count(symbol) > before


async def subscribes_in_a_thread(scene: Scene) -> str:
    """A symbol more, while it runs."""
    await scene.begin()
    await asyncio.to_thread(scene.stream.subscribe_quotes, scene.handle, "MSFT")
    await scene.side.ready("MSFT")
    return "works" if await scene.has_heard("MSFT") else "is not heard"


async def subscribes_in_a_handler(scene: Scene) -> str:
    """As a strategy does that follows what it sees."""
    return await scene.in_a_handler(lambda: scene.stream.subscribe_quotes(scene.handle, "MSFT"))


async def unsubscribes_in_a_thread(scene: Scene) -> str:
    """A symbol less, while it runs."""
    await scene.begin()
    await asyncio.to_thread(scene.stream.unsubscribe_quotes, "AAPL")
    return "is still heard" if await scene.has_heard("AAPL", SILENCE_S) else "works"


async def unsubscribes_in_a_handler(scene: Scene) -> str:
    """As a strategy does that has seen enough."""
    return await scene.in_a_handler(lambda: scene.stream.unsubscribe_quotes("AAPL"))


async def unsubscribes_what_has_no_handler(scene: Scene) -> str:
    """Once too often."""
    try:
        scene.stream.unsubscribe_quotes("NEVER")
    except Exception as error:
        return type(error).__name__
    return "is ignored"


async def stops_in_a_thread(scene: Scene) -> str:
    """The usual way."""
    await scene.begin()
    await asyncio.to_thread(scene.stream.stop)
    return await scene.ends()


async def stops_in_a_handler(scene: Scene) -> str:
    """A call that could wait for itself."""
    how = await scene.in_a_handler(lambda: scene.stream.stop())
    return how if how == HANGS else await scene.ends()


async def stops_by_coroutine(scene: Scene) -> str:
    """The way for handlers."""
    assert await scene.in_a_handler(lambda: scene.stream.stop_ws()) == "works"
    return await scene.ends()


async def closes_in_a_handler(scene: Scene) -> str:
    """What sounds like the end."""
    assert await scene.in_a_handler(lambda: scene.stream.close()) == "works"
    return await scene.ends()


async def stops_before_it_runs(scene: Scene) -> str:
    """A thread that is too early."""
    try:
        scene.stream.stop()
    except Exception as error:
        return type(error).__name__
    scene.stream.subscribe_quotes(scene.handle, "AAPL")
    scene.run = Run(scene.side)
    return await scene.ends()


async def stops_twice(scene: Scene) -> str:
    """To be on the safe side."""
    await scene.begin()
    await asyncio.to_thread(scene.stream.stop)
    await scene.ends()
    await asyncio.to_thread(scene.stream.stop)
    return await scene.ends()


async def stops_while_a_handler_waits(scene: Scene) -> str:
    """A handler that never comes back must not keep `run`."""
    released = asyncio.Event()
    loop: list[asyncio.AbstractEventLoop] = []

    async def waits() -> None:
        loop.append(asyncio.get_running_loop())
        await released.wait()

    run = await scene.begin()
    scene.does = waits
    await scene.side.send()
    await until(lambda: scene._more("AAPL", 0), 10)
    await asyncio.to_thread(scene.stream.stop)
    how = await scene.ends()
    if how == GOES_ON:
        loop[0].call_soon_threadsafe(released.set)
        await scene.ends(10)
        assert await run.ended()
        return HANGS
    return how


async def runs_again(scene: Scene) -> str:
    """After a pause in which quotes came."""
    await scene.begin()
    await asyncio.to_thread(scene.stream.stop)
    await scene.ends()
    heard = len(scene.got)
    await scene.side.send()
    await scene.begin()
    await scene.has_heard("AAPL")
    return "begins with what is new" if len(scene.got) == heard + 1 else "begins with the past"


async def runs_in_a_loop(scene: Scene) -> str:
    """As in a notebook."""
    try:
        scene.stream.run()
    except Exception as error:
        return type(error).__name__
    return RETURNS


async def runs_without_handlers(scene: Scene) -> str:
    """They may come later."""
    scene.run = Run(scene.side)
    await asyncio.sleep(0.1)  # were it to end by itself, it would by now
    return "waits" if not await scene.run.ended() else scene.run.how


async def runs_twice_at_once(scene: Scene) -> str:
    """From two threads."""
    await scene.begin()
    second = Run(scene.side)
    await asyncio.sleep(0.2)  # a second one that is refused has ended by now
    # One that is not refused either goes on or returns, as the two happen to take the connection from each other.
    is_refused = await second.ended() and second.how != RETURNS
    return second.how if is_refused else "runs beside itself"


async def is_cancelled(scene: Scene) -> str:
    """In a program that has a loop of its own."""
    scene.stream.subscribe_quotes(scene.handle, "AAPL")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.stream._run_forever())
        await scene.side.ready("AAPL")
        task.cancel()
        await asyncio.wait((task,))
    return "CancelledError" if task.cancelled() else RETURNS


async def takes_what_acts_as_a_coroutine_function(scene: Scene) -> str:
    """Partial ones, doubles, and methods."""
    for handler in (partial(Scene.handle, scene), AsyncMock(), scene.handle):
        scene.stream.subscribe_quotes(handler, "AAPL")
    return "works"


async def subscribes_another_kind_of_function(scene: Scene) -> str:
    """Which could not be awaited."""
    try:
        scene.stream.subscribe_quotes(print, "AAPL")
    except ValueError as error:
        return str(error)
    return "works"


async def subscribes_trades(scene: Scene) -> str:
    """Which the bus does not have."""
    try:
        scene.stream.subscribe_trades(scene.handle, "AAPL")
        scene.stream.register_trade_cancels(scene.handle)
    except Exception as error:
        return type(error).__name__
    return "works"


class Deed(NamedTuple):
    """What is done to a stream, and what comes of it, there and here."""

    does: Callable[[Scene], Awaitable[str]]
    theirs: str
    ours: str


DEEDS: Final[dict[str, Deed]] = {
    "`subscribe_quotes` in another thread": Deed(subscribes_in_a_thread, "works", "works"),
    "`subscribe_quotes` in a handler": Deed(subscribes_in_a_handler, HANGS, "works"),
    "`subscribe_quotes` of what acts as a coroutine function": Deed(
        takes_what_acts_as_a_coroutine_function, "works", "works"
    ),
    "`subscribe_quotes` of another kind of function": Deed(
        subscribes_another_kind_of_function,
        "handler must be a coroutine function",
        "handler must be a coroutine function",
    ),
    "`unsubscribe_quotes` in another thread": Deed(unsubscribes_in_a_thread, "works", "works"),
    "`unsubscribe_quotes` in a handler": Deed(unsubscribes_in_a_handler, HANGS, "works"),
    "`unsubscribe_quotes` of what has no handler": Deed(
        unsubscribes_what_has_no_handler, "KeyError", "is ignored"
    ),
    "`subscribe_trades`, and all that is no quote": Deed(subscribes_trades, "works", "NotCarried"),
    "`run` after a `stop`": Deed(runs_again, "begins with what is new", "begins with what is new"),
    "`run` without a handler": Deed(runs_without_handlers, "waits", "waits"),
    "`run` where a loop runs": Deed(runs_in_a_loop, "AttributeError", "RuntimeError"),
    "`run` beside a `run` of the same object": Deed(runs_twice_at_once, "runs beside itself", "BusError"),
    "`_run_forever` that is cancelled": Deed(is_cancelled, "CancelledError", "CancelledError"),
    "`stop` in another thread": Deed(stops_in_a_thread, RETURNS, RETURNS),
    "`stop` in a handler": Deed(stops_in_a_handler, HANGS, RETURNS),
    "`stop` before `run`": Deed(stops_before_it_runs, "AttributeError", RETURNS),
    "`stop` after the end": Deed(stops_twice, RETURNS, RETURNS),
    "`stop` while a handler waits for ever": Deed(stops_while_a_handler_waits, HANGS, RETURNS),
    "`stop_ws` in a handler": Deed(stops_by_coroutine, RETURNS, RETURNS),
    "`close` in a handler": Deed(closes_in_a_handler, GOES_ON, RETURNS),
}


@pytest.mark.filterwarnings("ignore:coroutine 'DataStream._run_forever' was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:coroutine 'DataStream.stop_ws' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("deed", DEEDS.values(), ids=list(DEEDS))
async def test_each_method_does_what_it_does_there_or_what_the_guide_says(
    side: Side, deed: Deed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From other threads and from handlers, in good order and in bad."""
    # How long a handler that waits may go on after a stop; the other class waits for it without a bound.
    monkeypatch.setattr("consumers.alpaca.stream.STOP_GRACE_S", 0.2)
    scene = Scene(side)
    try:
        assert await deed.does(scene) == (deed.theirs if side.name == "theirs" else deed.ours)
    finally:
        if scene.run is not None:
            await scene.run.end()


def test_every_public_method_is_tried() -> None:
    """None of alpaca-py's is left out of the table."""
    public = {name for name in dir(Original) if not name.startswith("_")}
    others = {name for name in public if re.match("(un)?subscribe_|register_", name) and "quotes" not in name}
    tried = {name for row in DEEDS for name in re.findall(r"`(\w+)`", row)}
    assert public - others <= tried


def test_the_guide_lists_each_difference() -> None:
    """And no other: each is meant."""
    section = GUIDE.split("\n## The drop-in\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ")[0].strip() for line in section.splitlines() if line.startswith("| ")]
    told = {row.removeprefix("a handler that ") for row in rows[1:]}
    differing = {name for table in (ENDINGS, DEEDS) for name, row in table.items() if row.theirs != row.ours}
    assert told == differing

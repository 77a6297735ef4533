"""The stream: which symbols are read, and how it begins and ends.

Decides that whatever alpaca-py's class does, this one does too, or says that it does not. Must never open a
connection to Alpaca, wait for itself, or fall silent: what ends a handler and is no failure ends `run`, as there.
"""

import asyncio
import contextlib
import inspect
import logging
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from consumers.alpaca.handing import EVERYTHING, Handing, Handler, OnGap
from consumers.alpaca.places import Hand, carried, ends
from consumers.alpaca.shapes import DataFeed
from consumers.arguments import is_number
from consumers.bus import Bus, connect, parts_of
from consumers.errors import BusError, BusUnavailable, NotCarried
from consumers.reading.quotes import QuoteStream
from consumers.reading.start import parse_symbols
from consumers.reading.unserved import Unserved
from consumers.reconnect import Loudness, Reconnect
from consumers.tasks import TaskEnded, Together, together
from wire import Level

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.5
"""How often the bus is asked which symbols it has, for who wants all of them."""
FEED_EVERY_S: Final = 5.0
STOP_GRACE_S: Final = 5.0
"""How long a handler that is at work when the stream is stopped may go on."""
BREATH_S: Final = 0.05
"""After so long the loop gets its turn: handlers that never wait would keep leases from being renewed."""
FIRST_WAIT_S: Final = 4.0
"""When nothing ever came of all that the bus carries for so long, why is told once, unasked."""
SHOWN: Final = 20
"""Symbols in one line of the log."""
CUSTOM_FEED: Final = "custom"
"""What the daemon says of an address that it was given by hand."""
OPENING: Final = Reconnect(first_delay_s=1.0, max_delay_s=30.0)


class StockDataStream:
    """alpaca-py's `StockDataStream` for quotes, read from the bus: no connection to Alpaca, so there may be many.

    Key, secret and `websocket_params` are accepted and not needed. `feed` is compared with what the bus carries,
    and a difference is logged. `data_timeout` logs why nothing came for so many seconds; the daemon sees to the
    connection. `redis_url` (default: `QUOTEBUS_REDIS_URL` of the environment, or `redis://127.0.0.1:6379/0`) and
    `namespace` say where the bus is. `on_gap`, a function or coroutine function, gets each `Gap`, else logged. A
    `run` after a `stop` begins with what is new then; with `catch_up` it goes on where the one before ended.

    Handlers are called one at a time. One that fails is logged, and the next quote goes on; one that ends in
    `CancelledError`, `SystemExit` or `KeyboardInterrupt` ends `run`, as in the other class.

    Symbols are subscribed and unsubscribed at any time, from any thread, and from handlers: no call waits for the
    stream. Symbols named here are leased, so that the daemon subscribes them; `"*"` is all that the bus carries,
    whoever asked for it. Raises `ValueError` as the other class does, `BadUrl` and `BadNamespace`.
    """

    def __init__(
        self,
        api_key: str,  # noqa: ARG002
        secret_key: str,  # noqa: ARG002
        raw_data: bool = False,
        feed: DataFeed = DataFeed.IEX,
        websocket_params: dict[str, Any] | None = None,  # noqa: ARG002
        url_override: str | None = None,
        data_timeout: float | None = None,
        *,
        redis_url: str | None = None,
        namespace: str = "quotes",
        on_gap: OnGap | None = None,
        catch_up: bool = False,
    ) -> None:
        if feed not in (DataFeed.IEX, DataFeed.SIP):
            raise ValueError("only IEX and SIP feeds are supported")
        if data_timeout is not None and not (is_number(data_timeout) and data_timeout > 0):
            raise ValueError("data_timeout must be a positive number of seconds")
        if url_override is not None:
            _log.info("url_override is not used: quotes come from the bus")
        self._handing: Final = Handing(on_gap, raw_data=raw_data)
        self._catch_up: Final = catch_up
        self._feed: Final = None if url_override is not None else feed.value
        self._data_timeout: Final = data_timeout
        self._open: Final = partial(connect, redis_url, namespace=namespace)
        self._open()  # a URL that cannot be used is told here, not in a thread later
        self._lock: Final = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup, self._stopped, self._turn = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        self._loudness: Final = Loudness()
        self._is_stopping = False
        self._has_run = False
        self._ending: BaseException | None = None
        """What a handler ended with, that `run` is to end with."""
        # By whether it takes leases: the named symbols, and those that come with the asterisk.
        self._streams: dict[bool, QuoteStream] = {}
        self._hands: dict[bool, Hand] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._places: dict[str, str] = {}
        self._cut_off: dict[str, str] = {}
        """Where those go on whose batch was not handed out to its end."""
        self._last_item_s = 0.0

    def subscribe_quotes(self, handler: Handler, *symbols: str) -> None:
        """Have this coroutine function called with each quote of these symbols, `"*"` for all that the bus carries.

        It replaces the handler that a symbol had. Raises `ValueError` for another kind of function, `BadSymbol`.
        """
        if not inspect.iscoroutinefunction(handler):
            raise ValueError("handler must be a coroutine function")
        self._check(symbols)
        with self._lock:
            self._handing.handlers = self._handing.handlers | dict.fromkeys(symbols, handler)
        self._wake()

    def unsubscribe_quotes(self, *symbols: str) -> None:
        """Call no handler for these any more, at once; a symbol that has none is ignored. Raises `BadSymbol`."""
        self._check(symbols)
        with self._lock:
            kept = {name: handler for name, handler in self._handing.handlers.items() if name not in symbols}
            self._handing.handlers = kept
        self._wake()

    @property
    def unserved(self) -> dict[str, Unserved]:
        """The symbols that get no quotes now, each with its state and the reason."""
        return {name: why for each in list(self._streams.values()) for name, why in each.unserved.items()}

    def run(self) -> None:
        """Hand out quotes until `stop`, or Ctrl-C."""
        running = self._run_forever()
        try:
            asyncio.run(running)
        except KeyboardInterrupt:
            print("keyboard interrupt, bye")  # noqa: T201 - as the other class does
        finally:
            # Where a loop runs already, it was never begun.
            running.close()
            if self._has_run:
                self.stop()

    def stop(self) -> None:
        """End the stream, from any thread or handler; before the first `run`, that run ends at once."""
        if self._loop is not None or not self._has_run:
            self._is_stopping = True
            self._wake()

    async def stop_ws(self) -> None:
        """As `stop`, for coroutines."""
        self.stop()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """As `stop`, for coroutines."""
        await self.stop_ws()

    async def _run_forever(self) -> None:
        """What `run` runs, for programs that have a loop; cancelling it closes its connections."""
        if self._loop is not None:
            raise BusError("this stream runs already: make a second one, or stop it first")
        if self._has_run:
            self._is_stopping = False
        self._has_run, self._ending = True, None
        if not self._catch_up:
            self._places.clear()
        self._wakeup, self._stopped, self._turn = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        # Before the flag is read, as `stop` sets the flag before it looks for the loop.
        self._loop = asyncio.get_running_loop()
        try:
            if self._is_stopping:
                return
            await self._until_stopped()
            _log.info("data stream stopped")
        except TaskEnded as ended:
            if ended.was_cancelled:
                # As there, where it is all one task.
                raise asyncio.CancelledError(str(ended)) from ended
            raise
        finally:
            self._loop = None
            self._handing.tell_counts(all_of_them=True)
        ending, self._ending = self._ending, None
        if ending is not None:
            # Only now, when nothing is left behind: in the midst of tasks it would leave the loop with them undone.
            raise ending

    async def _until_stopped(self) -> None:
        async with together() as tasks:
            tasks.start(self._sessions(), "quotebus-stream")
            await self._stopped.wait()
            for stream in self._streams.values():
                await stream.aclose()
            if self._readers:
                await asyncio.wait(self._readers, timeout=STOP_GRACE_S)
            tasks.end()

    async def _sessions(self) -> None:
        failures = 0
        while True:
            try:
                async with self._open() as bus:
                    failures = 0
                    _log.info("connected to %r", bus)
                    await self._serve(bus)
            except BusUnavailable as error:
                failures += 1
                delay_s = OPENING.delay_s(failures, random.random())
                why = BusUnavailable(error.address, error.why)
                level = self._loudness.level(asyncio.get_running_loop().time())
                _log.log(level, "%s; attempt %d in %.1f s", why, failures, delay_s)
                await asyncio.sleep(delay_s)

    async def _serve(self, bus: Bus) -> None:
        try:
            async with together() as tasks:
                tasks.start(self._watch(bus), "quotebus-silence", may_end=True)
                await self._steer(bus, tasks)
        finally:
            for stream in self._streams.values():
                self._places |= stream.positions
            # Their positions are those behind the batch.
            self._places |= self._cut_off
            self._cut_off.clear()
            self._streams.clear()
            self._hands.clear()
            self._readers.clear()

    async def _steer(self, bus: Bus, tasks: Together) -> None:
        """Keep what is read equal to what has handlers."""
        feed_due_s = 0.0
        others: set[str] = set()
        while True:
            self._wakeup.clear()
            named = set(self._handing.handlers) - {EVERYTHING}
            takes_all = EVERYTHING in self._handing.handlers
            now_s = asyncio.get_running_loop().time()
            try:
                others = await carried(bus) if takes_all else set()
                if now_s >= feed_due_s:
                    feed_due_s = now_s + FEED_EVERY_S if await self._feed_is_open(bus) else float("inf")
                # Before anything is leased: the first quotes may come before the reader gets round to looking.
                known = {name for stream in self._streams.values() for name in stream.symbols}
                found = await ends(bus, sorted((named | others) - known - self._places.keys()))
                self._places |= found
            except BusUnavailable as error:
                _log.debug("not looked now: %s", error)
            self._follow(bus, tasks, {True: named, False: others - named})
            self._handing.tell_counts()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S if takes_all else FEED_EVERY_S):
                    await self._wakeup.wait()

    def _follow(self, bus: Bus, tasks: Together, wanted: dict[bool, set[str]]) -> None:
        # A symbol that only changes streams, or that a lost bus was reading, goes on where it stood.
        places, self._places = self._places, {}
        for lease, stream in self._streams.items():
            gone = stream.symbols - wanted[lease]
            if gone:
                places |= {symbol: place for symbol, place in stream.positions.items() if symbol in gone}
                places |= self._hands[lease].leave(gone)
                stream.remove(*gone)
        for lease, symbols in wanted.items():
            followed = self._streams.get(lease)
            new = symbols if followed is None else symbols - followed.symbols
            if not new:
                continue
            starts = {symbol: places[symbol] for symbol in new if symbol in places}
            if followed is not None:
                followed.add(*new, start=starts)
                continue
            stream = self._streams[lease] = bus.quotes(*new, start=starts, lease=lease)
            hand = self._hands[lease] = Hand()
            self._readers.append(
                tasks.start(self._read(stream, hand, tasks), "quotebus-reader", may_end=True)
            )

    async def _read(self, stream: QuoteStream, hand: Hand, tasks: Together) -> None:
        now_s = asyncio.get_running_loop().time
        breath_s = now_s() + BREATH_S
        async for batch in stream.batches():
            hand.take(batch)
            try:
                while True:
                    async with self._turn:
                        # In its turn: what it has may be another's by now.
                        if self._is_stopping or (item := hand.next()) is None:
                            break
                        await self._handing.hand_over(item)
                    if (at_s := now_s()) > breath_s:
                        await asyncio.sleep(0)
                        breath_s = at_s + BREATH_S
            except BaseException as ending:
                if tasks.is_ending or isinstance(ending, GeneratorExit):
                    raise
                self._end_with(ending)
                return
            finally:
                self._cut_off |= hand.places()
            if self._is_stopping:
                return
            self._last_item_s = now_s()

    def _end_with(self, ending: BaseException) -> None:
        self._ending = self._ending or ending
        self._is_stopping = True
        self._stopped.set()

    async def _watch(self, bus: Bus) -> None:
        """Say why nothing comes: again and again where that was asked for, else once, if nothing ever came."""
        is_asked_for, limit_s = self._data_timeout is not None, self._data_timeout or FIRST_WAIT_S
        now_s = asyncio.get_running_loop().time
        began_s = told_s = now_s()
        while is_asked_for or max(told_s, self._last_item_s) == began_s:
            due_s = max(told_s, self._last_item_s) + limit_s
            if (wait_s := due_s - now_s()) > 0:
                await asyncio.sleep(wait_s)
                continue
            told_s = now_s()
            names = sorted(set(self._handing.handlers) - {EVERYTHING})[:SHOWN]
            if not is_asked_for and names:
                return  # The bus itself tells of symbols with a name.
            try:
                found = (await bus.quality(*(names or ["A"]))).values()
                told = [each for each in found if each.reason and (names or each.level is Level.STALE)]
                why = [f"{each.symbol if names else 'all'} is {each.level}: {each.reason}" for each in told]
            except BusUnavailable as error:
                why = [str(error)]
            if why or is_asked_for:
                _log.warning("no data received on data stream for %.1fs: %s", limit_s, "; ".join(why))

    async def _feed_is_open(self, bus: Bus) -> bool:
        """Whether it is still to be found out if the bus carries the feed that was asked for."""
        if self._feed is None:
            return False
        link, keys = parts_of(bus)
        ((feed,),) = await link.ask(("HMGET", keys.status, "feed"))
        if feed is None:
            return True  # no daemon yet
        carried = feed.decode(errors="replace")
        if carried not in {self._feed, CUSTOM_FEED}:
            _log.warning(
                "this program asks for feed %s, and the bus carries %s, so that is what it gets; "
                "change `feed` here, or QUOTEBUS_FEED of the daemon",
                self._feed,
                carried[:40],
            )
        return False

    def _check(self, symbols: tuple[str, ...]) -> None:
        if names := [symbol for symbol in symbols if symbol != EVERYTHING]:
            parse_symbols(names)

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            # The loop may have been closed since.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._wakeup.set()
        if self._is_stopping:
            self._stopped.set()


def _not_carried(channel: str) -> Callable[..., None]:
    def refuse(self: StockDataStream, *_: object) -> None:  # noqa: ARG001
        raise NotCarried(channel)

    refuse.__doc__ = f"The bus carries no {channel}: raises `NotCarried`."
    return refuse


for _name, _channel in {
    "subscribe_trades": "trades",
    "subscribe_bars": "bars",
    "subscribe_updated_bars": "updated bars",
    "subscribe_daily_bars": "daily bars",
    "subscribe_trading_statuses": "trading statuses",
    "register_trade_corrections": "trade corrections",
    "register_trade_cancels": "trade cancels",
    "unsubscribe_trades": "trades",
    "unsubscribe_bars": "bars",
    "unsubscribe_updated_bars": "updated bars",
    "unsubscribe_daily_bars": "daily bars",
    "unsubscribe_trading_statuses": "trading statuses",
}.items():
    setattr(StockDataStream, _name, _not_carried(_channel))

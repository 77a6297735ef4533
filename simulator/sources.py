"""What feeds the audience: the synthetic market and the tape, each to be run as a task of its own.

Decides when a source may hand over more, and how much. Must never know sockets or conversations; what is quoted is
`market`'s and `tape`'s decision, to whom it goes the audience's.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from simulator.audience import Audience
from simulator.frames import Batch, SimQuote
from simulator.market import TEST_SYMBOL, Activity, Market, plausible_symbols
from simulator.rest.record import Record
from simulator.settings import SimulatorSettings
from simulator.tape import BadTape, Pace, read_tape

_log: Final = logging.getLogger("simulator")

_POLL_S: Final = 0.05
_MAX_ELAPSED_S: Final = 1.0
_IDLE_NS: Final = 1_000_000_000
"""How old the newest quote of a symbol without listeners may be when somebody asks for it."""


class MarketSource:
    """The synthetic market at its rate, and its bursts. `made` counts its quotes so far."""

    def __init__(self, settings: SimulatorSettings, audience: Audience, record: Record) -> None:
        self.made = 0
        self._settings = settings
        self._audience = audience
        self._record = record
        self._rate = settings.rate
        self._bursts: list[list[float]] = []
        self._wake = asyncio.Event()
        self._market: Market | None = None
        self._activity: Activity | None = None
        self._generation = -1

    @property
    def rate(self) -> float:
        """Quotes per second, bursts left out."""
        return self._rate

    @rate.setter
    def rate(self, quotes_per_s: float) -> None:
        self._rate = max(quotes_per_s, 0.0)
        self._wake.set()

    def burst(self, count: int, over_s: float) -> None:
        """So many quotes more, within `over_s` seconds."""
        self._bursts.append([float(count), count / over_s if over_s > 0 else math.inf])
        self._wake.set()

    @property
    def symbols(self) -> Sequence[str]:
        """The market's list, without the test feed's symbol."""
        return self._traded().symbols[:-1]

    def refresh(self, symbols: Iterable[str], now_ns: int) -> None:
        """Somebody asks for these symbols' newest quotes: those that nobody listens to are quoted now."""
        if self._rate <= 0:
            return
        market = self._traded()
        for symbol in symbols:
            newest = self._record.newest(symbol)
            if self._audience.wants(symbol) or (newest is not None and newest.t_ns > now_ns - _IDLE_NS):
                continue
            quotes = market.quotes(market.activity([symbol]), 1, now_ns, now_ns)
            self.made += len(quotes)
            self._audience.publish(Batch(quotes), sealed=False)

    async def run(self) -> None:
        """Make quotes, one beat after the other, for as long as this is not cancelled."""
        beat_s = self._settings.coalesce_ms / 1000
        carry = 0.0
        last_s, last_ns = time.monotonic(), time.time_ns()
        while True:
            if self._rate <= 0 and not self._bursts:
                self._wake.clear()
                await self._wake.wait()
                last_s, last_ns, carry = time.monotonic(), time.time_ns(), 0.0
                if self._rate <= 0 and not self._bursts:
                    continue
            await asyncio.sleep(beat_s)
            now_s, now_ns = time.monotonic(), time.time_ns()
            elapsed_s = min(now_s - last_s, _MAX_ELAPSED_S)
            due = carry + self._rate * elapsed_s + self._from_bursts(elapsed_s)
            count = int(due)
            carry = due - count
            from_ns, last_s, last_ns = min(last_ns, now_ns), now_s, max(last_ns, now_ns)
            await self._beat(count, from_ns, last_ns)

    async def _beat(self, count: int, from_ns: int, to_ns: int) -> None:
        market, activity = self._active()
        span_ns, most = to_ns - from_ns, self._settings.frame_size
        for start in range(0, count, most):
            size = min(most, count - start)
            quotes = market.quotes(
                activity,
                size,
                from_ns + span_ns * start // count,
                from_ns + span_ns * (start + size) // count,
            )
            if not quotes:
                return
            self.made += len(quotes)
            self._audience.publish(Batch(quotes), sealed=False)
            if start:
                await asyncio.sleep(0)

    def _from_bursts(self, elapsed_s: float) -> float:
        due = 0.0
        for burst in self._bursts:
            part = min(burst[0], burst[1] * elapsed_s)
            burst[0] -= part
            due += part
        self._bursts = [burst for burst in self._bursts if burst[0] > 0]
        return due

    def _active(self) -> tuple[Market, Activity]:
        # An activity is made whenever the audience wants something else.
        market = self._traded()
        if self._activity is None or self._generation != self._audience.generation:
            wanted: set[str] = set()
            for link in self._audience.live.values():
                if link.receives:
                    live = link.session.live
                    wanted.update(market.symbols[:-1] if live is None else live)
            self._generation = self._audience.generation
            self._activity = market.activity(wanted)
        return market, self._activity

    def _traded(self) -> Market:
        # A market is made when it is first needed.
        if self._market is None:
            s = self._settings
            symbols = s.symbols if s.symbols is not None else plausible_symbols(s.symbol_count, s.seed)
            self._market = Market((*symbols, TEST_SYMBOL), s.seed)
        return self._market


class TapeSource:
    """The tape, paced or flat out.

    `done` is set when it has been handed over, `sent` counts its rows so far, and `error` is why it ended early.
    """

    def __init__(self, settings: SimulatorSettings, audience: Audience) -> None:
        self.done: Final = asyncio.Event()
        self.sent = 0
        self.error: BadTape | None = None
        self._settings = settings
        self._audience = audience

    async def run(self, path: Path) -> None:
        """Replay it, as soon as somebody has subscribed its first symbol; again and again if that is wanted."""
        s = self._settings
        try:
            while True:
                rows = read_tape(path, s.tape_symbol)
                first = next(rows)
                await self._until(partial(self._audience.wants, first.symbol))
                if s.tape_speed:
                    await self._replay_paced(first, rows, s.tape_speed)
                else:
                    await self._replay_flat_out(first, rows)
                if not s.tape_loop:
                    break
                # A tape of an instant would otherwise begin again and again without anybody else's turn.
                await asyncio.sleep(s.coalesce_ms / 1000)
        except BadTape as error:
            _log.error("the tape ends here: %s", error)
            self.error = error
        self.done.set()

    async def _replay_paced(self, first: SimQuote, rows: Iterator[SimQuote], speed: float) -> None:
        pace = Pace(first.t_ns, speed, time.monotonic(), time.time_ns(), redate=self._settings.tape_redate)
        batch = [pace.dated(first)]
        for row in rows:
            wait_s = pace.due_s(row.t_ns) - time.monotonic()
            if wait_s > 0 or len(batch) >= self._settings.frame_size:
                self.sent += self._audience.publish(Batch(batch), sealed=False)
                batch = []
                await asyncio.sleep(max(wait_s, 0))
            batch.append(pace.dated(row))
        self.sent += self._audience.publish(Batch(batch), sealed=False)

    async def _replay_flat_out(self, first: SimQuote, rows: Iterator[SimQuote]) -> None:
        audience, size = self._audience, self._settings.frame_size
        high = min(10 * size, self._settings.max_backlog - size)
        batch = [first]
        while batch:
            # Without a pace there is no time to miss: the tape waits for its readers, and for having any.
            await self._until(audience.wants_any)
            while audience.lags(high):
                audience.drained.clear()
                await audience.drained.wait()
            if not audience.wants_any():
                continue
            self.sent += audience.publish(Batch(batch), sealed=False)
            await asyncio.sleep(0)
            batch = [row for _, row in zip(range(size), rows, strict=False)]

    async def _until(self, predicate: Callable[[], bool]) -> None:
        while not predicate():
            self._audience.changed.clear()
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._audience.changed.wait()
            except TimeoutError:
                continue

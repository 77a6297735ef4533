"""A steady stream of numbered quotes, and the checker that is told of each.

Decides what is sent and how fast. Must never know which fault is under way; after it, `everything_arrived` is the
question.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from simulator import AlpacaSimulator
from tests.scenario.checker import Checker, Verdict
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, ledger_is_even, numbered
from wire import Keyspace

TICK_S: Final = 0.01


class Traffic:
    """Sends the same numbers for each of the symbols."""

    def __init__(self, vendor: AlpacaSimulator, *symbols: str, keys: Keyspace = KEYS) -> None:
        self._vendor = vendor
        self._symbols = symbols
        self.sent = 0
        """The highest number so far."""
        self.epoch = 0
        """Another one from now on: whoever receives has a new connection."""
        self.checker = Checker(keys)

    def send(self, count: int, frame_size: int | None = None) -> None:
        """So many quotes of each symbol, at once."""
        for symbol in self._symbols:
            self.checker.sent(symbol, self.sent + 1, count, self.epoch)
            self._vendor.send(numbered(symbol, self.sent + 1, count), frame_size=frame_size)
        self.sent += count

    @asynccontextmanager
    async def flowing(self, per_s: float = 1000.0) -> AsyncIterator[None]:
        """About so many quotes of each symbol a second while the context lasts."""
        try:
            async with asyncio.TaskGroup() as group:
                flow = group.create_task(self._flow(per_s))
                try:
                    yield
                finally:
                    flow.cancel()
        except BaseExceptionGroup as failures:
            # The test's own failure reads better alone.
            raise failures.exceptions[0] from None

    async def everything_arrived(
        self, daemon: DaemonProcess, redis: Redis, timeout_s: float = 20.0
    ) -> dict[str, Any]:
        """Wait until all that was sent is stored: each once, in order, without a marker, and the ledger adds up."""
        status = await self.settled(daemon, timeout_s)
        verdict = await self.verdict(redis)
        assert verdict.is_complete, verdict
        return status

    async def settled(self, daemon: DaemonProcess, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait until the daemon has received all and holds nothing back; its ledger adds up then."""
        total = self.sent * len(self._symbols)
        status = await daemon.until(
            lambda s: s["received"] == total and s["queued"] == s["unanswered"] == s["spooled"] == 0,
            timeout_s,
        )
        assert ledger_is_even(status), status
        return status

    async def verdict(self, redis: Redis) -> Verdict:
        """What the streams hold of it."""
        await self.checker.follow(redis)
        return self.checker.verdict()

    async def _flow(self, per_s: float) -> None:
        began_s, before = time.monotonic(), self.sent
        while True:
            due = int((time.monotonic() - began_s) * per_s) - (self.sent - before)
            if due > 0:
                self.send(due)
            await asyncio.sleep(TICK_S)


async def unready(daemon: DaemonProcess, reason: str, timeout_s: float = 6.0) -> None:
    """Wait until /readyz says 503 for this reason, while /livez says 200 all the time."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        code, text = await daemon.page("/readyz")
        assert (await daemon.page("/livez"))[0] == 200
        if code == 503 and reason in text:
            return
        assert time.monotonic() < deadline_s, (
            f"not unready for {reason!r} within {timeout_s} s: {code} {text}"
        )
        await asyncio.sleep(0.02)


async def answers(redis: Redis) -> bool:
    """Whether the server answers a PING."""
    try:
        return bool(await redis.ping())
    except RedisError:
        return False


def is_quiet(daemon: DaemonProcess, lines: int = 40) -> bool:
    """Whether the log stayed short, and holds no traceback."""
    return len(daemon.log.splitlines()) <= lines and "Traceback" not in daemon.log

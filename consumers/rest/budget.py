"""The account's calls per minute, shared through Redis by all strategies that use the account.

Decides nothing by itself: `budget.lua` counts at the server, `Window` here when Redis is away. Must never hand the
key id on: the name of the key on Redis is a hash of it.
"""

import asyncio
import logging
import random
import secrets
import time
from importlib import resources
from typing import Final

from consumers.arguments import is_count
from consumers.errors import BusClosed, BusUnavailable
from consumers.rest.errors import RestLimited
from consumers.rest.window import Window
from consumers.shared_link import SharedLink
from wire import Keyspace, account_of

_log = logging.getLogger(__name__)

CALLS_PER_MINUTE: Final = 200
"""Alpaca's free plan; the paid one has 10 000. https://docs.alpaca.markets/docs/about-market-data-api"""
REDIS_TIMEOUT_S: Final = 1.0
REDIS_PAUSE_S: Final = 5.0
"""How long Redis is left alone after it did not answer."""
_SPREAD_S: Final = 0.02

_SCRIPT: Final = resources.files("consumers.rest").joinpath("budget.lua").read_bytes()


def check_calls(calls_per_minute: int) -> None:
    """`ValueError` for a limit that is none."""
    if not is_count(calls_per_minute, 1):
        raise ValueError(f"calls_per_minute={calls_per_minute!r}: take 1 or more; the free plan has 200")


class Budget:
    """A sliding window of calls, by default 200 in any 60 seconds; a 429 told to one stops all until its reset.

    `link` and `keys` lead to Redis; without a link, and while Redis is away, only the calls of this object are
    counted, each process having the whole limit to itself. That is logged, once per outage. `window_s` is for
    tests. Raises `ValueError` for a limit that is none.
    """

    def __init__(
        self,
        link: SharedLink | None,
        keys: Keyspace,
        key_id: str,
        calls_per_minute: int = CALLS_PER_MINUTE,
        *,
        window_s: float = 60.0,
    ) -> None:
        check_calls(calls_per_minute)
        if not (isinstance(key_id, str) and key_id and key_id.isascii()):  # type: ignore[redundant-expr]
            # What it is instead may be a key all the same, and is not shown.
            raise ValueError(
                f"key_id is a {type(key_id).__name__}: take the account's key, as in APCA_API_KEY_ID"
            )
        if not 0 < window_s <= 3600:
            raise ValueError(f"window_s={window_s}: take more than 0 and at most 3600 seconds")
        self.calls_per_minute: Final = calls_per_minute
        self._link: Final = link
        self._key: Final = keys.rest_calls(account_of(key_id))
        self._window_s: Final = window_s
        self._window: Final = Window(calls_per_minute, window_s)
        self._redis_from_s = 0.0
        self._is_away = False

    @property
    def key(self) -> str:
        """The key on Redis."""
        return self._key

    @property
    def is_shared(self) -> bool:
        """Whether the last question was counted together with everybody else's."""
        return self._link is not None and not self._is_away

    async def take(self, within_s: float, hold_s: float) -> str:
        """Wait for a place and return its name, for `settle`. `hold_s` is how long the call lasts at most.

        Raises `RestLimited` as soon as it is certain that there is none within `within_s`.
        """
        call = secrets.token_hex(8)
        deadline = time.monotonic() + within_s
        while True:
            wait_s = await self._asked("take", call, hold_s)
            now_s = time.monotonic()
            if wait_s is None:
                wait_s = self._window.take(call, now_s, hold_s)
            elif wait_s == 0:
                self._window.note(call, now_s, hold_s)
            if wait_s == 0:
                return call
            if now_s + wait_s >= deadline:
                raise RestLimited(
                    f"Alpaca REST: the {self.calls_per_minute} calls per {self._window_s:g} s that the account has "
                    f"are spent{' by all its strategies together' if self.is_shared else ''}; "
                    f"the next is possible in {wait_s:.3g} s",
                    wait_s,
                )
            await asyncio.sleep(wait_s + random.random() * _SPREAD_S)

    async def settle(self, call: str) -> None:
        """The call has ended, whatever came of it. One that is never settled counts as long as it could last."""
        self._window.settle(call, time.monotonic())
        await self._asked("settle", call, 0)

    async def stop(self, pause_s: float) -> None:
        """Let nobody of the account call for so long: the service has said so."""
        self._window.stop(time.monotonic() + pause_s)
        await self._asked("stop", "", pause_s)

    async def _asked(self, what: str, call: str, long_s: float) -> float | None:
        """The script's reply in seconds, or None when Redis cannot be asked."""
        if self._link is None or time.monotonic() < self._redis_from_s:
            return None
        window_us, long_us = int(self._window_s * 1e6), int(long_s * 1e6)
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                (reply,) = await self._link.ask(
                    ("EVAL", _SCRIPT, 1, self._key, what, window_us, call, long_us, self.calls_per_minute)
                )
        except (BusUnavailable, BusClosed, TimeoutError) as error:
            self._note_away(error)
            return None
        if self._is_away:
            self._is_away = False
            _log.info("REST calls are counted together with the account's other strategies again")
        return int(reply) / 1e6

    def _note_away(self, error: Exception) -> None:
        self._redis_from_s = time.monotonic() + REDIS_PAUSE_S
        if not self._is_away:
            self._is_away = True
            _log.warning(
                "REST calls are counted in this process alone, which has all %d per %g s to itself: %s",
                self.calls_per_minute,
                self._window_s,
                str(error) or "no answer in time",
            )

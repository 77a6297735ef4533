"""One question to the service until it is answered or given up: budget, thread, verdict, wait, again.

Decides the order of these; what a failure means is `retry`'s word, who may call is the budget's. Must never know
what is asked, nor show a key: it keeps both in `Account`, which prints neither.
"""

import asyncio
import importlib.util
import itertools
import logging
import os
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from consumers.arguments import is_number
from consumers.rest.budget import Budget
from consumers.rest.calls import Answer, Call, Threads
from consumers.rest.errors import RestError, RestMissing
from consumers.rest.flights import Flights
from consumers.rest.retry import Failure, Kind, Retry

if TYPE_CHECKING:
    from consumers.rest.vendor import Clients, Host

_log = logging.getLogger(__name__)

THREADS: Final = 4
"""Calls on their way at once; an account of 200 calls a minute needs no more."""


def check_key(name: str, value: str) -> None:
    """`ValueError`, which does not repeat the value, for one that no header can carry."""
    # An HTTP library that meets such a value in a header quotes it in its error.
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError(f"{name} is empty or has characters that no key has: copy it again")
    if value != value.strip():
        raise ValueError(f"{name} has spaces around it: copy it again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose calls they are, and to where; `ValueError` for keys that no header can carry."""

    key_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    paper: bool
    data_url: str | None
    trading_url: str | None
    timeout_s: float

    def __post_init__(self) -> None:
        check_key("key_id", self.key_id)
        check_key("secret_key", self.secret_key)
        if not (is_number(self.timeout_s, 0, 300) and self.timeout_s > 0):
            raise ValueError(f"timeout_s={self.timeout_s!r}: take more than 0 and at most 300 seconds")


class Asker:
    """Asks in the name of one account; belongs to the event loop and the process that use it first."""

    def __init__(self, account: Account, retry: Retry, budget: Budget) -> None:
        self._account: Final = account
        self._retry: Final = retry
        self._budget: Final = budget
        self._threads: Final = Threads(THREADS)
        self._flights: Final[Flights[Answer]] = Flights()
        self._clients: Clients | None = None
        self._pid: Final = os.getpid()
        self._is_closed = False
        self.calls = 0
        """HTTP requests sent, retries among them."""

    async def ask(self, host: "Host", path: str, params: dict[str, str | int]) -> Answer:
        """The answer to one GET; whoever asks the same meanwhile gets it too. Raises `RestError`."""
        self.check()
        question = (host, path, *sorted(params.items()))
        return await self._flights.join(question, partial(self._until_answered, host, path, params))

    def check(self) -> None:
        """Raise `RestError` when it is closed, or was made before a fork."""
        if os.getpid() != self._pid:
            raise RestError(
                "this AlpacaRest was made in the parent process, whose threads and connections a fork does not "
                "share: make one in each process, after the fork"
            )
        if self._is_closed:
            raise RestError("this AlpacaRest is closed: make a new one")

    async def _until_answered(self, host: "Host", path: str, params: dict[str, str | int]) -> Answer:
        clients = await self._opened()
        began_s = time.monotonic()
        for attempt in itertools.count(1):
            left_s = began_s + self._retry.deadline_s - time.monotonic()
            timeout_s = min(self._account.timeout_s, max(left_s, 0.001))
            place = await self._budget.take(left_s, timeout_s)
            timeout_s = min(timeout_s, max(began_s + self._retry.deadline_s - time.monotonic(), 0.001))
            self.check()
            self.calls += 1
            outcome = await self._threads.call(partial(_get, clients, host, path, params), timeout_s)
            await self._budget.settle(place)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.kind is Kind.LIMITED:
                await self._budget.stop(outcome.pause_s)
            elapsed_s = time.monotonic() - began_s
            wait_s = self._retry.delay_s(outcome, attempt, elapsed_s, random.random())
            if wait_s is None:
                tried = f", after {attempt} attempts in {elapsed_s:.1f} s" if attempt > 1 else ""
                raise outcome.error(tried)
            _log.info("REST %s: %s; attempt %d in %.2f s", path, outcome.text, attempt + 1, wait_s)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _opened(self) -> "Clients":
        if self._clients is None:
            for name in ("alpaca", "requests"):
                if importlib.util.find_spec(name) is None:
                    raise RestMissing("alpaca-py" if name == "alpaca" else name)
            # In a thread: the import takes a second, and in that time nothing else would move.
            clients = await self._threads.run(partial(_open, self._account))
            if self._clients is None:
                self._clients = clients
        return self._clients

    async def aclose(self) -> None:
        """End the calls that are on their way, and close the connections. May be called again."""
        self._is_closed = True
        self._threads.close()
        clients, self._clients = self._clients, None
        if clients is not None:
            clients.close()


def _open(account: Account) -> "Clients":
    from consumers.rest.vendor import Clients

    return Clients(
        account.key_id,
        account.secret_key,
        paper=account.paper,
        data_url=account.data_url,
        trading_url=account.trading_url,
        timeout_s=account.timeout_s,
        threads=THREADS,
    )


def _get(
    clients: "Clients", host: "Host", path: str, params: dict[str, str | int], call: Call
) -> Answer | Failure:
    return clients.get(call, host, path, params)

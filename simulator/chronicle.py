"""What happened: everything clients did, every connection that is over, and waiting for something to come true.

Decides how far back it remembers and how long one waits. Must never know sockets or live connections: what
happened is told to it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from simulator.rest.faults import RestRule

_log: Final = logging.getLogger("simulator")

_MAX_ACTIONS: Final = 100_000
_MAX_CLOSED: Final = 10_000
_MAX_CALLS: Final = 10_000
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class ClientAction:
    """Something a client did, at a monotonic second, and the vendor's error code if it was refused.

    `kind` is upgrade (only when refused; `code` is the HTTP status), connect, auth, subscribe, unsubscribe,
    malformed, timeout or close (`code` is the close code).
    """

    at_s: float
    connection: int
    kind: str
    code: int | None = None
    quotes: tuple[str, ...] = ()
    trades: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClosedConnection:
    """A connection that is over. `code` is the client's, 1006 where it sent none; `clean` means that its own close
    frame arrived. `given_code` is that with which the simulator closed it, None where the end came from the client.
    """

    id: int
    feed: str
    code: int
    reason: str
    clean: bool
    at_s: float
    authenticated: bool
    symbols: frozenset[str]
    frames_sent: int
    quotes_sent: int
    given_code: int | None = None


@dataclass(frozen=True)
class RestCall:
    """A REST call, at the monotonic second of its arrival, with the status it gets and the fault it met.

    `key` is whose it was, empty when it did not say.
    """

    at_s: float
    method: str
    path: str
    query: Mapping[str, str]
    key: str
    status: int
    fault: RestRule | None = None


class Chronicle:
    """`actions` is what clients did, `closed` the connections that are over, `calls` those of REST.

    All in order and bounded.
    """

    def __init__(self) -> None:
        self.actions: Final[deque[ClientAction]] = deque(maxlen=_MAX_ACTIONS)
        self.closed: Final[deque[ClosedConnection]] = deque(maxlen=_MAX_CLOSED)
        self.calls: Final[deque[RestCall]] = deque(maxlen=_MAX_CALLS)
        self._pulse = asyncio.Event()

    def record(self, action: ClientAction) -> None:
        """A client did something."""
        self.actions.append(action)
        self._pulse.set()
        _log.debug("client action: %s", action)

    def record_end(self, gone: ClosedConnection) -> None:
        """A connection is over; that counts as an action too."""
        self.closed.append(gone)
        self.record(ClientAction(gone.at_s, gone.id, "close", gone.code))

    def record_call(self, call: RestCall) -> None:
        """A REST call has arrived."""
        self.calls.append(call)
        self._pulse.set()
        _log.debug("call: %s", call)

    def stir(self) -> None:
        """Something else happened that somebody may wait for."""
        self._pulse.set()

    async def wait_for(
        self, predicate: Callable[[], bool], timeout_s: float, describe: Callable[[], str]
    ) -> None:
        """Return as soon as it holds. Raises `TimeoutError`, with the description, after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while not predicate():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"not within {timeout_s:g} s; {describe()}")
            self._pulse.clear()
            try:
                # The predicate may look at things beyond the simulator: it is asked again in any case.
                async with asyncio.timeout(min(left_s, _POLL_S)):
                    await self._pulse.wait()
            except TimeoutError:
                continue

    def describe(self) -> str:
        """The latest of it, for messages to humans."""
        past = ", ".join(f"#{gone.id} {gone.given_code or gone.code}" for gone in list(self.closed)[-5:])
        last = ", ".join(f"{a.kind} {a.code or ''}".strip() for a in list(self.actions)[-5:])
        calls = ", ".join(str(call.status) for call in list(self.calls)[-5:])
        return f"closed: {past or 'none'}; last actions: {last or 'none'}; last REST calls: {calls or 'none'}"

"""Tells systemd how the daemon fares: started, alive, stopping. Without systemd it does nothing.

Decides when the start counts as done, and when the watchdog is fed: only by an event loop that wakes in time. Must
never know what the daemon does, nor wait for anybody: a datagram that cannot be sent at once is not sent. The
protocol is one datagram to the socket that $NOTIFY_SOCKET names
(https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html).
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final, Self

from ingestor.parts import rest, together

STATUS_EVERY_S: Final = 1.0
READY_WITHIN_S: Final = 10.0
"""A start that waits for Redis counts as done by then: whoever typed it gets an answer, and a boot goes on."""
FEEDS_PER_TIMEOUT: Final = 4
"""How often the watchdog is fed within the time in which it must be; systemd advises twice at least."""


class Supervisor:
    """The end of the wire to systemd. A context manager: leaving closes the socket."""

    def __init__(self, address: str | None, watchdog_s: float | None) -> None:
        self._watchdog_s: Final = watchdog_s
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            # A leading @ stands for the null byte of an abstract address.
            self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """As the environment says; a watchdog that is meant for another process is none of ours."""
        usec = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_s = int(usec) / 1e6 if is_ours and usec.isascii() and usec.isdigit() and int(usec) else None
        return cls(environment.get("NOTIFY_SOCKET"), watchdog_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def tell(self, **fields: str) -> None:
        """Send these in one datagram, as `READY="1"`; whether it arrives is nobody's concern."""
        if self._socket is not None:
            message = "\n".join(f"{name}={value}" for name, value in fields.items())
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)

    async def run(self, ready: asyncio.Event, status: Callable[[], str]) -> None:
        """Tell that the daemon is ready once it is, or after `READY_WITHIN_S`; and from the start how it fares.

        Never returns.
        """
        if self._socket is None:
            await rest()
        parts = {
            "systemd start": self._tell_ready(ready, status),
            "systemd status": self._tell_status(status),
        }
        if self._watchdog_s is not None:
            parts["systemd watchdog"] = self._feed_watchdog(self._watchdog_s)
        await together(parts)

    async def _tell_ready(self, ready: asyncio.Event, status: Callable[[], str]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                await ready.wait()
        # In one datagram, so that whoever waited for the start finds out at once how it went.
        self.tell(READY="1", STATUS=status())
        await rest()

    async def _tell_status(self, status: Callable[[], str]) -> None:
        told = ""
        while True:
            if (now := status()) != told:
                told = now
                self.tell(STATUS=now)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _feed_watchdog(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        every_s = timeout_s / FEEDS_PER_TIMEOUT
        while True:
            due_s = loop.time() + every_s
            await asyncio.sleep(every_s)
            # A loop that always wakes this late is as good as dead to the quotes: let systemd end it.
            if loop.time() - due_s < timeout_s / 2:
                self.tell(WATCHDOG="1")

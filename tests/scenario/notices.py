"""The other end of systemd's wire: a socket that keeps what it is told, and when.

Decides nothing. Must never answer: the protocol has no answers.
"""

import asyncio
import socket
import time
from pathlib import Path
from typing import Self


class Notices(asyncio.DatagramProtocol):
    """A unix datagram socket in this folder, as an async context manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.received: list[tuple[float, str]] = []
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        link.bind(str(self.path))
        link.setblocking(False)
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, sock=link
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Called by asyncio."""
        self.received.append((time.monotonic(), data.decode()))

    def lines(self, begins: str) -> list[str]:
        """Every line that begins so, in order."""
        return [line for _, text in self.received for line in text.splitlines() if line.startswith(begins)]

    async def has(self, begins: str) -> bool:
        """Whether such a line has come."""
        await asyncio.sleep(0)
        return bool(self.lines(begins))

"""A websocket client without any cleverness: sends what it is told, shows what arrives.

Decides nothing. Must never repair, retry or interpret what the simulator says.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import msgpack
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ingestor.feed.messages import Encoding
from simulator import AlpacaSimulator

TIMEOUT_S = 5.0

Message = dict[str, Any]


class RawClient:
    """One connection; messages are plain dicts, times in msgpack become integer nanoseconds."""

    def __init__(self, ws: ClientConnection, encoding: Encoding) -> None:
        self.ws = ws
        self.encoding = encoding

    async def send(self, message: object) -> None:
        """Send one message in this connection's encoding."""
        if self.encoding == "msgpack":
            await self.ws.send(msgspec.msgpack.encode(message))
        else:
            await self.ws.send(msgspec.json.encode(message).decode())

    async def frame(self) -> list[Message]:
        """The next frame's messages."""
        async with asyncio.timeout(TIMEOUT_S):
            raw = await self.ws.recv()
        if self.encoding == "msgpack":
            assert isinstance(raw, bytes)
            return list(msgpack.unpackb(raw, timestamp=2, strict_map_key=False))
        assert isinstance(raw, str)
        return list(msgspec.json.decode(raw))

    async def control(self) -> Message:
        """The next frame, which must hold one message."""
        (message,) = await self.frame()
        return message

    async def quotes(self, count: int) -> list[Message]:
        """The next so many quotes, from as many frames as it takes."""
        found: list[Message] = []
        while len(found) < count:
            found.extend(message for message in await self.frame() if message["T"] == "q")
        return found

    async def ask(self, message: object) -> Message:
        """Send, and take the next frame as the answer."""
        await self.send(message)
        return await self.control()

    async def login(self, key: str = "key", secret: str = "secret") -> Self:
        """Read the greeting and present credentials; the answer must be success."""
        assert await self.control() == {"T": "success", "msg": "connected"}
        answer = await self.ask({"action": "auth", "key": key, "secret": secret})
        assert answer == {"T": "success", "msg": "authenticated"}, answer
        return self

    async def subscribe(self, *symbols: str) -> list[str]:
        """Subscribe quotes; returns the whole set that was acknowledged."""
        answer = await self.ask({"action": "subscribe", "quotes": symbols})
        assert answer["T"] == "subscription", answer
        return list(answer["quotes"])

    async def ended(self) -> ConnectionClosed:
        """How the connection ends; data before that is thrown away."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    await self.ws.recv()
                except ConnectionClosed as error:
                    return error


@asynccontextmanager
async def connected(
    sim: AlpacaSimulator,
    feed: str = "iex",
    encoding: Encoding = "msgpack",
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[RawClient]:
    """A connection that has not said anything yet."""
    options.setdefault("max_queue", 4)
    async with connect(
        sim.url(feed),
        additional_headers={"Content-Type": f"application/{encoding}", **(headers or {})},
        max_size=None,
        close_timeout=1,
        proxy=None,
        **options,
    ) as ws:
        yield RawClient(ws, encoding)


@asynccontextmanager
async def joined(
    sim: AlpacaSimulator, *symbols: str, feed: str = "iex", encoding: Encoding = "msgpack", **options: Any
) -> AsyncIterator[RawClient]:
    """A connection that is logged in and has subscribed these symbols' quotes."""
    async with connected(sim, feed, encoding, **options) as client:
        await client.login()
        if symbols:
            await client.subscribe(*symbols)
        yield client

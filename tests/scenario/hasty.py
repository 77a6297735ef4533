"""A vendor that speaks before the websocket is quite open: its first frames share a TCP segment with the HTTP 101.

Decides how its words are cut into segments. Must never know the daemon, nor play anything but the first minute.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from simulator import SimQuote
from simulator.frames import encode_items, join_items

GREETING = {"T": "success", "msg": "connected"}
AUTHENTICATED = {"T": "success", "msg": "authenticated"}
SLOT_TAKEN = {"T": "error", "code": 406, "msg": "connection limit exceeded"}


class HastyVendor:
    """An async context manager. Connection n says `first_words[n]` with its 101; later ones say the last."""

    def __init__(self, *first_words: Sequence[dict[str, Any]]) -> None:
        self._first_words = first_words
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._latest: ServerProtocol | None = None
        self.opened_s: list[float] = []
        self.authenticated_s: list[float] = []
        self.goodbyes_s: list[float] = []
        self.symbols: frozenset[str] = frozenset()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Its websocket address."""
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v2/iex"

    def send(self, quotes: Sequence[SimQuote]) -> None:
        """Quotes on the latest connection, as one frame."""
        frame = join_items(encode_items(quotes, "msgpack"), "msgpack")
        assert self._latest is not None
        assert isinstance(frame, bytes)
        self._latest.send_binary(frame)
        self._writers[-1].write(b"".join(self._latest.data_to_send()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._latest = protocol = ServerProtocol()
        number = len(self._writers)
        self._writers.append(writer)
        while data := await reader.read(65536):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    self._open(protocol, event, number)
                elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                    self._answer(protocol, msgspec.msgpack.decode(event.data))
                elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                    self.goodbyes_s.append(time.monotonic())
            # One write: whatever there is to say now travels in one segment.
            writer.write(b"".join(protocol.data_to_send()))
            if protocol.close_expected():
                break
        writer.close()

    def _open(self, protocol: ServerProtocol, request: Request, number: int) -> None:
        protocol.send_response(protocol.accept(request))
        self.opened_s.append(time.monotonic())
        for word in self._first_words[min(number, len(self._first_words) - 1)]:
            _say(protocol, word)

    def _answer(self, protocol: ServerProtocol, message: dict[str, Any]) -> None:
        if message["action"] == "auth":
            self.authenticated_s.append(time.monotonic())
            _say(protocol, AUTHENTICATED)
        elif message["action"] == "subscribe":
            self.symbols |= frozenset(message["quotes"])
            _say(protocol, {"T": "subscription", "quotes": sorted(self.symbols)})


def _say(protocol: ServerProtocol, word: dict[str, Any]) -> None:
    protocol.send_binary(msgspec.msgpack.encode([word]))

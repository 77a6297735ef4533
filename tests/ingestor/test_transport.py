"""What the vendor's websocket hands over, and how much of it at once."""

import asyncio
import base64
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
import uvloop

from ingestor.feed.transport import TURN_BYTES, Socket, open_socket

FRAME_BYTES: Final = 8 * 1024
FRAMES: Final = 1500
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def vendor(door: socket.socket) -> None:
    """Answer one handshake, send all frames as fast as they are taken, and hang up."""
    connection, _ = door.accept()
    with connection:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(4096)
        key = head.lower().index(b"sec-websocket-key: ") + len(b"sec-websocket-key: ")
        answer = base64.b64encode(hashlib.sha1(head[key : key + 24] + GUID).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n"
        )
        for number in range(FRAMES):
            payload = number.to_bytes(4, "big").ljust(FRAME_BYTES, b".")
            connection.sendall(struct.pack(">BBH", 0x82, 126, FRAME_BYTES) + payload)


@pytest.mark.fault("P08")
@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_what_piled_up_is_dealt_with_in_turns(loop: Callable[[], Any]) -> None:
    """Megabytes wait when the process may run again: all of it comes, in order and before the end is told, and
    never more in one turn of the event loop than a few milliseconds' worth."""
    numbers: list[int] = []
    in_turn = [0]

    def on_message(payload: bytes) -> None:
        numbers.append(int.from_bytes(payload[:4], "big"))
        in_turn[-1] += len(payload)

    def turn() -> None:
        in_turn.append(0)
        asyncio.get_running_loop().call_soon(turn)

    async def receive(port: int) -> Socket:
        opened = await open_socket(f"ws://127.0.0.1:{port}/", {}, on_message)
        turn()
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)  # the process stands still
        async with asyncio.timeout(30):
            await opened.wait_closed()
        return opened

    with socket.create_server(("127.0.0.1", 0)) as door, asyncio.Runner(loop_factory=loop) as runner:
        thread = threading.Thread(target=vendor, args=(door,))
        thread.start()
        runner.run(receive(door.getsockname()[1]))
        thread.join()
    assert numbers == list(range(FRAMES))
    assert max(in_turn) < TURN_BYTES + FRAME_BYTES

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

from ingestor.feed.transport import MESSAGE_BYTES, TURN_BYTES, Closed, Socket, open_socket

FRAME_BYTES: Final = 8 * 1024
FRAMES: Final = 1500
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def vendor(door: socket.socket, frames: bytes) -> None:
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
        connection.sendall(frames)


LOOPS: Final = pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])


def received(loop: Callable[[], Any], frames: bytes) -> tuple[list[bytes], list[int]]:
    """The messages that come of these frames when they piled up, and how many in each turn of the event loop."""
    messages: list[bytes] = []
    in_turn = [0]

    def on_message(payload: bytes) -> None:
        messages.append(payload)
        in_turn[-1] += 1

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
        thread = threading.Thread(target=vendor, args=(door, frames))
        thread.start()
        runner.run(receive(door.getsockname()[1]))
        thread.join()
    return messages, in_turn


@pytest.mark.fault("P08")
@LOOPS
def test_what_piled_up_is_dealt_with_in_turns(loop: Callable[[], Any]) -> None:
    """Megabytes wait when the process may run again: all of it comes, in order and before the end is told, and
    never more in one turn of the event loop than a few milliseconds' worth."""
    payloads = [number.to_bytes(4, "big").ljust(FRAME_BYTES, b".") for number in range(FRAMES)]
    head = struct.pack(">BBH", 0x82, 126, FRAME_BYTES)
    messages, in_turn = received(loop, b"".join(head + payload for payload in payloads))
    assert messages == payloads
    assert (max(in_turn) - 1) * FRAME_BYTES < TURN_BYTES


@pytest.mark.fault("P08")
@LOOPS
def test_messages_without_much_in_them_count_too(loop: Callable[[], Any]) -> None:
    """Each costs its time: a million of them is no single turn."""
    count = 200_000
    messages, in_turn = received(loop, b"\x82\x01x" * count)
    assert len(messages) == count
    # What this test calls a turn may begin in the middle of one.
    assert max(in_turn) <= 2 * TURN_BYTES // MESSAGE_BYTES


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [(b"\x88\x00", 1005, ""), (b"\x88\x02\x03\xf4", 1012, ""), (b"\x88\x05\x03\xe9bye", 1001, "bye")],
)
@LOOPS
def test_how_it_was_closed_is_told_as_the_protocol_calls_it(
    loop: Callable[[], Any], frame: bytes, code: int, reason: str
) -> None:
    """A close frame without a code is 1005, as RFC 6455 has it."""

    async def end(port: int) -> Closed:
        opened = await open_socket(f"ws://127.0.0.1:{port}/", {}, lambda _payload: None)
        async with asyncio.timeout(30):
            return await opened.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as door, asyncio.Runner(loop_factory=loop) as runner:
        thread = threading.Thread(target=vendor, args=(door, frame))
        thread.start()
        assert runner.run(end(door.getsockname()[1])) == Closed(code, reason)
        thread.join()

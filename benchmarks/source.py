"""A vendor that costs next to nothing: `python -m benchmarks.source`, a process of its own.

Decides when bytes leave. Everything is encoded, websocket headers included, before the clock starts; then the
kernel takes large pieces as fast as the client reads them, or single frames at a given pace. On a small machine a
source that worked harder would be measured instead of its client. Serves one client at a time, and for ever.

Orders come as lines of JSON on standard input, answers go as lines of JSON to standard output:
`{"load": COUNT, "per_frame": K}` encodes the next recording; `{"go": QUOTES_PER_S or null}` sends it, once the
client has subscribed to all symbols, and answers with monotonic times and the CPU seconds that sending took.
"""

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from benchmarks.recording import SENTINEL, Activity, encode_frames, first_ns_of, make_quotes, symbol_names
from ingestor.feed.messages import (
    AUTHENTICATED,
    GREETING,
    Authenticate,
    Subscribe,
    Subscription,
    Success,
    Unsubscribe,
)

PIECE_BYTES: Final = 128 * 1024
NAP_S: Final = 0.0002
"""Shorter sleeps than this are not kept anyway."""

_encode: Final = msgspec.msgpack.Encoder().encode


class _Subscribe(Subscribe, tag="subscribe"):
    """Unlike its base it lets further channels pass, which other clients name."""


_action: Final = msgspec.msgpack.Decoder(Authenticate | _Subscribe | Unsubscribe).decode


class Gone(Exception):
    """The client hung up."""


class Source:
    """The server: one recording at a time, one client at a time."""

    def __init__(self, symbols: Sequence[str], activity: Activity) -> None:
        self._symbols = symbols
        self._all = frozenset(symbols) | {SENTINEL}
        self._activity: Activity = activity
        self._next_ns = 0
        self._frames: list[bytes] = []
        self._quotes = 0
        self._subscribed: set[str] = set()
        self._message = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._client: socket.socket | None = None
        self._protocol = ServerProtocol()

    def serve(self) -> None:
        """Until standard input ends."""
        _say(port=self._listener.getsockname()[1])
        order: dict[str, Any] | None = None
        while True:
            ears = [self._client if self._client is not None else self._listener]
            readable, _, _ = select.select([*ears, *([] if order else [sys.stdin])], [], [])
            if sys.stdin in readable:
                line = sys.stdin.readline()
                if not line:
                    return
                order = json.loads(line)
            try:
                if self._listener in readable:
                    self._accept()
                elif self._client in readable:
                    self._hear()
                if order is not None and self._obeyed(order):
                    order = None
            except (Gone, ConnectionError):
                self._hang_up()

    def _obeyed(self, order: dict[str, Any]) -> bool:
        if "load" in order:
            self._load(order["load"], order["per_frame"])
        elif self._subscribed >= self._all:
            self._go(order["go"])
        else:
            return False
        return True

    def _load(self, count: int, per_frame: int) -> None:
        first_ns = first_ns_of(count, self._next_ns)
        quotes = make_quotes(count, self._symbols, first_ns, self._activity)
        self._next_ns = quotes[-1].t_ns + 1_000
        self._quotes = per_frame
        self._frames = [
            Frame(Opcode.BINARY, payload).serialize(mask=False)
            for payload in encode_frames(quotes, per_frame)
        ]
        _say(loaded=count)

    def _go(self, rate: float | None) -> None:
        client = self._client
        assert client is not None
        pieces = _pieces(self._frames) if rate is None else []
        begin_cpu_s, begin_s = time.process_time(), time.monotonic()
        if rate is None:
            for piece in pieces:
                client.sendall(piece)
        else:
            self._send_paced(client, self._quotes / rate, begin_s)
        _say(begin_s=begin_s, end_s=time.monotonic(), cpu_s=time.process_time() - begin_cpu_s)

    def _send_paced(self, client: socket.socket, every_s: float, begin_s: float) -> None:
        for number, frame in enumerate(self._frames):
            due_s = begin_s + number * every_s
            while (left_s := due_s - time.monotonic()) > 0:
                time.sleep(max(left_s, NAP_S))
            client.sendall(frame)

    def _accept(self) -> None:
        self._client, _ = self._listener.accept()
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._protocol = ServerProtocol(max_size=2**24)

    def _hear(self) -> None:
        assert self._client is not None
        data = self._client.recv(65_536)
        if not data:
            raise Gone
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
                self._answer(Success(GREETING))
            elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                self._message += event.data
                if event.fin:
                    message, self._message = self._message, b""
                    self._answer(self._reply_to(message))
        for piece in self._protocol.data_to_send():
            if piece:
                self._client.sendall(piece)
        if self._protocol.close_expected():
            raise Gone

    def _reply_to(self, message: bytes) -> Success | Subscription:
        action = _action(message)
        if isinstance(action, Authenticate):
            return Success(AUTHENTICATED)
        if isinstance(action, Unsubscribe):
            self._subscribed -= set(action.quotes)
        else:
            self._subscribed |= set(action.quotes)
        return Subscription(quotes=sorted(self._subscribed))

    def _answer(self, message: Success | Subscription) -> None:
        self._protocol.send_binary(_encode([message]))

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client, self._subscribed, self._message = None, set(), b""


def _pieces(frames: Sequence[bytes]) -> list[bytes]:
    pieces, held, size = [], [], 0
    for frame in frames:
        held.append(frame)
        size += len(frame)
        if size >= PIECE_BYTES:
            pieces.append(b"".join(held))
            held, size = [], 0
    return [*pieces, b"".join(held)]


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.source", description=__doc__)
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--activity", choices=("equal", "ranked"), default="equal")
    options = parser.parse_args()
    Source(symbol_names(options.symbols), options.activity).serve()


if __name__ == "__main__":
    main()

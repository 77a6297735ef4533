"""One websocket to the vendor, behind three verbs: open, send, close.

Decides how a websocket fails, in words: every way of not opening becomes `CannotOpen`, every way of ending a
`Closed`. Must never know what the frames say. The only file that knows picows, which receives a quote in about
half the time of the asyncio client of `websockets` (`benchmarks/receive.py`).
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import picows

from ingestor.feed.backoff import retry_after_s

CONNECT_TIMEOUT_S: Final = 2.5
"""For each address of the vendor's name: one that is dead must not use up the time of the next."""
MAX_ADDRESSES: Final = 4
HANDSHAKE_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 1.0
NO_STATUS: Final = 1005
"""How RFC 6455, section 7.1.5, calls a close frame without a code; the library says 0."""
SILENCE_BEFORE_PING_S: Final = 4.0
PONG_TIMEOUT_S: Final = 4.0
"""Together they find a half-open connection within eight seconds. A busy socket is never pinged: its pong would
queue behind the data, and the data itself proves the peer alive."""
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The vendor publishes no limit; a backlog of half a million quotes still fits."""
TURN_BYTES: Final = 256 * 1024
"""So much is dealt with before others have their turn: some thousand quotes, a few milliseconds. What piled up
while the process stood still may be many megabytes, and the library hands over all of it at once."""
MESSAGE_BYTES: Final = 64
"""What a message counts beside its bytes: the shortest costs about as much time as so many of a long one."""


class CannotOpen(Exception):
    """The websocket did not open. `status` is the HTTP status when the peer answered with one."""

    def __init__(self, reason: str, status: int | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Closed:
    """How a websocket ended: the close code, or None when there was no closing handshake; `by_us` when it was our
    side that found it could not go on; `half_open` when the peer no longer answered pings."""

    code: int | None
    reason: str
    by_us: bool = False
    half_open: bool = False


class Socket(picows.WSListener):
    """An open websocket. Frames go to `on_message` from within the event loop's read callback."""

    def __init__(self, on_message: Callable[[bytes], None]) -> None:
        self._on_message = on_message
        self._transport: picows.WSTransport | None = None
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        self._peer_close: Closed | None = None
        self._failure: BaseException | None = None
        self._waiting: deque[bytes] = deque()
        self._turn_bytes = 0
        self._closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    async def wait_closed(self) -> Closed:
        """Wait for the end. Giving up the wait leaves the connection as it is."""
        closed = await asyncio.shield(self._closed)
        if self._transport is not None:
            # Where the peer broke the protocol, picows puts the error into a future of its own; left there, it
            # would be taken for a defect of this program.
            with contextlib.suppress(picows.WSProtocolError):
                await self._transport.wait_disconnected()
        return closed

    def send(self, payload: bytes, *, is_text: bool = False) -> None:
        """Hand one message to the socket; after the end of the connection, nothing happens."""
        if self._transport is not None and not self._closed.done():
            self._transport.send(picows.WSMsgType.TEXT if is_text else picows.WSMsgType.BINARY, payload)

    def begin_close(self) -> None:
        """Send the close frame and cut the connection if the peer does not answer it in time."""
        if self._transport is not None and not self._closed.done():
            self._transport.send_close(picows.WSCloseCode.OK)
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.disconnect, False)

    async def close(self) -> Closed:
        """Close with a proper handshake, so that the vendor frees the slot at once; bounded in time.

        Without the close frame the vendor holds the account's only slot for about 90 s.
        """
        if self._transport is not None and not self._closed.done():
            self._transport.send_close(picows.WSCloseCode.OK)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self.wait_closed()
            self._transport.disconnect(False)
        return await self.wait_closed()

    def abort(self, reason: str) -> None:
        """Drop the connection without a handshake."""
        self._peer_close = self._peer_close or Closed(None, reason)
        if self._transport is not None:
            self._transport.disconnect(False)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Called by picows after the upgrade."""
        self._transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Called by picows with each frame; control frames other than CLOSE are answered by picows itself."""
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            # The library passes such a frame on; its payload is not what it seems, compressed for one.
            raise picows.WSProtocolError(
                picows.WSCloseCode.PROTOCOL_ERROR, "a frame uses an extension that was not agreed on"
            )
        if kind in (picows.WSMsgType.BINARY, picows.WSMsgType.TEXT) and frame.fin:
            self._deliver(frame.get_payload_as_bytes())
        elif kind == picows.WSMsgType.CLOSE:
            code = frame.get_close_code().value or NO_STATUS
            self._peer_close = _our_verdict(transport) or Closed(code, frame.get_close_reason() or "")
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        elif kind in (picows.WSMsgType.BINARY, picows.WSMsgType.TEXT, picows.WSMsgType.CONTINUATION):
            self._collect(frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Called by picows once the connection is gone."""
        while self._waiting:
            self._hand_over(self._waiting.popleft())
        if self._closed.done():
            return
        if self._failure is not None:
            self._closed.set_exception(self._failure)
        else:
            self._closed.set_result(self._peer_close or _our_verdict(transport) or _lost(transport))

    def _collect(self, frame: picows.WSFrame) -> None:
        part = frame.get_payload_as_bytes()
        self._fragments_size += len(part)
        if self._fragments_size > MAX_MESSAGE_BYTES:
            self.abort(f"message larger than {MAX_MESSAGE_BYTES} bytes")
            return
        self._fragments.append(part)
        if frame.fin:
            message = b"".join(self._fragments)
            self._fragments, self._fragments_size = [], 0
            self._deliver(message)

    def _deliver(self, payload: bytes) -> None:
        if self._turn_bytes >= TURN_BYTES:
            self._waiting.append(payload)
            return
        self._hand_over(payload)
        if self._turn_bytes >= TURN_BYTES and self._transport is not None:
            # What is not read yet waits with the system, where it holds up the peer and not us.
            if not self._transport.underlying_transport.is_closing():
                self._transport.underlying_transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._turn_bytes = 0
        while self._waiting and self._turn_bytes < TURN_BYTES:
            self._hand_over(self._waiting.popleft())
        if self._turn_bytes >= TURN_BYTES:
            asyncio.get_running_loop().call_soon(self._go_on)
        elif self._transport is not None and not self._transport.underlying_transport.is_closing():
            self._transport.underlying_transport.resume_reading()

    def _hand_over(self, payload: bytes) -> None:
        self._turn_bytes += len(payload) + MESSAGE_BYTES
        if self._failure is not None:
            return
        try:
            self._on_message(payload)
        except BaseException as error:
            # A defect of ours: it surfaces where the connection is awaited, not in the library's log.
            self._failure = error
            self.abort("defect in the receiver")


def _lost(transport: picows.WSTransport) -> Closed:
    # None where no close frame went either way, which picows' annotation does not say.
    goodbyes: Any = transport.close_handshake
    sent = goodbyes.sent if goodbyes is not None else None
    # Only picows itself says GOING_AWAY, to a peer that owes it a pong; ours is always OK.
    if sent is not None and sent.code == picows.WSCloseCode.GOING_AWAY:
        return Closed(None, f"no answer to a ping for {PONG_TIMEOUT_S:g} s", half_open=True)
    return Closed(None, "connection lost")


async def open_socket(url: str, headers: Mapping[str, str], on_message: Callable[[bytes], None]) -> Socket:
    """Open a websocket; `CannotOpen` with the reason if that fails within the timeout.

    Redirects are not followed: the credentials go to the configured host or nowhere.
    """
    try:
        async with asyncio.timeout(2 * HANDSHAKE_TIMEOUT_S):
            _, opened = await picows.ws_connect(
                lambda: Socket(on_message),
                url,
                websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                extra_headers=headers,
                max_frame_size=MAX_MESSAGE_BYTES,
                max_redirects=0,
                socket_factory=_dial,
                enable_auto_ping=True,
                auto_ping_idle_timeout=SILENCE_BEFORE_PING_S,
                auto_ping_reply_timeout=PONG_TIMEOUT_S,
                logger_name=logging.getLogger("picows.feed"),
            )
    except picows.WSInvalidStatusError as error:
        raise _refused(error) from None
    except TimeoutError:
        raise CannotOpen(f"no answer to the handshake{unused_proxy(url, os.environ)}") from None
    except CannotOpen as failure:
        raise CannotOpen(f"{failure}{unused_proxy(url, os.environ)}") from None
    except (picows.WSError, OSError, ValueError) as error:
        raise CannotOpen(f"{type(error).__name__}: {error}{unused_proxy(url, os.environ)}") from None
    if not isinstance(opened, Socket):
        # What picows returns, without an error, when the peer hangs up in the middle of the upgrade.
        raise CannotOpen("the connection ended before the websocket was open")
    return opened


def unused_proxy(url: str, environment: Mapping[str, str]) -> str:
    """What to add to the reason of a failure where a proxy is set that this connection does not use."""
    names = ("HTTPS_PROXY", "ALL_PROXY") if url.startswith("wss:") else ("HTTP_PROXY", "ALL_PROXY")
    for name in (each for upper in names for each in (upper, upper.lower())):
        if environment.get(name):
            return f"; {name} is set, and the websocket does not use it: it needs a direct way to the vendor"
    return ""


async def _dial(url: picows.WSParsedURL) -> socket.socket:
    """A connected socket: the addresses of the name one after the other. `CannotOpen` says what was wrong
    with each."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise CannotOpen(f"the name {url.host} does not resolve: {error.strerror}") from None
    failures = []
    for family, kind, protocol, _, address in found[:MAX_ADDRESSES]:
        with contextlib.ExitStack() as undo:
            try:
                # A host without IPv6 has no such socket, and perhaps a name with such an address.
                connection = undo.enter_context(socket.socket(family, kind, protocol))
                connection.setblocking(False)
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await loop.sock_connect(connection, address)
            except TimeoutError:
                failures.append(f"{address[0]} does not answer within {CONNECT_TIMEOUT_S:g} s")
            except OSError as error:
                failures.append(f"{address[0]} port {url.port}: {error.strerror or error}")
            else:
                undo.pop_all()
                return connection
    raise CannotOpen("; ".join(failures))


def _our_verdict(transport: picows.WSTransport) -> Closed | None:
    """With what we gave the connection up, if it was us: the peer had broken the protocol."""
    said = getattr(transport.close_handshake, "sent", None)
    if said is None or said.code in (picows.WSCloseCode.OK, picows.WSCloseCode.GOING_AWAY):
        return None
    return Closed(said.code.value, said.reason or "", by_us=True)


def _refused(error: picows.WSInvalidStatusError) -> CannotOpen:
    response = error.response
    if response is None:
        return CannotOpen(str(error))
    status = int(response.status)
    asked_s = retry_after_s(response.headers.get("Retry-After", ""), time.time_ns() / 1e9)
    return CannotOpen(
        f"HTTP {status} instead of a websocket",
        status,
        asked_s,
    )

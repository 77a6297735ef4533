"""Where clients arrive: a listening socket, each upgrade granted or refused, each conversation until its end.

Decides when bytes are read and answers written, and what the vendor's log says of it. What is answered is
`account`'s decision, what is broken `faults`'. Must never know where quotes come from, nor the daemon.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ingestor.feed.messages import Encoding
from simulator.account import FEEDS, Account, Answer, Session
from simulator.audience import Audience
from simulator.chronicle import Chronicle, ClientAction, ClosedConnection
from simulator.connection import Connection
from simulator.frames import encode_control
from simulator.settings import SimulatorSettings

_MAX_MESSAGE: Final = 4 * 2**20
_CLOSE_TIMEOUT_S: Final = 1.0


class Reception:
    """Accepts connections, and holds each one's conversation. `logged_in` is called whenever a login stands."""

    def __init__(
        self,
        settings: SimulatorSettings,
        account: Account,
        audience: Audience,
        chronicle: Chronicle,
        logged_in: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._account = account
        self._audience = audience
        self._chronicle = chronicle
        self._logged_in = logged_in
        self._last_id = 0
        self._server: Server | None = None

    async def open(self, port: int) -> int:
        """Listen, on any free port for 0; returns the port. Raises `OSError` when it is taken."""
        s = self._settings
        self._server = await serve(
            self._serve,
            s.host,
            port,
            process_request=self._upgrade,
            compression="deflate" if s.compression else None,
            max_size=_MAX_MESSAGE,
            ping_interval=s.ping_interval_s,
            ping_timeout=s.ping_timeout_s,
            close_timeout=_CLOSE_TIMEOUT_S,
            server_header=None,
        )
        bound: int = next(iter(self._server.sockets)).getsockname()[1]
        return bound

    async def close(self) -> None:
        """Listen no more, and close every connection with 1001, or abort it when that takes too long."""
        assert self._server is not None
        for link in self._audience.live.values():
            if link.severed:
                link.abort()
        self._server.close()
        for _ in range(2):
            try:
                async with asyncio.timeout(3 * _CLOSE_TIMEOUT_S):
                    await self._server.wait_closed()
                    break
            except TimeoutError:
                for link in self._audience.live.values():
                    link.abort()

    def _upgrade(self, ws: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if FEEDS.get(path) not in self._settings.feeds:
            return self._rejection(ws, 404, ())
        if len(self._audience.live) >= self._settings.max_connections:
            return self._rejection(ws, 503, ())
        refusal = self._account.mischief.upgrade(time.monotonic())
        if refusal is not None:
            return self._rejection(ws, refusal.status, refusal.headers, refusal.page)
        return None

    def _rejection(
        self,
        ws: ServerConnection,
        status: int,
        headers: Iterable[tuple[str, str]],
        page: str = "refused\n",
    ) -> Response:
        self._chronicle.record(ClientAction(time.monotonic(), 0, "upgrade", status))
        try:
            response = ws.respond(status, page)
        except ValueError:
            response = Response(status, "Refused", Headers())
        for name, value in headers:
            response.headers.pop(name, None)
            response.headers[name] = value
        return response

    async def _serve(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        now_s = time.monotonic()
        headers = {name.lower(): value for name, value in ws.request.headers.raw_items()}
        feed = FEEDS[ws.request.path.partition("?")[0]]
        encoding: Encoding = "msgpack" if headers.get("content-type") == "application/msgpack" else "json"
        self._last_id += 1
        session = Session(self._account, self._last_id, feed, encoding, now_s)
        link = Connection(ws, session, self._settings, self._audience.drained.set)
        self._audience.live[link.id] = link
        if self._settings.send_buffer_bytes is not None:
            _bound_send_buffer(ws, self._settings.send_buffer_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(link.write_forever())
                self._reap()
                self._answer(link, session.open(headers, now_s))
                await self._read(link)
                writer.cancel()
        finally:
            self._ended(link)

    async def _read(self, link: Connection) -> None:
        session = link.session
        while True:
            deadline_s = session.deadline_s
            left_s = None if deadline_s is None or link.severed else max(deadline_s - time.monotonic(), 0)
            try:
                async with asyncio.timeout(left_s):
                    raw = await link.ws.recv()
            except TimeoutError:
                overdue = session.expire(time.monotonic())
                if overdue is not None and not link.severed:
                    self._answer(link, overdue)
                continue
            except ConnectionClosed:
                return
            if link.severed:
                continue
            if not session.authenticated:
                self._reap()
            self._answer(link, session.receive(raw, time.monotonic()))

    def _answer(self, link: Connection, answer: Answer) -> None:
        now_s = time.monotonic()
        frames = [encode_control(message, link.encoding) for message in answer.messages]
        for frame in frames:
            if answer.delay_s > 0:
                link.timers.later(answer.delay_s, partial(link.push_raw, frame))
            else:
                link.push_raw(frame)
        if answer.close_code is not None:
            link.dying = True
            link.push_close(answer.close_code)
        action = ClientAction(now_s, link.id, answer.kind, answer.code, answer.quotes, answer.trades)
        self._chronicle.record(action)
        if link.authenticated:
            self._logged_in()
        self._audience.change()

    def _reap(self) -> None:
        # A close frame that arrived frees the slot now, before its connection has gone through all motions.
        now_s = time.monotonic()
        for link in self._audience.live.values():
            if link.ws.protocol.close_rcvd is not None:
                self._account.release(link.id, now_s, clean=True)

    def _ended(self, link: Connection) -> None:
        now_s = time.monotonic()
        received, sent = link.ws.protocol.close_rcvd, link.ws.protocol.close_sent
        clean = received is not None
        link.timers.call_off()
        self._audience.leave(link)
        self._account.release(link.id, now_s, clean=clean or not link.keeps_ghost)
        gone = ClosedConnection(
            id=link.id,
            feed=link.feed,
            code=received.code if received is not None else 1006,
            reason=received.reason if received is not None else "",
            clean=clean,
            at_s=now_s,
            authenticated=link.authenticated,
            symbols=link.symbols,
            frames_sent=link.frames_sent,
            quotes_sent=link.quotes_sent,
            given_code=None if sent is None or link.ws.protocol.close_rcvd_then_sent else sent.code,
        )
        self._chronicle.record_end(gone)


def _bound_send_buffer(ws: ServerConnection, size: int) -> None:
    ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

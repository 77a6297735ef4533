"""Where REST calls arrive: a listening socket, each call read, answered, and now and then mistreated.

Decides when bytes are read and written, and how a fault looks on the connection. What is answered is the desk's
decision, what is broken `simulator.faults`'. Must never know quotes, nor the daemon.

It has a socket of its own beside the websocket's: that library reads an HTTP request only to upgrade it, one per
connection, whereas the vendor's REST hosts keep connections open, and a cut or dripping body must be written by
hand.
"""

import asyncio
import time
from typing import Final

from aiohttp import web

from simulator.account import Account
from simulator.chronicle import Chronicle, RestCall
from simulator.rest.answers import RestAnswer, RestRequest
from simulator.rest.desk import Desk
from simulator.rest.faults import CutRest, HangRest, RefuseRest, RestRule, SlowRest

MAX_CALLS: Final = 256
"""Calls that are served at a time; one more gets 503."""

_MAX_LINE_BYTES: Final = 65_536
"""Room for a few thousand symbols in one address."""
_CLOSE_TIMEOUT_S: Final = 0.5
_DRIPS: Final = 20


class Office:
    """Listens, and answers as the desk says. `running` counts the calls that are being served."""

    def __init__(self, desk: Desk, account: Account, chronicle: Chronicle) -> None:
        self.running = 0
        self._desk = desk
        self._account = account
        self._chronicle = chronicle
        self._runner: web.ServerRunner | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen, on any free port for 0; returns the port. Raises `OSError` when it is taken."""
        runner = web.ServerRunner(
            # A call that its caller has given up must not hang on here, where it would take up a place.
            web.Server(
                self._serve, max_line_size=_MAX_LINE_BYTES, access_log=None, handler_cancellation=True
            ),
            shutdown_timeout=_CLOSE_TIMEOUT_S,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        bound: int = runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """Listen no more; calls that hang or drip are cut off."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        call = RestRequest(
            request.method,
            request.path,
            dict(request.query),
            {name.lower(): value for name, value in request.headers.items()},
        )
        fault = self._account.mischief.rest(time.monotonic())
        if self.running >= MAX_CALLS:
            fault = RefuseRest(503)
        self.running += 1
        try:
            answer = self._decided(call, fault)
            return await self._carried_out(request, answer, fault)
        finally:
            self.running -= 1

    def _decided(self, call: RestRequest, fault: RestRule | None) -> RestAnswer:
        now_ns = time.time_ns()
        if isinstance(fault, RefuseRest):
            answer = self._desk.broken(call, fault, now_ns)
        else:
            answer = self._desk.answer(call, now_ns)
        self._chronicle.record_call(
            RestCall(
                time.monotonic(),
                call.method,
                call.path,
                call.query,
                self._desk.key_of(call),
                answer.status,
                fault,
            )
        )
        return answer

    async def _carried_out(
        self, request: web.BaseRequest, answer: RestAnswer, fault: RestRule | None
    ) -> web.StreamResponse:
        if isinstance(fault, HangRest):
            await asyncio.sleep(fault.for_s)
        headers = {**answer.headers, "Content-Type": answer.content_type}
        if not isinstance(fault, CutRest | SlowRest):
            return web.Response(status=answer.status, body=answer.body, headers=headers)
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        if isinstance(fault, CutRest):
            await response.write(answer.body[: len(answer.body) // 2])
            response.force_close()
            if request.transport is not None:
                # Closing sends what was written; aborting might take it back.
                request.transport.close()
            return response
        size = max(1, -(-len(answer.body) // _DRIPS))
        for at in range(0, len(answer.body), size):
            await asyncio.sleep(fault.over_s * size / len(answer.body))
            await response.write(answer.body[at : at + size])
        return response

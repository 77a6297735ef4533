"""The HTTP pages: /metrics, /livez, /readyz, /status.

Decides status codes from named checks. Must never know how a check finds its answer, and never waits for Redis or
the vendor: every page tells what is already known.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from ingestor.watching.gate import Gate
from ingestor.watching.request_head import HostNames

CLEANUP_S: Final = 2.0
RENDERED_FOR_S: Final = 0.25
"""For so long all who ask for a page get the same rendering: a crowd must not take the event loop for itself."""


class PagesProblem(Exception):
    """The pages cannot be served; the message has the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness: its name, and what is wrong, or None."""

    name: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pages get their content, and where it is told whom they sent away, and why."""

    metrics: Callable[[], bytes]
    checks: Callable[[], list[Check]]
    status: Callable[[], Mapping[str, Any]]
    refused: Callable[[dict[str, int]], None]


class Rendering:
    """A page that takes the event loop milliseconds to make, made once for all who ask within a moment."""

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._page = b""
        self._until_s = float("-inf")

    def page(self) -> bytes:
        """The page as of now, or of up to `RENDERED_FOR_S` ago."""
        if time.monotonic() >= self._until_s:
            self._page = self._render()
            # From its end: one that takes longer than it is shared for would otherwise be shared by nobody.
            self._until_s = time.monotonic() + RENDERED_FOR_S
        return self._page


@contextlib.asynccontextmanager
async def serve(host: str, port: int, names: str, sources: Sources) -> AsyncIterator[int]:
    """Serve the pages while the context lasts; yields the port, which matters when 0 was asked for.

    `names` are those by which the pages may be asked for besides the obvious ones (see `HostNames`).
    """
    metrics = Rendering(sources.metrics)
    app = web.Application(client_max_size=1024)
    app.add_routes(
        [
            web.get("/metrics", partial(_metrics, metrics)),
            web.get("/readyz", partial(_ready, sources)),
            web.get("/status", partial(_status, sources)),
        ]
    )
    app.on_response_prepare.append(_plain)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    server: asyncio.Server | None = None
    gate = Gate(runner.server, HostNames(names), sources.refused, {"/livez": "ok"})
    try:
        try:
            server = await asyncio.get_running_loop().create_server(gate, host, port)
        except OSError as error:
            raise PagesProblem(
                f"cannot serve HTTP on {host}:{port} ({error.strerror or error}); "
                "choose another address with QUOTEBUS_HTTP"
            ) from None
        yield int(server.sockets[0].getsockname()[1])
    finally:
        if server is not None:
            server.close()
        gate.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEANUP_S):
                await runner.cleanup()


async def _plain(_: web.Request, response: web.StreamResponse) -> None:
    # Whoever comes every few seconds must not keep a place in between.
    response.force_close()
    response.headers["Connection"] = "close"
    # What serves the pages, and in which version, is nobody's business.
    response.headers.popall("Server", None)


async def _metrics(metrics: Rendering, _: web.Request) -> web.Response:
    return web.Response(
        body=metrics.page(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


async def _ready(sources: Sources, request: web.Request) -> web.Response:
    checks = sources.checks()
    failed = [check for check in checks if check.problem is not None]
    shown = checks if "verbose" in request.query or failed else []
    lines = [f"[{'-' if check.problem else '+'}] {check.name}: {check.problem or 'ok'}" for check in shown]
    lines.append("not ready" if failed else "ready")
    return web.Response(text="\n".join(lines) + "\n", status=503 if failed else 200)


async def _status(sources: Sources, _: web.Request) -> web.Response:
    return web.Response(body=orjson.dumps(sources.status()), content_type="application/json")

"""The HTTP pages: /metrics, /livez, /readyz, /status.

Decides status codes from named checks. Must never know how a check finds its answer, and never waits for Redis or
the vendor: every page tells what is already known.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from ingestor.watching.gate import Gate

CLEANUP_S: Final = 2.0


class PagesProblem(Exception):
    """The pages cannot be served; the message has the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness: its name, and what is wrong, or None."""

    name: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pages get their content."""

    metrics: Callable[[], bytes]
    checks: Callable[[], list[Check]]
    status: Callable[[], Mapping[str, Any]]


@contextlib.asynccontextmanager
async def serve(host: str, port: int, sources: Sources) -> AsyncIterator[int]:
    """Serve the pages while the context lasts; yields the port, which matters when 0 was asked for."""
    app = web.Application(client_max_size=1024)
    app.add_routes(
        [
            web.get("/metrics", lambda _: _metrics(sources)),
            web.get("/livez", lambda _: _live()),
            web.get("/readyz", lambda request: _ready(sources, "verbose" in request.query)),
            web.get("/status", lambda _: _status(sources)),
        ]
    )
    app.on_response_prepare.append(_one_answer_per_visit)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    server: asyncio.Server | None = None
    try:
        try:
            server = await asyncio.get_running_loop().create_server(Gate(runner.server), host, port)
        except OSError as error:
            raise PagesProblem(
                f"cannot serve HTTP on {host}:{port} ({error.strerror or error}); "
                "choose another address with QUOTEBUS_HTTP"
            ) from None
        yield int(server.sockets[0].getsockname()[1])
    finally:
        if server is not None:
            server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEANUP_S):
                await runner.cleanup()


async def _one_answer_per_visit(_: web.Request, response: web.StreamResponse) -> None:
    # Whoever comes every few seconds must not keep a place in between.
    response.force_close()


async def _metrics(sources: Sources) -> web.Response:
    return web.Response(
        body=sources.metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


async def _live() -> web.Response:
    return web.Response(text="ok\n")


async def _ready(sources: Sources, verbose: bool) -> web.Response:
    checks = sources.checks()
    failed = [check for check in checks if check.problem is not None]
    shown = checks if verbose or failed else []
    lines = [f"[{'-' if check.problem else '+'}] {check.name}: {check.problem or 'ok'}" for check in shown]
    lines.append("not ready" if failed else "ready")
    return web.Response(text="\n".join(lines) + "\n", status=503 if failed else 200)


async def _status(sources: Sources) -> web.Response:
    return web.Response(body=orjson.dumps(sources.status()), content_type="application/json")

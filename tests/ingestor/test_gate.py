"""The door of the HTTP pages: so many at a time, nobody for long."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ingestor.watching import gate as module
from ingestor.watching.gate import MAX_VISITORS, Gate


class Echo(asyncio.Protocol):
    """Sends back what it hears."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


Visitor = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def door() -> AsyncIterator[tuple[Gate, int]]:
    """A gate before an echo, and its port."""
    gate = Gate(Echo)
    server = await asyncio.get_running_loop().create_server(gate, "127.0.0.1", 0)
    yield gate, server.sockets[0].getsockname()[1]
    server.close()


async def visit(port: int) -> Visitor:
    """A new connection."""
    return await asyncio.open_connection("127.0.0.1", port)


async def is_served(visitor: Visitor) -> bool:
    """Whether it gets an answer, and not the end."""
    reader, writer = visitor
    try:
        writer.write(b"x")
        async with asyncio.timeout(10):
            return await reader.read(1) == b"x"
    except OSError:
        return False


async def leave(*visitors: Visitor) -> None:
    """Close their side."""
    for _, writer in visitors:
        writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.fault("P28")
async def test_one_more_than_there_are_places_is_turned_away(door: tuple[Gate, int]) -> None:
    """The others stay, and a place that comes free is taken by the next."""
    gate, port = door
    inside = [await visit(port) for _ in range(MAX_VISITORS)]
    assert all([await is_served(visitor) for visitor in inside])
    outside = await visit(port)
    assert not await is_served(outside)
    assert (gate.visitors, gate.turned_away) == (MAX_VISITORS, 1)
    await leave(inside.pop(), outside)
    async with asyncio.timeout(10):
        while gate.visitors == MAX_VISITORS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    late = await visit(port)
    assert await is_served(late)
    await leave(late, *inside)


@pytest.mark.fault("P28")
async def test_a_visit_ends_when_its_time_is_over(
    door: tuple[Gate, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busily the visitor sends."""
    monkeypatch.setattr(module, "VISIT_S", 0.3)
    gate, port = door
    visitor = await visit(port)
    async with asyncio.timeout(10):
        while await is_served(visitor):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert gate.visitors == 0
    await leave(visitor)

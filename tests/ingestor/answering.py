"""A server before the server, that answers some commands itself: what proxies and hosted services do.

Decides which commands never arrive. Must never touch the others, nor what is said to them.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final, Self

import hiredis

from ingestor.resp import pack

SWALLOWED: Final = b""
"""No answer at all."""


class Answering:
    """An async context manager; `answers` has the raw reply for each command that is not passed on."""

    def __init__(self, port: int, answers: Mapping[str, bytes]) -> None:
        self._target = port
        self._answers = answers
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[object]] = set()
        self.seen: list[str] = []
        """The names of all commands, in order."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Its address."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sort(reader, writer, far_writer))
                group.create_task(_pump(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            far_writer.close()
            writer.close()
            self._serving.discard(task)

    async def _sort(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: asyncio.StreamWriter
    ) -> None:
        parser = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    name = command[0].decode().upper()
                    self.seen.append(name)
                    if name in self._answers:
                        writer.write(self._answers[name])
                    else:
                        far.write(pack(*command))
        far.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()

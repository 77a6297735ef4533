"""A wire between daemon and Redis on which single connections can be held up, by the name they gave themselves.

Decides whose replies wait. Must never know what they mean.
"""

import asyncio

from tests.scenario.proxy import Proxy

NAMES = (b"quotebus-control", b"quotebus-publisher", b"quotebus-watch")


class NamedProxy(Proxy):
    """Forwards everything, except replies to the names in `held`: those wait until `let_go`."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.held: set[bytes] = set()
        self._freed = asyncio.Event()

    def hold(self, *names: bytes) -> None:
        """From now on no reply reaches connections of these names."""
        self._freed.clear()
        self.held |= set(names)

    def let_go(self) -> None:
        """Everything that waited goes on."""
        self.held.clear()
        self._freed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        name: list[bytes] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, far_writer, name))
                group.create_task(self._answer(far_reader, writer, name))
        finally:
            self._writers -= {writer, far_writer}
            writer.transport.abort()
            far_writer.transport.abort()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: list[bytes]
    ) -> None:
        try:
            while data := await reader.read(65536):
                name += [known for known in NAMES if not name and known in data]
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: list[bytes]
    ) -> None:
        try:
            while data := await reader.read(65536):
                while self.held & set(name):
                    await self._freed.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()

"""A bus whose Redis lives in this process: a strategy's test needs no server, no network and no account.

Decides how long such a server lives and who may reach it. Must never decide what a reader is told: that is the
library itself, reading its own commands' replies.

    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(my_strategy(bus))
        await bus.caught_up()                                             # it waits for its first quote
        await bus.publish(a_quote("AAPL", bid=187.12, ask=187.13, at="09:30:00.5"))
        await bus.caught_up()                                             # it has seen that one
        assert orders == [...]
        running.cancel()

Known limits, beside a real server (fakeredis 2.40; `tests/twins/limits.py` has those that show in answers): no
INFO, no CONFIG, no CLIENT KILL that a reader would notice, no ACL worth the name, no persistence, no replicas;
replies are never slow, so time-outs do not happen; 50 to 80 us per entry written. A reader that waits has its turn
after the writer, so that what is trimmed at once is a gap, where a server would have handed it over. A worker is
told of a pending entry that was deleted only when it would be claimed. A group none of whose streams exists looks
again and again, and so never counts as caught up.
Whether a strategy survives what a network does is a question for a real server.
"""

import asyncio
import itertools
from types import TracebackType
from typing import Any, Final, Protocol, Self

from redis.asyncio import ConnectionPool, Redis

from consumers.bus import Bus
from consumers.errors import MEMORY, ExtraMissing
from consumers.identity import default_name
from consumers.link import IN_MEMORY, Target
from consumers.reconnect import Reconnect, as_reconnect
from consumers.testing.publisher import MAXLEN, Publisher
from wire import Gap, Keyspace, Quote

_numbers: Final = itertools.count(1)
_POLL_S: Final = 0.001


class FakeRedisMissing(ExtraMissing):
    """The bus in memory needs fakeredis, which is not installed; the message has the remedy."""

    def __init__(self, package: str) -> None:
        super().__init__(package, "for the bus in memory", "testing")


class _Hub(Protocol):
    """What `memory_link.Hub` offers here; named apart because fakeredis is imported late."""

    @property
    def store(self) -> Any: ...

    @property
    def waiting(self) -> int: ...

    @property
    def reading(self) -> int: ...

    def stir(self) -> None: ...

    def connection(self, **_: Any) -> Any: ...


class MemoryServer:
    """A Redis in this process; `connect(server.url)` reaches it until it is closed.

    Several event loops and threads may use it at once. Raises `FakeRedisMissing` without fakeredis.
    """

    def __init__(self) -> None:
        self._hub: Final = _new_hub()
        self.url: Final = f"{MEMORY}{next(_numbers)}"
        """What `connect`, and whatever else takes a Redis URL of the library, reaches it by."""
        IN_MEMORY[self.url] = self._hub.connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything and be gone. May be called again."""
        self.go_away()
        IN_MEMORY.pop(self.url, None)

    def go_away(self) -> None:
        """Refuse connections and cut those there are, as a server that was stopped; what it holds stays."""
        self._hub.store.connected = False
        self._hub.stir()

    def come_back(self) -> None:
        """Take connections again."""
        self._hub.store.connected = True

    def client(self) -> Redis:
        """A client of redis-py's kind, for commands that a test wants to send itself."""
        pool = ConnectionPool(connection_class=self._hub.connection)  # type: ignore[arg-type]
        return Redis.from_pool(pool)

    @property
    def waiting(self) -> int:
        """How many readers have read all there is and wait for more."""
        return self._hub.waiting

    async def caught_up(self, readers: int = 1, *, timeout_s: float = 5.0) -> None:
        """Wait until at least `readers` iterations are running, and each has seen everything and waits for more.

        A plain iteration that waits has also finished with every item it was given. A worker of a group waits from
        the first entry of its symbols on, for before it there is no stream that could have a group. Raises
        `TimeoutError`, with what is missing, after `timeout_s`.
        """
        hub = self._hub
        try:
            async with asyncio.timeout(timeout_s):
                # Whoever was woken by the last entry runs first.
                await asyncio.sleep(0)
                while hub.waiting < max(readers, hub.reading):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise TimeoutError(
                f"after {timeout_s:g} s {hub.waiting} of {max(readers, hub.reading)} readers wait for more: "
                "does the strategy run, does each loop come back for its next item, has a group's stream an entry?"
            ) from None


class MemoryBus(Bus):
    """A `Bus` on a server of its own in this process, with what a test needs beside it; made by `memory_bus`.

    It is open from the start, so that it also serves in tests that never run `async with`; leaving the context, or
    `close`, ends the server. `publisher` writes in place of the daemon, `server` is the Redis, and `server.url` is
    for code that connects by itself.
    """

    def __init__(
        self,
        server: MemoryServer | None = None,
        *,
        namespace: str = "quotes",
        reconnect: Reconnect | None = None,
        maxlen: int | None = MAXLEN,
    ) -> None:
        self.server: Final = server or MemoryServer()
        self.publisher: Final = Publisher(self.server.url, namespace=namespace, maxlen=maxlen)
        policy = as_reconnect(reconnect, Reconnect(first_delay_s=0.01, max_delay_s=0.1))
        name = default_name()
        super().__init__(
            Target(self.server.url, timeout_s=5.0, name=name), Keyspace(namespace), policy, name, name
        )
        self._shared.open()

    @property
    def url(self) -> str:
        """The server's URL, for code that connects by itself."""
        return self.server.url

    async def aclose(self) -> None:
        """End every iteration and the server. May be called again."""
        await super().aclose()
        await self.publisher.aclose()
        self.server.close()

    def close(self) -> None:
        """End the server, where no event loop runs any more."""
        self.server.close()

    async def publish(self, *items: Quote | Gap) -> list[Quote | Gap]:
        """Append these as the daemon would, and return them as stored; see `Publisher.publish`."""
        return await self.publisher.publish(*items)

    async def caught_up(self, readers: int = 1, *, timeout_s: float = 5.0) -> None:
        """Wait until whoever reads has seen everything; see `MemoryServer.caught_up`."""
        await self.server.caught_up(readers, timeout_s=timeout_s)


def memory_bus(
    *, namespace: str = "quotes", reconnect: Reconnect | None = None, maxlen: int | None = MAXLEN
) -> MemoryBus:
    """A bus whose Redis lives in this process, to be used with `async with`.

    `maxlen` bounds each stream, approximately, as the daemon's setting does; None is no bound. After an outage of
    the server (`bus.server.go_away()`, `come_back()`) readers return at once, unless `reconnect` says otherwise.
    Raises `FakeRedisMissing` without fakeredis.
    """
    return MemoryBus(namespace=namespace, reconnect=reconnect, maxlen=maxlen)


def _new_hub() -> _Hub:
    try:
        from consumers.testing.memory_link import Hub
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"fakeredis", "lupa"}:
            raise
        raise FakeRedisMissing(error.name or "fakeredis") from None
    return Hub()

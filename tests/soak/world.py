"""Everything that a run needs: two servers, two wires, the vendor, the daemon, and who watches.

Decides how the parts are joined and what is looked at while they run. Must never know which fault comes next.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.parts import background
from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer, free_port
from tests.preload.control import Faults
from tests.scenario.checker import Checker
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Proxy
from tests.scenario.streams import KEYS
from tests.soak.balance import Balance, Size
from tests.soak.sending import Sending

FOLLOW_EVERY_S: Final = 0.1
LOOK_EVERY_S: Final = 0.25
INSIST_S: Final = 30.0
SETTLE_S: Final = 90.0
OPTIONS: Final = (
    "--appendfsync",
    "always",
    "--repl-diskless-sync-delay",
    "0",
    "--auto-aof-rewrite-min-size",
    "16mb",
)
SETTINGS: Final = {"mute_after_s": "3", "drain_s": "2", "stream_maxlen": "20000"}


class World:
    """An async context manager: entered, the daemon is live, and every symbol has stored quotes.

    `library` makes calls of the daemon fail (`tests.preload`), `tree` is another checkout whose daemon is run. What
    ought to happen soon is waited for so long as `patience_s`.
    """

    def __init__(
        self,
        *,
        rate: float,
        symbols: int = 20,
        seed: int = 0,
        with_replica: bool = True,
        library: Path | None = None,
        tree: Path | None = None,
        patience_s: float = INSIST_S,
        **settings: str,
    ) -> None:
        self.symbols: Final[Sequence[str]] = [f"SYM{n:02d}" for n in range(symbols)]
        self.wanted: set[str] = set(self.symbols)
        self.balance = Balance()
        self.checker = Checker(KEYS)
        self.checking = asyncio.Lock()
        """Held by a fault after which Redis may have less than was read: nothing is read meanwhile."""
        self.tell: Callable[[str], None] = lambda _: None
        self._rate = rate
        self._seed = seed
        self._with_replica = with_replica
        self._library = library
        self._tree = tree
        self._patience_s = patience_s
        self.faults: Faults | None = None
        """Of the daemon's spool folder and its clock, if there is a library that brings them about."""
        self.excuse_of_an_end: Callable[[int, str], bool] = lambda *_: False
        """Whether a daemon that ended by itself, with this code and these last lines, had a good reason."""
        self._settings = {**SETTINGS, **settings}
        self._stack = contextlib.AsyncExitStack()
        self._clients: dict[int, Redis] = {}
        self.began_s = time.monotonic()
        self.is_ended_on_purpose = False
        self.latest_status: dict[str, Any] | None = None
        """As the last look had it; None when there was no answer."""
        self.replica: RedisServer | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._servers = stack.enter_context(contextlib.ExitStack())
            self.primary = await self.new_server()
            rules = AccountRules(connection_limit=1, ghost_s=0.5)
            self.vendor = await stack.enter_async_context(AlpacaSimulator(SimulatorSettings(account=rules)))
            self.proxy = await stack.enter_async_context(Proxy(self.primary.port, seed=self._seed))
            self.replica_wire = await stack.enter_async_context(Proxy(self.primary.port))
            stack.push_async_callback(self._close_clients)
            if self._with_replica:
                await self.attach_replica()
            self.daemon = DaemonProcess(
                self.proxy.url, self.vendor.url("iex"), http=f"127.0.0.1:{free_port()}", **self._settings
            )
            if self._library is not None:
                self.faults = stack.enter_context(Faults(self.daemon.spool, self._library))
                self.daemon.with_environment(**self.faults.environment)
            if self._tree is not None:
                self.daemon.with_environment(PYTHONPATH=str(self._tree))
            stack.push_async_callback(self.daemon.aclose)
            self.sending = Sending(self.vendor, self.checker, self.symbols, self._rate)
            await self.redis.sadd(KEYS.symbols, *self.symbols)
            self.start_daemon()
            await self.until(self._all_subscribed, "every symbol subscribed")
            self.sending.send(1)
            await self.until(self._all_there, "the first quote of every symbol stored")
            self.began_s = time.monotonic()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # --- what there is -------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Seconds since the traffic began."""
        return time.monotonic() - self.began_s

    @property
    def redis(self) -> Redis:
        """A client of the server that is the primary now."""
        return self.client(self.primary)

    def client(self, server: RedisServer) -> Redis:
        """A client of this server, past the wire."""
        if server.port not in self._clients:
            self._clients[server.port] = Redis.from_url(
                server.url, decode_responses=True, protocol=2, socket_timeout=3.0, socket_connect_timeout=3.0
            )
        return self._clients[server.port]

    async def new_server(self) -> RedisServer:
        """One more server, with an append-only file that is synced with every write."""
        server = RedisServer(appendonly=True, options=OPTIONS)
        return await asyncio.to_thread(self._servers.enter_context, server)

    async def attach_replica(self) -> None:
        """A new server that copies the primary, over a wire of its own."""
        self.replica_wire.target = self.primary.port
        self.replica = await self.new_server()
        port = self.replica_wire.url.rpartition(":")[2].partition("/")[0]
        await self.client(self.replica).replicaof("127.0.0.1", port)

    async def promote(self) -> None:
        """The primary is gone: its replica takes its place, and a new replica copies that."""
        assert self.replica is not None
        old = self.primary
        self.replica_wire.cut()
        self.replica_wire.straighten()
        await self.client(self.replica).replicaof("NO", "ONE")
        self.primary, self.replica = self.replica, None
        self.proxy.target = self.primary.port
        self.proxy.cut()
        if old.port in self._clients:
            await self._clients.pop(old.port).aclose()
        # Its folder would stay until the end, and a day has many promotions.
        await asyncio.to_thread(old.__exit__, None, None, None)
        await self.attach_replica()

    async def replica_has_all(self) -> bool:
        """Whether the replica has what the primary has now."""
        if self.replica is None:
            return False
        want = int((await self.redis.info("replication"))["master_repl_offset"])
        have = await self.client(self.replica).info("replication")
        return have.get("master_link_status") == "up" and int(have["slave_repl_offset"]) >= want

    # --- the daemon ----------------------------------------------------------------------------------------------

    def start_daemon(self, **settings: str) -> None:
        """Start it, with these settings from now on."""
        self.daemon.with_environment(
            **{f"QUOTEBUS_{name.upper()}": value for name, value in settings.items()}
        )
        self.balance.begin_life(self.now_s)
        self.daemon.start()
        self.is_ended_on_purpose = False

    async def end_daemon(self, number: signal.Signals) -> int:
        """Signal it, and wait for its end; the exit code."""
        self.is_ended_on_purpose = True
        self.daemon.signal(number)
        return await self.daemon.ended(60.0)

    async def status(self) -> dict[str, Any] | None:
        """The /status page, or None while there is nobody to answer."""
        try:
            return await self.daemon.status()
        except (AssertionError, ValueError):
            return None

    def size(self) -> Size | None:
        """The daemon's process from outside, or None when it is gone."""
        assert self.daemon.process is not None
        folder = Path(f"/proc/{self.daemon.process.pid}")
        try:
            fields = dict(
                line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
            )
            descriptors = len(list((folder / "fd").iterdir()))
            return Size(int(fields["VmRSS"].split()[0]) * 1024, descriptors, int(fields["Threads"]))
        except (OSError, KeyError):
            return None

    # --- watching ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Traffic, and everybody who watches, while the context lasts."""
        parts = {"sending": self.sending.run(), "checker": self._follow(), "looks": self._look()}
        # Cancelled until they end: a client of Redis may swallow a cancellation that meets its own timeout.
        async with background(parts):
            yield

    async def settle(self) -> None:
        """One quote more of each symbol, and wait until all that was sent is there, or `SETTLE_S` are over."""
        await self.until(self._all_subscribed, "every symbol subscribed again", SETTLE_S)
        self.sending.send(1)
        await self.until(self._all_there, "everything stored", SETTLE_S)
        status = await self.status()
        if status is None:
            self.balance.complain("at the end the daemon does not answer")
        else:
            self.balance.see_status(self.now_s, status)
        self._count()

    async def insist(self, action: Callable[[Redis], Awaitable[Any]]) -> None:
        """Ask the primary for this until it is done, through whatever is the matter with it."""
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                await action(self.redis)
            except (RedisError, OSError) as error:
                if time.monotonic() > deadline_s:
                    raise AssertionError(f"Redis cannot be brought to it: {error}") from None
                await asyncio.sleep(0.05)
            else:
                return

    async def until(
        self, condition: Callable[[], Awaitable[bool]], name: str, timeout_s: float | None = None
    ) -> bool:
        """Wait until it holds; a complaint when it does not in time."""
        timeout_s = self._patience_s if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(RedisError, OSError):
                if await condition():
                    return True
            if time.monotonic() > deadline_s:
                self.balance.complain(f"at {self.now_s:.1f} s: not {name} within {timeout_s:.0f} s")
                return False
            await asyncio.sleep(0.05)

    async def follow(self) -> None:
        """Read what is new in the streams, if the server lets us."""
        async with self.checking:
            with contextlib.suppress(RedisError, OSError):
                await self.checker.follow(self.redis)

    async def _follow(self) -> None:
        while True:
            await self.follow()
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _look(self) -> None:
        while True:
            self.latest_status = status = await self.status()
            if status is not None:
                self.balance.see_status(self.now_s, status)
            else:
                self.balance.see_state(self.now_s, "not answering")
            self._mind_the_process()
            self._count()
            await asyncio.sleep(LOOK_EVERY_S)

    def _mind_the_process(self) -> None:
        process = self.daemon.process
        assert process is not None
        code = process.poll()
        if code is None:
            if (size := self.size()) is not None:
                self.balance.see_size(self.now_s, size)
        elif not self.is_ended_on_purpose:
            last = self.daemon.log[-1500:]
            if not self.excuse_of_an_end(code, last):
                self.balance.complain(f"at {self.now_s:.1f} s the daemon ended with {code}:\n{last}")
            self.start_daemon()

    def _count(self) -> None:
        balance = self.balance
        balance.sent = self.sending.sent
        balance.feed_connects = len(self.vendor.closed) + len(self.vendor.connections)

    async def _all_subscribed(self) -> bool:
        await self.redis.sadd(KEYS.symbols, *self.symbols)
        return self.vendor.symbols == set(self.symbols)

    async def _all_there(self) -> bool:
        await self.follow()
        status = await self.status()
        held = ("queued", "unanswered", "spooled", "replaying")
        is_settled = status is not None and not any(status[place] for place in held)
        return is_settled and self.checker.verdict().outstanding == 0

    async def _close_clients(self) -> None:
        for client in self._clients.values():
            await client.aclose()

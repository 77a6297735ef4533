"""What the tests of the operator's kit share: its folder, a promtool, and a real daemon behind real Redis users."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer, free_port

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
ADMIN: Final = "user admin on >admin ~* &* +@all"
"""The tests' own eyes on the server; not part of the kit."""
STARTED_WITHIN_S: Final = 20.0


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of a promtool; without one the tests fail with the script's remedy."""
    found = subprocess.run(
        [ROOT / "scripts/promtool.sh"], capture_output=True, text=True, timeout=110, check=False
    )
    if found.returncode:
        pytest.fail(found.stderr.strip())
    return found.stdout.strip()


@dataclass(frozen=True)
class Guarded:
    """A server that runs with an ACL file of the kit."""

    server: RedisServer

    def url(self, user: str) -> str:
        """Where this user of the kit logs in, with the placeholder as the password."""
        password = "admin" if user == "admin" else f"CHANGE-ME-{user}"
        return f"redis://{user}:{password}@127.0.0.1:{self.server.port}/0"

    @contextlib.asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Redis]:
        """A client logged in as this user."""
        client = Redis.from_url(self.url(user), protocol=2, decode_responses=True)
        try:
            yield client
        finally:
            await client.aclose()

    async def denials(self) -> list[str]:
        """Which user was refused what, since the start of the server."""
        async with self.client("admin") as admin:
            entries: Any = await admin.execute_command("ACL", "LOG", 1000)  # type: ignore[no-untyped-call]
        found = []
        for entry in entries:
            row = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
            # Clients give their library's name with CLIENT SETINFO, which Redis 7.0 refuses to see allowed in a
            # file; Redis 6.2 notes it without the second word.
            if row["object"].lower() not in ("client|setinfo", "client"):
                found.append(f"{row['username']}: {row['reason']} {row['object']} ({row['context']})")
        return found


@contextlib.contextmanager
def guarded_server(folder: Path, acl: str) -> Iterator[Guarded]:
    """A server with these users and an administrator."""
    file = folder / "users.acl"
    file.write_text(f"{acl.rstrip()}\n{ADMIN}\n")
    with RedisServer(options=("--aclfile", str(file))) as server:
        yield Guarded(server)


@dataclass(frozen=True)
class Running:
    """A daemon in a process of its own, subscribed and storing."""

    guarded: Guarded
    simulator: AlpacaSimulator
    process: asyncio.subprocess.Process
    log: Path
    http: str


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any settings of the bus, and with these."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("QUOTEBUS_", "APCA_", "ALPACA_"))}
    return {**clean, **settings}


@contextlib.asynccontextmanager
async def running_daemon(guarded: Guarded, folder: Path, *symbols: str) -> AsyncIterator[Running]:
    """`quotebus run` as the kit's user `daemon`, until the newest quote of each symbol is on Redis."""
    async with (
        AlpacaSimulator(SimulatorSettings(rate=200.0, symbols=symbols)) as simulator,
        guarded.client("admin") as admin,
    ):
        await admin.sadd("quotes:symbols", *symbols)
        log, port = folder / "daemon.log", free_port()
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ingestor"),
                cwd=folder,
                env=environment(
                    PYTHONPATH=str(ROOT),
                    APCA_API_KEY_ID_FILE=str(_secret(folder, "apca_key_id")),
                    APCA_API_SECRET_KEY_FILE=str(_secret(folder, "apca_secret_key")),
                    QUOTEBUS_REDIS_URL=guarded.url("daemon"),
                    QUOTEBUS_FEED_URL=simulator.url("iex"),
                    QUOTEBUS_HTTP=f"127.0.0.1:{port}",
                    QUOTEBUS_SPOOL_DIR=str(folder / "spool"),
                    # Often enough that each command of the sweep is seen within a test.
                    QUOTEBUS_SWEEP_EVERY_S="0.1",
                    QUOTEBUS_FORGET_AFTER_S="1",
                ),
                stdout=output,
                stderr=output,
            )
        try:

            async def all_cached() -> bool:
                assert process.returncode is None, log.read_text()
                return await _count(admin, "quotes:latest") >= len(symbols)

            await eventually(all_cached, log)
            yield Running(guarded, simulator, process, log, f"http://127.0.0.1:{port}")
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(15):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    raise


async def eventually(holds: Callable[[], Awaitable[bool]], log: Path) -> None:
    """Wait until it holds; fail with the daemon's log when it does not come to pass."""
    try:
        async with asyncio.timeout(STARTED_WITHIN_S):
            while not await holds():  # noqa: ASYNC110 - nobody can set an event in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        said = log.read_text()  # noqa: ASYNC240 - the test is over
        pytest.fail(f"did not come to pass within {STARTED_WITHIN_S:g} s; the daemon said:\n{said}")


async def _count(client: Redis, key: str) -> int:
    return int(await client.hlen(key))


def _secret(folder: Path, name: str) -> Path:
    file = folder / name
    file.write_text(f"{name}-of-nobody\n")
    return file

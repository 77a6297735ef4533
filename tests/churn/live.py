"""One run from its beginning to its account.

Decides the order of things: a group at work, the deeds one after the other, then calm, until everything is
accounted for or time is up. Must never know how the account is made.
"""

import asyncio
import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from consumers.groups.record import KEPT_S, decode_record
from consumers.link import CLIENT_NAME
from consumers.reading.entry import QUOTE
from simulator.redis_server import RedisServer
from tests.churn.accounts import AWAY, FORGOTTEN, NOT_WRITTEN, SET_BACK, Account, Blow, account
from tests.churn.crew import Crew
from tests.churn.design import Deed, Run
from tests.churn.worker import GROUP
from tests.churn.writer import KEYS, Writer

SETTLES_S: Final = 30.0
BEGINS_WITHIN_S: Final = 60.0
FOUND_WITHIN_S: Final = 2.0
"""A round comes once a second with a group at work, and gives half a second to whoever may be about to name it."""
LAST: Final = 2
PENDING_MAX: Final = 100_000


class Outcome(msgspec.Struct):
    """What became of one run."""

    number: int
    account: Account
    failures: list[str] = []
    diary: list[str] = []
    took_s: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether everything was handled or told, and nothing came again without need."""
        return not (self.account.lost or self.account.needless or self.failures)


async def live(run: Run, library: Path | None = None, keep: Path | None = None) -> Outcome:
    """Live through it; `keep` is a folder for what the workers wrote down."""
    began_s = time.monotonic()
    symbols = [f"S{number}" for number in range(run.symbols)]
    chance = random.Random(f"{run.seed} {run.number} life")
    with (
        tempfile.TemporaryDirectory(prefix="quotebus-churn-") as folder,
        RedisServer(appendonly=True, options=("--appendfsync", "everysec")) as server,
    ):
        crew = Crew(server.url, Path(folder), symbols, chance, library)
        async with Redis.from_url(server.url, protocol=2, socket_timeout=5) as redis:
            play = Play(run, server, redis, crew, Writer(redis, symbols, run.rate, run.replay_s, chance))
            try:
                await play.run()
            except* TimeoutError as late:
                crew.failures += map(str, late.exceptions)
            finally:
                await asyncio.to_thread(crew.end_all)
        outcome = Outcome(run.number, play.account(), crew.failures, play.diary, time.monotonic() - began_s)
        if keep is not None and not outcome.is_right:
            shutil.copytree(folder, keep / f"{run.seed}-{run.number}", dirs_exist_ok=True)
    return outcome


class Play:
    """What is done to the group, its workers and its server, and when."""

    def __init__(self, run: Run, server: RedisServer, redis: Redis, crew: Crew, writer: Writer) -> None:
        self._run = run
        self._server = server
        self._redis = redis
        self._crew = crew
        self._writer = writer
        self._blows: list[Blow] = []
        self._began_s = time.monotonic()
        self._last = [f"last-{number}" for number in range(LAST)]
        self.diary: list[str] = []

    async def run(self) -> None:
        """Everything that happens."""
        for _ in range(self._run.workers):
            self._crew.start()
        async with asyncio.TaskGroup() as tasks:
            thawing: set[asyncio.Task[None]] = set()
            # Who comes later begins at its own now: what was written before is not the group's.
            await self._until(self._are_ready, "the first workers were not ready")
            writing = tasks.create_task(self._writer.run())
            await self._until(self._is_at_work, "the group was not at work")
            self._began_s = time.monotonic()
            for deed in self._run.deeds:
                await asyncio.sleep(max(0.0, self._began_s + deed.at_s - time.monotonic()))
                self._note(f"{deed.kind} {deed.which} {deed.for_s} {deed.amount}")
                with contextlib.suppress(RedisError, OSError):
                    task = await self.do(deed, tasks)
                    if task is not None:
                        thawing.add(task)
                while len(self._crew.running) > 5:
                    await self._away(self._crew.kill, deed.which)
            await asyncio.gather(*thawing)
            # Not cancelled: until Python 3.12 redis-py may swallow that.
            self._writer.is_over = True
            await writing
        await self._calm_down()

    async def _until(self, is_so: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(BEGINS_WITHIN_S):
                while not await is_so():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"{what} within {BEGINS_WITHIN_S:.0f} s") from None

    async def _are_ready(self) -> bool:
        ready = [note for note in self._crew.notes() if note["what"] == "ready"]
        return len(ready) >= self._run.workers

    async def _last_have_begun(self) -> bool:
        began = {note["name"] for note in self._crew.notes() if note["what"] == "began"}
        return began.issuperset(self._last)

    async def _is_at_work(self) -> bool:
        for symbol in self._writer.sent:
            stream = KEYS.stream(symbol)
            if not await self._redis.exists(stream) or not await self._redis.xinfo_groups(stream):
                return False
        return True

    def account(self) -> Account:
        """What became of each entry so far."""
        return account(self._writer.sent, self._crew.notes(), self._blows, self._writer.sent_again)

    async def _calm_down(self) -> None:
        self._note("calm")
        for name in self._last:
            self._crew.start(name)
        # Or what nobody has had the time to handle would count as lost.
        await self._until(self._last_have_begun, "the last workers had not begun")
        for _ in range(len(self._crew.running) - LAST):
            await self._away(self._crew.dismiss, 0)
        await asyncio.sleep(1.0)
        await self._writer.finish()
        until_s = time.monotonic() + SETTLES_S
        while time.monotonic() < until_s and (await asyncio.to_thread(self.account)).lost:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        self._note("over")
        for symbol in self._writer.sent:
            found = await self._redis.zrange(KEYS.group(GROUP, symbol), 0, -1)
            self.diary.append(f"{symbol}: {found}")

    async def do(self, deed: Deed, tasks: asyncio.TaskGroup) -> asyncio.Task[None] | None:
        """One deed; returns what still goes on when it is done."""
        crew = self._crew
        match deed.kind:
            case "kill":
                await self._away(crew.kill, deed.which)
            case "start":
                crew.start()
            case "freeze" | "freeze all":
                frozen = crew.freeze(deed.which if deed.kind == "freeze" else -1)
                return tasks.create_task(self._thaw(frozen, deed.for_s))
            case "deploy one":
                crew.start(await self._away(crew.dismiss, deed.which))
            case "rename one":
                await self._away(crew.kill, deed.which)
                crew.start("-")
            case "kill all" | "deploy all":
                await self._all_at_once(deed)
            case "kill all and delete" | "kill all and flush" | "kill all and thin out":
                await self._all_at_once(deed)
            case "cut connections":
                for client in await self._redis.client_list():
                    if client["name"].startswith(CLIENT_NAME):
                        await self._redis.client_kill_filter(_id=client["id"])
            case "flush" | "flush and start":
                await self._flush()
                await self._start_soon(deed)
            case "restart with file" | "restart without file":
                await self._restart(deed)
            case _:
                await self._do_to_a_stream(deed)
        return None

    async def _do_to_a_stream(self, deed: Deed) -> None:
        """What befalls one stream, or its group."""
        redis, symbol = self._redis, f"S{deed.which % self._run.symbols}"
        stream = KEYS.stream(symbol)
        match deed.kind:
            case "trim":
                if await self._is_known(symbol):
                    await redis.xtrim(stream, maxlen=deed.amount, approximate=False)
            case "delete" | "delete and start":
                await self._delete(symbol)
                await self._start_soon(deed)
            case "away and back":
                if not await self._is_known(symbol):
                    return
                with self._blow(AWAY, symbol):
                    await redis.rename(stream, "churn:aside")
                    await asyncio.sleep(min(deed.for_s, 0.5))
                    await redis.rename("churn:aside", stream)
            case "destroy and make at 0":
                with self._blow(SET_BACK, symbol):
                    await self._destroy(symbol)
                    await redis.xgroup_create(stream, GROUP, "0")
            case _:
                await self._destroy(symbol)
                if deed.kind != "destroy":
                    await asyncio.sleep(0.02)
                    await redis.xgroup_create(stream, GROUP, "$")
                    # Workers read on in it, and the record does not mean it until one of them has found it.
                    self._blows[-1] = msgspec.structs.replace(
                        self._blows[-1], until=time.monotonic() + FOUND_WITHIN_S
                    )

    async def _is_known(self, symbol: str) -> bool:
        """Whether anybody has known the group since Redis lost it; until then its last trace is the marker at the
        beginning of the stream, and would go with that (0037)."""
        found = bool(await self._redis.exists(KEYS.group(GROUP, symbol)))
        if not found:
            self._note(f"{symbol} is left alone: nobody knows its group")
        return found

    async def _delete(self, symbol: str) -> None:
        if await self._is_known(symbol):
            await self._redis.delete(KEYS.stream(symbol))

    async def _thin_out(self, symbol: str) -> None:
        """Every second unread quote is deleted from the stream. No marker, which may speak of more (0037)."""
        if not await self._is_known(symbol):
            return
        stream = KEYS.stream(symbol)
        for group in await self._redis.xinfo_groups(stream):
            since = group["last-delivered-id"].decode()
            found = await self._redis.xrange(stream, f"({since}") or []
            ids = [entry_id for entry_id, fields in found if entry_id and fields and QUOTE in fields]
            if some := ids[1::2]:
                await self._redis.xdel(stream, *some)
                self._note(f"{symbol}: {len(some)} unread entries are deleted")

    async def _destroy(self, symbol: str) -> None:
        """Destroy the group, and keep what Redis knew of it at that moment."""
        stream, record = KEYS.stream(symbol), KEYS.group(GROUP, symbol)
        since = time.monotonic()
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrange(record, 0, 0)
            pipe.pttl(record)
            pipe.xpending_range(stream, GROUP, "-", "+", PENDING_MAX)
            pipe.xgroup_destroy(stream, GROUP)
            kept, left_ms, pending, _ = await pipe.execute()
        _, known = decode_record(kept)
        # It is written with the whole second of its end.
        age_s = KEPT_S - left_ms / 1000
        self._blows.append(
            Blow(
                *(NOT_WRITTEN, since, time.monotonic(), symbol),
                floor=None if known is None else known.floor,
                written=time.monotonic() - age_s,
                pending=frozenset(entry["message_id"].decode() for entry in pending),
            )
        )

    async def _start_soon(self, deed: Deed) -> None:
        if deed.kind.endswith("and start"):
            await asyncio.sleep(min(deed.for_s, 0.6))
            self._crew.start()

    async def _all_at_once(self, deed: Deed) -> None:
        crew, count = self._crew, len(self._crew.running)
        end = crew.dismiss if deed.kind == "deploy all" else crew.kill
        for _ in range(count):
            await self._away(end, 0)
        if deed.kind == "kill all and delete":
            await self._delete(f"S{deed.which % self._run.symbols}")
        elif deed.kind == "kill all and flush":
            await self._flush()
        await asyncio.sleep(deed.for_s)
        if deed.kind == "kill all and thin out":
            await self._thin_out(f"S{deed.which % self._run.symbols}")
        for _ in range(max(count, 1)):
            crew.start()

    async def _flush(self) -> None:
        if await self._are_known():
            await self._redis.flushall()

    async def _are_known(self) -> bool:
        """Whether anybody has known each group since Redis lost them, as `_is_known` has it of one."""
        return all([await self._is_known(symbol) for symbol in self._writer.sent])

    async def _restart(self, deed: Deed) -> None:
        forgets = deed.kind == "restart without file" and await self._are_known()
        with self._blow(FORGOTTEN):
            await self._away(self._server.kill)
            if forgets:
                for path in self._server.folder.iterdir():
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.suffix in {".rdb", ".aof"}:
                        path.unlink()
            await asyncio.sleep(min(deed.for_s, 1.0))
            await self._away(self._server.start)

    async def _thaw(self, frozen: list[Any], after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._crew.thaw(frozen)

    async def _away(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Something that waits for a process, while the writer goes on."""
        return await asyncio.to_thread(call, *arguments)

    @contextlib.contextmanager
    def _blow(self, why: str, symbol: str | None = None) -> Iterator[None]:
        since = time.monotonic()
        try:
            yield
        finally:
            self._blows.append(Blow(why, since, time.monotonic(), symbol))

    def _note(self, text: str) -> None:
        self.diary.append(f"{time.monotonic() - self._began_s:7.2f} s ({time.monotonic():.2f})  {text}")

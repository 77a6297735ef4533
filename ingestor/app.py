"""One life of the daemon: prepare, run, drain, leave.

Decides the order in which parts start and end. Must never decide anything within a part. The order of the end:
first the feed closes its socket with a handshake, so that the vendor frees the slot and nothing new arrives; then
what was received is stored; then the last state is reported.
"""

import asyncio
import contextlib
import gc
import os
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from ingestor.daemon import Daemon
from ingestor.feed.session import Credentials
from ingestor.parts import background, done_before, measure_loop_lag, rest
from ingestor.publisher.batch import digest
from ingestor.publisher.claims import Fenced
from ingestor.redis_link import RedisAddress
from ingestor.reload import Reload
from ingestor.rights import examine
from ingestor.settings import Settings, spool_folder
from ingestor.spool.home import ID_FIELD, Bus
from ingestor.spool.spool import Spool
from ingestor.supervisor import Supervisor
from ingestor.turn import keep, listen
from ingestor.watching.metrics import render
from ingestor.watching.pages import Sources, serve

FAREWELL_S: Final = 1.0
SAVE_S: Final = 5.0
ASK_AGAIN_S: Final = 0.5


class Undrained(Exception):
    """The daemon was asked to stop, and quotes were left that neither Redis nor the disk took in time."""


class LeftOnDisk(Exception):
    """The daemon was asked to stop, and what Redis would not take in time waits on disk for the next start."""


async def run(
    settings: Settings,
    credentials: Callable[[], Credentials],
    stop: asyncio.Event,
    redis_url: Callable[[], str] | None = None,
    reload: Reload | None = None,
) -> None:
    """Run one daemon until `stop` is set. `redis_url` reads the URL anew, for a login that was refused; `reload`
    tells the journal what came of a new look at the settings.

    Raises `Fenced` when another daemon has taken over, `LeftOnDisk` or `Undrained` when quotes were left at the
    end, `SpoolUnusable` when the folder that was asked for cannot be used, `Unsuitable` when this Redis cannot
    serve, `PagesProblem` when the HTTP address is taken, and `VendorGivenUp` after as many attempts in vain as the
    settings allow.
    """
    daemon = Daemon(settings, credentials, spool_for(settings), redis_url)
    if reload is not None:
        reload.begin(daemon.journal.note)
    sources = Sources(
        lambda: render(daemon.registry),
        daemon.checks,
        daemon.status_page,
        lambda counts: daemon.journal.note("http_refused", "warning", **counts),
    )
    gc.collect()
    gc.freeze()
    # Quotes are many small objects without cycles; the default threshold looks at them for nothing.
    gc.set_threshold(50_000, 20, 20)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(daemon.control.aclose)
        daemon.http_port = await stack.enter_async_context(
            serve(*settings.http_host_port, settings.http_names, sources)
        )
        daemon.journal.note(
            "started",
            instance=daemon.instance,
            feed=settings.url,
            redis=repr(daemon.address),
            http=daemon.http_port,
        )
        supervisor = stack.enter_context(Supervisor.of(os.environ))
        watched = supervisor.run(daemon.turn.redis_answered, daemon.describe)
        await stack.enter_async_context(background({"supervisor": watched}))
        await examine(daemon.address, daemon.keys, daemon.journal, stop, daemon.turn.note_trouble)
        if await daemon.turn.wait(stop):
            await _live(daemon, stop, supervisor)
        else:
            daemon.journal.note("stopped", left=0)


def spool_for(settings: Settings) -> Spool | None:
    """The spool of these settings, not opened yet."""
    server = repr(RedisAddress(settings.redis_url.get_secret_value()))
    folder = spool_folder(settings, os.environ, server)
    if folder is None:
        return None
    return Spool(
        folder,
        identity=f"{settings.namespace}@{server}",
        max_bytes=settings.spool_bytes,
        max_age_s=settings.spool_max_age_s,
        digest=digest,
    )


async def _live(daemon: Daemon, stop: asyncio.Event, supervisor: Supervisor) -> None:
    spooling = daemon.publisher.spooling
    if not await _opened(daemon, stop):
        spooling.let_go()
        daemon.journal.note("stopped", left=0)
        return
    is_drained = is_saved = False
    try:
        parts = {"publisher": _publish(daemon), "spool": spooling.run()}
        async with background(parts):
            try:
                async with background(_working(daemon)):
                    await stop.wait()
                    daemon.is_stopping = True
                    supervisor.tell(STOPPING="1", STATUS=daemon.describe())
                    daemon.journal.note("stopping", queued=daemon.publisher.holdings.queued)
            finally:
                # The feed is closed now, and with it the source of new quotes; also when a part has failed.
                is_drained = await daemon.publisher.drain(daemon.settings.drain_s)
                is_saved = is_drained or await daemon.publisher.save(SAVE_S)
    except Fenced:
        # Whoever took over reports from now on.
        raise
    except BaseException:
        await _say_farewell(daemon)
        raise
    finally:
        await spooling.close()
    left = daemon.publisher.holdings.total
    daemon.journal.note(
        "stopped", "info" if is_drained else "error", left=left, on_disk=bool(left) and is_saved
    )
    await _say_farewell(daemon)
    if not is_drained:
        told = f"{left} quotes were not stored within {daemon.settings.drain_s:g} s"
        raise LeftOnDisk(f"{told}; they wait on disk") if is_saved else Undrained(told)


async def _opened(daemon: Daemon, stop: asyncio.Event) -> bool:
    """Whether the spool is open; not so where a stop was asked for before, since its disk may never answer."""
    return await done_before(stop, "opening the spool", _open_spool(daemon))


async def _open_spool(daemon: Daemon) -> None:
    spooling, keys = daemon.publisher.spooling, daemon.keys
    if not spooling.is_usable:
        return
    bus = Bus(keys.namespace, repr(daemon.address), await _id_on_redis(daemon))
    await spooling.open(is_optional=not daemon.settings.spool_dir, bus=bus)


async def _id_on_redis(daemon: Daemon) -> str | None:
    """The id of the bus as soon as Redis says it; None where it has none. A guess would leave quotes behind in
    another folder."""
    while True:
        try:
            known = await daemon.control.hget(daemon.keys.writer, ID_FIELD)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                # Whoever puts the key right takes it away, and the id with it.
                return None
            reason = str(error)
        except (RedisError, OSError, TimeoutError) as error:
            reason = str(error)
        else:
            return known.decode("utf-8", "replace") if isinstance(known, bytes) else known
        daemon.journal.note_rarely("redis_away", "spool", "error", reason=reason[:400])
        await asyncio.sleep(ASK_AGAIN_S)


async def _say_farewell(daemon: Daemon) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(FAREWELL_S):
            await daemon.control.hset(
                daemon.keys.status, mapping={**daemon.status_fields(), "state": "stopped"}
            )
            await daemon.reporter.write_subscriptions()
            await daemon.reporter.write_events()


def _working(daemon: Daemon) -> dict[str, Any]:
    return {
        "feed": _feed(daemon),
        "turn": keep(daemon.tenure, lambda: daemon.publisher.held_s, daemon.feed),
        "company": listen(daemon.control, daemon.keys, daemon.tenure),
        "reconciler": daemon.reconciler.run(),
        "watch": daemon.watch.run(),
        "cache": daemon.mender.run(daemon.publisher.cache_is_suspect),
        "markers": daemon.onlooker.run(),
        "sweep": daemon.sweeper.run(daemon.settings.sweep_every_s),
        "assets": daemon.assets.run(),
        "reporter": daemon.reporter.run(),
        "guard": daemon.guard.run(),
        "storage": daemon.storage.run(),
        "loop lag": measure_loop_lag(daemon.loop_lag_s),
    }


async def _publish(daemon: Daemon) -> None:
    await daemon.publisher.run(daemon.instance)
    # It was told to save what is left, and that goes another way.
    await rest()


async def _feed(daemon: Daemon) -> None:
    # The vendor is not asked for quotes before there is somewhere to put them, and something to ask for is known.
    await daemon.publisher.ready.wait()
    await daemon.reconciler.first_look.wait()
    await daemon.feed.run()

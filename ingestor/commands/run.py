"""`quotebus run`: the daemon in the foreground.

Decides exit codes and what a signal means: the first asks, the second insists, SIGHUP asks for a new look at the
settings. Must never know the daemon's parts.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from ingestor import early_signals
from ingestor.app import LeftOnDisk, Undrained
from ingestor.app import run as run_app
from ingestor.feed.backoff import VendorGivenUp
from ingestor.feed.session import Credentials, CredentialsUnavailable
from ingestor.log_lines import log_lines
from ingestor.logs import configure_logs, redactor
from ingestor.publisher.claims import Fenced
from ingestor.redis_link import LinkFailure
from ingestor.reload import Reload
from ingestor.rights import CommandsDisabled, NotPermitted, Unsuitable
from ingestor.settings import Settings, SettingsProblem, load_credentials, load_settings
from ingestor.spool.folder import SpoolUnusable
from ingestor.watching.pages import PagesProblem
from wire.redis.url import parse_redis_url

MIN_DESCRIPTORS: Final = 64
"""About twenty for the daemon itself, and one for each visitor of its pages."""
LAST_LINES_S: Final = 2.0
"""How long a reader of the log who is slow may keep an ended daemon waiting."""
INSISTED_LAST_LINES_S: Final = 0.2


def run_daemon(config: Path | None) -> int:
    """Run until a signal; the exit code, as the README lists them."""
    problems = _too_few_descriptors()
    settings: Settings | None = None
    for load in (lambda: load_settings(config, os.environ), lambda: load_credentials(os.environ)):
        try:
            loaded = load()
            settings = loaded if isinstance(loaded, Settings) else settings
        except SettingsProblem as problem:
            problems.append(str(problem))
    if problems or settings is None:
        lines = "\n".join(problems).replace("\n", "\n  ")
        print(f"quotebus: these settings cannot be used:\n  {lines}", file=sys.stderr)
        return 2
    log_lines.open()
    configure_logs(settings.log_level, settings.log_format, log_lines)
    try:
        return _run(settings, config, Reload(settings, lambda: load_settings(config, os.environ)))
    finally:
        log_lines.close(LAST_LINES_S)


def _too_few_descriptors() -> list[str]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= MIN_DESCRIPTORS:
        return []
    return [
        f"this process may have {limit} files and sockets open, and needs {MIN_DESCRIPTORS}: "
        "raise ulimit -n, or LimitNOFILE= of the systemd unit"
    ]


def _run(settings: Settings, config: Path | None, reload: Reload) -> int:
    log = structlog.get_logger("quotebus")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(settings, config, reload))
    except tuple(_ENDS) as problem:
        end, code = _ENDS[type(problem)]
        log.error(end, reason=str(problem))  # noqa: TRY400 - expected, no traceback
        return code
    except (Exception, asyncio.CancelledError):
        # A defect. Better a restart by the supervisor than a daemon that lives on without one of its parts.
        log.exception("crashed")
        return 1
    return 0


_ENDS: Final[dict[type[Exception], tuple[str, int]]] = {
    PagesProblem: ("http_address_taken", 2),
    SpoolUnusable: ("spool_unusable", 2),
    Unsuitable: ("redis_unsuitable", 2),
    LeftOnDisk: ("left_on_disk", 3),
    Undrained: ("undrained", 4),
    Fenced: ("fenced", 5),
    NotPermitted: ("redis_not_permitted", 6),
    CommandsDisabled: ("redis_lacks_commands", 6),
    VendorGivenUp: ("vendor_given_up", 7),
}
"""What is told, and the exit code. 1 is a defect, 2 is for a human to mend before the next start."""


async def _until_signalled(settings: Settings, config: Path | None, reload: Reload) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_then_insist(stop))
    loop.add_signal_handler(signal.SIGHUP, reload.on_hangup)
    if early_signals.has_hung_up:
        reload.on_hangup()
    defects: list[BaseException] = []
    loop.set_exception_handler(lambda loop, context: _on_defect(loop, context, defects, stop))
    try:
        await run_app(settings, _protected_credentials, stop, lambda: _redis_url(config), reload)
    finally:
        # The loop takes its handlers along, and the exit code is decided: what comes now must not change it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    if defects:
        raise defects[0]


def _on_defect(
    loop: asyncio.AbstractEventLoop,
    context: dict[str, Any],
    defects: list[BaseException],
    stop: asyncio.Event,
) -> None:
    """An exception within a callback is a defect: store what can be stored, and end with exit code 1.

    The loop would only log it, and the daemon would live on without what the callback was doing.
    """
    loop.default_exception_handler(context)
    error = context.get("exception")
    # A cancellation is no `Exception`, and a callback that ends in one has not done its work either.
    if isinstance(error, Exception | asyncio.CancelledError) and not isinstance(error, OSError):
        defects.append(error)
        stop.set()


def _protected_credentials() -> Credentials:
    try:
        credentials = load_credentials(os.environ)
    except SettingsProblem as problem:
        raise CredentialsUnavailable(str(problem)) from None
    redactor.protect(credentials.secret)
    redactor.protect(credentials.key)
    return credentials


def _redis_url(config: Path | None) -> str:
    """The URL as it stands now, in its file or elsewhere; `LinkFailure` when it cannot be used."""
    try:
        url = load_settings(config, os.environ).redis_url.get_secret_value()
    except SettingsProblem as problem:
        raise LinkFailure(str(problem).replace("\n", "; ")) from None
    redactor.protect(parse_redis_url(url).password or "")
    return url


def _ask_then_insist(stop: asyncio.Event) -> Callable[[], Any]:
    def on_signal() -> None:
        if stop.is_set():
            log_lines.close(INSISTED_LAST_LINES_S)
            os._exit(1)
        stop.set()

    return on_signal

"""`quotebus simulate`: the double of Alpaca in the foreground.

Decides how options become the simulator's settings, and the exit code. Must never know how it works.
"""

import asyncio
import errno
import math
import signal
import sys
from pathlib import Path
from typing import Any, Final

DEFAULT_RATE: Final = 300.0
LAST_PORT: Final = 65_535


def run_simulator(
    *,
    rate: float | None,
    tape: Path | None,
    symbol_limit: int | None,
    connection_limit: int,
    ghost_s: float,
    calls_per_minute: int,
    port: int,
    rest_port: int | None,
    **options: Any,
) -> int:
    """Run until a signal; 0 then, 1 when it cannot run, 2 for options that contradict each other.

    A tape is replayed by itself unless a rate of synthetic quotes beside it is asked for. REST calls are answered
    on the port after the websocket's, unless another one is named.
    """
    if rest_port is None:
        rest_port = port + 1 if 0 < port < LAST_PORT else 0
    if rate is not None and not math.isfinite(rate):
        print(f"quotebus: --rate {rate} is no number of quotes per second", file=sys.stderr)
        return 2
    if rate is None:
        rate = 0.0 if tape is not None else DEFAULT_RATE
    try:
        from simulator import AccountRules, BadScript, BadSettings, BadTape, SimulatorSettings
    except ImportError as error:
        print(
            f"quotebus: the simulator is not installed ({error.name} is missing); "
            "pip install 'quotebus[simulator]'",
            file=sys.stderr,
        )
        return 1
    from ingestor.logs import configure_logs

    configure_logs("info", "auto")
    try:
        rules = AccountRules(
            symbol_limit=symbol_limit,
            connection_limit=connection_limit,
            ghost_s=ghost_s,
            calls_per_minute=calls_per_minute,
        )
        settings = SimulatorSettings(
            account=rules, rate=rate, tape=tape, port=port, rest_port=rest_port, **options
        )
    except BadSettings as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 2
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_until_signalled(settings))
    except (BadTape, BadScript) as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"quotebus: {_in_words(problem, settings.host, port, rest_port)}", file=sys.stderr)
        return 1
    return 0


def _in_words(problem: OSError, host: str, port: int, rest_port: int) -> str:
    if problem.errno == errno.EADDRINUSE:
        # asyncio names the address that it could not bind.
        if rest_port and f", {rest_port})" in str(problem):
            return f"port {rest_port} of {host}, for REST calls, is taken; choose another with --rest-port"
        return f"port {port} of {host} is taken; choose another with --port"
    if problem.filename is not None:
        return f"{problem.filename}: {problem.strerror}"
    return str(problem)


async def _until_signalled(settings: Any) -> None:
    from simulator import simulate

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop.set)

    def ready(simulator: Any) -> None:
        print(simulator.url("iex"), simulator.rest_url, sep="\n", flush=True)

    await simulate(settings, stop, ready=ready)


def _loop_factory() -> Any:
    import uvloop

    return uvloop.new_event_loop

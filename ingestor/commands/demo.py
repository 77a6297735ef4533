"""`quotebus demo`: the whole bus on this machine, without an account.

Decides what is started, in which order it ends, and what the user sees. Must never reach into the parts: the
Redis server, the double of Alpaca and the daemon are separate processes, and all that is shown was read from Redis,
as any user could read it.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from ingestor.commands.demo_view import View, line
from ingestor.commands.quick_redis import QuickRedis, RedisProblem
from wire import Keyspace, decode_latest

REFRESH_S: Final = 0.5
PLAIN_EVERY_S: Final = 1.0
RATE_WINDOW_S: Final = 3.0
STOP_TIMEOUT_S: Final = 15.0
START_TIMEOUT_S: Final = 30.0
FIRST_QUOTE_TIMEOUT_S: Final = 60.0
"""Only where a duration was asked for: whoever watches sees that nothing comes."""
MAX_ROWS: Final = 24


class _Ended(Exception):
    """The user, or the duration, ends the demo."""


class _Told(_Ended):
    """It was the user, by a signal."""


class _Signals:
    """Whether a signal has told us to end. It is kept as well as raised: what is raised in a finalizer is lost."""

    def __init__(self) -> None:
        self._is_told = False

    def end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        """The handler; raises `_Told`."""
        self._is_told = True
        # A second Ctrl-C must not break the orderly end that the first began.
        for ending in _ENDING:
            signal.signal(ending, signal.SIG_IGN)
        raise _Told

    def check(self) -> None:
        """Raise `_Told` again where it was lost."""
        if self._is_told:
            raise _Told


class _Failed(Exception):
    """A part did not start, or died; the message tells which and shows its last lines."""


def run_demo(*, duration_s: float | None, symbol_count: int, rate: float, redis_port: int) -> int:
    """Run until Ctrl-C, or for `duration_s` from the first quote on; 0 when everything started and ended well."""
    try:
        from simulator import plausible_symbols
        from simulator.redis_server import RedisServer, ServerUnavailable, is_free
    except ImportError as error:
        print(
            f"quotebus: the demo needs the simulator ({error.name} is missing); pip install 'quotebus[simulator]'",
            file=sys.stderr,
        )
        return 1
    began_s = time.monotonic()
    signals = _Signals()
    demo = Demo(plausible_symbols(symbol_count), rate, began_s, duration_s, signals.check)
    try:
        with _signals_end_it(signals), ExitStack() as stack:
            server = stack.enter_context(
                RedisServer(redis_port if redis_port and is_free(redis_port) else None, dies_with_us=True)
            )
            demo.run(stack, server.port)
    except _Ended as end:
        return demo.farewell(is_told=isinstance(end, _Told))
    except (_Failed, ServerUnavailable, RedisProblem) as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 1
    return 0


class Demo:
    """One run of the demo."""

    def __init__(
        self,
        symbols: Sequence[str],
        rate: float,
        began_s: float,
        duration_s: float | None,
        check_signals: Callable[[], None],
    ) -> None:
        self._symbols = symbols
        self._rate = rate
        self._began_s = began_s
        self._duration_s = duration_s
        self._check_signals = check_signals
        self._ends_s: float | None = None
        self._keys = Keyspace()
        self._parts: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self._past: list[View] = []
        self._first_quote_s: float | None = None

    def run(self, stack: ExitStack, redis_port: int) -> None:
        """Start the parts, show what they do; raises `_Ended` in the end."""
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quotebus-demo-")))
        url = f"redis://127.0.0.1:{redis_port}/0"
        simulator = [*_QUOTEBUS, "simulate", "--port", "0", "--rate", str(self._rate), "--symbols", "10000"]
        self._start(stack, "simulator", simulator, logs, {})
        environment = {
            "QUOTEBUS_REDIS_URL": url,
            "QUOTEBUS_FEED_URL": self._printed("ws://"),
            "QUOTEBUS_HTTP": "127.0.0.1:0",
            "QUOTEBUS_SPOOL_DIR": str(logs / "spool"),
            "APCA_API_KEY_ID": "demo",
            "APCA_API_SECRET_KEY": "demo-secret",
        }
        self._start(stack, "daemon", [*_QUOTEBUS, "run"], logs, environment)
        redis = stack.enter_context(QuickRedis(url))
        redis.call("SADD", self._keys.symbols, *self._symbols)
        rest = self._printed("http://")
        print(_invitation(redis_port, self._newcomer(), self._http_address(), rest), flush=True)
        try:
            if sys.stdout.isatty():
                self._show_table(redis)
            else:
                self._show_lines(redis)
        except _Ended:
            # The daemon drains before it ends; what it says last is the sum of it all.
            self._stop("daemon")
            self._look(redis)
            raise

    def _http_address(self) -> str:
        """Where the daemon serves its pages, as its first log line says."""
        _, log = self._parts["daemon"]
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            found = re.search(r'"http":(\d+)', log.read_text())
            if found is not None:
                return f"127.0.0.1:{found[1]}"
            self._check_signals()
            self._check_parts()
            time.sleep(0.02)
        raise _Failed(f"the daemon did not start; its last lines:\n{_last_lines(log)}")

    def _newcomer(self) -> str:
        """A symbol for the user to add, which must not be there already."""
        return next((s for s in ("IBM", "KO", "DIS", "PFE", "GE") if s not in self._symbols), "QQQ")

    def farewell(self, *, is_told: bool) -> int:
        """The summary; the exit code. Only who has ended by himself did so for want of quotes."""
        if not self._past or self._first_quote_s is None:
            print("quotebus demo: ended before the first quote", file=sys.stderr)
            return 0 if is_told else 1
        last = self._past[-1]
        shown_s = last.at_s - self._began_s - self._first_quote_s
        print(
            f"demo ended: {len(last.states)} symbols for {shown_s:.1f} s, first quote shown "
            f"after {self._first_quote_s:.1f} s, received {last.status.get('received', '0')}, "
            f"stored {last.status.get('stored', '0')}, dropped {last.status.get('dropped', '0')}",
            flush=True,
        )
        return 0

    def _show_lines(self, redis: QuickRedis) -> None:
        while True:
            view = self._look(redis)
            if not view.quotes:
                self._pause(PLAIN_EVERY_S)
                continue
            print(line(view), flush=True)
            self._pause(PLAIN_EVERY_S)

    def _show_table(self, redis: QuickRedis) -> None:
        from rich.console import Console
        from rich.live import Live

        from ingestor.commands.demo_table import table

        with Live(console=Console(), auto_refresh=False, screen=False) as live:
            while True:
                view = self._look(redis)
                live.update(table(view, self._first_quote_s), refresh=True)
                self._pause(REFRESH_S)

    def _pause(self, pause_s: float) -> None:
        self._check_signals()
        self._check_parts()
        is_awaited = self._duration_s is not None and self._first_quote_s is None
        if is_awaited and time.monotonic() - self._began_s > FIRST_QUOTE_TIMEOUT_S:
            lines = _last_lines(self._parts["daemon"][1])
            raise _Failed(f"no quote within {FIRST_QUOTE_TIMEOUT_S:g} s; the daemon's last lines:\n{lines}")
        if self._ends_s is not None and time.monotonic() + pause_s >= self._ends_s:
            time.sleep(max(0.0, self._ends_s - time.monotonic()))
            raise _Ended
        # Until the first quote is on the screen, look more often.
        time.sleep(pause_s if self._first_quote_s is not None else min(pause_s, 0.1))

    def _check_parts(self) -> None:
        for name, (process, log) in self._parts.items():
            if process.poll() is not None:
                raise _Failed(f"the {name} ended by itself; its last lines:\n{_last_lines(log)}")

    def _look(self, redis: QuickRedis) -> View:
        keys = self._keys
        members = sorted(m.decode("utf-8", "replace") for m in redis.call("SMEMBERS", keys.symbols))
        shown = [m for m in members if m.isascii()][:MAX_ROWS] or self._symbols[:1]
        replies = redis.call_all(
            ("HGETALL", keys.status),
            ("HMGET", keys.subscriptions, *members) if members else ("PING",),
            ("HMGET", keys.latest, *shown),
            *(("XINFO", "STREAM", keys.stream(symbol)) for symbol in shown),
        )
        status, states, latest, streams = replies[0], replies[1], replies[2], replies[3:]
        view = View(
            at_s=time.monotonic(),
            status={k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in _pairs(status)},
            states={m: _state(raw) for m, raw in zip(members, states, strict=True)} if members else {},
            quotes={s: decode_latest(s, raw) for s, raw in zip(shown, latest, strict=True) if raw},
            totals={s: _added(info) for s, info in zip(shown, streams, strict=True)},
        )
        self._remember(view)
        return view

    def _remember(self, view: View) -> None:
        if view.quotes and self._first_quote_s is None:
            self._first_quote_s = view.at_s - self._began_s
            self._ends_s = None if self._duration_s is None else view.at_s + self._duration_s
        self._past = [old for old in self._past if view.at_s - old.at_s <= RATE_WINDOW_S]
        if self._past:
            view.compare(self._past[0])
        self._past.append(view)

    def _start(
        self, stack: ExitStack, name: str, command: list[str], logs: Path, environment: dict[str, str]
    ) -> None:
        from simulator.redis_server import die_with_parent

        log = logs / f"{name}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("QUOTEBUS_")}
        with log.open("wb") as out:
            # A session of its own: Ctrl-C is for us, who end the parts in order.
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**inherited, **environment},
                cwd=logs,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._parts[name] = (process, log)
        stack.callback(self._stop, name)

    def _stop(self, name: str) -> None:
        process, log = self._parts.pop(name, (None, None))
        if process is None or log is None:
            return
        # One that has only just begun has no handler yet, and ends by our signal: that is no failure of its own.
        good = (0, -signal.SIGTERM) if process.poll() is None else (0,)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode not in good:
            raise _Failed(
                f"the {name} ended with code {process.returncode}; its last lines:\n{_last_lines(log)}"
            )

    def _printed(self, scheme: str) -> str:
        process, log = self._parts["simulator"]
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            for printed in log.read_text().splitlines():
                if printed.startswith(scheme):
                    return printed.strip()
            self._check_signals()
            if process.poll() is not None:
                break
            time.sleep(0.02)
        raise _Failed(f"the simulator did not start; its last lines:\n{_last_lines(log)}")


_QUOTEBUS: Final = [sys.executable, "-c", "from ingestor.entry import main; main()"]


_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _signals_end_it(signals: _Signals) -> Iterator[None]:
    before = {number: signal.signal(number, signals.end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _invitation(port: int, symbol: str, http: str, rest: str) -> str:
    return f"""
Take part from another terminal:
  redis-cli -p {port} SADD quotes:symbols {symbol}                  # subscribe a symbol
  redis-cli -p {port} XREVRANGE quotes:stream:{symbol} + - COUNT 3  # read its stream
  redis-cli -p {port} HGET quotes:latest {symbol}                   # read the cache
Without redis-cli, the same with our own command:
  export QUOTEBUS_REDIS_URL=redis://127.0.0.1:{port}/0
  .venv/bin/quotebus symbols add {symbol}; .venv/bin/quotebus tail {symbol}; .venv/bin/quotebus status
Alpaca's REST calls, from the double:
  curl -H 'APCA-API-KEY-ID: demo' -H 'APCA-API-SECRET-KEY: demo-secret' {rest}/v2/stocks/{symbol}/quotes/latest
The daemon's pages: curl http://{http}/status, /metrics, /readyz. Ctrl-C ends everything.
"""


def _added(info: Any) -> int:
    """How many entries a stream ever had; trimming does not lower it. Before Redis 7.0, how many it has."""
    if not isinstance(info, list):
        return 0
    fields: dict[bytes, Any] = dict(zip(info[::2], info[1::2], strict=True))
    return int(fields[b"entries-added"] if b"entries-added" in fields else fields[b"length"])


def _state(raw: bytes | None) -> str:
    import json

    return str(json.loads(raw)["state"]) if raw else "unseen"


def _pairs(flat: list[Any]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])

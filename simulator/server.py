"""The double itself: a real websocket server that speaks as Alpaca's stock stream does, well or badly.

Decides only when bytes move: when a source may hand over more, and how a fault is carried out on a live
connection. What is answered is `account`'s decision, what is broken `faults`', what is quoted `market`'s or
`tape`'s. Must never know the daemon, Redis, or which client is connected.
"""

import asyncio
import logging
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ingestor.feed.codes import code_of
from ingestor.feed.messages import Encoding, Error
from simulator.account import FEEDS, PATHS, Account, Answer, Session
from simulator.connection import Connection
from simulator.faults import (
    Burst,
    Close,
    Drop,
    Event,
    Garbage,
    HalfOpen,
    Heal,
    Mute,
    Rate,
    RefuseAuth,
    RefuseUpgrade,
    Rule,
    SendError,
)
from simulator.frames import Batch, SimQuote, encode_control
from simulator.market import TEST_SYMBOL, Activity, Market, plausible_symbols
from simulator.script import Arm, BadScript, Line, parse_script
from simulator.settings import SimulatorSettings
from simulator.tape import BadTape, Pace, read_tape

_log: Final = logging.getLogger("simulator")

_MAX_MESSAGE: Final = 4 * 2**20
_MAX_ACTIONS: Final = 100_000
_MAX_CLOSED: Final = 10_000
_CLOSE_TIMEOUT_S: Final = 1.0
_LAST_WORDS_S: Final = 1.0
"""How long a cut client may take to read the error, before its connection is aborted."""
_HALF_OPEN_S: Final = 600.0
"""How long a dead connection is kept before even the double forgets it."""
_POLL_S: Final = 0.05
_MAX_ELAPSED_S: Final = 1.0
_FATAL: Final = frozenset({404, 407})
"""Errors after which the vendor closes by itself."""
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104
_GARBAGE: Final = b'\xc1\xff{"T":'


@dataclass(frozen=True)
class ClientAction:
    """Something a client did, at a monotonic second, and the vendor's error code if it was refused.

    `kind` is upgrade (only when refused; `code` is the HTTP status), connect, auth, subscribe, unsubscribe,
    malformed, timeout or close (`code` is the close code).
    """

    at_s: float
    connection: int
    kind: str
    code: int | None = None
    quotes: tuple[str, ...] = ()
    trades: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClosedConnection:
    """A connection that is over. `clean` means that the client's own close frame arrived; 1006 is none at all."""

    id: int
    feed: str
    code: int
    reason: str
    clean: bool
    at_s: float
    authenticated: bool
    symbols: frozenset[str]
    frames_sent: int
    quotes_sent: int


class AlpacaSimulator:
    """The double, as an async context manager: entering listens, leaving closes every connection with 1001.

    `port` overrides the settings' port; 0 takes a free one. Raises `OSError` when the port is taken, `BadTape` and
    `BadScript` when those files cannot be read. All methods are for the event loop it was entered on.

    `connections` are the live ones and `closed` those that are over, in order of their end; `actions` is the log of
    what clients did. `tape_done` is set when the tape has been handed over, `tape_sent` counts its rows so far, and
    `tape_error` is why it ended early.
    """

    def __init__(self, settings: SimulatorSettings | None = None, *, port: int | None = None) -> None:
        self.settings: Final = settings or SimulatorSettings()
        self.account: Final = Account(self.settings.account)
        self.actions: Final[deque[ClientAction]] = deque(maxlen=_MAX_ACTIONS)
        self.closed: Final[deque[ClosedConnection]] = deque(maxlen=_MAX_CLOSED)
        self.tape_done: Final = asyncio.Event()
        self.tape_sent = 0
        self.tape_error: BadTape | None = None
        self.quotes_made = 0
        self._wanted_port = self.settings.port if port is None else port
        self._port = 0
        self._live: dict[int, Connection] = {}
        self._last_id = 0
        self._server: Server | None = None
        self._group: asyncio.TaskGroup | None = None
        self._sources: list[asyncio.Task[None]] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._pulse = asyncio.Event()
        self._drained = asyncio.Event()
        self._market_wake = asyncio.Event()
        self._market: Market | None = None
        self._activity: Activity | None = None
        self._rate = self.settings.rate
        self._bursts: list[list[float]] = []
        self._muted_until_s = -math.inf
        self._timed: list[Line] = []
        self._begun = False

    # --- life -------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        s = self.settings
        if s.script is not None:
            try:
                script = await asyncio.to_thread(s.script.read_text, encoding="utf-8")
            except UnicodeDecodeError:
                raise BadScript(str(s.script), 1, "not a text", "save it as UTF-8") from None
            self.run_script(script, str(s.script))
        if s.tape is not None:
            # A tape that cannot even begin is told now, not when its symbol is subscribed.
            await asyncio.to_thread(_first_row, s.tape, s.tape_symbol)
        self._server = await serve(
            self._serve,
            s.host,
            self._wanted_port,
            process_request=self._upgrade,
            compression="deflate" if s.compression else None,
            max_size=_MAX_MESSAGE,
            ping_interval=s.ping_interval_s,
            ping_timeout=s.ping_timeout_s,
            close_timeout=_CLOSE_TIMEOUT_S,
            server_header=None,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._sources.append(self._group.create_task(self._run_market()))
        if s.tape is not None:
            self._sources.append(self._group.create_task(self._run_tape(s.tape)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._group is not None
        for source in self._sources:
            source.cancel()
        for timer in self._timers:
            timer.cancel()
        for link in self._live.values():
            if link.severed:
                link.abort()
        self._server.close()
        for _ in range(2):
            try:
                async with asyncio.timeout(3 * _CLOSE_TIMEOUT_S):
                    await self._server.wait_closed()
                    break
            except TimeoutError:
                for link in self._live.values():
                    link.abort()
        if error is None or isinstance(error, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, trace)
        else:
            # The caller's own error goes on as it is, not inside a group.
            await self._group.__aexit__(None, None, None)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def url(self, feed: str = "iex") -> str:
        """The websocket address of a feed; `KeyError` for a feed there is not."""
        host = self.settings.host
        # An address to listen on everywhere is none to connect to.
        host = "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
        return f"ws://{host}:{self._port}{PATHS[feed]}"

    @property
    def connections(self) -> list[Connection]:
        """The live connections, oldest first."""
        return list(self._live.values())

    @property
    def symbols(self) -> frozenset[str]:
        """Every symbol whose quotes some session has subscribed, half-open connections left out."""
        return frozenset().union(*(link.symbols for link in self._live.values() if link.receives))

    async def wait_for(self, predicate: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Return as soon as it holds. Raises `TimeoutError`, with the state of affairs, after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while not predicate():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"not within {timeout_s:g} s; {self.describe()}")
            self._pulse.clear()
            try:
                # The predicate may look at things beyond the simulator: it is asked again in any case.
                async with asyncio.timeout(min(left_s, _POLL_S)):
                    await self._pulse.wait()
            except TimeoutError:
                continue

    def describe(self) -> str:
        """The state of affairs in one line, for messages to humans."""
        live = "; ".join(
            f"#{link.id} {link.feed} {'in' if link.authenticated else 'not in'}, {len(link.symbols)} symbols, "
            f"{link.quotes_sent} quotes in {link.frames_sent} frames, backlog {link.backlog}"
            for link in self._live.values()
        )
        past = ", ".join(f"#{gone.id} {gone.code}" for gone in list(self.closed)[-5:])
        last = ", ".join(f"{a.kind} {a.code or ''}".strip() for a in list(self.actions)[-5:])
        return f"live: {live or 'none'}; closed: {past or 'none'}; last actions: {last or 'none'}"

    # --- data -------------------------------------------------------------------------------------------------

    def send(
        self, quotes: Sequence[SimQuote], *, frame_size: int | None = None, coalesce: bool = False
    ) -> int:
        """Publish these quotes to the sessions that subscribed them, as one frame or `frame_size` to a frame.

        With `coalesce` frames may grow together for a slow client, as the market's do. Returns how many went to the
        session that got most.
        """
        size = frame_size or max(len(quotes), 1)
        return sum(
            self._publish(Batch(quotes[start : start + size]), sealed=not coalesce)
            for start in range(0, len(quotes), size)
        )

    def send_raw(self, frame: bytes | str, *, connection: int | None = None) -> None:
        """Send a frame as it is: bytes as binary, str as text."""
        for link in self._chosen(connection):
            link.push_raw(frame)

    @property
    def rate(self) -> float:
        """Quotes per second of the synthetic market."""
        return self._rate

    @rate.setter
    def rate(self, quotes_per_s: float) -> None:
        self._rate = max(quotes_per_s, 0.0)
        self._market_wake.set()

    def burst(self, count: int, over_s: float = 0.0) -> None:
        """So many synthetic quotes more, within `over_s` seconds."""
        self._bursts.append([float(count), count / over_s if over_s > 0 else math.inf])
        self._market_wake.set()

    # --- faults -----------------------------------------------------------------------------------------------

    def drop(self, *, connection: int | None = None, ghost: bool = True) -> None:
        """Abort connections without a close; with `ghost` their slots stay taken for `ghost_s` seconds."""
        for link in self._chosen(connection):
            link.keeps_ghost = ghost
            link.abort()

    def close(self, code: int = 1000, *, connection: int | None = None) -> None:
        """Close connections properly with this websocket code; their slots are free."""
        for link in self._chosen(connection):
            link.keeps_ghost = False
            link.dying = True
            link.discard()
            link.push_close(code)

    def mute(self, on: bool = True, for_s: float | None = None) -> None:
        """No data for anybody, while connections live and answer; what would have been sent is lost."""
        self._muted_until_s = (
            -math.inf if not on else time.monotonic() + (math.inf if for_s is None else for_s)
        )

    def half_open(self, *, connection: int | None = None) -> None:
        """From here on nothing is read or written, and nothing closed. The slot is a ghost's."""
        now_s = time.monotonic()
        for link in self._chosen(connection):
            link.severed = True
            link.ws.transport.pause_reading()
            if link.ws.keepalive_task is not None:
                link.ws.keepalive_task.cancel()
            link.discard()
            self.account.release(link.id, now_s, clean=False)
            self._later(link.timers, _HALF_OPEN_S, link.abort)
        self._activity = None

    def garbage(self, *, connection: int | None = None) -> None:
        """One frame that no decoder accepts, binary for msgpack and text for JSON."""
        for link in self._chosen(connection):
            link.push_raw(_GARBAGE if link.encoding == "msgpack" else _GARBAGE.decode("latin-1"))

    def error(self, code: int, msg: str | None = None, *, connection: int | None = None) -> None:
        """An error out of the blue; 404 and 407 are followed by the end of the connection."""
        message = Error(code, code_of(code).msg if msg is None else msg)
        for link in self._chosen(connection):
            if code in _FATAL:
                self._cut(link, message)
            else:
                link.push_raw(encode_control(message, link.encoding))

    def arm(self, rule: Rule, times: int | None = None, for_s: float | None = None) -> None:
        """A rule of `simulator.faults` lies in wait, `times` times and `for_s` seconds from its first use."""
        self.account.mischief.arm(rule, times, for_s)

    def refuse(self, code: int, times: int | None = 1, for_s: float | None = None) -> None:
        """The next logins are answered with this error."""
        self.arm(RefuseAuth(code), times, for_s)

    def refuse_upgrade(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        times: int | None = 1,
        for_s: float | None = None,
    ) -> None:
        """The next HTTP upgrades get this status."""
        self.arm(RefuseUpgrade(status, tuple(headers)), times, for_s)

    def heal(self) -> None:
        """Forget all rules, end a mute, exorcise all ghosts."""
        self.account.mischief.heal()
        self.account.exorcise()
        self.mute(on=False)

    def inject(self, event: Event | Arm) -> None:
        """Let one misfortune of a script happen now."""
        match event:
            case Arm(rule, times, for_s):
                self.arm(rule, times, for_s)
            case Drop(ghost):
                self.drop(ghost=ghost)
            case Close(code):
                self.close(code)
            case Mute(on, for_s):
                self.mute(on, for_s)
            case HalfOpen():
                self.half_open()
            case Garbage():
                self.garbage()
            case SendError(code):
                self.error(code)
            case Burst(count, over_s):
                self.burst(count, over_s)
            case Rate(quotes_per_s):
                self.rate = quotes_per_s
            case Heal():
                self.heal()

    def run_script(self, text: str, source: str = "script") -> None:
        """Play a bad-day script beside whatever is playing; times count from the first login, or now if it was.

        Raises `BadScript`.
        """
        for line in parse_script(text, source):
            if line.at_s is None:
                self.inject(line.what)
            elif self._begun:
                self._schedule(line, line.at_s)
            else:
                self._timed.append(line)

    # --- connections ------------------------------------------------------------------------------------------

    def _upgrade(self, ws: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if FEEDS.get(path) not in self.settings.feeds:
            return self._rejection(ws, 404, ())
        if len(self._live) >= self.settings.max_connections:
            return self._rejection(ws, 503, ())
        refusal = self.account.mischief.upgrade(time.monotonic())
        if refusal is not None:
            return self._rejection(ws, refusal.status, refusal.headers)
        return None

    def _rejection(self, ws: ServerConnection, status: int, headers: Iterable[tuple[str, str]]) -> Response:
        self._record(ClientAction(time.monotonic(), 0, "upgrade", status))
        try:
            response = ws.respond(status, "refused\n")
        except ValueError:
            response = Response(status, "Refused", Headers())
        for name, value in headers:
            response.headers[name] = value
        return response

    async def _serve(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        now_s = time.monotonic()
        headers = {name.lower(): value for name, value in ws.request.headers.raw_items()}
        feed = FEEDS[ws.request.path.partition("?")[0]]
        encoding: Encoding = "msgpack" if headers.get("content-type") == "application/msgpack" else "json"
        self._last_id += 1
        session = Session(self.account, self._last_id, feed, encoding, now_s)
        link = Connection(ws, session, self.settings, self._drained.set)
        self._live[link.id] = link
        if self.settings.send_buffer_bytes is not None:
            _bound_send_buffer(ws, self.settings.send_buffer_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(link.write_forever())
                self._reap()
                self._answer(link, session.open(headers, now_s))
                await self._read(link)
                writer.cancel()
        finally:
            self._ended(link)

    async def _read(self, link: Connection) -> None:
        session = link.session
        while True:
            deadline_s = session.deadline_s
            left_s = None if deadline_s is None or link.severed else max(deadline_s - time.monotonic(), 0)
            try:
                async with asyncio.timeout(left_s):
                    raw = await link.ws.recv()
            except TimeoutError:
                overdue = session.expire(time.monotonic())
                if overdue is not None and not link.severed:
                    self._answer(link, overdue)
                continue
            except ConnectionClosed:
                return
            if link.severed:
                continue
            if not session.authenticated:
                self._reap()
            self._answer(link, session.receive(raw, time.monotonic()))

    def _answer(self, link: Connection, answer: Answer) -> None:
        now_s = time.monotonic()
        self._activity = None
        frames = [encode_control(message, link.encoding) for message in answer.messages]
        for frame in frames:
            if answer.delay_s > 0:
                self._later(link.timers, answer.delay_s, partial(link.push_raw, frame))
            else:
                link.push_raw(frame)
        if answer.close_code is not None:
            link.dying = True
            link.push_close(answer.close_code)
        self._record(ClientAction(now_s, link.id, answer.kind, answer.code, answer.quotes, answer.trades))
        if link.authenticated and not self._begun:
            self._begun = True
            for line in self._timed:
                self._schedule(line, line.at_s or 0.0)
            self._timed.clear()
        self._market_wake.set()

    def _reap(self) -> None:
        # A close frame that arrived frees the slot now, before its connection has gone through all motions.
        now_s = time.monotonic()
        for link in self._live.values():
            if link.ws.protocol.close_rcvd is not None:
                self.account.release(link.id, now_s, clean=True)

    def _ended(self, link: Connection) -> None:
        now_s = time.monotonic()
        received = link.ws.protocol.close_rcvd
        clean = received is not None
        for timer in link.timers:
            timer.cancel()
        del self._live[link.id]
        self._activity = None
        self._drained.set()
        self.account.release(link.id, now_s, clean=clean or not link.keeps_ghost)
        code = received.code if received is not None else 1006
        gone = ClosedConnection(
            id=link.id,
            feed=link.feed,
            code=code,
            reason=received.reason if received is not None else "",
            clean=clean,
            at_s=now_s,
            authenticated=link.authenticated,
            symbols=link.symbols,
            frames_sent=link.frames_sent,
            quotes_sent=link.quotes_sent,
        )
        self.closed.append(gone)
        self._record(ClientAction(now_s, link.id, "close", code))

    def _cut(self, link: Connection, message: Error) -> None:
        link.keeps_ghost = False
        link.dying = True
        link.discard()
        link.push_raw(encode_control(message, link.encoding))
        link.push_close(1008)
        self._later(link.timers, _LAST_WORDS_S, link.abort)

    def _chosen(self, connection: int | None) -> list[Connection]:
        return [link for link in self._live.values() if not link.severed and connection in (None, link.id)]

    def _record(self, action: ClientAction) -> None:
        self.actions.append(action)
        self._pulse.set()
        _log.debug("client action: %s", action)

    # --- sources ----------------------------------------------------------------------------------------------

    def _publish(self, batch: Batch, *, sealed: bool) -> int:
        if time.monotonic() < self._muted_until_s:
            return 0
        most = 0
        for link in list(self._live.values()):
            if not link.receives:
                continue
            pushed = link.push(batch, sealed=sealed)
            if pushed < 0:
                _log.warning("connection %d is too slow: 407 at a backlog of %d", link.id, link.backlog)
                self._cut(link, Error(407, code_of(407).msg))
            most = max(most, pushed)
        return most

    async def _run_market(self) -> None:
        s = self.settings
        beat_s = s.coalesce_ms / 1000
        carry = 0.0
        last_s, last_ns = time.monotonic(), time.time_ns()
        while True:
            if self._rate <= 0 and not self._bursts:
                self._market_wake.clear()
                await self._market_wake.wait()
                last_s, last_ns, carry = time.monotonic(), time.time_ns(), 0.0
                if self._rate <= 0 and not self._bursts:
                    continue
            await asyncio.sleep(beat_s)
            now_s, now_ns = time.monotonic(), time.time_ns()
            elapsed_s = min(now_s - last_s, _MAX_ELAPSED_S)
            due = carry + self._rate * elapsed_s + self._from_bursts(elapsed_s)
            count = int(due)
            carry = due - count
            from_ns, last_s, last_ns = min(last_ns, now_ns), now_s, max(last_ns, now_ns)
            span_ns = last_ns - from_ns
            activity = self._active()
            for start in range(0, count, s.frame_size):
                size = min(s.frame_size, count - start)
                quotes = self._the_market().quotes(
                    activity,
                    size,
                    from_ns + span_ns * start // count,
                    from_ns + span_ns * (start + size) // count,
                )
                if not quotes:
                    break
                self.quotes_made += len(quotes)
                self._publish(Batch(quotes), sealed=False)
                if start:
                    await asyncio.sleep(0)

    def _from_bursts(self, elapsed_s: float) -> float:
        due = 0.0
        for burst in self._bursts:
            part = min(burst[0], burst[1] * elapsed_s)
            burst[0] -= part
            due += part
        self._bursts = [burst for burst in self._bursts if burst[0] > 0]
        return due

    def _the_market(self) -> Market:
        if self._market is None:
            s = self.settings
            symbols = s.symbols if s.symbols is not None else plausible_symbols(s.symbol_count, s.seed)
            self._market = Market((*symbols, TEST_SYMBOL), s.seed)
        return self._market

    def _active(self) -> Activity:
        if self._activity is None:
            market = self._the_market()
            wanted: set[str] = set()
            for link in self._live.values():
                if link.receives:
                    live = link.session.live
                    wanted.update(market.symbols[:-1] if live is None else live)
            self._activity = market.activity(wanted)
        return self._activity

    async def _run_tape(self, path: Path) -> None:
        s = self.settings
        try:
            while True:
                rows = read_tape(path, s.tape_symbol)
                first = next(rows)
                await self._until(partial(self._subscribed, first.symbol))
                if s.tape_speed:
                    await self._replay_paced(first, rows, s.tape_speed)
                else:
                    await self._replay_flat_out(first, rows)
                if not s.tape_loop:
                    break
                # A tape of an instant would otherwise begin again and again without anybody else's turn.
                await asyncio.sleep(s.coalesce_ms / 1000)
        except BadTape as error:
            _log.error("the tape ends here: %s", error)
            self.tape_error = error
        self.tape_done.set()
        self._pulse.set()

    async def _replay_paced(self, first: SimQuote, rows: Iterator[SimQuote], speed: float) -> None:
        pace = Pace(first.t_ns, speed, time.monotonic(), time.time_ns(), redate=self.settings.tape_redate)
        batch = [pace.dated(first)]
        for row in rows:
            wait_s = pace.due_s(row.t_ns) - time.monotonic()
            if wait_s > 0 or len(batch) >= self.settings.frame_size:
                self.tape_sent += self._publish(Batch(batch), sealed=False)
                batch = []
                await asyncio.sleep(max(wait_s, 0))
            batch.append(pace.dated(row))
        self.tape_sent += self._publish(Batch(batch), sealed=False)

    async def _replay_flat_out(self, first: SimQuote, rows: Iterator[SimQuote]) -> None:
        size = self.settings.frame_size
        high = min(10 * size, self.settings.max_backlog - size)
        batch = [first]
        while batch:
            # Without a pace there is no time to miss: the tape waits for its readers, and for having any.
            await self._until(self._anyone)
            while any(link.backlog > high for link in self._live.values() if link.receives):
                self._drained.clear()
                await self._drained.wait()
            if not self._anyone():
                continue
            self.tape_sent += self._publish(Batch(batch), sealed=False)
            await asyncio.sleep(0)
            batch = [row for _, row in zip(range(size), rows, strict=False)]

    async def _until(self, predicate: Callable[[], bool]) -> None:
        while not predicate():
            self._market_wake.clear()
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._market_wake.wait()
            except TimeoutError:
                continue

    def _subscribed(self, symbol: str) -> bool:
        for link in self._live.values():
            live = link.session.live
            if link.receives and (live is None or symbol in live):
                return True
        return False

    def _anyone(self) -> bool:
        return any(link.receives and link.session.live != frozenset() for link in self._live.values())

    # --- timers -----------------------------------------------------------------------------------------------

    def _schedule(self, line: Line, after_s: float) -> None:
        def strike() -> None:
            _log.info("script: %s", line.what)
            self.inject(line.what)
            if line.every_s is not None:
                self._schedule(line, line.every_s)

        self._later(self._timers, after_s, strike)

    def _later(self, timers: set[asyncio.TimerHandle], after_s: float, act: Callable[[], None]) -> None:
        def run() -> None:
            timers.discard(handle)
            act()

        handle = asyncio.get_running_loop().call_later(after_s, run)
        timers.add(handle)


def _first_row(path: Path, symbol: str | None) -> SimQuote:
    row = next(read_tape(path, symbol), None)
    if row is None:
        raise BadTape(path, None, "it has a header and no row", "give another tape")
    return row


def _bound_send_buffer(ws: ServerConnection, size: int) -> None:
    ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

"""The double itself: a real websocket server that speaks as Alpaca's stock stream does, well or badly.

Beside it a real HTTP server answers Alpaca's REST calls, out of what the stream quoted.

Decides what a user of the double can do and see, and in which order its parts come to life and end. Must never know
how a part does its work, nor the daemon, Redis, or which client is connected.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from simulator.account import PATHS, Account
from simulator.audience import Audience
from simulator.chronicle import Chronicle, ClientAction, ClosedConnection, RestCall
from simulator.connection import Connection
from simulator.faults import Event, RefuseAuth, RefuseUpgrade, Rule
from simulator.frames import Batch, SimQuote
from simulator.misfortune import Misfortune
from simulator.reception import Reception
from simulator.rest.desk import Desk
from simulator.rest.faults import RefuseRest
from simulator.rest.history import History
from simulator.rest.office import Office
from simulator.rest.record import Record
from simulator.script import Arm, BadScript
from simulator.settings import SimulatorSettings
from simulator.sources import MarketSource, TapeSource
from simulator.tape import BadTape, check_tape

_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104


class AlpacaSimulator:
    """The double, as an async context manager: entering listens, leaving closes every connection with 1001.

    `port` overrides the settings' port; 0 takes a free one. Raises `OSError` when the port is taken, `BadTape` and
    `BadScript` when those files cannot be read. All methods are for the event loop it was entered on.

    `rest_url` is where alpaca-py's REST clients belong, as their `url_override`; `rest_calls` is the log of calls.
    `connections` are the live ones and `closed` those that are over, in order of their end; `actions` is the log of
    what clients did. `tape_done` is set when the tape has been handed over, `tape_sent` counts its rows so far, and
    `tape_error` is why it ended early.
    """

    def __init__(self, settings: SimulatorSettings | None = None, *, port: int | None = None) -> None:
        self.settings: Final = settings or SimulatorSettings()
        self.account: Final = Account(self.settings.account)
        self._wanted_port = self.settings.port if port is None else port
        self._port = 0
        self._chronicle = Chronicle()
        self._record = Record(self.settings.history)
        self._audience = Audience(self._record)
        self._market = MarketSource(self.settings, self._audience, self._record)
        self._tape = TapeSource(self.settings, self._audience)
        self._misfortune = Misfortune(self.account, self._audience, self._market)
        self._reception = Reception(
            self.settings, self.account, self._audience, self._chronicle, self._misfortune.begin
        )
        self._history = History(self._record, self.settings.seed)
        desk = Desk(
            self.settings.account,
            self._history,
            lambda: self._market.symbols,
            self._market.refresh,
            always_open=self.settings.market_hours == "always",
        )
        self._office = Office(desk, self.account, self._chronicle)
        self._rest_port = 0
        self._group: asyncio.TaskGroup | None = None
        self._sources: list[asyncio.Task[None]] = []

    # --- life -------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        s = self.settings
        if s.script is not None:
            self.run_script(await asyncio.to_thread(_script, s.script), str(s.script))
        if s.tape is not None:
            # A tape that cannot even begin is told now, not when its symbol is subscribed.
            first = await asyncio.to_thread(check_tape, s.tape, s.tape_symbol)
            if not s.tape_redate:
                self._history.past_ends_ns = first.t_ns
        self._port = await self._reception.open(self._wanted_port)
        if s.rest_port is not None:
            try:
                self._rest_port = await self._office.open(s.host, s.rest_port)
            except BaseException:
                await self._reception.close()
                raise
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._sources.append(self._group.create_task(self._market.run()))
        if s.tape is not None:
            self._sources.append(self._group.create_task(self._play(s.tape)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        for source in self._sources:
            source.cancel()
        self._misfortune.end()
        await self._office.close()
        await self._reception.close()
        if error is None or isinstance(error, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, trace)
        else:
            # The caller's own error goes on as it is, not inside a group.
            await self._group.__aexit__(None, None, None)

    async def _play(self, tape: Path) -> None:
        await self._tape.run(tape)
        self._chronicle.stir()

    # --- sight ------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def url(self, feed: str = "iex") -> str:
        """The websocket address of a feed; `KeyError` for a feed there is not."""
        return f"ws://{self._host}:{self._port}{PATHS[feed]}"

    @property
    def rest_url(self) -> str:
        """Where REST calls are answered, those to the data host and those to the trading host alike.

        `RuntimeError` when the settings want none.
        """
        if not self._rest_port:
            raise RuntimeError(
                "no REST calls are answered here: give the settings a rest_port, and enter first"
            )
        return f"http://{self._host}:{self._rest_port}"

    @property
    def _host(self) -> str:
        host = self.settings.host
        # An address to listen on everywhere is none to connect to.
        return "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host

    @property
    def connections(self) -> list[Connection]:
        """The live connections, oldest first."""
        return list(self._audience.live.values())

    @property
    def closed(self) -> deque[ClosedConnection]:
        """The latest connections that are over, in order of their end."""
        return self._chronicle.closed

    @property
    def actions(self) -> deque[ClientAction]:
        """The latest of what clients did."""
        return self._chronicle.actions

    @property
    def rest_calls(self) -> deque[RestCall]:
        """The latest REST calls, in order of their arrival."""
        return self._chronicle.calls

    @property
    def symbols(self) -> frozenset[str]:
        """Every symbol whose quotes some session has subscribed, half-open connections left out."""
        return self._audience.symbols

    @property
    def tape_done(self) -> asyncio.Event:
        """Set when the tape has been handed over."""
        return self._tape.done

    @property
    def tape_sent(self) -> int:
        """How many rows of the tape went out."""
        return self._tape.sent

    @property
    def tape_error(self) -> BadTape | None:
        """Why the tape ended early."""
        return self._tape.error

    @property
    def quotes_forgotten(self) -> int:
        """How many quotes REST no longer remembers because there were newer ones (`history` in the settings)."""
        return self._record.forgotten

    @property
    def quotes_made(self) -> int:
        """How many quotes the synthetic market made."""
        return self._market.made

    async def wait_for(self, predicate: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Return as soon as it holds. Raises `TimeoutError`, with the state of affairs, after `timeout_s`."""
        await self._chronicle.wait_for(predicate, timeout_s, self.describe)

    def describe(self) -> str:
        """The state of affairs in one line, for messages to humans."""
        return f"{self._audience.describe()}; {self._chronicle.describe()}"

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
            self._audience.publish(Batch(quotes[start : start + size]), sealed=not coalesce)
            for start in range(0, len(quotes), size)
        )

    def send_raw(self, frame: bytes | str, *, connection: int | None = None) -> None:
        """Send a frame as it is: bytes as binary, str as text."""
        for link in self._audience.chosen(connection):
            link.push_raw(frame)

    def send_wire(self, wire: bytes, *, connection: int | None = None) -> None:
        """Put bytes into the TCP connection as they are: a frame that no library would write."""
        for link in self._audience.chosen(connection):
            link.push_wire(wire)

    @property
    def rate(self) -> float:
        """Quotes per second of the synthetic market."""
        return self._market.rate

    @rate.setter
    def rate(self, quotes_per_s: float) -> None:
        self._market.rate = quotes_per_s

    def burst(self, count: int, over_s: float = 0.0) -> None:
        """So many synthetic quotes more, within `over_s` seconds."""
        self._market.burst(count, over_s)

    # --- faults -----------------------------------------------------------------------------------------------

    def drop(self, *, connection: int | None = None, ghost: bool = True) -> None:
        """Abort connections without a close; with `ghost` their slots stay taken for `ghost_s` seconds."""
        self._misfortune.drop(connection, ghost=ghost)

    def close(self, code: int = 1000, *, connection: int | None = None) -> None:
        """Close connections properly with this websocket code; their slots are free."""
        self._misfortune.close(code, connection)

    def mute(self, on: bool = True, for_s: float | None = None) -> None:
        """No data for anybody, while connections live and answer; what would have been sent is lost."""
        self._misfortune.mute(on, for_s)

    def half_open(self, *, connection: int | None = None) -> None:
        """From here on nothing is read or written, and nothing closed. The slot is a ghost's."""
        self._misfortune.half_open(connection)

    def garbage(self, *, connection: int | None = None) -> None:
        """One frame that no decoder accepts, binary for msgpack and text for JSON."""
        self._misfortune.garbage(connection)

    def half_frame(
        self, quotes: Sequence[SimQuote] = (), *, connection: int | None = None, ghost: bool = True
    ) -> None:
        """The first half of a frame of these quotes, and the end of the TCP connection behind it."""
        self._misfortune.half_frame(quotes, connection, ghost=ghost)

    def compressed(self, size_bytes: int, *, connection: int | None = None) -> None:
        """One frame marked as compressed, which inflates to so many bytes, whatever was negotiated."""
        self._misfortune.compressed(size_bytes, connection)

    def error(self, code: int, msg: str | None = None, *, connection: int | None = None) -> None:
        """An error out of the blue; 404 and 407 are followed by the end of the connection."""
        self._misfortune.error(code, msg, connection)

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

    def refuse_rest(
        self,
        status: int,
        times: int | None = 1,
        for_s: float | None = None,
        *,
        reset_s: float | None = None,
    ) -> None:
        """The next REST calls get this status; a 429 says that calls are allowed again in `reset_s` seconds."""
        self.arm(RefuseRest(status, reset_s), times, for_s)

    def heal(self) -> None:
        """Forget all rules, end a mute, exorcise all ghosts."""
        self._misfortune.heal()

    def inject(self, event: Event | Arm) -> None:
        """Let one misfortune of a script happen now."""
        self._misfortune.inject(event)

    def run_script(self, text: str, source: str = "script") -> None:
        """Play a bad-day script beside whatever is playing; times count from the first login, or now if it was.

        Raises `BadScript`.
        """
        self._misfortune.run_script(text, source)


def _script(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadScript(str(path), 1, "not a text", "save it as UTF-8") from None

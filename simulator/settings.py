"""Everything a user can choose about the simulator, in one place.

Decides defaults and which choices contradict each other. Must never read files, clocks or the environment.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from simulator.account import PATHS, AccountRules
from simulator.market import MAX_SYMBOLS
from wire import BadSymbol, parse_symbol


class BadSettings(ValueError):
    """Choices that cannot be honoured; the message names the remedy."""


@dataclass(frozen=True)
class SimulatorSettings:
    """The choices. Raises `BadSettings` on construction.

    Quotes come from the synthetic market when `rate` (quotes per second) is above 0, from `tape` when one is given,
    and from `AlpacaSimulator.send` in any case. `symbols` is the market's list; None is `symbol_count` plausible
    ones. `tape_speed` is recorded seconds per second, None or 0 as fast as the client takes it; `tape_redate` dates
    the first row to the replay's start. `frame_size` is how many quotes a source hands over at once,
    `max_frame_items` how many a frame may hold when a slow client lets them pile up, `max_backlog` how many may
    pile up before the client is cut with 407. `coalesce_ms` is the synthetic market's beat. `script` is a path of
    a bad-day script. `ping_interval_s` None is no pings; otherwise an answer is due within `ping_timeout_s`.
    `send_buffer_bytes` is the kernel's send buffer per connection, None leaves it to the kernel.

    `rest_port` is where REST calls are answered, 0 any free port, None not at all. `market_hours` is what the REST
    clock says: `always` open, as the quotes come at any hour, or open in the `regular` session only; the stream and
    the history run around the clock in both cases. `history` is how many of the latest quotes of all symbols
    together REST remembers.
    """

    host: str = "127.0.0.1"
    port: int = 0
    rest_port: int | None = 0
    market_hours: Literal["always", "regular"] = "always"
    history: int = 100_000
    feeds: tuple[str, ...] = tuple(PATHS)
    account: AccountRules = field(default_factory=AccountRules)
    symbols: tuple[str, ...] | None = None
    symbol_count: int = 500
    rate: float = 0.0
    seed: int = 0
    tape: Path | None = None
    tape_symbol: str | None = None
    tape_speed: float | None = 1.0
    tape_redate: bool = False
    tape_loop: bool = False
    script: Path | None = None
    frame_size: int = 100
    max_frame_items: int = 1_000
    max_backlog: int = 200_000
    coalesce_ms: float = 10.0
    compression: bool = True
    ping_interval_s: float | None = 20.0
    ping_timeout_s: float = 20.0
    send_buffer_bytes: int | None = None
    max_connections: int = 64

    def __post_init__(self) -> None:
        if not self.feeds:
            raise BadSettings(f"no feed is served: take any of {', '.join(PATHS)}")
        unknown = [feed for feed in self.feeds if feed not in PATHS]
        if unknown:
            raise BadSettings(f"no feed is called {unknown[0]!r}: take any of {', '.join(PATHS)}")
        if not 0 <= self.port <= 65_535:
            raise BadSettings(f"port {self.port} is not a port: take 1 to 65535, or 0 for any free one")
        if self.rest_port is not None and not 0 <= self.rest_port <= 65_535:
            raise BadSettings(
                f"REST port {self.rest_port} is not a port: take 1 to 65535, or 0 for any free one"
            )
        if self.port and self.port == self.rest_port:
            raise BadSettings(
                f"port {self.port} cannot serve both websocket and REST: give another for one of them"
            )
        if self.market_hours not in ("always", "regular"):
            raise BadSettings(f"no market hours are called {self.market_hours!r}: take always or regular")
        if self.history < 0:
            raise BadSettings(f"a history of {self.history} quotes is not possible: take 0 or more")
        try:
            for symbol in self.symbols or ():
                parse_symbol(symbol)
        except BadSymbol as error:
            raise BadSettings(f"{symbol!r} is not a symbol: {error}") from None
        # The market keeps one place for the test feed's symbol.
        if self.symbol_count < 0 or max(self.symbol_count, len(self.symbols or ())) >= MAX_SYMBOLS:
            raise BadSettings(f"too many symbols or less than none: take 0 to {MAX_SYMBOLS - 1}")
        if self.rate < 0 or (self.tape_speed is not None and self.tape_speed < 0):
            raise BadSettings("a rate or a speed is negative: take 0 or more")
        if self.tape_redate and not self.tape_speed:
            raise BadSettings(
                "a tape at full speed cannot be dated to now, its times would run ahead: give a speed"
            )
        if self.tape_loop and self.tape is None:
            raise BadSettings("a loop needs a tape: name one")
        if not 1 <= self.frame_size <= self.max_frame_items <= self.max_backlog:
            raise BadSettings("1 <= frame_size <= max_frame_items <= max_backlog must hold")
        if not 1 <= self.coalesce_ms <= 10_000:
            raise BadSettings(f"coalesce_ms {self.coalesce_ms:g} is out of bounds: take 1 to 10000")

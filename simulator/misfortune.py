"""The bad day carried out: each fault done to live connections, and the script that says when.

Decides how a fault looks on a connection and when a line of a script strikes. Must never know how connections are
accepted; which armed rule meets whom is `faults`' decision, and the grammar `script`'s.
"""

import logging
import time
import zlib
from collections.abc import Sequence
from typing import Final

from websockets.frames import Frame, Opcode

from ingestor.feed.codes import code_of
from ingestor.feed.messages import Error
from simulator.account import Account
from simulator.audience import Audience
from simulator.faults import (
    Burst,
    Close,
    Compressed,
    Drop,
    Event,
    Garbage,
    HalfFrame,
    HalfOpen,
    Heal,
    Mute,
    Rate,
    SendError,
)
from simulator.frames import SimQuote, encode_control, encode_items, join_items
from simulator.script import Arm, Line, parse_script
from simulator.sources import MarketSource
from simulator.timers import Timers

_log: Final = logging.getLogger("simulator")

_HALF_OPEN_S: Final = 600.0
"""How long a dead connection is kept before even the double forgets it."""
_FATAL: Final = frozenset({404, 407})
"""Errors after which the vendor closes by itself."""
_GARBAGE: Final = b'\xc1\xff{"T":'
_TORN: Final = SimQuote("AAPL", 1_763_000_004_123_825_050, 187.12, 300, 187.13, 200)
_ZEROS: Final = bytes(2**20)
_COMPRESSED: Final = 0x40
"""The bit of a frame's first byte that says so (RSV1, RFC 7692)."""


class Misfortune:
    """Does harm at once, or when a script wants it. `connection` is an id, None for every connection."""

    def __init__(self, account: Account, audience: Audience, market: MarketSource) -> None:
        self._account = account
        self._audience = audience
        self._market = market
        self._begun = False
        self._held: list[Line] = []
        self._timers = Timers()

    def drop(self, connection: int | None = None, *, ghost: bool = True) -> None:
        """Abort without a close; with `ghost` the slots stay taken."""
        for link in self._audience.chosen(connection):
            link.keeps_ghost = ghost
            link.abort()

    def close(self, code: int, connection: int | None = None) -> None:
        """Close properly with this websocket code; the slots are free."""
        for link in self._audience.chosen(connection):
            self._audience.dismiss(link, code)

    def half_open(self, connection: int | None = None) -> None:
        """From here on nothing is read or written, and nothing closed. The slot is a ghost's."""
        now_s = time.monotonic()
        for link in self._audience.chosen(connection):
            link.sever()
            self._account.release(link.id, now_s, clean=False)
            link.timers.later(_HALF_OPEN_S, link.abort)
        self._audience.change()

    def garbage(self, connection: int | None = None) -> None:
        """One frame that no decoder accepts."""
        for link in self._audience.chosen(connection):
            link.push_raw(_GARBAGE if link.encoding == "msgpack" else _GARBAGE.decode("latin-1"))

    def half_frame(
        self, quotes: Sequence[SimQuote] = (), connection: int | None = None, *, ghost: bool = True
    ) -> None:
        """The first half of a frame of these quotes, and the end of the connection behind it."""
        for link in self._audience.chosen(connection):
            link.keeps_ghost = ghost
            frame = join_items(encode_items(quotes or (_TORN,), link.encoding), link.encoding)
            wire = _frame(frame.encode() if isinstance(frame, str) else frame)
            link.push_wire(wire[: len(wire) // 2], breaks_off=True)

    def compressed(self, size_bytes: int, connection: int | None = None) -> None:
        """One compressed frame that inflates to so many bytes, whatever was negotiated."""
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        payload = b"".join(deflate.compress(_ZEROS) for _ in range(size_bytes // len(_ZEROS)))
        payload += deflate.compress(_ZEROS[: size_bytes % len(_ZEROS)]) + deflate.flush(zlib.Z_SYNC_FLUSH)
        # The tail of a synchronising flush is left out on the wire (RFC 7692, 7.2.1).
        wire = bytearray(_frame(payload[:-4]))
        # Set here, because the library refuses to write what it would refuse to read.
        wire[0] |= _COMPRESSED
        for link in self._audience.chosen(connection):
            link.push_wire(bytes(wire))

    def error(self, code: int, msg: str | None = None, connection: int | None = None) -> None:
        """An error out of the blue, and the end of the connection if it is a fatal one."""
        message = Error(code, code_of(code).msg if msg is None else msg)
        for link in self._audience.chosen(connection):
            if code in _FATAL:
                self._audience.cut(link, message)
            else:
                link.push_raw(encode_control(message, link.encoding))

    def mute(self, on: bool = True, for_s: float | None = None) -> None:
        """No data for anybody, or data again."""
        if on:
            self._audience.mute(for_s)
        else:
            self._audience.unmute()

    def heal(self) -> None:
        """Forget all rules, end a mute, exorcise all ghosts."""
        self._account.mischief.heal()
        self._account.exorcise()
        self._audience.unmute()

    def inject(self, event: Event | Arm) -> None:
        """Let one misfortune of a script happen now."""
        match event:
            case Arm(rule, times, for_s):
                self._account.mischief.arm(rule, times, for_s)
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
            case HalfFrame(ghost):
                self.half_frame(ghost=ghost)
            case Compressed(size_bytes):
                self.compressed(size_bytes)
            case SendError(code):
                self.error(code)
            case Burst(count, over_s):
                self._market.burst(count, over_s)
            case Rate(quotes_per_s):
                self._market.rate = quotes_per_s
            case Heal():
                self.heal()

    def run_script(self, text: str, source: str) -> None:
        """Play a script beside whatever is playing; its times count from `begin`, or from now if that was."""
        for line in parse_script(text, source):
            if line.at_s is None:
                self.inject(line.what)
            elif self._begun:
                self._schedule(line, line.at_s)
            else:
                self._held.append(line)

    def begin(self) -> None:
        """The first login: from here the times of scripts count. Later ones change nothing."""
        if self._begun:
            return
        self._begun = True
        for line in self._held:
            self._schedule(line, line.at_s or 0.0)
        self._held.clear()

    def end(self) -> None:
        """Nothing of any script strikes any more."""
        self._timers.call_off()

    def _schedule(self, line: Line, after_s: float) -> None:
        def strike() -> None:
            _log.info("script: %s", line.what)
            self.inject(line.what)
            if line.every_s is not None:
                self._schedule(line, line.every_s)

        self._timers.later(after_s, strike)


def _frame(payload: bytes) -> bytes:
    return Frame(Opcode.BINARY, payload).serialize(mask=False)

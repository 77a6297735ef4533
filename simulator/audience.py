"""The live connections as one audience: who hears what, who keeps up, and who is shown out.

Decides to whom a batch goes, when nobody gets any, and that whoever is too slow is cut with 407. Must never know
where quotes come from, what is said in a conversation, or how a connection came about.
"""

import asyncio
import logging
import math
import time
from typing import Final

from ingestor.feed.codes import code_of
from ingestor.feed.messages import Error
from simulator.connection import Connection
from simulator.frames import Batch, encode_control
from simulator.rest.record import Record

_log: Final = logging.getLogger("simulator")

_LAST_WORDS_S: Final = 1.0
"""How long a cut client may take to read the error, before its connection is aborted."""


class Audience:
    """Who listens right now.

    `changed` is set, and `generation` counted up, whenever what somebody wants may have changed; `drained` is set
    whenever a backlog has shrunk. Whoever waits for one of the two clears it before.
    """

    def __init__(self, record: Record) -> None:
        self.live: Final[dict[int, Connection]] = {}
        self.changed: Final = asyncio.Event()
        self.drained: Final = asyncio.Event()
        self.generation = 0
        self._muted_until_s = -math.inf
        self._record = record

    def change(self) -> None:
        """What somebody wants may have changed."""
        self.generation += 1
        self.changed.set()

    def leave(self, link: Connection) -> None:
        """This connection is over."""
        del self.live[link.id]
        self.change()
        self.drained.set()

    def chosen(self, connection: int | None) -> list[Connection]:
        """The connection of this id, or all for None; half-open ones are out of reach."""
        return [link for link in self.live.values() if not link.severed and connection in (None, link.id)]

    @property
    def symbols(self) -> frozenset[str]:
        """Every symbol whose quotes some session has subscribed."""
        return frozenset().union(*(link.symbols for link in self.live.values() if link.receives))

    def wants(self, symbol: str) -> bool:
        """Whether quotes of this symbol would reach anybody."""
        for link in self.live.values():
            wanted = link.session.live
            if link.receives and (wanted is None or symbol in wanted):
                return True
        return False

    def wants_any(self) -> bool:
        """Whether quotes of any symbol would reach anybody."""
        return any(link.receives and link.session.live != frozenset() for link in self.live.values())

    def lags(self, backlog: int) -> bool:
        """Whether more quotes than this wait for some listener."""
        return any(link.backlog > backlog for link in self.live.values() if link.receives)

    def mute(self, for_s: float | None = None) -> None:
        """From now on nobody gets anything, for so long or until `unmute`."""
        self._muted_until_s = time.monotonic() + (math.inf if for_s is None else for_s)

    def unmute(self) -> None:
        """From now on everybody gets what they want."""
        self._muted_until_s = -math.inf

    def publish(self, batch: Batch, *, sealed: bool) -> int:
        """Give everybody what they want of it; returns how many quotes went to the session that got most."""
        # Whatever the stream withholds was quoted all the same.
        self._record.note(batch.symbols, batch.quotes)
        if time.monotonic() < self._muted_until_s:
            return 0
        most = 0
        for link in list(self.live.values()):
            if not link.receives:
                continue
            pushed = link.push(batch, sealed=sealed)
            if pushed < 0:
                _log.warning("connection %d is too slow: 407 at a backlog of %d", link.id, link.backlog)
                self.cut(link, Error(407, code_of(407).msg))
            most = max(most, pushed)
        return most

    def cut(self, link: Connection, message: Error) -> None:
        """End a connection with an error as its last words."""
        self.dismiss(link, 1008, encode_control(message, link.encoding))
        link.timers.later(_LAST_WORDS_S, link.abort)

    def dismiss(self, link: Connection, code: int, last_words: bytes | str | None = None) -> None:
        """Close a connection properly with this websocket code; what waits for it is forgotten, its slot free."""
        link.keeps_ghost = False
        link.dying = True
        link.discard()
        if last_words is not None:
            link.push_raw(last_words)
        link.push_close(code)

    def describe(self) -> str:
        """Who listens, for messages to humans."""
        live = "; ".join(
            f"#{link.id} {link.feed} {'in' if link.authenticated else 'not in'}, {len(link.symbols)} symbols, "
            f"{link.quotes_sent} quotes in {link.frames_sent} frames, backlog {link.backlog}"
            for link in self.live.values()
        )
        return f"live: {live or 'none'}"

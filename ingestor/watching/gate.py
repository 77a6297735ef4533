"""Stands before the HTTP pages: so many visitors at a time, nobody for long, and nothing that is no request.

Decides when a visit is over. Must never know how a page is made. Bytes go on only when they are the whole head of a
request that may be answered; whatever else comes is answered here, counted, and told at most once a minute. Pages
that hold one word at all times are answered here too, in the turn of the event loop in which they are asked for:
made by a task, they would wait for several turns of a loop that has much to do.
"""

import asyncio
import ipaddress
import resource
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, cast

from ingestor.watching.places import MOST, Places, places_within
from ingestor.watching.request_head import END, MAX_BYTES, TOO_LARGE, HostNames, Refusal, answer, examine

FIRST_BYTE_S: Final = 1.0
HEAD_S: Final = 3.0
"""From the connection to the end of the request's head, in however many pieces it comes."""
VISIT_S: Final = 10.0
"""From the connection to its end, whatever happens in between; a page takes milliseconds."""
TELL_EVERY_S: Final = 60.0


class Gate:
    """A factory of protocols, to be given to `create_server` in place of the one that it guards."""

    def __init__(
        self,
        guarded: Callable[[], asyncio.Protocol],
        names: HostNames,
        tell: Callable[[dict[str, int]], None],
        words: Mapping[str, str],
    ) -> None:
        self.guarded: Final = guarded
        self.names: Final = names
        self.words: Final = words
        """Pages of one word, by their path."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.places: Final = Places["Visit"](
            MOST if limit == resource.RLIM_INFINITY else places_within(limit)
        )
        self._tell: Final = tell
        self._untold: Final[Counter[str]] = Counter()
        self._pause: asyncio.TimerHandle | None = None

    def __call__(self) -> "Visit":
        """The protocol of a new connection."""
        return Visit(self)

    def count(self, reason: str) -> None:
        """One more was sent away: told at once, and then not for a while."""
        self._untold[reason] += 1
        if self._pause is None:
            self._tell_now()

    def close(self) -> None:
        """No more is told."""
        if self._pause is not None:
            self._pause.cancel()

    def _tell_now(self) -> None:
        self._pause = None
        if self._untold:
            self._tell(dict(sorted(self._untold.items())))
            self._untold.clear()
            self._pause = asyncio.get_running_loop().call_later(TELL_EVERY_S, self._tell_now)


class Visit(asyncio.Protocol):
    """One connection: hands a request on, and ends the visit when its time is over."""

    def __init__(self, gate: Gate) -> None:
        self._gate: Final = gate
        self._transport: asyncio.Transport | None = None
        self._inner: asyncio.Protocol | None = None
        self._head = bytearray()
        self._is_over = False
        self._limits: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports have the interface without inheriting it.
        self._transport = cast("asyncio.Transport", transport)
        evicted = self._gate.places.enter(self, is_local=_is_local(transport.get_extra_info("peername")))
        if evicted is not None:
            evicted.end("no_place")
        if evicted is not self:
            later = asyncio.get_running_loop().call_later
            self._limits = [
                later(FIRST_BYTE_S, self._end_if_silent),
                later(HEAD_S, self._end_if_slow),
                later(VISIT_S, self.end, "too_long"),
            ]

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._is_over = True
        self._gate.places.leave(self)
        for limit in self._limits:
            limit.cancel()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. What comes behind a whole head is left aside: each visit gets one answer."""
        if self._is_over or self._inner is not None:
            return
        # Empty lines before a request are to be passed over (RFC 9112, 2.2).
        self._head += data if self._head else data.lstrip(b"\r\n")
        end = self._head.find(END, 0, MAX_BYTES)
        if end >= 0:
            head = bytes(self._head[: end + len(END)])
            found = examine(head, self._gate.names)
            if isinstance(found, Refusal):
                self._refuse(found)
            else:
                self._hand_on(found)
        elif len(self._head) >= MAX_BYTES:
            self._refuse(TOO_LARGE)

    def eof_received(self) -> bool:
        """Called by asyncio. Whoever has asked, and sends no more (`nc -N`), still waits for the answer."""
        return self._inner is not None

    def pause_writing(self) -> None:
        """Called by asyncio."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        if self._inner is not None:
            self._inner.resume_writing()

    def end(self, reason: str) -> None:
        """End it without an answer, and count why."""
        if not self._is_over and self._transport is not None:
            self._is_over = True
            self._gate.count(reason)
            self._transport.abort()

    def _end_if_silent(self) -> None:
        if not self._head:
            self.end("silent")

    def _end_if_slow(self) -> None:
        if self._inner is None:
            self.end("slow")

    def _hand_on(self, head: bytes) -> None:
        assert self._transport is not None
        self._gate.places.has_asked(self)
        method, target, _ = head.decode("ascii").split(" ", 2)
        word = self._gate.words.get(target.partition("?")[0])
        if word is not None:
            self._answer(answer("200 OK", word, has_body=method == "GET"))
            return
        self._inner = self._gate.guarded()
        self._inner.connection_made(self._transport)
        self._inner.data_received(head)

    def _refuse(self, refusal: Refusal) -> None:
        self._gate.count(refusal.counted_as)
        self._answer(refusal.response())

    def _answer(self, whole: bytes) -> None:
        assert self._transport is not None
        self._is_over = True
        self._transport.write(whole)
        self._transport.close()


def _is_local(peer: object) -> bool:
    if not isinstance(peer, tuple):
        # A socket of the file system has no other end than this machine.
        return True
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)

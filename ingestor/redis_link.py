"""One Redis connection for the hot path: bytes out, replies to a callback, in order.

Decides how a connection opens and ends. Must never know what the commands mean. redis-py's asyncio connection costs
several times as much per round trip and retries on its own; here a reply reaches its owner within the event loop's
read callback, and nothing is ever sent twice behind its back. The control plane uses redis-py as usual.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from ingestor.login import Login
from ingestor.resp import pack
from wire.redis.answers import FULL, lacks_command, unusable_kind
from wire.redis.tls import client_context, explain
from wire.redis.url import (
    NOT_ANSWERED,
    SPEAKS_TLS,
    TLS_ALERT,
    BadRedisUrl,
    RedisUrl,
    explain_end,
    parse_redis_url,
)

CONNECT_TIMEOUT_S: Final = 2.0
TIMEOUT_S: Final = 2.0
"""Where the URL has no others."""

Reply = Any
"""What hiredis returns: bytes, int, list or None; and a `hiredis.ReplyError`, as a value, for an error reply."""


class LinkFailure(Exception):
    """The connection could not be opened, or is gone."""


class WrongServer(LinkFailure):
    """What answers is a server of a kind that cannot hold the bus; the message says why, and what to use."""


class RedisLink(asyncio.Protocol):
    """An open connection. Replies go to `on_reply` in the order of the commands."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self.has_answered = False
        self._handshake: list[asyncio.Future[Reply]] = []
        self.on_reply: Callable[[Reply], None] = self._on_handshake_reply
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def send(self, command: bytes) -> None:
        """Hand packed commands to the socket; when the connection is ending, nothing happens."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(command)

    async def call(self, *parts: str | bytes | int) -> Reply:
        """One command and its reply, before `on_reply` is taken over; `LinkFailure` if the connection ends."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._handshake.append(reply)
        self.send(pack(*parts))
        await asyncio.wait((reply, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            raise LinkFailure(self.closed.result())
        return reply.result()

    def abort(self, reason: str) -> None:
        """End it now; what is unanswered stays unanswered."""
        if not self.closed.done():
            self.closed.set_result(reason)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports have the interface without inheriting it.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self.has_answered = True
        self._reader.feed(data)
        try:
            while not self.closed.done() and (reply := self._reader.gets()) is not False:
                self.on_reply(reply)
        except hiredis.ProtocolError as error:
            self.abort(SPEAKS_TLS if data.startswith(TLS_ALERT) else f"not the Redis protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if not self.closed.done():
            said = explain(exc) or f"{type(exc).__name__}: {exc}" if exc else "closed by the server"
            self.closed.set_result(said)

    def _on_handshake_reply(self, reply: Reply) -> None:
        if not self._handshake:
            # Redis speaks unasked when it will not have us: too many clients, or protected mode.
            self.abort(f"unasked: {reply}")
            return
        future = self._handshake.pop(0)
        if not future.done():
            future.set_result(reply)


class RedisAddress:
    """Where Redis is and who we are there, as `wire.redis.url` reads it from a URL.

    `read_again` gives the URL as it stands now, or raises `LinkFailure`. It is asked before a connection when the
    last one failed or ended (`doubt`), or the login was refused, so that a rotated password, a new certificate and
    a primary at another place need no restart; the database stays. Raises `BadRedisUrl`.
    """

    def __init__(self, url: str, read_again: Callable[[], str] | None = None) -> None:
        self._url = parse_redis_url(url)
        self._read_again = read_again
        self._in_doubt = False
        self.login: Final = Login(self._url.user, self._url.password)
        self.generation = 0
        """A connection that was opened under an earlier one may lead to a server that has been replaced."""

    def __repr__(self) -> str:
        return str(self._url)

    @property
    def url(self) -> RedisUrl:
        """Where Redis is now, for the connection that is made next."""
        return self._url

    @property
    def timeout_s(self) -> float:
        """How long an answer may take."""
        return self._url.timeout_s or TIMEOUT_S

    @property
    def connect_timeout_s(self) -> float:
        """How long connecting may take, with handshake and login."""
        return self._url.connect_timeout_s or CONNECT_TIMEOUT_S

    def renew(self) -> None:
        """The hot path has a new connection: whoever has an older one to this address should open another, for
        behind a proxy or a name it may lead to a primary that is one no more, and still answers."""
        self.generation += 1

    def doubt(self) -> None:
        """A connection failed, ended, or led to a server that will not serve: it may be elsewhere by now."""
        self._in_doubt = True

    def check(self) -> None:
        """Before a connection: `LinkFailure` when Redis has refused this login and may not be asked again yet."""
        if self._read_again is not None and (self._in_doubt or self.login.refusal is not None):
            self._look_again(self._read_again)
        if refusal := self.login.hinders(time.monotonic()):
            raise LinkFailure(refusal)

    def note_refusal(self, password: str | None, refusal: str) -> None:
        """Redis refused a login with this password."""
        self.login.refused(password, f"{self!r}: authentication refused: {refusal}", time.monotonic())

    def _look_again(self, read_again: Callable[[], str]) -> None:
        try:
            url = parse_redis_url(read_again())
        except BadRedisUrl as problem:
            raise LinkFailure(str(problem)) from None
        if url.db != self._url.db:
            raise LinkFailure(
                f"the Redis URL names database {url.db} now, and this daemon writes {self._url.db}: "
                "restart it, or set that back"
            )
        self._in_doubt = False
        self.login.change(url.user, url.password)
        has_moved = (url.place, url.tls) != (self._url.place, self._url.tls)
        self._url = url
        if has_moved:
            self.renew()

    async def open(self, client_name: str) -> RedisLink:
        """Connect, authenticate, select; `LinkFailure` with the reason if any of it fails in time."""
        try:
            self.check()
            async with asyncio.timeout(self.connect_timeout_s):
                link = await self._connect(self._url)
                try:
                    await self._introduce(link, client_name)
                except BaseException as error:
                    link.abort("handshake failed")
                    if isinstance(error, LinkFailure) and not link.has_answered:
                        raise LinkFailure(f"{self!r}: {explain_end(self._url)} ({error})") from None
                    raise
        except LinkFailure:
            self.doubt()
            raise
        except BadRedisUrl as problem:
            self.doubt()
            raise LinkFailure(str(problem)) from None
        except TimeoutError:
            self.doubt()
            hint = f"; {NOT_ANSWERED}" if self._url.tls is not None else ""
            raise LinkFailure(f"{self!r} did not answer within {self.connect_timeout_s:g} s{hint}") from None
        except OSError as error:
            self.doubt()
            raise LinkFailure(f"{self!r}: {explain(error) or error}") from None
        return link

    async def _connect(self, url: RedisUrl) -> RedisLink:
        loop = asyncio.get_running_loop()
        if url.path:
            _, link = await loop.create_unix_connection(RedisLink, url.path)
            return link
        tls = client_context(url.tls) if url.tls is not None else None
        transport, link = await loop.create_connection(RedisLink, url.host, url.port, ssl=tls)
        if url.keepalive:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return link

    async def _introduce(self, link: RedisLink, client_name: str) -> None:
        user, password = self.login.user, self.login.password
        if password is not None:
            self._expect_login(password, await link.call("AUTH", *([user] if user else []), password))
        named = await link.call("CLIENT", "SETNAME", client_name)
        if str(named).startswith("NOAUTH"):
            self._expect_login(password, named)
        elif not (str(named).startswith("NOPERM") or lacks_command(str(named))):
            # The name is for eyes in CLIENT LIST, and a right that a user need not have.
            _expect(named, "CLIENT SETNAME")
        # Before the database is selected, which a node of a cluster refuses in words that explain nothing.
        hello = await link.call("HELLO")
        if str(hello).startswith("NOAUTH"):
            self._expect_login(password, hello)
        if (problem := unusable_kind(hello)) is not None:
            raise WrongServer(problem)
        if self._url.db:
            _expect(await link.call("SELECT", self._url.db), "SELECT")
        self.login.accepted()

    def _expect_login(self, password: str | None, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            if FULL in str(reply):
                # It answers so whatever it is asked first, and says nothing of the login.
                raise LinkFailure(str(reply))
            self.note_refusal(password, str(reply))
            raise LinkFailure(self.login.refusal or str(reply))


def _expect(reply: Reply, step: str) -> None:
    if isinstance(reply, hiredis.ReplyError):
        raise LinkFailure(f"{step} refused: {reply}")

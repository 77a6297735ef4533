"""One Redis connection for the hot path: bytes out, replies to a callback, in order.

Decides how a connection opens and ends. Must never know what the commands mean. redis-py's asyncio connection costs
several times as much per round trip and retries on its own; here a reply reaches its owner within the event loop's
read callback, and nothing is ever sent twice behind its back. The control plane uses redis-py as usual.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from ingestor.login import Login
from ingestor.resp import pack
from wire.redis.answers import lacks_command, unusable_kind

CONNECT_TIMEOUT_S: Final = 2.0

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
        self._reader.feed(data)
        try:
            while not self.closed.done() and (reply := self._reader.gets()) is not False:
                self.on_reply(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"not the Redis protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if not self.closed.done():
            self.closed.set_result(f"{type(exc).__name__}: {exc}" if exc else "closed by the server")

    def _on_handshake_reply(self, reply: Reply) -> None:
        if not self._handshake:
            # Redis speaks unasked when it will not have us: too many clients, or protected mode.
            self.abort(f"unasked: {reply}")
            return
        future = self._handshake.pop(0)
        if not future.done():
            future.set_result(reply)


class RedisAddress:
    """Where Redis is and who we are there, from a `redis://`, `rediss://` or `unix://` URL.

    `read_again` gives the URL as it stands now, or raises `LinkFailure`; it is asked after Redis has refused the
    login, and user and password are taken from it. Where Redis is stays as it was.
    """

    def __init__(self, url: str, read_again: Callable[[], str] | None = None) -> None:
        self._options: dict[str, Any] = dict(parse_url(url))
        self._read_again = read_again
        self.login: Final = Login(self._options.pop("username", None), self._options.pop("password", None))
        self.generation = 0
        """A connection that was opened under an earlier one may lead to a server that has been replaced."""

    def __repr__(self) -> str:
        where = self._options.get("path") or (
            f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"
        )
        return f"{where}/{self._options.get('db', 0)}"

    @property
    def options(self) -> Mapping[str, Any]:
        """Where Redis is, as redis-py's connections want to be told."""
        return self._options

    def renew(self) -> None:
        """The hot path has a new connection: whoever has an older one to this address should open another, for
        behind a proxy or a name it may lead to a primary that is one no more, and still answers."""
        self.generation += 1

    def check_login(self) -> None:
        """Before a connection: `LinkFailure` when Redis has refused this login and may not be asked again yet."""
        if self.login.refusal is not None and self._read_again is not None:
            options = parse_url(self._read_again())
            self.login.change(options.get("username"), options.get("password"))
        if refusal := self.login.hinders(time.monotonic()):
            raise LinkFailure(refusal)

    def note_refusal(self, password: str | None, refusal: str) -> None:
        """Redis refused a login with this password."""
        self.login.refused(password, f"{self!r}: authentication refused: {refusal}", time.monotonic())

    async def open(self, client_name: str) -> RedisLink:
        """Connect, authenticate, select; `LinkFailure` with the reason if any of it fails in time."""
        self.check_login()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                link = await self._connect()
                try:
                    await self._introduce(link, client_name)
                except BaseException:
                    link.abort("handshake failed")
                    raise
        except TimeoutError:
            raise LinkFailure(f"{self!r} did not answer within {CONNECT_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise LinkFailure(f"{self!r}: {error}") from None
        return link

    async def _connect(self) -> RedisLink:
        loop = asyncio.get_running_loop()
        options = self._options
        if options.get("connection_class") is UnixDomainSocketConnection:
            _, link = await loop.create_unix_connection(RedisLink, options["path"])
            return link
        tls = _tls(options) if options.get("connection_class") is SSLConnection else None
        host, port = options.get("host", "localhost"), int(options.get("port", 6379))
        _, link = await loop.create_connection(RedisLink, host, port, ssl=tls)
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
        if self._options.get("db"):
            _expect(await link.call("SELECT", int(self._options["db"])), "SELECT")
        self.login.accepted()

    def _expect_login(self, password: str | None, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self.note_refusal(password, str(reply))
            raise LinkFailure(self.login.refusal or str(reply))


def _expect(reply: Reply, step: str) -> None:
    if isinstance(reply, hiredis.ReplyError):
        raise LinkFailure(f"{step} refused: {reply}")


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if str(options.get("ssl_cert_reqs", "required")).lower() == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

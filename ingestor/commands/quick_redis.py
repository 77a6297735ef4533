"""A blocking Redis connection that is ready in a few milliseconds, for commands that ask one question.

Decides how to connect, and says in one sentence why it could not. Must never be used by the daemon. Importing
redis-py takes longer than such a command may take as a whole.
"""

import socket
import ssl
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from ingestor.resp import pack

TIMEOUT_S: Final = 3.0
DEFAULT_URL: Final = "redis://127.0.0.1:6379/0"


class RedisProblem(Exception):
    """Redis cannot be asked, or refuses; the message is for the user and holds no password."""


class QuickRedis:
    """One connection; a context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise RedisProblem("the Redis URL must begin with redis://, rediss:// or unix://")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            port = parts.port or 6379
        except ValueError:
            raise RedisProblem("the Redis URL has no usable port") from None
        self._unix = parts.path if parts.scheme == "unix" else None
        self._host, self._port = parts.hostname or "localhost", port
        self._tls = parts.scheme == "rediss"
        self._tls_options = query
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        database = query.get("db", parts.path.strip("/") if not self._unix else "") or "0"
        if not database.isdigit():
            raise RedisProblem(f"the Redis URL names database {database!r}; a database is a number")
        self._database = int(database)
        self._reader = hiredis.Reader()
        self._socket: socket.socket | None = None

    def __repr__(self) -> str:
        return f"{self._unix or f'{self._host}:{self._port}'}/{self._database}"

    def __enter__(self) -> Self:
        try:
            self._socket = self._connect()
        except OSError as error:
            raise RedisProblem(
                f"Redis at {self!r} cannot be reached ({error.strerror or error}); "
                "is it running, and is QUOTEBUS_REDIS_URL right?"
            ) from None
        try:
            if self._password is not None:
                self.call("AUTH", *([self._user] if self._user else []), self._password)
            if self._database:
                self.call("SELECT", self._database)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def call(self, *parts: str | bytes | int) -> Any:
        """One command and its reply; `RedisProblem` for an error reply or a lost connection."""
        (reply,) = self.call_all(parts)
        if isinstance(reply, hiredis.ReplyError):
            raise RedisProblem(f"Redis at {self!r} refuses {parts[0]!s}: {reply}")
        return reply

    def call_all(self, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        """Several commands in one round trip; an error reply stands among the replies as a value."""
        assert self._socket is not None, "enter the context first"
        try:
            self._socket.sendall(b"".join(pack(*command) for command in commands))
            return [self._read() for _ in commands]
        except TimeoutError:
            raise RedisProblem(f"Redis at {self!r} did not answer within {TIMEOUT_S:g} s") from None
        except OSError as error:
            raise RedisProblem(f"Redis at {self!r}: {error.strerror or error}") from None

    def _read(self) -> Any:
        assert self._socket is not None
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise RedisProblem(f"Redis at {self!r} closed the connection")
            self._reader.feed(data)
        return reply

    def _connect(self) -> socket.socket:
        if self._unix is not None:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(TIMEOUT_S)
            link.connect(self._unix)
            return link
        link = socket.create_connection((self._host, self._port), TIMEOUT_S)
        if not self._tls:
            return link
        context = ssl.create_default_context(cafile=self._tls_options.get("ssl_ca_certs"))
        if self._tls_options.get("ssl_cert_reqs", "required").lower() == "none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(link, server_hostname=self._host)

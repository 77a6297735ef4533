"""A blocking Redis connection that is ready in a few milliseconds, for commands that ask one question.

Decides how to connect, and says in one sentence why it could not. Must never be used by the daemon. Importing
redis-py takes longer than such a command may take as a whole.
"""

import socket
from types import TracebackType
from typing import Any, Final, Self

import hiredis

from ingestor.resp import pack
from wire.redis.answers import CLUSTER_NODE, disabled, lacks_command, tells_of_cluster, unusable_kind
from wire.redis.url import (
    NOT_ANSWERED,
    SPEAKS_TLS,
    TLS_ALERT,
    BadRedisUrl,
    RedisUrl,
    explain_end,
    parse_redis_url,
)

TIMEOUT_S: Final = 3.0
DEFAULT_URL: Final = "redis://127.0.0.1:6379/0"


class RedisProblem(Exception):
    """Redis cannot be asked, or refuses; the message is for the user and holds no password.

    `exit_code` is 2 when it is the address that has to be mended, else 1.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class QuickRedis:
    """One connection; a context manager. Raises `RedisProblem`."""

    def __init__(self, url: str) -> None:
        try:
            self._url: RedisUrl = parse_redis_url(url)
        except BadRedisUrl as problem:
            raise RedisProblem(str(problem), 2) from None
        self._timeout_s = self._url.timeout_s or TIMEOUT_S
        self._reader = hiredis.Reader()
        self._has_answered = False
        self._socket: socket.socket | None = None

    def __repr__(self) -> str:
        return str(self._url)

    def __enter__(self) -> Self:
        try:
            self._socket = self._connect()
        except BadRedisUrl as problem:
            raise RedisProblem(str(problem), 2) from None
        except TimeoutError:
            raise self._unreachable("it did not answer in time") from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error), error) from None
        try:
            self._introduce()
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
            raise self._refused(str(parts[0]), str(reply))
        return reply

    def call_all(self, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        """Several commands in one round trip; an error reply stands among the replies as a value."""
        assert self._socket is not None, "enter the context first"
        try:
            self._socket.sendall(b"".join(pack(*command) for command in commands))
            return [self._read() for _ in commands]
        except TimeoutError:
            raise RedisProblem(f"Redis at {self!r} did not answer within {self._timeout_s:g} s") from None
        except OSError as error:
            raise self._ended(error.strerror or str(error), error) from None
        except hiredis.ProtocolError as error:
            raise RedisProblem(f"what answers at {self!r} is not Redis ({error})", 2) from None

    def _introduce(self) -> None:
        url = self._url
        if url.password is not None:
            self.call("AUTH", *([url.user] if url.user else []), url.password)
        # Before the database is selected, which a node of a cluster refuses in words that explain nothing.
        (hello,) = self.call_all(("HELLO",))
        if (problem := unusable_kind(hello)) is not None:
            raise RedisProblem(f"Redis at {self!r} cannot be used: {problem}", 2)
        if url.db:
            self.call("SELECT", url.db)

    def _refused(self, command: str, refusal: str) -> RedisProblem:
        if tells_of_cluster(refusal):
            return RedisProblem(f"Redis at {self!r} cannot be used: {CLUSTER_NODE}", 2)
        if lacks_command(refusal):
            return RedisProblem(f"Redis at {self!r}: {disabled({command: 'this command of quotebus'})}")
        return RedisProblem(f"Redis at {self!r} refuses {command}: {refusal}")

    def _unreachable(self, reason: str, error: OSError | None = None) -> RedisProblem:
        said = _explain(error) if error is not None else NOT_ANSWERED if self._url.tls else None
        if said is not None:
            return RedisProblem(f"Redis at {self!r} cannot be used: {said}")
        return RedisProblem(
            f"Redis at {self!r} cannot be reached ({reason}); is it running, and is its URL right "
            "(--redis-url, else QUOTEBUS_REDIS_URL)?"
        )

    def _read(self) -> Any:
        assert self._socket is not None
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise self._ended("it closed the connection")
            if not self._has_answered and data.startswith(TLS_ALERT):
                raise RedisProblem(f"Redis at {self!r}: {SPEAKS_TLS}")
            self._has_answered = True
            self._reader.feed(data)
        return reply

    def _ended(self, reason: str, error: OSError | None = None) -> RedisProblem:
        said = _explain(error) if error is not None else None
        if said is None and not self._has_answered:
            said = f"{explain_end(self._url)} ({reason})"
        return RedisProblem(f"Redis at {self!r}: {said or reason}")

    def _connect(self) -> socket.socket:
        url = self._url
        connect_timeout_s = url.connect_timeout_s or TIMEOUT_S
        if url.path:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.settimeout(connect_timeout_s)
                link.connect(url.path)
            except BaseException:
                link.close()
                raise
        else:
            tls = None
            if url.tls is not None:
                # Importing it takes as long as everything else together.
                from wire.redis.tls import client_context

                tls = client_context(url.tls)
            link = socket.create_connection((url.host, url.port), connect_timeout_s)
            if url.keepalive:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if tls is not None:
                link = tls.wrap_socket(link, server_hostname=url.host)
        link.settimeout(self._timeout_s)
        return link


def _explain(error: OSError) -> str | None:
    """What a failed handshake means; None when there was none."""
    if type(error).__module__ != "ssl":
        return None
    from wire.redis.tls import explain

    return explain(error)

"""When to try Redis again, when there is no point, and how loudly that is told.

Decides from an error, a count and a time. Must never sleep, connect, read a clock or draw a random number: seconds
and the chance are arguments.
Error codes as Redis sends them: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors.
"""

import logging
import math
import os
import re
from dataclasses import dataclass
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004
    MasterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
    TryAgainError,
)

from consumers.arguments import NO_LIMIT, check_waits, is_count
from wire.redis.answers import CLUSTER_NODE, disabled, lacks_command, tells_of_cluster

_PASSING_CODES = (
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "UNBLOCKED",
    "NOREPLICAS",
)


WARN_EVERY_S: Final = 60.0
_ERRNO: Final = re.compile(r"\[Errno (-?\d+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """How a reader comes back after it lost Redis.

    The wait before attempt k is `first_delay_s * factor**(k-1)`, at most `max_delay_s`, less a random part of up
    to `jitter` of it, so that a hundred strategies do not return in the same instant. `attempts` in a row that
    fail end the iteration with `BusUnavailable`; None, the default, tries for ever: a strategy that stops
    reading on its own is seldom what its owner wants, and every attempt is logged. Raises `ValueError` for a
    setting that is out of range.
    """

    first_delay_s: float = 0.1
    max_delay_s: float = 5.0
    factor: float = 2.0
    jitter: float = 0.5
    attempts: int | None = None

    def __post_init__(self) -> None:
        check_waits(self.first_delay_s, self.max_delay_s, self.factor, self.jitter)
        if self.attempts is not None and not is_count(self.attempts, 0):
            raise ValueError(f"attempts={self.attempts!r}: take 0 or more{NO_LIMIT}")

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds to wait before this attempt (1 is the first); `chance` is a random number in [0, 1)."""
        # The exponent is bounded because a night of attempts would overflow a float.
        full = min(self.max_delay_s, self.first_delay_s * self.factor ** min(attempt - 1, 100))
        return full * (1 - self.jitter * chance)

    def gives_up(self, failures: int) -> bool:
        """Whether so many failures in a row are the last."""
        return self.attempts is not None and failures > self.attempts


def as_reconnect(given: object, otherwise: Reconnect | None = None) -> Reconnect:
    """What was given, or the default for None; `TypeError` for anything else, long before an outage."""
    if given is None:
        return otherwise or Reconnect()
    if not isinstance(given, Reconnect):
        raise TypeError(f"reconnect={given!r}: pass a Reconnect(…), or None for the default")
    return given


class Loudness:
    """Of attempts that failed, one a minute is a warning, the others are for information."""

    __slots__ = ("_warned_at_s",)

    def __init__(self) -> None:
        self._warned_at_s = -math.inf

    def level(self, now_s: float) -> int:
        """At which level this one is logged; `now_s` by any monotonic clock."""
        if now_s - self._warned_at_s < WARN_EVERY_S:
            return logging.INFO
        self._warned_at_s = now_s
        return logging.WARNING


class HandshakeFailed(ConnectionError):
    """TLS with this server failed; the message says why, and what to do. It may have been mended by next time."""


class NotInMemory(RedisError):
    """The server in memory cannot do what was asked, or was told to go away; the message says which."""


class InMemoryAway(NotInMemory, ConnectionError):
    """It was told to go away, as a test does; it may have come back by next time."""


class WrongServer(RedisError):
    """What answers is a server of a kind that cannot hold the bus; the message says what to use instead."""


class NoTransactions(ResponseError):
    """What answers does not queue what follows MULTI; the message is its answer."""


def is_passing(error: BaseException) -> bool:
    """Whether the same question may be answered on a later connection."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return False
    if isinstance(error, WrongServer | MovedError | NoTransactions) or lacks_command(str(error)):
        return False
    if isinstance(
        error,
        ConnectionError
        | TimeoutError
        | OSError
        | ReadOnlyError
        | ClusterDownError
        | MasterDownError
        | TryAgainError,
    ):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(_PASSING_CODES)


def is_wrong_type(error: object) -> bool:
    """Whether a key holds something else than the contract says."""
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")


def naming(error: Exception, key: str) -> Exception:
    """The same error, with the key that it is about: Redis names none."""
    return type(error)(f"{error}; the key is {key}") if is_wrong_type(error) else error


def tells_of_key(error: object) -> bool:
    """Whether the error is about what the key holds, and not about the question or the server."""
    return is_wrong_type(error) or (isinstance(error, ResponseError) and "no such key" in str(error))


def reason(error: BaseException) -> str:
    """Why Redis could not be used, in one sentence with the remedy; at which address, the caller says."""
    text = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
    if isinstance(error, WrongServer | HandshakeFailed | NotInMemory):
        return text
    if isinstance(error, MovedError) or tells_of_cluster(text):
        return CLUSTER_NODE
    if isinstance(error, NoTransactions):
        return (
            f"it has no transactions (MULTI was answered with {text}), in which streams are read; "
            "connect to Redis itself, not to a proxy without them"
        )
    if isinstance(error, ResponseError) and lacks_command(text):
        command = text.partition("ommand '")[2].partition("'")[0] or text
        return disabled({command: "this library"})
    if isinstance(error, AuthenticationError | AuthorizationError):
        return f"it refused the credentials ({text}); check user and password in the URL"
    if is_wrong_type(error):
        return f"a key of this namespace is not what the contract says ({text}); does another program use the name?"
    if isinstance(error, NoPermissionError):
        return (
            f"this user lacks a permission ({text}); readers need the ACL rules +@read +@connection +multi +exec, "
            "workers of a group those of the user `strategy` in deploy/acl"
        )
    if isinstance(error, TimeoutError):
        return f"no answer in time ({text}); is the server overloaded or the network cut?"
    if isinstance(error, ConnectionError | OSError) and "loading" not in text.lower():
        return f"{_of_the_system(error) or text}; is the server running, and are host and port right?"
    return text


def _of_the_system(error: BaseException) -> str:
    """What the system says of a connection that failed, without the address that redis-py and asyncio add."""
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    if not isinstance(cause, OSError):
        return ""
    numbers = {cause.errno} if cause.errno else {int(n) for n in _ERRNO.findall(str(cause))}
    if len(numbers) != 1:
        # Of a name with several addresses, each may have failed in its own way.
        return ""
    number = numbers.pop()
    # What is below 0 is of getaddrinfo(3), and no number of errno(3).
    return os.strerror(number) if number > 0 else cause.strerror or ""

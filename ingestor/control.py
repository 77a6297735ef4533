"""The control plane's client: redis-py, under this daemon's rules.

Decides how its connections come to be and how they fail. Must never know what is asked over them. Its rules: no
retry behind anybody's back, one login for the whole daemon, no connection that is older than the hot path's,
and every end of a connection is a redis-py `ConnectionError`.
"""

import asyncio
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLost

from ingestor.redis_link import RedisAddress
from wire.redis.answers import lacks_command

CLIENT_NAME: Final = "quotebus-control"


class _Guarded(AbstractConnection):
    """What a connection adds to redis-py's own."""

    def __init__(self, *, address: RedisAddress, **options: Any) -> None:
        super().__init__(redis_connect_func=cast("Any", self._introduce), **options)
        self._address = address
        self._generation = address.generation

    async def connect(self) -> None:
        # So says the pool before each use of a connection, also of one that is open.
        if self._generation != self._address.generation:
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def _connect(self) -> None:
        self._address.check_login()
        self._generation = self._address.generation
        await super()._connect()  # type: ignore[safe-super, no-untyped-call]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        cancelled = _cancellations()
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            # So says uvloop's transport of a connection that the other side has reset.
            await self.disconnect(nowait=True)
            raise ConnectionLost(f"the connection is gone: {error}") from None
        if _cancellations() > cancelled:
            # redis-py sends under asyncio.wait_for, which until Python 3.12 drops a cancellation that meets its
            # result: a part of the daemon would go on, and whoever waits for its end would wait for ever.
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError

    async def _introduce(self, _: AbstractConnection) -> None:
        login = self._address.login
        user, password = login.user, login.password
        self.username, self.password = user or "", password or ""
        try:
            await self.on_connect()
            await self._introduce_by_name()
        except AuthenticationError as refusal:
            self._address.note_refusal(password, str(refusal))
            raise
        login.accepted()

    async def _introduce_by_name(self) -> None:
        """The name is for eyes in CLIENT LIST: a server may lack the command, and a user the right."""
        await self.send_command("CLIENT", "SETNAME", CLIENT_NAME, check_health=False)
        try:
            await self.read_response()
        except NoPermissionError:
            pass
        except ResponseError as refusal:
            if not lacks_command(str(refusal)):
                raise


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


class _Tcp(_Guarded, Connection):
    pass


class _Tls(_Guarded, SSLConnection):
    pass


class _Unix(_Guarded, UnixDomainSocketConnection):
    pass


_GUARDED: Final[dict[Any, type[Any]]] = {SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


def control_client(address: RedisAddress, timeout_s: float) -> "Redis":
    """A client of this server, whose calls and connections take `timeout_s` at most; the caller closes it."""
    options = dict(address.options)
    pool = ConnectionPool(
        connection_class=_GUARDED.get(options.pop("connection_class", None), _Tcp),
        address=address,
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        # redis-py would retry writes silently; here every retry is somebody's decision.
        retry=Retry(NoBackoff(), 0),
        # Library name and version are for eyes only, and a right that a daemon's user need not have.
        driver_info=None,
        **options,
    )
    return Redis.from_pool(pool)

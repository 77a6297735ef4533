"""The control plane's client: redis-py, under this daemon's rules.

Decides how its connections come to be and how they fail. Must never know what is asked over them. Its rules: no
retry behind anybody's back, one login for the whole daemon, no connection that is older than the hot path's,
and every end of a connection is a redis-py `ConnectionError`.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLost

from ingestor.redis_link import RedisAddress
from wire.redis.answers import lacks_command
from wire.redis.tls import client_context, explain
from wire.redis.url import NOT_ANSWERED, explain_end

CLIENT_NAME: Final = "quotebus-control"


class _Guarded(Connection):
    """What a connection adds to redis-py's own: where it leads is asked anew whenever it is opened."""

    def __init__(self, *, address: RedisAddress, **options: Any) -> None:
        super().__init__(redis_connect_func=cast("Any", self._introduce), **options)
        self._address = address
        self._generation = address.generation
        self._tls: ssl.SSLContext | None = None

    async def connect(self) -> None:
        # So says the pool before each use of a connection, also of one that is open.
        if self._generation != self._address.generation:
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def _connect(self) -> None:
        address = self._address
        try:
            address.check()
            self._generation, url = address.generation, address.url
            self.host, self.port, self.db = url.host, url.port, url.db
            self.socket_timeout = address.timeout_s
            self.socket_connect_timeout = address.connect_timeout_s
            self.socket_keepalive = url.keepalive
            if url.path:
                async with asyncio.timeout(self.socket_connect_timeout):
                    self._reader, self._writer = await asyncio.open_unix_connection(url.path)
            else:
                self._tls = client_context(url.tls) if url.tls is not None else None
                await super()._connect()  # type: ignore[no-untyped-call]
        except Exception as error:
            address.doubt()
            is_late = isinstance(error, TimeoutError) and self._tls is not None
            if (said := NOT_ANSWERED if is_late else explain(error)) is not None:
                raise ConnectionLost(f"{address!r}: {said}") from None
            raise

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}

    def _host_error(self) -> str:
        return repr(self._address)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        cancelled = await _cancellations()
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            # So says uvloop's transport of a connection that the other side has reset.
            await self.disconnect(nowait=True)
            raise ConnectionLost(f"the connection is gone: {error}") from None
        task = asyncio.current_task()
        if task is not None and task.cancelling() > cancelled:
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
        except ConnectionLost as ending:
            # Its children are answers of the server, such as that it is loading its data.
            if type(ending) is not ConnectionLost:
                raise
            said = f"{self._address!r}: {explain_end(self._address.url)} ({ending})"
            raise ConnectionLost(said) from None
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


async def _cancellations() -> int:
    """So often the task has been asked to end, and was told so."""
    task = asyncio.current_task()
    count = 0 if task is None else task.cancelling()
    if count:
        # It may have been asked while it ran, as by a Ctrl-C in a callback: then it is told now, and not where
        # redis-py would drop it.
        await asyncio.sleep(0)
    return count


def control_client(address: RedisAddress) -> "Redis":
    """A client of this server, whose calls and connections take as long as the address allows; the caller closes
    it."""
    pool = ConnectionPool(
        connection_class=_Guarded,
        address=address,
        protocol=2,
        # redis-py would retry writes silently; here every retry is somebody's decision.
        retry=Retry(NoBackoff(), 0),
        # Library name and version are for eyes only, and a right that a daemon's user need not have.
        driver_info=None,
    )
    return Redis.from_pool(pool)

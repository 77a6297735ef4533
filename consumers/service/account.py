"""The account behind a service, if it has one: its REST client is made with the first question.

Decides where key and secret come from, and what to say when there are none. Must never show either.
"""

import os
from collections.abc import Callable
from typing import Final

from consumers.bus import Bus
from consumers.rest.asker import check_key
from consumers.rest.budget import check_calls
from consumers.rest.client import KEY_NAMES, SECRET_NAMES, TIMEOUT_S, URL_NAME, AlpacaRest, base_url
from consumers.rest.errors import RestError
from consumers.rest.retry import Retry

REMEDY: Final = (
    "pass api_key and api_secret to MarketDataService, or set "
    f"{KEY_NAMES[0]} and {SECRET_NAMES[0]} in the environment"
)


class Account:
    """Key and secret as they were passed, else of the environment, read when REST is first needed."""

    def __init__(
        self,
        api_key: str | None,
        api_secret: str | None,
        *,
        paper: bool,
        feed: str,
        rest_url: str | None,
        timeout_s: float | None,
        retry: Retry | None,
        calls_per_minute: int,
    ) -> None:
        if bool(api_key) != bool(api_secret):
            missing = "api_secret" if api_key else "api_key"
            raise ValueError(f"{missing} is missing: pass both, or neither to take them from the environment")
        if api_key and api_secret:
            check_key("api_key", api_key)
            check_key("api_secret", api_secret)
        check_calls(calls_per_minute)
        base_url(rest_url)
        self.paper: Final = paper
        self.feed: Final = feed
        self._rest: AlpacaRest | None = None

        def keys() -> tuple[str, str]:
            return (
                (api_key, api_secret) if api_key and api_secret else (_named(KEY_NAMES), _named(SECRET_NAMES))
            )

        def make(bus: Bus) -> AlpacaRest:
            key, secret = keys()
            url = rest_url or os.environ.get(URL_NAME) or None
            return AlpacaRest(
                key,
                secret,
                paper=paper,
                feed=feed,
                data_url=url,
                trading_url=url,
                timeout_s=timeout_s or TIMEOUT_S,
                retry=retry,
                budget=bus.budget(key, calls_per_minute),
            )

        # Closures and not fields: what holds no field cannot be printed by accident.
        self._keys: Final[Callable[[], tuple[str, str]]] = keys
        self._make: Final[Callable[[Bus], AlpacaRest]] = make

    @property
    def is_known(self) -> bool:
        """Whether there are a key and a secret."""
        return all(self._keys())

    def rest(self, bus: Bus) -> AlpacaRest:
        """The client, whose calls are counted on this bus; `RestError` without key and secret."""
        if not self.is_known:
            raise RestError(f"questions to Alpaca's REST service need credentials: {REMEDY}")
        if self._rest is None:
            try:
                self._rest = self._make(bus)
            except ValueError as error:
                # Of the environment, which is read only now.
                raise RestError(f"questions to Alpaca's REST service cannot be asked: {error}") from None
        return self._rest

    async def aclose(self) -> None:
        """End the calls that are on their way. May be called again."""
        if self._rest is not None:
            await self._rest.aclose()

    def __repr__(self) -> str:
        known = "with credentials" if self.is_known else "without credentials"
        return f"<Account {known} {'paper' if self.paper else 'live'} feed={self.feed}>"


def _named(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name))), "")

"""alpaca-py's client, made to end: a time-out on every request, no retry that sleeps, a bound on every body.

Decides what an exception of its means. Must never be imported before the first question: it brings a part of
alpaca-py. Not its clients for data and trading, which are the same client with models that nobody here reads, and
pandas: to import them takes a second, in which whoever else has something to do is held up again and again.
Everything it returns is free of key and secret, and it raises nothing, because the exceptions of `requests` carry
the request with its headers.
"""

import threading
import time
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import requests
import urllib3
from alpaca.common.enums import BaseURL
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from requests.adapters import HTTPAdapter

from consumers.rest.calls import Answer, Call
from consumers.rest.retry import Failure, Kind, explain, judge

Host: TypeAlias = Literal["data", "trading"]

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""A full page of quotes has two to three megabytes."""
_CHUNK_BYTES: Final = 64 * 1024

_current: Final = threading.local()


class _BodyTooLarge(Exception):
    pass


class _SentElsewhere(Exception):
    pass


class _PlainConnection(urllib3.connection.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        # Only now is there a socket that could be shut: an abort that came before would otherwise be lost.
        _current.call.goes_over(self)

    def request(self, *args: Any, **options: Any) -> None:
        _current.call.goes_over(self)
        super().request(*args, **options)


class _TlsConnection(urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        # Only now is there a socket that could be shut: an abort that came before would otherwise be lost.
        _current.call.goes_over(self)

    def request(self, *args: Any, **options: Any) -> None:
        _current.call.goes_over(self)
        super().request(*args, **options)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _track(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    return manager


class _Bounded(HTTPAdapter):
    """Every request has a time-out, every body a size, every connection a call that it belongs to."""

    def __init__(self, timeout_s: float, threads: int) -> None:
        self._timeout_s: Final = timeout_s
        super().__init__(pool_connections=2, pool_maxsize=threads)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        _track(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        return _track(super().proxy_manager_for(*args, **options))

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        response = super().send(request, **{**options, "stream": True, "timeout": self._timeout_s})
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                response.close()
                raise _BodyTooLarge
        if response.is_redirect:
            raise _SentElsewhere
        response._content = bytes(body)
        return response


class Clients:
    """The two clients of one account; `get` is called from threads."""

    def __init__(
        self,
        key_id: str,
        secret_key: str,
        *,
        paper: bool,
        data_url: str | None,
        trading_url: str | None,
        timeout_s: float,
        threads: int,
    ) -> None:
        trading_host = BaseURL.TRADING_PAPER if paper else BaseURL.TRADING_LIVE
        data = RESTClient(data_url or BaseURL.DATA.value, key_id, secret_key, raw_data=True)
        trading = RESTClient(trading_url or trading_host.value, key_id, secret_key, raw_data=True)
        for client in (data, trading):
            # Its own retries sleep in the thread, three seconds whatever the service says.
            client._retry = 0
            for scheme in ("https://", "http://"):
                client._session.mount(scheme, _Bounded(timeout_s, threads))
        self._clients: Final[dict[Host, Any]] = {"data": data, "trading": trading}
        self._explain: Final = partial(_explain, secrets=(secret_key, key_id))
        self._timeout_s: Final = timeout_s

    def get(self, call: Call, host: Host, path: str, params: dict[str, str | int]) -> Answer | Failure:
        """One GET, one attempt."""
        if call.aborted:
            return Failure(Kind.UNAVAILABLE, "nobody waits for this call any more")
        _current.call = call
        asked_ns = time.time_ns()
        try:
            return Answer(self._clients[host].get(path, dict(params)), asked_ns)
        except Exception as error:  # whatever it is, its traceback holds the headers
            return self._failure(error)
        finally:
            call.has_ended()

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, APIError) and error.response is not None:
            response = error.response
            return judge(
                response.status_code, response.headers, self._explain(response.text), time.time_ns() / 1e9
            )
        return Failure(Kind.UNAVAILABLE, _words(error, self._timeout_s))

    def close(self) -> None:
        """Close the connections that wait for a next call."""
        for client in self._clients.values():
            client._session.close()


def _explain(body: str, secrets: tuple[str, ...]) -> str:
    return explain(body, *secrets)


def _words(error: Exception, timeout_s: float) -> str:
    """What happened, in our words: theirs may quote URLs, proxies and headers."""
    match error:
        case _BodyTooLarge():
            return f"an answer of more than {MAX_BODY_BYTES >> 20} MB"
        case _SentElsewhere():
            return "the host redirects elsewhere, where no key is sent; is its address right?"
        case requests.exceptions.JSONDecodeError():
            return "the answer is not JSON; is a proxy in between?"
        case requests.exceptions.ProxyError():
            return "the proxy cannot be used; check HTTPS_PROXY"
        case requests.exceptions.SSLError():
            return "the TLS connection failed; check certificates and the clock"
        case requests.exceptions.ConnectTimeout():
            return f"no connection within {timeout_s:.3g} s"
        case requests.exceptions.Timeout():
            return f"no answer within {timeout_s:.3g} s"
        case requests.exceptions.ConnectionError():
            return "the connection failed; is the network up?"
        case requests.exceptions.RequestException():
            return f"the connection broke ({type(error).__name__})"
        case _:
            return f"the answer is not usable ({type(error).__name__})"

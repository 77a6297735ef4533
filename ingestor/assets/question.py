"""The question for Alpaca's assets: alpaca-py's client, in a thread that nobody ever waits for.

Decides which host is asked, how long it may take, and what a failure is called. Must never be waited for without a
bound, nor joined at exit: a thread that hangs dies with the process. Of alpaca-py the plain client alone is
imported there, with the first question; its client for trading would bring models that nobody reads, and pandas: a
second in which quotes wait again and again, and eighty megabytes. Everything that leaves this module is free of key
and secret: the exceptions of `requests` carry the request with its headers.
"""

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from ingestor.feed.session import Credentials

ASK_S: Final = 60.0
CONNECT_S: Final = 10.0
READ_S: Final = 20.0
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""The whole list, inactive assets included, has some fifteen megabytes."""
_CHUNK_BYTES: Final = 256 * 1024


class AssetsUnavailable(Exception):
    """There is no list; the message says why, in words for an operator. `is_refused`: the keys are not accepted."""

    def __init__(self, reason: str, *, is_refused: bool = False) -> None:
        super().__init__(reason)
        self.is_refused = is_refused


class Asset(msgspec.Struct, gc=False):
    """One asset, as much of it as is kept. https://docs.alpaca.markets/reference/get-v2-assets-1"""

    symbol: str
    status: str = "unknown"
    tradable: bool = False
    exchange: str = ""


_decode: Final = msgspec.json.Decoder(list[Asset]).decode


@dataclass(frozen=True, slots=True)
class Host:
    """Where to ask: an address of one's own, or one of Alpaca's two."""

    url: str | None
    paper: bool

    def __str__(self) -> str:
        return self.url or ("paper-api.alpaca.markets" if self.paper else "api.alpaca.markets")


def hosts_for(key: str, url: str) -> tuple[Host, ...]:
    """Which hosts may know this key, the likeliest first: live keys begin with AK, paper keys with PK."""
    if url:
        # alpaca-py adds the version by itself.
        return (Host(url.rstrip("/").removesuffix("/v2"), paper=True),)
    is_paper = not key.startswith("AK")
    return Host(None, is_paper), Host(None, not is_paper)


class Question:
    """Asks, once at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    async def ask(self, credentials: Credentials, url: str) -> list[Asset]:
        """Every US stock that Alpaca knows, whatever its status. Raises `AssetsUnavailable`, within `ASK_S`."""
        if self._thread is not None and self._thread.is_alive():
            raise AssetsUnavailable("an earlier question still hangs")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Asset] | AssetsUnavailable] = loop.create_future()
        deadline_s = time.monotonic() + ASK_S
        hosts = hosts_for(credentials.key, url)

        def work() -> None:
            answer = _asked(credentials, hosts, deadline_s)
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(_settle, answered, answer)

        self._thread = threading.Thread(target=work, name="quotebus-assets", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(ASK_S):
                answer = await answered
        except TimeoutError:
            raise AssetsUnavailable(f"{hosts[0]} does not answer within {ASK_S:g} s") from None
        if isinstance(answer, AssetsUnavailable):
            raise answer
        return answer


def _settle(answered: "asyncio.Future[Any]", answer: Any) -> None:
    if not answered.done():
        answered.set_result(answer)


def _asked(
    credentials: Credentials, hosts: tuple[Host, ...], deadline_s: float
) -> list[Asset] | AssetsUnavailable:
    refusal: AssetsUnavailable | None = None
    for host in hosts:
        try:
            return _fetch(credentials, host, deadline_s)
        except AssetsUnavailable as why:
            if not why.is_refused:
                return why
            refusal = refusal or why
        except ImportError as why:
            return AssetsUnavailable(f'{why.name} is not installed: pip install "quotebus[ingestor]"')
        except Exception as why:  # whatever it is, its traceback holds the headers
            return AssetsUnavailable(f"{host}: {_words(why)}")
    assert refusal is not None
    return refusal


def _fetch(credentials: Credentials, host: Host, deadline_s: float) -> list[Asset]:
    from alpaca.common.enums import BaseURL
    from alpaca.common.exceptions import APIError
    from alpaca.common.rest import RESTClient

    url = host.url or (BaseURL.TRADING_PAPER if host.paper else BaseURL.TRADING_LIVE).value
    client: Any = RESTClient(url, credentials.key, credentials.secret, raw_data=True)
    # Its own retries sleep in the thread; the next question is the caller's to decide.
    client._retry = 0
    adapter = _adapter(deadline_s)
    for scheme in ("https://", "http://"):
        client._session.mount(scheme, adapter)
    try:
        assets = client.get("/assets", {"asset_class": "us_equity"})
    except APIError as refusal:
        status = refusal.status_code
        raise AssetsUnavailable(
            f"{host} answers with status {status}", is_refused=status in (401, 403)
        ) from None
    finally:
        client._session.close()
    if not isinstance(assets, list):
        raise AssetsUnavailable(f"{host} answers with nothing")
    return assets


def _adapter(deadline_s: float) -> Any:
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):
        """Every request has an end, every body a size; no redirection is followed, for keys go nowhere else."""

        def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
            response = super().send(request, **{**options, "stream": True, "timeout": (CONNECT_S, READ_S)})
            body = bytearray()
            for chunk in response.iter_content(_CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise AssetsUnavailable(f"an answer of more than {MAX_BODY_BYTES >> 20} MB")
                if time.monotonic() > deadline_s:
                    raise AssetsUnavailable(f"the answer takes more than {ASK_S:g} s")
            if response.is_redirect:
                raise AssetsUnavailable("the host redirects elsewhere, where no key is sent")
            response.encoding = "utf-8"
            if response.status_code == 200:
                # Python's own parser would hold the interpreter, and with it the quotes, ten times as long; and all
                # that alpaca-py asks of the text is that there is some.
                response._content = b"." if body else b""
                response.json = partial(_read, bytes(body))  # type: ignore[method-assign]
            else:
                response._content = bytes(body[:1000])
            return response

    return Bounded()


def _read(body: bytes) -> list[Asset]:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise AssetsUnavailable("the answer is no list of assets; is a proxy in between?") from None


_WORDS: Final[dict[str, str]] = {
    "ProxyError": "the proxy cannot be used; check HTTPS_PROXY",
    "SSLError": "the TLS connection failed; check certificates and the clock",
    "ConnectTimeout": f"no connection within {CONNECT_S:g} s",
    "ReadTimeout": f"silence for {READ_S:g} s",
    "ConnectionError": "the connection failed",
}


def _words(error: Exception) -> str:
    """What happened, in our words: theirs may quote URLs, proxies and headers."""
    return _WORDS.get(type(error).__name__, f"the answer is not usable ({type(error).__name__})")

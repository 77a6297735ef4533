"""A REST call and its answer, and the vendor's words for what it refuses.

Decides the bodies of errors. Must never know sockets, nor what was asked for. Facts: the error responses of
Alpaca's API reference (https://docs.alpaca.markets/reference); the data host mostly gives an error a message alone,
the trading host a code of eight digits as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

STOCKS: Final = "/v2/stocks/"
"""What the data host serves; the rest is the trading host's."""
JSON: Final = "application/json; charset=UTF-8"
HTML: Final = "text/html"

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class RestRequest:
    """A call: `query` as it was decoded, a repeated name with its first value; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class RestAnswer:
    """What goes back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON


class Refused(Exception):
    """The call gets this status and message; with a code where the vendor gives one."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def answer(self) -> RestAnswer:
        """The same, as an answer."""
        body: dict[str, object] = {"message": str(self)}
        return RestAnswer(self.status, _encode(body if self.code is None else {"code": self.code, **body}))


def granted(body: object) -> RestAnswer:
    """200 with this body."""
    return RestAnswer(200, _encode(body))


def breakdown(path: str, status: int) -> RestAnswer:
    """An answer that has nothing to do with what was asked for, as the path's host writes it."""
    if status in _GATEWAY:
        title = f"{status} {_GATEWAY[status]}"
        page = (
            f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
            "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        )
        return RestAnswer(status, page.encode(), content_type=HTML)
    return refused(path, status).answer()


def refused(path: str, status: int) -> Refused:
    """The refusal of this status, in the words of the path's host: that of data, or that of trading."""
    if path.startswith(STOCKS):
        return Refused(status, _DATA_WORDS.get(status, "internal server error occurred"))
    code, message = _TRADING_WORDS.get(status, (status * 100_000 + 10_000, "internal server error occurred"))
    return Refused(status, message, code)


_GATEWAY: Final = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
_DATA_WORDS: Final = {
    400: "bad request",
    401: "forbidden.",
    403: "forbidden.",
    404: "endpoint not found.",
    405: "method not allowed",
    422: "unprocessable entity",
    429: "too many requests.",
}
_TRADING_WORDS: Final = {
    401: (40110000, "request is not authorized"),
    403: (40310000, "forbidden"),
    404: (40410000, "endpoint not found"),
    405: (40510000, "method not allowed"),
    422: (42210000, "unprocessable entity"),
    429: (42910000, "rate limit exceeded"),
}

"""A REST call and its answer, and the vendor's words for what it refuses.

Decides the bodies of errors. Must never know sockets, nor what was asked for. Facts: the error responses of
Alpaca's API reference (https://docs.alpaca.markets/reference); the data host mostly gives an error a message alone,
the trading host a code of eight digits as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

JSON: Final = "application/json; charset=UTF-8"
HTML: Final = "text/html"

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class RestRequest:
    """A call: `query` as it was decoded, a repeated name with its last value; header names in lower case."""

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


def breakdown(status: int) -> RestAnswer:
    """An answer that has nothing to do with what was asked for."""
    if status in _GATEWAY:
        title = f"{status} {_GATEWAY[status]}"
        page = (
            f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
            "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        )
        return RestAnswer(status, page.encode(), content_type=HTML)
    code, message = _WORDS.get(status, (None, "internal server error occurred"))
    return Refused(status, message, code).answer()


def too_many() -> Refused:
    """More calls than the minute allows."""
    return Refused(429, "too many requests.")


_GATEWAY: Final = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
_WORDS: Final[dict[int, tuple[int | None, str]]] = {
    401: (None, "forbidden."),
    403: (None, "forbidden."),
    404: (40410000, "not found"),
    422: (42210000, "unprocessable"),
    429: (None, "too many requests."),
    500: (50010000, "internal server error occurred"),
}

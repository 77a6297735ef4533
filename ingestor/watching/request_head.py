"""The head of a request for a page: is it one that may be answered?

Decides from bytes alone, before anything else looks at them. A page is asked for by GET or HEAD, without a body,
and by an address or a name that is this daemon's. A browser that was lured (DNS rebinding) asks by the name of
whoever lured it, which is a name of the public DNS and none of ours.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 8192
END: Final = b"\r\n\r\n"
PRIVATE_ENDINGS: Final = ("internal", "lan", "local", "localhost", "svc")
"""What the public DNS never answers for: RFC 6761 and 6762, ICANN's `internal`, and the names within a cluster."""

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")


def answer(status: str, words: str, *, has_body: bool = True) -> bytes:
    """A whole answer of one line, behind which the connection ends; to HEAD, what is said of it."""
    body = f"{words}\n".encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if has_body else b"")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without a page: the status, in words for the visitor, and under which name it is counted."""

    counted_as: str
    status: str
    words: str

    def response(self) -> bytes:
        """The whole answer; the connection ends with it."""
        return answer(self.status, self.words)


MALFORMED: Final = Refusal("malformed", "400 Bad Request", "this is no HTTP request for a page")
TOO_LARGE: Final = Refusal(
    "too_large", "431 Request Header Fields Too Large", f"a request has at most {MAX_BYTES} bytes"
)
NO_BODY: Final = Refusal("malformed", "413 Content Too Large", "a request for a page has no body")
NOT_ALLOWED: Final = Refusal(
    "method_not_allowed", "405 Method Not Allowed", "the pages are there to be read: GET or HEAD"
)
FOREIGN_HOST: Final = Refusal(
    "foreign_host",
    "421 Misdirected Request",
    "this name is not known to be mine; ask by address, or add the name to QUOTEBUS_HTTP_NAMES",
)


class HostNames:
    """By which names the pages may be asked for: chosen ones, addresses, and names of private networks."""

    def __init__(self, chosen: str) -> None:
        names = [name.strip().rstrip(".").lower() for name in chosen.split(",")]
        self._chosen: Final = frozenset(name for name in names if name)

    def include(self, host: str) -> bool:
        """Whether a Host field, with or without a port, names this daemon."""
        name = _without_port(host).rstrip(".").lower()
        if "*" in self._chosen or name in self._chosen:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            # A name of one word, as a service of compose has, is none of the public DNS.
            return bool(name) and ("." not in name or name.rpartition(".")[2] in PRIVATE_ENDINGS)
        return True


def examine(head: bytes, names: HostNames) -> bytes | Refusal:
    """What is left to be answered of this head, which ends with an empty line; or why it is not.

    That is method and target alone: no page depends on any field, and a field that is not handed on is nobody's
    trouble.
    """
    first, *fields = head.removesuffix(END).split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        return MALFORMED
    found: dict[bytes, list[bytes]] = {}
    for field in fields:
        match = _FIELD.fullmatch(field)
        if match is None:
            return MALFORMED
        found.setdefault(match[1].lower(), []).append(match[2].strip())
    hosts = found.get(b"host", [])
    if len(hosts) > 1 or (not hosts and line[3] == b"1"):
        return MALFORMED
    if hosts and not names.include(hosts[0].decode("latin-1")):
        return FOREIGN_HOST
    if b"transfer-encoding" in found or any(length != b"0" for length in found.get(b"content-length", [])):
        return NO_BODY
    if line[1] not in (b"GET", b"HEAD"):
        return NOT_ALLOWED
    return b"%b %b HTTP/1.1\r\nHost: pages\r\nConnection: close\r\n\r\n" % (line[1], line[2])


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and ":" not in name else host

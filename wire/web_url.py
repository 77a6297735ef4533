"""The address of a websocket or of REST calls, as somebody wrote it: can anything be asked there?

Decides from the text alone what can never work: a port or a host that is none, a piece that nobody would read. Must
never know whether anybody listens there, nor show any of the text: it may hold a password.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

_NAME: Final = re.compile(r"(?=.{1,253}$)[\w-]{1,63}(?:\.[\w-]{1,63})*\.?")
_NUMBERS: Final = re.compile(r"[0-9.]+")


class BadWebUrl(ValueError):
    """Nothing can be asked at this address; the message is a clause that goes behind the setting's name."""


def check_websocket_url(url: str) -> None:
    """Raises `BadWebUrl` unless this is `ws://HOST[:PORT]/PATH` or `wss://…`."""
    if not url.startswith(("ws://", "wss://")):
        raise BadWebUrl("must begin with ws:// or wss://")
    _check(url, "wss://HOST[:PORT]/PATH")


def check_rest_url(url: str) -> None:
    """Raises `BadWebUrl` unless this is `https://HOST[:PORT]` or `http://…`; a path is taken as the API's."""
    form = "https://HOST[:PORT]"
    if not url.startswith(("http://", "https://")) or "@" in url:
        raise BadWebUrl(f"must be {form}, without path and password")
    if _check(url, form).query or "?" in url:
        raise BadWebUrl(f"has a ? in it, and the calls have questions of their own; write {form}")


def _check(url: str, form: str) -> SplitResult:
    if any(ord(character) < 0x21 or ord(character) == 0x7F or character.isspace() for character in url):
        # urlsplit would drop some of them in silence.
        raise BadWebUrl(f"has a blank or a line end in it; write {form}")
    if "#" in url:
        raise BadWebUrl(f"has a # in it, and what follows would not be sent; write {form}")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        # The parser's own words may quote a piece of a password.
        raise BadWebUrl(f"has a host that is none, perhaps a bracket too few; write {form}") from None
    if not _is_host(host or "", "[" in parts.netloc.rpartition("@")[2]):
        raise BadWebUrl(f"has no host, or one that is none; write {form}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise BadWebUrl(f"has a port that is not between 1 and 65535; write {form}")
    return parts


def _is_host(host: str, in_brackets: bool) -> bool:
    try:
        if in_brackets or _NUMBERS.fullmatch(host):
            ipaddress.ip_address(host)
            return True
        host.encode("idna")
    except ValueError:
        return False
    return _NAME.fullmatch(host) is not None

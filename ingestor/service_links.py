"""The variables that Kubernetes makes for a Service: are they settings of ours, or that?

Decides by name and value together. A Service called `quotebus`, or `quotebus-redis`, gives every pod of its
namespace `QUOTEBUS_PORT=tcp://10.0.0.7:9108` and more, which are nobody's mistake. Source: the documentation of
Kubernetes, "Service", "Environment variables".
"""

import ipaddress
import re
from typing import Final

_PREFIX: Final = r"QUOTEBUS_(?:[A-Z0-9_]+_)?"
_BY_PORT: Final = rf"{_PREFIX}PORT_\d+_(?:TCP|UDP|SCTP)"
_URL: Final = r"(?:tcp|udp|sctp)://\S+:\d+"


def is_service_link(name: str, value: str) -> bool:
    """Whether this variable has both the name and the kind of value that a Service's have."""
    return any(re.fullmatch(names, name) and is_so(value) for names, is_so in _KINDS)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]+", text) is not None


def _is_url(text: str) -> bool:
    return re.fullmatch(_URL, text) is not None


def _is_protocol(text: str) -> bool:
    return text in ("tcp", "udp", "sctp")


_KINDS: Final = (
    (rf"{_PREFIX}SERVICE_HOST", _is_address),
    (rf"{_PREFIX}SERVICE_PORT(?:_[A-Z0-9_]+)?", _is_number),
    (rf"{_PREFIX}PORT", _is_url),
    (_BY_PORT, _is_url),
    (rf"{_BY_PORT}_PROTO", _is_protocol),
    (rf"{_BY_PORT}_PORT", _is_number),
    (rf"{_BY_PORT}_ADDR", _is_address),
)

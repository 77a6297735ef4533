"""The options that may stand behind the question mark of a Redis URL, and what each value may be.

Decides names, which are redis-py's own (https://redis.readthedocs.io/en/stable/connections.html), and forms. Every
option is heeded by daemon, command line and library alike, or refused by all three. Must never show a value: some
are secrets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

TIMEOUT_MAX_S: Final = 3600.0
_YES: Final = frozenset({"1", "t", "true", "y", "yes", "on"})
_NO: Final = frozenset({"0", "f", "false", "n", "no", "off"})
_CERT_REQS: Final = frozenset({"required", "optional", "none"})
_TLS_VERSIONS: Final = {
    **dict.fromkeys(("1.2", "tlsv1.2", "tlsv1_2", "771"), "TLSv1_2"),
    **dict.fromkeys(("1.3", "tlsv1.3", "tlsv1_3", "772"), "TLSv1_3"),
}
"""As people write them; the numbers are those of `ssl.TLSVersion`, which redis-py takes."""


class BadValue(ValueError):
    """A value that an option cannot have; the message says what it may be, and not what it was."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how its text is read, what may stand there, and what it is for."""

    read: Callable[[str], Any]
    form: str
    meaning: str
    is_tls: bool = False


def _text(value: str) -> str:
    return value


def _database(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise BadValue("must be a number")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value) if value.isascii() else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise BadValue(f"must be a number of seconds above 0, at most {TIMEOUT_MAX_S:g}")
    return seconds


def _switch(value: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise BadValue("must be true or false")


def _cert_reqs(value: str) -> str:
    chosen = value.lower().removeprefix("cert_")
    if chosen not in _CERT_REQS:
        raise BadValue("must be required, optional or none")
    return chosen


def _tls_version(value: str) -> str:
    version = _TLS_VERSIONS.get(value.lower())
    if version is None:
        raise BadValue("must be 1.2 or 1.3")
    return version


def _protocol(value: str) -> int:
    if value != "2":
        raise BadValue("must be 2: quotebus speaks RESP2 with every server, and needs no other")
    return 2


OPTIONS: Final = {
    "db": Option(_database, "number", "The database, instead of the one in the path."),
    "username": Option(_text, "text", "The user, instead of the one before the `@`."),
    "password": Option(_text, "text", "The password, instead of the one before the `@`; for `unix://`."),
    "socket_timeout": Option(
        _seconds, "seconds", "How long an answer may take. Default: daemon 2, command line 3, library 5."
    ),
    "socket_connect_timeout": Option(
        _seconds, "seconds", "How long connecting may take, TLS and login included. Defaults as above."
    ),
    "socket_keepalive": Option(
        _switch, "true, false", "Whether the system probes an idle connection. Default: true."
    ),
    "protocol": Option(_protocol, "2", "RESP2; nothing else is spoken."),
    "ssl_cert_reqs": Option(
        _cert_reqs,
        "required, optional, none",
        "Whether the server's certificate is checked. Default: required; `none` trusts anybody.",
        is_tls=True,
    ),
    "ssl_check_hostname": Option(
        _switch,
        "true, false",
        "Whether the certificate must be for the host of the URL. Default: true.",
        is_tls=True,
    ),
    "ssl_ca_certs": Option(
        _text,
        "file",
        "The authorities to trust, in PEM, instead of the system's.",
        is_tls=True,
    ),
    "ssl_ca_path": Option(
        _text, "folder", "The same as a folder that `openssl rehash` has prepared.", is_tls=True
    ),
    "ssl_ca_data": Option(_text, "PEM text", "The same as text, percent-encoded.", is_tls=True),
    "ssl_certfile": Option(
        _text, "file", "Our own certificate, for a server that asks for one.", is_tls=True
    ),
    "ssl_keyfile": Option(
        _text, "file", "Its private key, where the file above has only the certificate.", is_tls=True
    ),
    "ssl_password": Option(_text, "text", "The password of that key.", is_tls=True),
    "ssl_min_version": Option(
        _tls_version, "1.2, 1.3", "The oldest TLS to accept. Default: 1.2.", is_tls=True
    ),
    "ssl_ciphers": Option(_text, "OpenSSL list", "The ciphers of TLS 1.2 and before.", is_tls=True),
}

_NAMES: Final = "connections have names of quotebus's own; the library takes connect(name=…)"
_BYTES: Final = "quotebus decodes what it reads by itself"
_RETRIES: Final = "quotebus retries by its own rules"
_POOL: Final = "quotebus makes the connections that it needs, and no more"
REFUSED: Final = {
    "client_name": _NAMES,
    "lib_name": _NAMES,
    "lib_version": _NAMES,
    "driver_info": _NAMES,
    "decode_responses": _BYTES,
    "encoding": _BYTES,
    "encoding_errors": _BYTES,
    "legacy_responses": _BYTES,
    "retry_on_timeout": _RETRIES,
    "retry_on_error": _RETRIES,
    "retry": _RETRIES,
    "health_check_interval": "quotebus looks after its connections by itself",
    "max_connections": _POOL,
    "timeout": f"{_POOL}; for an answer there is socket_timeout",
    "socket_read_size": "quotebus reads what there is",
    "ssl": "TLS is chosen by rediss:// at the beginning",
    "master_name": "Sentinels are not asked: give the address of the primary, or of a name that follows it",
    "sentinelMasterId": "Sentinels are not asked: give the address of the primary, or of a name that follows it",
}
"""What other clients know and quotebus has no use for, and why. A URL that is shared with them is told so."""

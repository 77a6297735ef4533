"""Where Redis is and how to get in, read from a URL: once, for daemon, command line and library.

Decides what may stand in a URL and what it means. Must never open anything, and never show a secret: a message
quotes a piece of the URL only where no part of a password can have come to stand there, as it does when somebody
forgot to percent-encode it (`redis://:a/b@host` has the path `b@host`).

Forms: https://www.iana.org/assignments/uri-schemes/prov/redis and redis-py's, whose names the options have.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from wire.redis.options import OPTIONS, REFUSED, BadValue

SCHEMES: Final = ("redis", "rediss", "unix")
PORT: Final = 6379
TLS_ALERT: Final = b"\x15\x03"
"""How a server answers that was spoken to plainly and does not (RFC 8446, 5.1): a record of type alert."""
SPEAKS_TLS: Final = "what answers there speaks TLS: write rediss:// for it"
NOT_ANSWERED: Final = "TLS is not answered there: if it does not speak TLS, write redis://"
"""Redis itself says nothing to a handshake that it does not understand, and waits."""
_FORM: Final = "redis://user:password@host:port/db, rediss:// for TLS, or unix:///path"
_REMEDY: Final = (
    f"write {_FORM}; percent-encode special characters of user and password "
    + "(/ is %2F, # is %23, ? is %3F, @ is %40)"
)
_HARMLESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")
_NAME: Final = re.compile(r"(?=.{1,253}$)[\w-]{1,63}(?:\.[\w-]{1,63})*\.?")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?")
_ELSEWHERE: Final = {
    "valkey": "write redis:// for it",
    "valkeys": "write rediss:// for it",
    "redis-sentinel": "Sentinels are not asked: give the address of the primary, or of a name that follows it",
    "redis+sentinel": "Sentinels are not asked: give the address of the primary, or of a name that follows it",
    "rediss+sentinel": "Sentinels are not asked: give the address of the primary, or of a name that follows it",
    "sentinel": "Sentinels are not asked: give the address of the primary, or of a name that follows it",
    "redis+cluster": "a cluster cannot hold the bus: give the address of a single server",
    "redis-cluster": "a cluster cannot hold the bus: give the address of a single server",
    "redis+socket": "write unix:///path",
    "redis+unix": "write unix:///path",
    "http": "this is not a web address",
    "https": "this is not a web address",
}


class BadRedisUrl(ValueError):
    """A URL that cannot be used; the message says why, has the remedy, and repeats no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to shake hands: whom to trust, and who we are. Files are named, not read."""

    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str | None = None
    ca_path: str | None = None
    ca_data: str | None = field(default=None, repr=False)
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)
    min_version: str = "TLSv1_2"
    ciphers: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """An address that can be used. With `path` it is a socket of this machine, and `host` and `port` mean nothing.

    Timeouts are seconds, None where the URL has none: each reader has a default of its own.
    """

    host: str = "localhost"
    port: int = PORT
    path: str = ""
    db: int = 0
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    timeout_s: float | None = None
    connect_timeout_s: float | None = None
    keepalive: bool = True

    @property
    def place(self) -> str:
        """Where it is, without the database: `host:port`, or the path of a socket."""
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """Where it is, for messages: no secret is part of it."""
        return f"{self.place}/{self.db}"


def parse_redis_url(url: str) -> RedisUrl:
    """The address that a URL names; `BadRedisUrl` when it names none, or has an option that nobody heeds."""
    text = url.strip()
    if any(ord(character) < 0x21 or ord(character) == 0x7F for character in text):
        # urlsplit would drop some of them in silence, and with them a piece of the password.
        raise BadRedisUrl(f"the Redis URL has a space or a line end in it: {_REMEDY}")
    try:
        parts = urlsplit(text)
        scheme, port, host = parts.scheme, parts.port, parts.hostname
    except ValueError:
        # The parser's own words may quote a piece of the password.
        raise BadRedisUrl(f"the Redis URL is not readable, perhaps its port: {_REMEDY}") from None
    if scheme not in SCHEMES or "://" not in text:
        why = f" ({scheme}://: {_ELSEWHERE[scheme]})" if scheme in _ELSEWHERE else ""
        raise BadRedisUrl(f"the Redis URL must begin with redis://, rediss:// or unix://{why}")
    if "#" in text:
        raise BadRedisUrl(f"the Redis URL has a # in it, and what follows would not be read: {_REMEDY}")
    values = _options(parts)
    tls = _tls(scheme, values)
    user = unquote(parts.username) if parts.username else values.get("username")
    password = unquote(parts.password) if parts.password else values.get("password")
    if user is not None and password is None:
        password = ""  # A user without a password says so with an empty one.
    return RedisUrl(
        **_where(scheme, parts, host, port),
        db=_database(parts, values),
        user=user,
        password=password,
        tls=tls,
        timeout_s=values.get("socket_timeout"),
        connect_timeout_s=values.get("socket_connect_timeout"),
        keepalive=values.get("socket_keepalive", True),
    )


def explain_end(url: RedisUrl) -> str:
    """Why a connection may have ended before anything was answered on it.

    Since TLS 1.3 a client is through with its handshake before the server has looked at its certificate, and the
    alert may get lost; and a server that speaks TLS may close in silence what does not.
    """
    if url.path:
        return "it closed the connection before it answered"
    if url.tls is None:
        return "it closed the connection before it answered; if it speaks TLS, write rediss://"
    said = "the server ended the connection right after the TLS handshake; perhaps it"
    if url.tls.certfile is None:
        return f"{said} asks for a certificate of ours: see ssl_certfile, ssl_keyfile"
    return f"{said} does not trust our certificate: see ssl_certfile"


def _where(scheme: str, parts: SplitResult, host: str | None, port: int | None) -> dict[str, Any]:
    if scheme == "unix":
        if host or port or parts.path in ("", "/"):
            raise BadRedisUrl(
                "the Redis URL names no socket: write unix:///path/to/redis.sock, with three slashes, "
                "or unix://user:password@/path/to/redis.sock"
            )
        return {"path": unquote(parts.path)}
    name = unquote(host) if host else "localhost"
    if not (_NAME.fullmatch(name) or _IPV6.fullmatch(name)):
        raise BadRedisUrl(f"the Redis URL has a host that cannot be one: {_REMEDY}")
    if port == 0:
        raise BadRedisUrl("the Redis URL has port 0, on which nobody listens; Redis itself takes 6379")
    return {"host": name, "port": port or PORT}


def _database(parts: SplitResult, values: dict[str, Any]) -> int:
    if parts.scheme == "unix":
        return int(values.get("db", 0))
    path = unquote(parts.path).removeprefix("/").removesuffix("/")
    if not path:
        return int(values.get("db", 0))
    try:
        in_path = int(OPTIONS["db"].read(path))
    except BadValue:
        shown = f"names database {path!r}" if _is_harmless(path, parts) else "has a path that is no number"
        raise BadRedisUrl(
            f"the Redis URL {shown}; a database is a number, as in redis://host:6379/0 "
            "(a prefix of keys is the namespace); a slash in the password is written %2F"
        ) from None
    if values.get("db", in_path) != in_path:
        raise BadRedisUrl("the Redis URL names two databases, in its path and as ?db=: leave one out")
    return in_path


def _options(parts: SplitResult) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS:
            raise BadRedisUrl(_unknown(name, parts))
        if name in values:
            raise BadRedisUrl(f"the Redis URL has the option {name} twice: leave one out")
        if not text:
            raise BadRedisUrl(
                f"the Redis URL has the option {name} without a value: give one, or leave it out"
            )
        try:
            values[name] = OPTIONS[name].read(text)
        except BadValue as problem:
            raise BadRedisUrl(f"the Redis URL has the option {name} with a value that {problem}") from None
    return values


def _unknown(name: str, parts: SplitResult) -> str:
    if not _is_harmless(name, parts):
        return f"the Redis URL has an option that is none: {_REMEDY}"
    if name in REFUSED:
        return f"the Redis URL has the option {name}, which is refused: {REFUSED[name]}. Leave it out"
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), OPTIONS, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(OPTIONS)}"
    return f"the Redis URL has the option {name}, which nobody knows; {hint}"


def _tls(scheme: str, values: dict[str, Any]) -> Tls | None:
    given = {name.removeprefix("ssl_"): values[name] for name in values if OPTIONS[name].is_tls}
    if scheme != "rediss":
        if given:
            raise BadRedisUrl(f"the Redis URL has the option ssl_{next(iter(given))}, which needs rediss://")
        return None
    for option in ("keyfile", "password"):
        if option in given and "certfile" not in given:
            raise BadRedisUrl(
                f"the Redis URL has the option ssl_{option}, which needs ssl_certfile beside it"
            )
    return Tls(**given)


def _is_harmless(piece: str, parts: SplitResult) -> bool:
    """Whether no part of a password can stand in this piece of path or query: an @ behind the host tells of one
    that was not encoded."""
    return _HARMLESS.fullmatch(piece) is not None and "@" not in parts.path + parts.query

"""What an operator may choose, checked all at once.

Decides names, defaults and limits. Must never read anything but what it is given: the environment, a `.env` file, a
TOML file, in that order of precedence. Every problem is reported in one go, by the name the operator typed, and no
secret is ever part of a message or a repr.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ByteSize, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ingestor.feed.backoff import Patience
from ingestor.feed.findings import Limits
from ingestor.feed.hours import ALWAYS, DELAY_S, FEEDS
from ingestor.feed.session import Credentials
from ingestor.pasted import complaint
from ingestor.service_links import is_service_link
from ingestor.setting_problems import did_you_mean, problem_of
from ingestor.setting_values import Size, http_address, one_of
from ingestor.text_file import UnreadableText, read_text
from wire import BadNamespace, Keyspace
from wire.redis.tls import client_context
from wire.redis.url import parse_redis_url
from wire.web_url import check_rest_url, check_websocket_url

STREAM_HOST: Final = "wss://stream.data.alpaca.markets"


class SettingsProblem(Exception):
    """Settings that cannot be used; the message lists every problem with its remedy."""


class Feed(Enum):
    """Alpaca's stock feeds. The free plan has `iex`; `test` sends `FAKEPACA` around the clock."""

    IEX = "iex"
    SIP = "sip"
    DELAYED_SIP = "delayed_sip"
    BOATS = "boats"
    OVERNIGHT = "overnight"
    TEST = "test"

    @property
    def url(self) -> str:
        """The vendor's websocket address of this feed."""
        version = "v1beta1" if self in (Feed.BOATS, Feed.OVERNIGHT) else "v2"
        return f"{STREAM_HOST}/{version}/{self.value}"


def _websocket_url(url: str) -> str:
    if url:
        check_websocket_url(url)
    return url


def _rest_url(url: str) -> str:
    if url:
        check_rest_url(url)
    return url


def _trading_url(url: str) -> str:
    return url if url == "off" else _rest_url(url)


def _redis_url(secret: SecretStr) -> SecretStr:
    url = parse_redis_url(secret.get_secret_value())
    if url.tls is not None:
        # What cannot be used at the start will not be by itself: the files are read here, and at each handshake.
        client_context(url.tls)
    return secret


def _namespace(name: str) -> str:
    try:
        Keyspace(name)
    except BadNamespace as reason:
        # The name stands before it already.
        raise ValueError(str(reason).removeprefix(f"namespace {name[:80]!r} ")) from None
    return name


def _market_hours(name: str) -> str:
    if name not in ("auto", ALWAYS, *FEEDS):
        raise ValueError(f"must be auto, always, or one of the feeds {', '.join(FEEDS)}")
    return name


class Settings(BaseSettings):
    """The daemon's settings; each field is `QUOTEBUS_<NAME>` in the environment and `<name>` in the TOML file."""

    model_config = SettingsConfigDict(
        env_prefix="QUOTEBUS_", extra="forbid", frozen=True, allow_inf_nan=False
    )

    redis_url: Annotated[
        SecretStr, AfterValidator(_redis_url), Field(description="where Redis is, with user and password")
    ] = SecretStr("redis://127.0.0.1:6379/0")
    namespace: Annotated[str, AfterValidator(_namespace), Field(description="first part of every key")] = (
        "quotes"
    )
    feed: Annotated[
        Feed, Field(description="Alpaca's feed: iex, sip, delayed_sip, boats, overnight, test")
    ] = Feed.IEX
    feed_url: Annotated[
        str, AfterValidator(_websocket_url), Field(description="full websocket URL, overrides the feed's")
    ] = ""
    rest_url: Annotated[
        str, AfterValidator(_rest_url), Field(description="base URL of the REST API, overrides Alpaca's")
    ] = ""
    trading_url: Annotated[
        str,
        AfterValidator(_trading_url),
        Field(description="base URL that the list of assets is asked of; `off`: it is not asked"),
    ] = ""
    http: Annotated[
        str,
        AfterValidator(http_address),
        Field(description="HOST:PORT of /metrics, /livez, /readyz, /status"),
    ] = "127.0.0.1:9108"
    http_names: Annotated[
        str,
        Field(
            description="names by which the pages may be asked for, besides addresses and names of private networks"
        ),
    ] = ""
    symbol_limit: Annotated[
        int | None,
        Field(ge=1, description="symbols of the plan (30 on the free one); empty: learnt from refusals"),
    ] = None
    stream_maxlen: Annotated[
        int, Field(ge=0, description="entries kept per stream, approximately; 0 for no bound")
    ] = 50_000
    stream_max_age_s: Annotated[
        float, Field(ge=0, description="age of kept entries, counted back from the newest; 0 for no bound")
    ] = 86_400.0
    forget_after_s: Annotated[
        float, Field(ge=1, description="after this time a stream that nobody wants any more is deleted")
    ] = 604_800.0
    sweep_every_s: Annotated[float, Field(gt=0, description="period of the retention sweep")] = 60.0
    grace_s: Annotated[
        float, Field(ge=0, description="how long a desired set that vanished stays subscribed")
    ] = 60.0
    memory_bytes: Annotated[
        Size,
        Field(
            ge=1_048_576,
            description="memory for quotes that wait; nearly full (all but 16 MiB, or half), they go to disk",
        ),
    ] = ByteSize(64 * 1024 * 1024)
    spool_dir: Annotated[
        str,
        Field(
            description="folder for quotes that wait on disk; `off` for none; default: the user's state folder"
        ),
    ] = ""
    spool_bytes: Annotated[
        Size, Field(ge=1_048_576, description="disk for quotes that wait; then the oldest go")
    ] = ByteSize(1024 * 1024 * 1024)
    spool_max_age_s: Annotated[
        float, Field(gt=0, description="after this time a quote on disk is not worth storing any more")
    ] = 86_400.0
    replay_s: Annotated[
        float, Field(ge=0, description="how long stored quotes are kept in case Redis forgets them")
    ] = 30.0
    replay_bytes: Annotated[Size, Field(ge=0, description="memory for them")] = ByteSize(32 * 1024 * 1024)
    drain_s: Annotated[
        float, Field(ge=0, description="time for storing what is queued when the daemon is asked to stop")
    ] = 8.0
    market_hours: Annotated[
        str,
        AfterValidator(_market_hours),
        Field(description="when quotes are expected: auto (by feed), always, or a feed's name"),
    ] = "auto"
    mute_after_s: Annotated[
        float, Field(ge=0, description="silence of all symbols that is a fault, in market hours; 0: never")
    ] = 30.0
    quiet_after_s: Annotated[
        float, Field(ge=0, description="silence of one symbol that is shown, in market hours; 0: never")
    ] = 900.0
    vendor_lag_limit_s: Annotated[
        float, Field(ge=0, description="age of quotes at receipt that is a fault; 0: none")
    ] = 10.0
    reconnect_first_s: Annotated[
        float, Field(gt=0, le=3600, description="the first pause between two connections to the vendor")
    ] = 0.5
    reconnect_longest_s: Annotated[
        float, Field(gt=0, le=86_400, description="up to which these pauses double")
    ] = 30.0
    reconnect_attempts: Annotated[
        int, Field(ge=0, description="after so many attempts in vain the daemon ends; 0: never")
    ] = 0
    instance: Annotated[
        str, Field(max_length=100, description="this daemon's name in status; default HOST:PID")
    ] = ""
    log_level: Annotated[
        str,
        AfterValidator(one_of("debug", "info", "warning", "error")),
        Field(description="debug, info, warning or error"),
    ] = "info"
    log_format: Annotated[
        str,
        AfterValidator(one_of("auto", "json", "console")),
        Field(description="auto: console on a terminal, json otherwise"),
    ] = "auto"

    @property
    def url(self) -> str:
        """The websocket address to connect to."""
        return self.feed_url or self.feed.url

    @property
    def assets_url(self) -> str | None:
        """Where Alpaca's assets are asked for: empty for Alpaca's own hosts, None for nowhere.

        A feed of one's own may be a simulator or a tape, of which Alpaca knows nothing; so may its keys.
        """
        chosen = self.trading_url or self.rest_url
        if chosen == "off" or (self.feed is Feed.TEST and not self.feed_url):
            return None
        return chosen or (None if self.feed_url else "")

    @property
    def expected_hours(self) -> str:
        """The feed whose hours count, or `always`: a URL of one's own may be a simulator or a tape."""
        if self.market_hours != "auto":
            return self.market_hours
        return ALWAYS if self.feed_url else self.feed.value

    @property
    def watchdog_limits(self) -> Limits:
        """What the watchdog puts up with."""
        is_delayed = self.feed is Feed.DELAYED_SIP and not self.feed_url
        return Limits(
            mute_after_s=self.mute_after_s,
            quiet_after_s=self.quiet_after_s,
            vendor_lag_limit_s=self.vendor_lag_limit_s,
            delay_s=DELAY_S if is_delayed or self.market_hours == Feed.DELAYED_SIP.value else 0.0,
        )

    @property
    def patience(self) -> Patience:
        """How the vendor is tried again."""
        return Patience(self.reconnect_first_s, self.reconnect_longest_s, self.reconnect_attempts)

    @property
    def http_host_port(self) -> tuple[str, int]:
        """Where the HTTP pages are served."""
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` has gathered: nothing is read behind its back."""
        return (init_settings,)


KNOWN_VARIABLES: Final = frozenset(
    {f"QUOTEBUS_{name.upper()}" for name in Settings.model_fields}
    | {"QUOTEBUS_REDIS_URL_FILE", "QUOTEBUS_REDIS_SERVER", "QUOTEBUS_CONFIG", "QUOTEBUS_REST_URL"}
)


_NAMES: Final = tuple(Settings.model_fields)


def _problem(detail: Any, values: Mapping[str, Any]) -> str:
    name = str(detail["loc"][0])
    field = Settings.model_fields.get(name)
    default = None if field is None else field.default
    is_secret = isinstance(default, SecretStr)
    value = None if is_secret else values.get(name)
    return problem_of(detail, value, None if is_secret else _as_written(default), _NAMES)


def _as_written(default: Any) -> str:
    if isinstance(default, ByteSize):
        return default.human_readable().replace(".0", "")
    if isinstance(default, Enum):
        return str(default.value)
    return "" if default is None else str(default)


def load_settings(config: Path | None, environment: Mapping[str, str]) -> Settings:
    """Settings from the environment and, under it, a TOML file; `SettingsProblem` listing all that is wrong."""
    problems = [
        f"{name}: no such setting{did_you_mean(name, _NAMES)}"
        for name in sorted(environment)
        if name.startswith("QUOTEBUS_")
        and name not in KNOWN_VARIABLES
        and not is_service_link(name, environment[name])
    ]
    values = _read_toml(config, problems) if config is not None else {}
    if environment.get("QUOTEBUS_REDIS_URL_FILE"):
        # The URL may hold a password, which a file keeps out of the environment and of /proc.
        values["redis_url"] = _read_secret("QUOTEBUS_REDIS_URL_FILE", environment, problems).strip()
    for field in Settings.model_fields:
        # Set but empty, as `NAME=` in an environment file leaves it, is not set.
        if environment.get(f"QUOTEBUS_{field.upper()}"):
            values[field] = environment[f"QUOTEBUS_{field.upper()}"]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += [
            _problem(detail, values) for detail in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsProblem("\n".join(problems)) from None
    if problems:
        raise SettingsProblem("\n".join(problems))
    return settings


def spool_folder(settings: Settings, environment: Mapping[str, str], server: str) -> Path | None:
    """Where quotes wait on disk, or None for nowhere: as set, or in the folder for state that systemd
    (`STATE_DIRECTORY`) or the user's account (`XDG_STATE_HOME`, `HOME`) has. Each namespace and server has its
    own."""
    chosen = settings.spool_dir
    if chosen.lower() == "off":
        return None
    if not chosen:
        if environment.get("STATE_DIRECTORY"):
            chosen = f"{environment['STATE_DIRECTORY'].partition(':')[0]}/spool"
        elif environment.get("XDG_STATE_HOME"):
            chosen = f"{environment['XDG_STATE_HOME']}/quotebus/spool"
        elif environment.get("HOME"):
            chosen = f"{environment['HOME']}/.local/state/quotebus/spool"
        else:
            return None
    return Path(chosen) / re.sub(r"[^A-Za-z0-9_.@-]", "_", f"{settings.namespace}@{server}")


def load_credentials(environment: Mapping[str, str]) -> Credentials:
    """The API key and secret, each from its variable or from the file that `<variable>_FILE` names.

    Raises `SettingsProblem` naming what is missing; the values themselves are never part of a message.
    """
    problems: list[str] = []
    key = _secret(environment, ("APCA_API_KEY_ID", "ALPACA_API_KEY"), problems)
    secret = _secret(environment, ("APCA_API_SECRET_KEY", "ALPACA_SECRET_KEY"), problems)
    if problems:
        raise SettingsProblem("\n".join(problems))
    return Credentials(key, secret)


def _secret(environment: Mapping[str, str], names: tuple[str, ...], problems: list[str]) -> str:
    for name in names:
        for variable in (name, f"{name}_FILE"):
            if environment.get(variable):
                value = environment[variable]
                if variable.endswith("_FILE"):
                    value = _read_secret(variable, environment, problems)
                wrong = complaint(value, name) if value else None
                if wrong is not None:
                    problems.append(f"{variable}: the value {wrong}")
                return value.strip()
    problems.append(f"{names[0]}: not set; set it, or {names[0]}_FILE to a file that holds it")
    return ""


def _read_secret(variable: str, environment: Mapping[str, str], problems: list[str]) -> str:
    path = environment[variable]
    try:
        secret = read_text(Path(path))
    except UnreadableText as reason:
        problems.append(f"{variable}: {path} {reason}")
        return ""
    if not secret.strip():
        problems.append(f"{variable}: {path} is empty")
        return ""
    return secret.strip("\r\n")


def _read_toml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        problems.append(f"--config {path}: not TOML: {error}")
    except UnreadableText as reason:
        problems.append(f"--config {path} {reason}")
    return {}


def default_instance() -> str:
    """A name for this process that an operator can find: host and process id."""
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"

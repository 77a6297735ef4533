"""How log lines look: JSON lines for machines, a readable console on a terminal.

Decides the format, and that no line holds a secret. Must never know what is logged. Lines of third-party libraries
go the same way as ours.
"""

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Protocol

import orjson
import structlog

_CREDENTIALS_IN_URL: Final = re.compile(r"""(\w+://[^\s/:@"']*):[^\s/"']+@""")


class Redactor:
    """Takes known secrets, and passwords within URLs, out of every value of a line."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def protect(self, secret: str) -> None:
        """Never let this string through again. Very short ones would blank out ordinary words."""
        if len(secret) >= 4:
            self._secrets.add(secret)

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Process one line, as structlog calls it."""
        for name, value in event.items():
            if isinstance(value, str):
                event[name] = self.clean(value)
        return event

    def clean_line(self, _: Any, __: str, line: Any) -> str:
        """The rendered line once more: a traceback, or an object that had no text before, may hold a secret."""
        return self.clean(line)

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return _CREDENTIALS_IN_URL.sub(r"\1:[secret]@", text)


redactor: Final = Redactor()


_CHATTY: Final = ("asyncio", "picows", "aiohttp.access", "websockets")
"""Libraries that tell of every connection at INFO; ours says the same with its reason."""


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> object:
        """Take one line."""

    def flush(self) -> object:
        """Called after each."""


def configure_logs(level: str, fmt: str, stream: Stream | None = None) -> None:
    """Set up structlog and the standard library's logging to write to this stream, or else to standard error.

    `fmt` is `json`, `console`, or `auto`: console when standard error is a terminal, JSON otherwise.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    console = fmt == "console" or (fmt == "auto" and is_terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if not console else _unchanged,
        redactor,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=is_terminal)
        if console
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    structlog.configure(
        processors=[
            # Not in the wrapper class, which a logger keeps once it has it: the level may change later.
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler: logging.StreamHandler[Any] = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
                redactor.clean_line,
            ],
        )
    )
    logging.getLogger().handlers = [handler]
    set_log_level(level)


def set_log_level(level: str) -> None:
    """From now on show lines of this level and above: `debug`, `info`, `warning` or `error`, in either case."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _to_json(event: Any, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:
        # Integers beyond 64 bits, keys that are no text, surrogates: slower, and never a lost line.
        return json.dumps({str(name): value for name, value in event.items()}, default=str, skipkeys=True)


def _unchanged(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event

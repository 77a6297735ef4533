"""What is asked of the vendor, and what became of it: the words between a session and whoever listens to it.

Decides names and shapes alone. Must never decide what a frame means: `session` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ingestor.feed.codec import Refused
from ingestor.feed.codes import Code, Remedy
from ingestor.feed.messages import Encoding, QuoteMessage

MAX_CHANGE_SYMBOLS: Final = 500
"""Larger requests have been answered with part of the symbols delivered, so none is sent."""


@dataclass(frozen=True, slots=True)
class Change:
    """One request: symbols to add or symbols to take away, at most `MAX_CHANGE_SYMBOLS`."""

    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.subscribe) == bool(self.unsubscribe):
            raise ValueError("a change either adds symbols or takes some away")
        if max(len(self.subscribe), len(self.unsubscribe)) > MAX_CHANGE_SYMBOLS:
            raise ValueError(f"a change has at most {MAX_CHANGE_SYMBOLS} symbols")


@dataclass(frozen=True, slots=True)
class Ready:
    """Authenticated: changes may be asked for, and quotes will come. `encoding` is what the vendor speaks, whatever
    the handshake asked for."""

    encoding: Encoding = "msgpack"


@dataclass(frozen=True, slots=True)
class SlotTaken:
    """Somebody holds the account's one connection; the credentials are sent again on this socket in `pause_s`."""

    code: Code
    pause_s: float


@dataclass(frozen=True, slots=True)
class QuotesReceived:
    """Market data, in the order of arrival; `refused` quotes have their places among the others."""

    quotes: list[QuoteMessage]
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class SetConfirmed:
    """The vendor's whole set, and the change that this answers, if one was under way."""

    symbols: frozenset[str]
    change: Change | None


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    """The change was refused whole; the vendor's set is as it was. `words` are the vendor's, fit to be shown."""

    change: Change
    code: Code
    words: str = ""


@dataclass(frozen=True, slots=True)
class ChangeExpired:
    """No answer within the deadline: what the vendor did is unknown."""

    change: Change


@dataclass(frozen=True, slots=True)
class ErrorReported:
    """An error that concerns no change and does not end the session."""

    code: Code


@dataclass(frozen=True, slots=True)
class Oddities:
    """Elements that were passed over: types we do not know, and elements that could not be read; and side fields
    that were left out of quotes, by name and oddity."""

    unknown: dict[str, int]
    unreadable: Sequence[str]
    sample: bytes = b""
    """How the first element begins that was not all well."""
    odd_fields: dict[tuple[str, str], int] = field(default_factory=dict)
    broken_quotes: int = 0
    """Unreadable elements that say that they are quotes."""
    unclear: int = 0
    """Unreadable elements of which nobody can tell what they were."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The conversation is over; `code` is the vendor's, where it gave one, `kind` another name for metrics."""

    remedy: Remedy
    reason: str
    code: Code | None = None
    kind: str | None = None


FeedEvent: TypeAlias = (
    Ready
    | SlotTaken
    | QuotesReceived
    | SetConfirmed
    | ChangeRefused
    | ChangeExpired
    | ErrorReported
    | Oddities
    | SessionEnded
)

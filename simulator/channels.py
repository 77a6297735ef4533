"""The feeds' channels, and the vendor's messages as they name all of them.

Decides which channels there are, how they are spelt, and what is a request at all. Must never know who asks, nor
what is granted.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from ingestor.feed.messages import Authenticate, Encoding, Subscribe, Subscription, Unsubscribe

_OTHER_CHANNELS: Final = {
    "updated_bars": "updatedBars",
    "daily_bars": "dailyBars",
    "statuses": "statuses",
    "lulds": "lulds",
    "imbalances": "imbalances",
}
_FOLLOW_TRADES: Final = {"corrections": "corrections", "cancel_errors": "cancelErrors"}
TEST_CHANNELS: Final = ("trades", "quotes", "bars")
CHANNELS: Final = (*TEST_CHANNELS, *_OTHER_CHANNELS)
"""What a request may name; the stock feeds have all of them, the test feed the first three."""


class StockSubscription(Subscription, tag="subscription", rename=_OTHER_CHANNELS | _FOLLOW_TRADES):
    """The acknowledgement as the stock feeds send it: every channel is listed, empty or not."""

    updated_bars: list[str] = msgspec.field(default_factory=list)
    daily_bars: list[str] = msgspec.field(default_factory=list)
    statuses: list[str] = msgspec.field(default_factory=list)
    lulds: list[str] = msgspec.field(default_factory=list)
    imbalances: list[str] = msgspec.field(default_factory=list)
    corrections: list[str] = msgspec.field(default_factory=list)
    cancel_errors: list[str] = msgspec.field(default_factory=list)


class StockSubscribe(Subscribe, tag="subscribe", rename=_OTHER_CHANNELS):
    """A subscribe request with the stock feeds' further channels."""

    updated_bars: list[str] = msgspec.field(default_factory=list)
    daily_bars: list[str] = msgspec.field(default_factory=list)
    statuses: list[str] = msgspec.field(default_factory=list)
    lulds: list[str] = msgspec.field(default_factory=list)
    imbalances: list[str] = msgspec.field(default_factory=list)


class StockUnsubscribe(Unsubscribe, tag="unsubscribe", rename=_OTHER_CHANNELS):
    """An unsubscribe request with the stock feeds' further channels."""

    updated_bars: list[str] = msgspec.field(default_factory=list)
    daily_bars: list[str] = msgspec.field(default_factory=list)
    statuses: list[str] = msgspec.field(default_factory=list)
    lulds: list[str] = msgspec.field(default_factory=list)
    imbalances: list[str] = msgspec.field(default_factory=list)


Request: TypeAlias = Authenticate | StockSubscribe | StockUnsubscribe
_from_msgpack: Final[Callable[[bytes], Request]] = msgspec.msgpack.Decoder(Request).decode
_from_json: Final[Callable[[str | bytes], Request]] = msgspec.json.Decoder(Request).decode


def parse_request(raw: bytes | str, encoding: Encoding) -> Request | None:
    """The client's message, None for one that is none."""
    try:
        # Text in a msgpack session, and bytes in a JSON session, are malformed like any other noise.
        if encoding == "msgpack":
            return _from_msgpack(raw if isinstance(raw, bytes) else b"")
        return _from_json(raw if isinstance(raw, str) else b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None

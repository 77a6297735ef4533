"""What REST told one strategy, for all the others.

Decides the words of the question; `share.lua` decides what is newer. Must never overwrite the daemon's cache.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Final

import msgspec

from consumers.command import Command
from consumers.shared_link import SharedLink
from wire import Keyspace, Quote, encode_latest

_log = logging.getLogger(__name__)

MAX_FIELDS: Final = 20_000
"""More than all symbols that trade in the US."""
_PER_COMMAND: Final = 500
_TAIL: Final = b"null}"

_SCRIPT: Final = resources.files("consumers.rest").joinpath("share.lua").read_bytes()


@dataclass(frozen=True, slots=True)
class Shared:
    """What became of it: the same quotes with `received_ns` by the server's clock, and how many were `stored`.

    A quote is not stored when a newer one stands there already; `refused` ones found no room.
    """

    quotes: dict[str, Quote]
    stored: int
    refused: int


def check_shareable(quotes: Iterable[Quote]) -> None:
    """`ValueError` for what is no quote, or one that REST did not bring."""
    for quote in quotes:
        if not isinstance(quote, Quote):
            raise ValueError(f"{str(quote)[:60]!r} is a {type(quote).__name__}: give quotes, one by one")  # noqa: TRY004
        if quote.id is not None or quote.received_ns is None:
            raise ValueError(f"{quote.symbol} {quote.id}: only quotes of AlpacaRest.latest_quotes are shared")


async def share(
    link: SharedLink, keys: Keyspace, quotes: Iterable[Quote], *, max_fields: int = MAX_FIELDS
) -> Shared:
    """Put quotes that `AlpacaRest.latest_quotes` brought into `quotes:rest`, each only when it is newer.

    Raises `BusUnavailable`, which need not keep anybody from using the quotes.
    """
    restamped: dict[str, Quote] = {}
    stored = refused = 0
    waiting = [quote for quote in quotes if quote.received_ns is not None and quote.time_ns > 0]
    for first in range(0, len(waiting), _PER_COMMAND):
        some = waiting[first : first + _PER_COMMAND]
        # Ages travel, not times: the clock of this machine and the server's may differ.
        ages_us = [_age_us(quote) for quote in some]
        command: list[str | bytes | int] = ["EVAL", _SCRIPT, 1, keys.rest, max_fields]
        for quote, age_us in zip(some, ages_us, strict=True):
            command += [quote.symbol, quote.time_ns, age_us, _prefix(quote)]
        sent: Command = tuple(command)
        ((now_us, new, full),) = await link.ask(sent)
        stored, refused = stored + new, refused + full
        for quote, age_us in zip(some, ages_us, strict=True):
            delay_us = now_us - age_us - quote.time_ns // 1_000
            restamped[quote.symbol] = msgspec.structs.replace(quote, receive_delay_us=delay_us)
    if refused:
        _log.warning("%d quotes are not shared: %s has %d symbols already", refused, keys.rest, max_fields)
    return Shared(restamped, stored, refused)


def _age_us(quote: Quote) -> int:
    # Rounded up, so that a quote never looks fresher than it is.
    return max(0, -((quote.received_ns or 0) - time.time_ns()) // 1_000 + 1)


def _prefix(quote: Quote) -> bytes:
    row = (
        quote.bid_price,
        quote.bid_size,
        quote.bid_exchange,
        quote.ask_price,
        quote.ask_size,
        quote.ask_exchange,
        None if quote.conditions is None else list(quote.conditions),
        quote.tape,
        quote.time_ns,
        None,
    )
    return encode_latest(quote.symbol, None, row).removesuffix(_TAIL)

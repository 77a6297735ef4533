"""The list of assets as it is kept, and what it says of a symbol.

Decides the words of a remark and which names are nearest. Must never ask Alpaca or Redis, nor know the time. A
value is three words, such as `active tradable NASDAQ`. A remark is for eyes, and no reason to withhold a
subscription: a stock may be listed later than the list was asked for.
"""

import difflib
import string
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

MAX_ASSETS: Final = 100_000
"""Three times as many as there are, inactive ones included: what is beyond is no list of US stocks."""
MAX_HINTS: Final = 100
"""Symbols for which the nearest names are looked up; a longer list of misspelt names is no typing error."""
NAMES_SHOWN: Final = 3
NOT_ACTIVE: Final = "not an active asset"

TEST_FEED_SYMBOL: Final = "FAKEPACA"
TEST_SYMBOLS: Final = frozenset(
    "ZVZZT ZWZZT ZXZZT ZVVZT ZJZZT ZAZZT ZBZZT ZCZZT ZEXIT ZIEXT ZTEST NTEST".split()
)
"""What exchanges try their machines with. https://www.nasdaqtrader.com lists its own."""

_LETTERS: Final = string.ascii_uppercase + string.digits + "."


class RawAsset(Protocol):
    """What is needed of an asset as Alpaca describes it."""

    symbol: str
    status: str
    tradable: bool
    exchange: str


class BadListing(Exception):
    """An answer that cannot be the list of assets; the message says why."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Symbol -> value, of every US stock that Alpaca knows or knew."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, rows: Iterable[RawAsset]) -> "Listing":
        """The list that Alpaca sent. Raises `BadListing` for one that is empty or far too long."""
        values: dict[str, str] = {}
        for row in rows:
            value = (
                f"{row.status} {'tradable' if row.tradable else 'not_tradable'} {row.exchange or 'unknown'}"
            )
            # A symbol that was given to another company stands there twice.
            if row.symbol and not values.get(row.symbol, "").startswith("active"):
                values[row.symbol] = sys.intern(value)
            if len(values) > MAX_ASSETS:
                raise BadListing(f"more than {MAX_ASSETS} assets")
        if not any(value.startswith("active") for value in values.values()):
            raise BadListing("no active asset is in it")
        return cls(values)

    def remark(self, symbol: str, *, with_names: bool = True) -> str | None:
        """What there is to say of this symbol, or None."""
        value = self.values.get(symbol)
        if value is None:
            names = self.nearest(symbol) if with_names else []
            return f"{NOT_ACTIVE} at Alpaca{_did_you_mean(names)}"
        status, tradable, exchange, *_ = [*value.split(" "), "", ""]
        if status != "active":
            return f"{NOT_ACTIVE} at Alpaca: {status}"
        if exchange == "OTC":
            return "traded over the counter, which this feed of listed stocks does not carry"
        return "not tradable at Alpaca" if tradable == "not_tradable" else None

    def nearest(self, symbol: str) -> list[str]:
        """Up to three active symbols that differ by one stroke of a key, or else look alike."""
        close = sorted({name for name in _one_stroke_away(symbol) if self._is_active(name)})
        if not close:
            alike = [name for name in self.values if name[:1] == symbol[:1] and self._is_active(name)]
            return sorted(difflib.get_close_matches(symbol, sorted(alike), NAMES_SHOWN, 0.75))
        close.sort(key=lambda name: (sorted(name.replace(".", "")) != sorted(symbol.replace(".", "")), name))
        return close[:NAMES_SHOWN]

    def _is_active(self, name: str) -> bool:
        return self.values.get(name, "").startswith("active")


def remarks(symbols: Iterable[str], listing: Listing | None, feed: str) -> dict[str, str]:
    """What there is to say of these symbols, without a list by their names; `feed` is Alpaca's or `custom`."""
    found: dict[str, str] = {}
    hints = 0
    for symbol in symbols:
        remark = _by_name(symbol, feed)
        if remark is None and listing is not None and feed != "test":
            remark = listing.remark(symbol, with_names=hints < MAX_HINTS)
            hints += remark is not None
        if remark is not None:
            found[symbol] = remark
    return found


def _by_name(symbol: str, feed: str) -> str | None:
    if feed == "custom":
        return None
    if feed == "test":
        return None if symbol == TEST_FEED_SYMBOL else f"the test feed has {TEST_FEED_SYMBOL} alone"
    if symbol == TEST_FEED_SYMBOL:
        return "the symbol of Alpaca's test feed: set QUOTEBUS_FEED=test for it"
    return (
        "a symbol with which exchanges test their machines, not a stock" if symbol in TEST_SYMBOLS else None
    )


def _did_you_mean(names: list[str]) -> str:
    if not names:
        return ""
    *first, last = names
    return f"; did you mean {', '.join(first) + ' or ' if first else ''}{last}?"


def _one_stroke_away(symbol: str) -> Iterator[str]:
    for at in range(len(symbol) + 1):
        before, after = symbol[:at], symbol[at:]
        yield before + after[1:]
        yield before + after[1:2] + after[:1] + after[2:]
        for letter in _LETTERS:
            yield before + letter + after
            yield before + letter + after[1:]

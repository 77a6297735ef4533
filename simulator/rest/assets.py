"""What can be traded at the double: every symbol, in plain and equal terms.

Decides an asset's fields from its symbol alone. Must never know what was quoted. Facts: the fields of
https://docs.alpaca.markets/reference/get-v2-assets-1.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final
from uuid import NAMESPACE_DNS, uuid5

from simulator.market import Book
from simulator.rest.answers import Refused
from wire import BadSymbol, parse_symbol

_EXCHANGES: Final = {"A": "NYSE", "B": "ARCA", "C": "NASDAQ"}
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Assets:
    """The market's symbols as assets; by name also any other that is one, for the market trades those too."""

    def __init__(self, symbols: Callable[[], Sequence[str]], refused: Collection[str]) -> None:
        self._symbols = symbols
        self._refused = refused

    def listed(self, query: Mapping[str, str]) -> list[dict[str, object]]:
        """The body of `/v2/assets`."""
        wanted = {name: query[name] for name in ("status", "asset_class", "exchange") if query.get(name)}
        if "asset_class" in wanted:
            wanted["class"] = wanted.pop("asset_class")
        assets = (asset(symbol) for symbol in self._symbols() if symbol not in self._refused)
        return [each for each in assets if all(each[name] == value for name, value in wanted.items())]

    def one(self, name: str) -> dict[str, object]:
        """The body of `/v2/assets/{symbol or id}`. Raises `Refused`."""
        if _ID.fullmatch(name):
            name = next((symbol for symbol in self._symbols() if _id(symbol) == name), "")
        try:
            symbol = parse_symbol(name)
        except BadSymbol:
            symbol = None
        if symbol is None or symbol in self._refused:
            raise Refused(404, f"asset not found for {name[:40]}", 40410000)
        return asset(symbol)


def asset(symbol: str) -> dict[str, object]:
    """One asset."""
    return {
        "id": _id(symbol),
        "class": "us_equity",
        "exchange": _EXCHANGES[Book(symbol, 0).tape],
        "symbol": symbol,
        "name": f"{symbol} (simulated)",
        "status": "active",
        "tradable": True,
        "marginable": True,
        "maintenance_margin_requirement": 30,
        "margin_requirement_long": "30",
        "margin_requirement_short": "30",
        "shortable": True,
        "easy_to_borrow": True,
        "fractionable": True,
        "attributes": [],
    }


def _id(symbol: str) -> str:
    return str(uuid5(NAMESPACE_DNS, f"{symbol}.asset.simulator"))

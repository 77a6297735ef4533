"""What can be traded at the double: the symbols of its market, in plain and equal terms, and those that left it.

Decides an asset's fields from its symbol and the account's rules. Must never know what was quoted, nor invent an
asset: a symbol that is not on the market's list is not found, although the stream trades whatever is subscribed, as
the vendor's confirms it. Facts: the fields of https://docs.alpaca.markets/reference/get-v2-assets-1.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import NAMESPACE_DNS, uuid5

from simulator.account import AccountRules
from simulator.market import Book
from simulator.rest.answers import Refused

_EXCHANGES: Final = {"A": "NYSE", "B": "ARCA", "C": "NASDAQ"}
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Assets:
    """The market's symbols as assets, less those that the account is refused, and its inactive ones."""

    def __init__(self, symbols: Callable[[], Sequence[str]], rules: AccountRules) -> None:
        self._symbols = symbols
        self._rules = rules

    def listed(self, query: Mapping[str, str]) -> list[dict[str, object]]:
        """The body of `/v2/assets`."""
        wanted = {name: query[name] for name in ("status", "asset_class", "exchange") if query.get(name)}
        if "asset_class" in wanted:
            wanted["class"] = wanted.pop("asset_class")
        assets = (asset(symbol, self._rules) for symbol in self._known())
        return [each for each in assets if all(each[name] == value for name, value in wanted.items())]

    def one(self, name: str) -> dict[str, object]:
        """The body of `/v2/assets/{symbol or id}`. Raises `Refused`."""
        is_id = _ID.fullmatch(name) is not None
        for symbol in self._known():
            if (_id(symbol) if is_id else symbol) == name:
                return asset(symbol, self._rules)
        raise Refused(404, f"asset not found for {name[:40]}", 40410000)

    def _known(self) -> list[str]:
        gone = sorted(self._rules.inactive_symbols.difference(self._symbols()))
        return [symbol for symbol in (*self._symbols(), *gone) if symbol not in self._rules.refused_symbols]


def asset(symbol: str, rules: AccountRules) -> dict[str, object]:
    """One asset."""
    is_active = symbol not in rules.inactive_symbols
    is_tradable = is_active and symbol not in rules.untradable_symbols
    return {
        "id": _id(symbol),
        "class": "us_equity",
        "exchange": _EXCHANGES[Book(symbol, 0).tape],
        "symbol": symbol,
        "name": f"{symbol} (simulated)",
        "status": "active" if is_active else "inactive",
        "tradable": is_tradable,
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

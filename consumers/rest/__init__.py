"""Alpaca's REST service beside the bus: what the streams do not hold, under the account's rate limit.

    from consumers.rest import AlpacaRest

    async with AlpacaRest.from_env() as rest:
        print(await rest.latest_quotes("AAPL", "MSFT"))

Decides the names that strategies may rely on. Needs `pip install "quotebus[rest]"`; importing this does not, and
imports nothing of alpaca-py, which comes with the first question.
"""

from consumers.rest.budget import Budget
from consumers.rest.client import AlpacaRest
from consumers.rest.errors import RestError, RestLimited, RestMissing, RestRefused, RestUnavailable
from consumers.rest.freshness import NOT_ASKED, Judgement, Verdict, decide
from consumers.rest.retry import Retry
from consumers.rest.rows import Asset, Bar, MarketClock, MarketDay
from consumers.rest.sharing import Shared, share

__all__ = [
    "NOT_ASKED",
    "AlpacaRest",
    "Asset",
    "Bar",
    "Budget",
    "Judgement",
    "MarketClock",
    "MarketDay",
    "RestError",
    "RestLimited",
    "RestMissing",
    "RestRefused",
    "RestUnavailable",
    "Retry",
    "Shared",
    "Verdict",
    "decide",
    "share",
]

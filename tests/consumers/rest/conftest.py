"""The double of Alpaca's REST service, and a client of it."""

from collections.abc import AsyncIterator

import pytest

from consumers.rest import AlpacaRest, Retry
from simulator import AlpacaSimulator, SimulatorSettings
from simulator.account import AccountRules
from simulator.frames import SimQuote

KEY, SECRET = "PKTESTKEYOFTHEACCOUNT", "s3cr3t/ofTheAccountThatNobodyMaySee"
T0_NS = 1_763_000_000_123_456_789
QUICK = Retry(first_delay_s=0.01, max_delay_s=0.05, deadline_s=30)


def sim_quote(symbol: str, number: int = 0, time_ns: int = T0_NS) -> SimQuote:
    """A quote that is told from others by its bid size."""
    return SimQuote(symbol, time_ns, 187.12, number, 187.13, 200)


def rest_at(sim: AlpacaSimulator, *, retry: Retry = QUICK, timeout_s: float = 15.0) -> AlpacaRest:
    """A client of the double, patient because the machine may be busy."""
    return AlpacaRest(
        KEY, SECRET, data_url=sim.rest_url, trading_url=sim.rest_url, retry=retry, timeout_s=timeout_s
    )


@pytest.fixture
async def sim() -> AsyncIterator[AlpacaSimulator]:
    """A double that knows one account and keeps quiet."""
    rules = AccountRules(key=KEY, secret=SECRET, calls_per_minute=10_000)
    async with AlpacaSimulator(SimulatorSettings(account=rules)) as running:
        yield running


@pytest.fixture
async def rest(sim: AlpacaSimulator) -> AsyncIterator[AlpacaRest]:
    """A client of that double."""
    async with rest_at(sim) as client:
        yield client

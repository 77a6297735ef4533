"""What a strategy may rely on, and what it must not pay for."""

import subprocess
import sys

import consumers


def test_the_public_names_are_these() -> None:
    """A name comes or goes only on purpose."""
    assert consumers.__all__ == [
        "BadNamespace",
        "BadStart",
        "BadSymbol",
        "BadUrl",
        "Bus",
        "BusClosed",
        "BusError",
        "BusUnavailable",
        "ContractTooNew",
        "Delivery",
        "EntryId",
        "ExtraMissing",
        "Gap",
        "GroupLag",
        "GroupStream",
        "Interest",
        "Lag",
        "Level",
        "MarketDataService",
        "Member",
        "Newest",
        "NewestStream",
        "NotCarried",
        "Quality",
        "Quote",
        "QuoteStream",
        "Reconnect",
        "StaleQuote",
        "Start",
        "Unserved",
        "connect",
    ]
    assert all(hasattr(consumers, name) for name in consumers.__all__)


def test_importing_the_library_does_not_import_the_daemon() -> None:
    """A strategy is spared what only the daemon needs."""
    heavy = "ingestor simulator alpaca pandas pydantic aiohttp structlog prometheus_client uvloop picows"
    program = f"import sys, consumers; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"

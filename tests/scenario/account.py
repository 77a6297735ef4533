"""What must hold on every bad day, whatever else does: the daemon lives, and its books are in order.

Decides how to read a daemon's metrics, open files and log from outside. Must never know which fault was injected.
"""

import os
import re
from typing import Final

from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import ledger_is_even

SECRETS: Final = ("PKTESTKEY1234", "very-secret-value-5678")
MAX_LOG_LINES: Final = 60
"""One scenario takes seconds; a fault that is told more often than this is told without bound."""


def metric(text: str, name: str, **labels: str) -> float:
    """One sample of a scrape, `name` as it stands there, with exactly these labels."""
    shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
    found = re.search(rf"^{re.escape(f'{name}{{{shown}}}' if shown else name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} {labels} is not in the scrape"
    return float(found[1])


def descriptors(daemon: DaemonProcess) -> int:
    """How many files and sockets the daemon has open."""
    assert daemon.process is not None
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))  # noqa: PTH208


async def worst_lag_is_within(daemon: DaemonProcess, limit_s: float) -> bool:
    """Whether the event loop was never held for longer; the limit is one of the histogram's bounds."""
    _, text = await daemon.page("/metrics")
    name = "quotebus_event_loop_lag_seconds"
    return metric(text, f"{name}_bucket", le=str(limit_s)) == metric(text, f"{name}_count")


async def is_well(daemon: DaemonProcess) -> None:
    """It was never restarted, answers, has lost count of nothing, and its log is short and holds no secret."""
    assert (await daemon.page("/livez"))[0] == 200
    status = await daemon.status()
    assert ledger_is_even(status), status
    log = daemon.log
    assert daemon.kinds().count("started") == 1
    assert len(log.splitlines()) < MAX_LOG_LINES, log
    assert "Traceback" not in log, log
    assert "never retrieved" not in log, log
    assert not any(secret in log for secret in SECRETS)

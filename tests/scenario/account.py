"""What must hold on every bad day, whatever else does: the daemon lives, and its books are in order.

Decides how to read a daemon's metrics, open files and log from outside. Must never know which fault was injected.
"""

import math
import os
import re
from pathlib import Path
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


def starved_s(daemon: DaemonProcess) -> float:
    """How long the daemon's main thread could have run and was not let, because others had the processors."""
    assert daemon.process is not None
    pid = daemon.process.pid
    # The second field: https://docs.kernel.org/scheduler/sched-stats.html
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


async def lags_over(daemon: DaemonProcess, limit_s: float) -> int:
    """How often the event loop was held for longer by the daemon's own doing.

    What the neighbours on this machine took from it is allowed for, up to the next bound of the histogram.
    """
    text = (await daemon.page("/metrics"))[1]
    bounds = re.findall(r'quotebus_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    counts = {float(bound): float(count) for bound, count in bounds}
    allowed_s = min(bound for bound in counts if bound >= limit_s + starved_s(daemon))
    return int(counts[math.inf] - counts[allowed_s])


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

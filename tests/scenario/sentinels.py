"""Real Sentinels.

Decides how soon they find a primary gone and choose another. Must never know who follows them.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simulator.redis_server import (
    START_TIMEOUT_S,
    RedisServer,
    die_with_parent,
    find_server,
    free_port,
    is_free,
)

SERVICE: Final = "quotes"
QUORUM: Final = 2
DOWN_AFTER_S: Final = 1.0
FAILOVER_TIMEOUT_S: Final = 10.0


@contextlib.contextmanager
def sentinel(folder: Path, primary: RedisServer) -> Iterator[int]:
    """One real Sentinel that watches the primary; its port."""
    port = free_port()
    config = folder / f"sentinel-{port}.conf"
    config.write_text(
        f"port {port}\n"
        f"bind 127.0.0.1\n"
        # A title of its own would be written over its environment, by which it can be found.
        f"set-proc-title no\n"
        f"dir {folder}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {QUORUM}\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_S * 1000:.0f}\n"
        f"sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT_S * 1000:.0f}\n"
    )
    with config.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [find_server(), str(config), "--sentinel"], stdout=log, stderr=log, preexec_fn=die_with_parent
        )
        try:
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while is_free(port):
                assert time.monotonic() < deadline_s, "the Sentinel did not start"
                time.sleep(0.01)
            yield port
        finally:
            process.kill()
            process.wait()

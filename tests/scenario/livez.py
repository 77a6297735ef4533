"""How long `/livez` takes, from a process of its own: `python -m tests.scenario.livez PORT PID`.

Decides what counts as the daemon's own slowness: the time in which its main thread was ready to run and other
processes had the processor (the kernel's run delay, `/proc/PID/schedstat`) is the machine's, and so is the
prober's. Must never know what the daemon is going through.
"""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.scenario.daemon import DaemonProcess

EVERY_S: Final = 0.02
TIMEOUT_S: Final = 30.0


class Livez:
    """What was seen; complete once the watching has ended."""

    def __init__(self) -> None:
        self.visits = 0
        self.slowest_s = 0.0
        """Of the daemon's own doing."""
        self.slowest_whole_s = 0.0
        """As the clock has it."""
        self.most_cpu_s = 0.0
        """That the daemon's main thread had during one visit: all that it did in between, and nothing that it
        waited for."""


@asynccontextmanager
async def watching_livez(daemon: DaemonProcess) -> AsyncIterator[Livez]:
    """Ask the page all the time while the context lasts."""
    seen = Livez()
    port = (await daemon.status())["http"].rpartition(":")[2]
    assert daemon.process is not None
    prober = _start(port, daemon.process.pid)
    try:
        assert prober.stdout is not None
        await asyncio.to_thread(prober.stdout.readline)
        yield seen
        said, _ = await asyncio.to_thread(prober.communicate, "", TIMEOUT_S + 5)
        seen.visits, seen.slowest_s, seen.slowest_whole_s, seen.most_cpu_s = json.loads(said)
    finally:
        prober.kill()
        prober.wait()
        for pipe in (prober.stdin, prober.stdout):
            if pipe is not None:
                pipe.close()


def _start(port: str, pid: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.scenario.livez", port, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def main_thread_s(process: int | str) -> tuple[float, float]:
    """For how long its main thread had a processor so far, and for how long it was ready and others had them."""
    ran_ns, waited_ns, _ = Path(f"/proc/{process}/schedstat").read_text().split()
    return int(ran_ns) / 1e9, int(waited_ns) / 1e9


def _visit(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as visitor:
        visitor.settimeout(TIMEOUT_S)
        visitor.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        # As whoever heeds Content-Length: the end of the connection comes some turns of the loop later.
        while not answer.endswith(b"ok\n") and (piece := visitor.recv(4096)):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200"), answer


def main(port: str, daemon: str) -> None:
    """Visit until the other side closes our standard input, or the daemon is gone."""
    is_over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait, daemon=True).start()
    visits, slowest_s, slowest_whole_s, most_cpu_s = 0, 0.0, 0.0, 0.0
    sys.stdout.write("visiting\n")
    sys.stdout.flush()
    while not is_over.wait(EVERY_S):
        try:
            began_s, (ran_s, waited_s), (_, we_waited_s) = (
                time.monotonic(),
                main_thread_s(daemon),
                main_thread_s("self"),
            )
            _visit(int(port))
            took_s = time.monotonic() - began_s
            (ran_by_s, waited_by_s), (_, we_waited_by_s) = main_thread_s(daemon), main_thread_s("self")
            stolen_s = waited_by_s - waited_s + we_waited_by_s - we_waited_s
        except (ConnectionError, FileNotFoundError, ProcessLookupError):
            break
        visits += 1
        slowest_s = max(slowest_s, took_s - stolen_s)
        slowest_whole_s = max(slowest_whole_s, took_s)
        most_cpu_s = max(most_cpu_s, ran_by_s - ran_s)
    sys.stdout.write(json.dumps([visits, slowest_s, slowest_whole_s, most_cpu_s]))


if __name__ == "__main__":
    main(*sys.argv[1:])

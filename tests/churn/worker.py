"""One worker of the group, a process of its own that is killed, frozen and started at any moment.

Decides nothing about what is right: it writes down what it is handed, line by line, before it acknowledges it.
Run by its path, so that another checkout's library can be tried.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from typing import Any

from consumers import Delivery, Gap, GroupStream, Quote, Reconnect, connect

GROUP = "churn"


class Notes:
    """A file to which each line goes with one call: it is there or not, whenever this process ends."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, what: str, **more: Any) -> None:
        """Write one line, with the time of it on the clock that all processes share."""
        line = json.dumps({"what": what, "at": time.monotonic(), **more})
        os.write(self._file, f"{line}\n".encode())


async def work(stream: GroupStream, notes: Notes, chance: random.Random) -> None:
    """Handle what comes, at a changing pace, and acknowledge it in parts."""
    batch: list[Delivery] = []
    size = chance.choice((1, 1, 5, 20))
    while True:
        delivery = await stream.get(0.05)
        if delivery is not None:
            _handle(delivery, notes)
            batch.append(delivery)
            if chance.random() < 0.02:
                await asyncio.sleep(chance.random() * 0.1)
            elif chance.random() < 0.001:
                time.sleep(chance.random())  # noqa: ASYNC251 - a strategy that computes
        if len(batch) >= size or (batch and delivery is None):
            asked_s = time.monotonic()
            await stream.ack(*batch)
            if not stream.acks_waiting:
                notes.write("acked", asked=asked_s, ids=[[d.symbol, d.id] for d in batch if d.id is not None])
            batch = []


def _handle(delivery: Delivery, notes: Notes) -> None:
    item, symbol = delivery.item, delivery.symbol
    if isinstance(item, Quote):
        notes.write(
            "handled", symbol=symbol, id=delivery.id, time=item.time_ns, times=delivery.times_delivered
        )
    elif isinstance(item, Gap):
        notes.write("told", symbol=symbol, id=delivery.id, since=item.from_ns, to=item.to_ns, why=item.reason)


async def tell_when_ready(stream: GroupStream, notes: Notes) -> None:
    """Write down when the place of each symbol is known, or will be its first entry."""
    while stream._line.settled != stream.symbols:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    notes.write("ready")


async def change_symbols(stream: GroupStream, chance: random.Random, symbols: list[str]) -> None:
    """Now and then leave one symbol to the others for a while."""
    while True:
        await asyncio.sleep(0.3 + 3 * chance.random())
        symbol = chance.choice(symbols)
        stream.remove(symbol)
        await asyncio.sleep(chance.random())
        stream.add(symbol)


async def main(url: str, path: str, name: str, seed: str, *symbols: str) -> None:
    """Work until SIGTERM; a name of `-` stands for none."""
    notes, chance = Notes(path), random.Random(seed)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
    reconnect = Reconnect(first_delay_s=0.02, max_delay_s=0.2)
    notes.write("began", name=name)
    async with (
        connect(url, reconnect=reconnect, timeout_s=5.0) as bus,
        bus.group(
            GROUP,
            *symbols,
            consumer=None if name == "-" else name,
            claim_after_s=1.0,
            lease=False,
            prefetch=chance.choice((1, 20, 500)),
        ) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(tell_when_ready(stream, notes))
        if not name.startswith("last"):
            tasks.create_task(change_symbols(stream, chance, list(symbols)))
        await work(stream, notes, chance)


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))

"""Play a recording to a strategy, in memory: no Redis, no daemon, no account. Needs quotebus[testing].

quotebus tail --json --count 1000 AAPL > tape.jsonl     # or any CSV with t_ns,bid_price,bid_size,ask_price,ask_size
python examples/replay_recording.py tape.jsonl AAPL     # as fast as it is read
python examples/replay_recording.py tape.jsonl AAPL 10  # ten recorded seconds in one
"""

import asyncio
import sys

from consumers import Bus, BusError, Gap
from consumers.testing import memory_bus, replay


async def count_moves(bus: Bus, symbol: str, seen: dict[str, float]) -> None:
    """The strategy under test: it cannot tell this bus from the real one."""
    async for item in bus.quotes(symbol):
        if isinstance(item, Gap):
            seen["gaps"] += 1
        elif item.mid_price is not None:
            seen["quotes"] += 1
            seen["moves"] += item.mid_price != seen["mid"]
            seen["mid"] = item.mid_price


async def main(path: str, symbol: str, speed: float | None) -> None:
    """The replay waits until the strategy has read everything."""
    seen = {"quotes": 0.0, "gaps": 0.0, "moves": 0.0, "mid": 0.0}
    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(count_moves(bus, symbol, seen))
        items = await replay(path, bus, speed=speed)
        running.cancel()
    print(
        f"{items} items: {seen['quotes']:.0f} quotes, {seen['gaps']:.0f} gaps, {seen['moves']:.0f} moves of the mid"
    )


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python examples/replay_recording.py RECORDING SYMBOL [SPEED]")
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))
    except ExceptionGroup as errors:
        sys.exit("\n".join(map(str, errors.exceptions)))

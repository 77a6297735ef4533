"""One of several workers that share the quotes of some symbols. Start it twice: each quote goes to one of the two.

python examples/group_worker.py redis://127.0.0.1:6379/0 my-group worker-1 AAPL MSFT
"""

import asyncio
import sys

from consumers import BusError, Gap, connect


async def main(url: str, group: str, worker: str, *symbols: str) -> None:
    """What a killed worker had not acknowledged is delivered again: to it, or after 30 s to another."""
    async with connect(url) as bus, bus.group(group, *symbols, consumer=worker) as stream:
        done = 0
        try:
            async for delivery in stream:
                if isinstance(delivery.item, Gap):
                    print(f"{delivery.symbol}: {delivery.item.reason}", flush=True)
                else:
                    # Here is the work. Let it be harmless to repeat: a worker may die between it and the next line.
                    bid, ask = delivery.item.bid_price, delivery.item.ask_price
                    print(f"{worker}: {delivery.symbol} {delivery.id} {bid} x {ask}", flush=True)
                await stream.ack(delivery)
                done += 1
        finally:
            print(f"{worker}: {done} done, {stream.unacknowledged} not acknowledged")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("usage: python examples/group_worker.py REDIS_URL GROUP WORKER SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))

"""A strategy in a process of its own that asks REST as often as it is told, as fast as the budget lets it."""

import asyncio
import sys

from consumers.link import Target
from consumers.rest import AlpacaRest, Budget, Retry
from consumers.shared_link import SharedLink
from wire import Keyspace


async def main(
    rest_url: str, redis_url: str, key: str, secret: str, limit: str, window_s: str, each: str
) -> None:
    """Ask for other symbols each time, so that every question is a call, all of them at once."""
    link = SharedLink(Target(redis_url, timeout_s=10))
    link.open()
    budget = Budget(link, Keyspace(), key, int(limit), window_s=float(window_s))
    retry = Retry(deadline_s=60)
    async with AlpacaRest(key, secret, data_url=rest_url, budget=budget, retry=retry, timeout_s=20) as rest:
        await rest._asker._opened()
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
        answers = await asyncio.gather(*(rest.latest_quotes(f"S{number}") for number in range(int(each))))
    await link.close()
    print("answers", sum(map(len, answers)))  # noqa: T201


asyncio.run(main(*sys.argv[1:]))
